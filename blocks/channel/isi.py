"""A channel with intersymbol interference: fixed, fading or measured taps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Complex64, Float32, Int8

from blocks import fields
from blocks.channel import tap_files
from blocks.channel.noise import gaussian, received_type, standard_normal, variance
from blocks.position import Position
from pipeline.block import Block, Field, FieldType, param
from pipeline.errors import ParameterError
from pipeline.frame import Array, FrameInfo, Scalar

STREAM_COHERENCE = 1000  # symbols of a coherence block of a continuous stream, unless given

MOST_COUNTS = 1 << 23  # mean of Poisson noise up to which counts are exact in float32

TAPS = Field("true taps of each coherence block in the frame, newest symbol first", truth=True)
UNDISTORTED = Field("samples before saturation and quantiser", unit="V", truth=True)


class Received(NamedTuple):
    """What the channel adds."""

    samples: Annotated[
        Float32[Array, "*word time"] | Complex64[Array, "*word time"], fields.SAMPLES
    ]
    taps: Annotated[Float32[Array, "block tap"], TAPS]
    undistorted: Annotated[
        Float32[Array, "*word time"] | Complex64[Array, "*word time"], UNDISTORTED
    ]


class Isi(Block, name="channel.isi"):
    """Each sample is the newest symbols weighted by the taps, plus noise.

    samples[i] = quantise(tanh(scale * (sum over l of taps[l] sent[i-l] + noise[i]))), with tanh
    and quantiser where they are set: an amplifier of the receiver that is driven too hard, behind
    the noise. On complex samples they act on each part by itself.

    The taps are given, or exp(-decay l) for l = 0 ... memory - 1 (Shlezinger et al., ViterbiNet,
    IEEE TWC 2020), or come from files. Fading multiplies them in coherence block k by
    0.8 + 0.2 cos(2 pi k / p_l) ("cosine", ibid.), or by 0.8 + 0.2 cos(pi k / q_l) with
    q_l = max(5 p_l - 1.5 k, 10) - 1e-5 ("accelerating", the test channel of Raviv et al.,
    Meta-ViterbiNet). Block k holds the samples k coherence ... (k+1) coherence - 1 of the stream;
    words count one after the other. The channel may change at one block, all at once, to
    `changed_taps`, which fade as those before would have; for more changes list the taps of all
    blocks in a file.

    Taps may be uncertain, as those of a channel that was estimated badly: with errors of variance
    `tap_error`, tap l of each coherence block is taps[l] (1 + sqrt(tap_error) n) ("relative") or
    taps[l] + sqrt(tap_error) n ("absolute"), n standard normal and drawn anew for each tap and
    block, after normalisation and fading. ViterbiNet (ibid.) is trained with relative errors of
    variance 0.1 in blocks of 500 symbols, and its model-based peer has absolute ones, anew with
    each symbol (coherence = 1). For Poisson noise, errors make no tap negative: it is 0 then.

    Gaussian noise has variance 1 / SNR: real for BPSK and OOK, circular complex of that total
    variance for QPSK. Poisson noise (OOK) makes each sample a count of mean
    sqrt(SNR) (sum over l of taps[l] sent[i-l]) + 1. The SNR does not count the energy of the
    taps; normalise them first if it should.

    A stream goes on from frame to frame; its first symbol, and that of every word, follows
    symbols of the value `before`: by default 0, nothing, so that the first samples hold fewer
    taps (to the detectors: start_state "silence"; for -1 and +1 "known"). The samples end with
    the word: its last symbols have no echoes.

    sent         (..., time) int8 or complex64
    samples      (..., time) float32 or complex64 [V]; counts for Poisson noise
    taps         (block, tap) float32, from the coherence block of the first sample on; one row
                 where the taps stay the same
    undistorted  as samples, before tanh and quantiser

    Raises ParameterError where Poisson noise meets symbols other than 0 and 1.
    """

    taps: tuple[float, ...] = param(
        default=(), doc="impulse response, newest symbol first; none: exp(-decay l)"
    )
    decay: float = param(default=0.2, at_least=0.0, doc="of the exponential impulse response")
    memory: int = param(
        default=4, at_least=1, at_most=64, unit="symbols", doc="taps of the exponential response"
    )
    taps_files: tuple[str, ...] = param(
        default=(),
        doc="one .npy or .csv with a row of taps per coherence block, or a file (.mat too) per tap",
    )
    taps_end: Literal["cycle", "hold"] = param(
        default="cycle", doc="after the last row of the files: from the first again, or keep it"
    )
    changed_taps: tuple[float, ...] = param(
        default=(), doc="as many taps, which hold from block `change_block` on; none: no change"
    )
    change_block: int = param(
        default=0, at_least=0, unit="coherence blocks", doc="the first one of `changed_taps`"
    )
    normalise: bool = param(
        default=False, doc="scale the taps to unit energy before fading; files: on average"
    )
    fading: Literal["none", "cosine", "accelerating"] = param(
        default="none", doc="how the taps change from coherence block to coherence block"
    )
    periods: tuple[float, ...] = param(
        default=(51.0, 39.0, 33.0, 21.0), unit="coherence blocks", doc="p of the fading, per tap"
    )
    tap_error: float = param(
        default=0.0, at_least=0.0, doc="variance of the errors of the taps; 0: none"
    )
    tap_error_kind: Literal["relative", "absolute"] = param(
        default="relative", doc="whether errors are multiples of the tap, or in its unit"
    )
    tap_error_from: int = param(
        default=0, at_least=0, doc="first tap that has errors, 0 the newest symbol's"
    )
    coherence: int = param(
        default=0,
        at_least=0,
        unit="symbols",
        doc="length of a coherence block; 0: one word, or 1000 symbols of a continuous stream",
    )
    noise: Literal["gaussian", "poisson", "none"] = param(default="gaussian", doc="kind of noise")
    snr_db: float = param(
        default=10.0,
        at_least=-100.0,
        at_most=300.0,
        unit="dB",
        doc="1 / noise variance, whatever the taps",
    )
    tanh: float = param(
        default=0.0, at_least=0.0, unit="1/V", doc="scale of a tanh saturation; 0: none"
    )
    quantiser_bits: int = param(
        default=0, at_least=0, at_most=16, unit="bits", doc="uniform mid-rise quantiser; 0: none"
    )
    quantiser_range: float = param(
        default=1.0, above=0.0, unit="V", doc="the quantiser spans minus to plus this"
    )
    before: Literal[-1, 0, 1] = param(
        default=0, doc="symbol sent before the first of a stream or a word; 0: nothing"
    )

    def check(self) -> None:
        if self.taps and self.taps_files:
            raise ParameterError("taps and taps_files are both given; remove one of them")
        if self.fading != "none" and self.taps_files:
            raise ParameterError(
                f"fading = '{self.fading}' and taps_files are both given; taps from files fade by "
                "themselves, so remove one of them"
            )
        if self.changed_taps and self.taps_files:
            raise ParameterError(
                "changed_taps and taps_files are both given; write the change into the files"
            )
        table = self._table()
        if self.tap_error and self.tap_error_from >= table.shape[1]:
            raise ParameterError(
                f"tap_error_from = {self.tap_error_from}, but there are {table.shape[1]} taps, "
                "counted from 0; choose one of them"
            )
        if self.normalise and not self._energy(table).all():
            raise ParameterError("taps are all zero and cannot be normalised; give other taps")
        if self.fading != "none" and len(self.periods) < table.shape[1]:
            raise ParameterError(
                f"periods has {len(self.periods)} items, but there are {table.shape[1]} taps that "
                "fade; give one period for each"
            )
        if any(period <= 0.0 for period in self.periods):
            raise ParameterError(f"periods = {self.periods}, but all must be above 0")
        if self.noise == "poisson" and (table.min() < 0.0 or self.before < 0):
            raise ParameterError(
                "noise = 'poisson' needs a mean that is not negative; give taps and before that "
                "are at least 0, or choose noise = 'gaussian'"
            )
        highest = self._erring(table, np.full(table.shape, 6.0)).sum(axis=1).max()
        if self.noise == "poisson" and self._root_snr * highest > MOST_COUNTS:
            raise ParameterError(
                f"snr_db = {self.snr_db} dB gives counts above {MOST_COUNTS}, which float32 "
                "cannot hold exactly; lower snr_db, or choose noise = 'gaussian'"
            )

    def narrow(self, reads: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        self._check_alphabet(is_complex=reads["sent"].dtypes == ("complex64",))
        kind = received_type(reads["sent"])
        return {"samples": kind, "undistorted": kind}

    def start(self) -> None:
        self._base = self._table()
        if self.normalise:
            self._base /= np.sqrt(self._energy(self._base))
        self._varies = (
            bool(self.taps_files or self.changed_taps or self.tap_error) or self.fading != "none"
        )
        # A column of taps per lag, so that each is one slice of memory.
        self._fixed = np.ascontiguousarray(self._base.T)
        self._fixed_field = self._base.astype(np.float32)
        self._tail: Array = np.full(self._base.shape[1] - 1, self.before, np.float64)
        self._position = Position()
        self._normals = self.draws("noise", standard_normal)
        self._tap_normals = self.draws("tap errors", standard_normal)
        self._uniforms = self.draws("counts", lambda rng, n: rng.random(n))
        if self.noise == "poisson":
            from blocks.kernels import poisson  # numba, which no other setting needs

            self._invert = poisson.invert
            self._invert(np.empty(0), np.empty(0), np.empty(0))  # compiled before the first frame

    def process(
        self,
        sent: Int8[Array, "*word time"] | Complex64[Array, "*word time"],
        info: FrameInfo = FrameInfo(),
    ) -> Received:
        is_complex = sent.dtype.kind == "c"
        if self.noise == "poisson" or self.before:
            self._check_alphabet(is_complex, lowest=int(sent.min()) if sent.size else 0)
        first = self._position.take(info, sent.size)
        taps, block, field = self._taps_of(first, sent.shape)
        samples = self._received(sent, taps, block)
        if self.noise == "gaussian":
            noise_var = variance(self.snr_db)
            samples += gaussian(self._normals, first, sent.shape, noise_var, is_complex)
        elif self.noise == "poisson":
            means = self._root_snr * samples.ravel() + 1.0
            uniforms = self._uniforms.take(first, sent.size)
            self._invert(uniforms, means, samples.reshape(-1))
        dtype = np.complex64 if is_complex else np.float32
        undistorted = received = samples.astype(dtype)
        if self.tanh or self.quantiser_bits:
            self._distort(samples.view(np.float64))
            received = samples.astype(dtype)
        return Received(samples=received, taps=field, undistorted=undistorted)

    def state(self) -> Mapping[str, Array | Scalar]:
        return {"tail": self._tail, "position": self._position.next}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._tail = np.array(state["tail"])
        self._position.next = int(state["position"])

    @property
    def _root_snr(self) -> float:
        return math.sqrt(1.0 / variance(self.snr_db))

    def _table(self) -> Array:
        """Taps before normalisation and fading, (blocks, taps).

        One row unless from files; two where they change: before and after.
        """
        if self.taps_files:
            return tap_files.load(self.taps_files)
        taps = self.taps or tuple(np.exp(-self.decay * np.arange(self.memory)))
        if not self.changed_taps:
            return np.array([taps], np.float64)
        if len(self.changed_taps) != len(taps):
            raise ParameterError(
                f"changed_taps has {len(self.changed_taps)} items, but there are {len(taps)} taps "
                "before; give as many, with zeros where there is none"
            )
        return np.array([taps, self.changed_taps], np.float64)

    def _energy(self, table: Array) -> Array:
        """What the taps of each row are normalised by, (rows, 1); of files, the mean of all."""
        energy: Array = (table**2).sum(axis=1, keepdims=True)
        return np.full_like(energy, energy.mean()) if self.taps_files else energy

    def _taps_of(self, first: int, shape: tuple[int, ...]) -> tuple[Array, Array | None, Array]:
        """Taps by lag and coherence block, the block of each sample, and the field `taps`."""
        if not self._varies:
            return self._fixed, None, self._fixed_field
        word = shape[1] if len(shape) == 2 else STREAM_COHERENCE
        length = self.coherence or max(word, 1)
        size = math.prod(shape)
        first_block, last_block = first // length, (first + max(size, 1) - 1) // length
        rows = self._rows(np.arange(first_block, last_block + 1))
        if self.tap_error:
            normals = self._tap_normals.take(first_block * rows.shape[1], rows.size)
            rows = self._erring(rows, normals.reshape(rows.shape))
        block = (np.arange(first, first + size) // length - first_block).reshape(shape)
        return np.ascontiguousarray(rows.T), block, rows.astype(np.float32)

    def _rows(self, blocks: Array) -> Array:
        """Taps in these coherence blocks, (len(blocks), taps)."""
        if self.taps_files:
            count = len(self._base)
            cycle = self.taps_end == "cycle"
            return self._base[blocks % count if cycle else np.minimum(blocks, count - 1)]
        changed = bool(self.changed_taps) & (blocks >= self.change_block)
        rows: Array = self._base[changed.astype(np.intp)]
        if self.fading == "none":
            return rows
        p = np.array(self.periods[: self._base.shape[1]])
        k = blocks[:, None]
        if self.fading == "cosine":
            phase = 2.0 * np.pi * k / p
        else:
            phase = np.pi * k / (np.maximum(5.0 * p - 1.5 * k, 10.0) - 1e-5)
        faded: Array = rows * (0.8 + 0.2 * np.cos(phase))
        return faded

    def _erring(self, rows: Array, normals: Array) -> Array:
        """Taps (blocks, taps) with errors of so many standard deviations."""
        error = math.sqrt(self.tap_error) * normals
        error[:, : self.tap_error_from] = 0.0
        erring: Array = rows * (1.0 + error) if self.tap_error_kind == "relative" else rows + error
        return np.maximum(erring, 0.0) if self.noise == "poisson" else erring

    def _received(self, sent: Array, taps: Array, block: Array | None) -> Array:
        """Symbols weighted by the taps: float64 or complex128, a new array."""
        reach = len(taps) - 1  # symbols before a sample that it depends on
        if sent.ndim == 1:
            history = np.concatenate([self._tail, sent])
            self._tail = history[history.size - reach :].copy()
        else:
            silence = np.full((sent.shape[0], reach), self.before, np.float64)
            history = np.concatenate([silence, sent], axis=1)
        samples = np.zeros(sent.shape, history.dtype)
        # Lag by lag, not by a matrix product: a sum of the same terms in the same order does not
        # depend on where the stream is cut.
        for lag, tap in enumerate(taps):
            delayed = history[..., reach - lag : reach - lag + sent.shape[-1]]
            samples += (tap[0] if block is None else tap[block]) * delayed
        return samples

    def _distort(self, values: Array) -> None:
        """Saturate and quantise in place."""
        if self.tanh:
            np.tanh(self.tanh * values, out=values)
        if self.quantiser_bits:
            step = 2.0 * self.quantiser_range / 2**self.quantiser_bits
            top = self.quantiser_range - step / 2.0
            np.clip((np.floor(values / step) + 0.5) * step, -top, top, out=values)

    def _check_alphabet(self, is_complex: bool, lowest: int = 0) -> None:
        if self.noise == "poisson" and (is_complex or lowest < 0):
            raise ParameterError(
                f"{self.name}: noise = 'poisson' needs symbols 0 or 1, but others were sent; set "
                "modulation = 'ook' in the source, or noise = 'gaussian'"
            )
        if self.before and is_complex:
            raise ParameterError(
                f"{self.name}: before = {self.before} is no symbol of a complex alphabet; leave "
                "it at 0"
            )
