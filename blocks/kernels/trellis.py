"""Trellises of channels with memory: how states and branches are numbered, and their metrics.

Symbols are indices 0 ... order-1 into an alphabet. A state is the last `memory` symbols, the
newest in the lowest digit to base `order`; a branch is a state and the symbol that follows it:

    state s_i  = a_i + order a_{i-1} + ... + order^(memory-1) a_{i-memory+1}
    branch b_i = a_i + order s_{i-1},  so that  s_i = b_i mod n_states,  s_{i-1} = b_i // order

The branches into state s are s + n_states d, where d is the symbol that drops out of memory.

A metric is -log p(sample | branch) up to a constant that the branches of one sample share: less
is better. Detectors compute metrics from samples, for a channel that is known (`Metrics`), or take
them as an array, (..., time, n_branches), or (..., time, n_states) where all branches into a state
have the same: so learned networks come in. Infinity rules a branch out, but not all of a sample.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from blocks.kernels import branch_metrics

Array = np.ndarray[Any, Any]

#: Alphabets by modulation: symbol of each index. Bit j of a symbol is bit j of its index; for
#: QPSK bit 0 is the sign of the real part, bit 1 that of the imaginary part, 1 for plus.
ALPHABETS: dict[str, Array] = {
    "bpsk": np.array([-1, 1], np.int8),
    "ook": np.array([0, 1], np.int8),
    "qpsk": (np.array([-1 - 1j, 1 - 1j, -1 + 1j, 1 + 1j]) / np.sqrt(2)).astype(np.complex64),
}

MAX_STATES = 65536  # 16 symbols of BPSK, 8 of QPSK
_CHUNK = 1 << 15  # metrics computed at once: few enough to stay in the cache of a core


def memory_of(n_taps: int) -> int:
    """Symbols in a state: one less than the taps, but one at least.

    With a single tap the state is the newest symbol, as if a second tap of 0 followed, so that a
    state always tells the newest symbol.
    """
    return max(n_taps - 1, 1)


def digits(numbers: Array, order: int, count: int) -> Array:
    """The lowest digits of whole numbers, (n, count): column k is the symbol k steps ago."""
    return numbers[:, None] // order ** np.arange(count) % order


def outputs(taps: Array, alphabet: Array, *, silence: bool) -> Array:
    """Noise-free sample of each branch, (rows, n_branches) float64 or complex128.

    Row min(i, rows-1) holds for sample i of a stream or word. There is one row; with silence
    before the first symbol there are memory + 1, in which the symbols not yet sent count 0.
    """
    order, memory = alphabet.size, memory_of(taps.size)
    wide = np.result_type(taps, alphabet, np.float64)
    symbols = alphabet.astype(wide)[digits(np.arange(order ** (memory + 1)), order, memory + 1)]
    padded = np.zeros(memory + 1, wide)
    padded[: taps.size] = taps
    sent = range(1, memory + 2) if silence else (memory + 1,)
    return np.stack([symbols[:, :count] @ padded[:count] for count in sent])


def states_ending(symbol: int, length: int, order: int, memory: int) -> Array:
    """Which states end in `length` times this symbol, (n_states,) bool; none: all."""
    newest = digits(np.arange(order**memory), order, min(length, memory))
    return np.asarray((newest == symbol).all(axis=1))


def start_states(start: str, symbol: int, order: int, memory: int) -> Array:
    """States before the first symbol, (n_states,) bool.

    Before the first symbol was nothing ("silence"; such places in a state hold index 0), always
    the given symbol ("known"), or anything ("unknown").
    """
    known = {"silence": (0, memory), "known": (symbol, memory), "unknown": (0, 0)}
    return states_ending(*known[start], order, memory)


class Metrics:
    """Branch metrics as a linear function of what a detector is given, or handed in ready.

        metric of branch b = offsets[row, b] + sum over parts of slopes[row, part, b] value[part]

    A sample y gives one value, a complex one two, its real and its imaginary part. Terms that all
    branches share are left out, as is |y|^2. Row min(i, rows - 1) holds for step i of a stream or
    word. With no parts the values are the metrics themselves.

    slopes    (rows, parts, n_branches)
    offsets   (rows, n_branches)
    """

    def __init__(self, slopes: Array, offsets: Array) -> None:
        self.slopes, self.offsets = np.ascontiguousarray(slopes), np.ascontiguousarray(offsets)
        self.dtype = self.offsets.dtype
        self.rows, self.parts, self.width = slopes.shape
        #: numbers per step in what a detector is given
        self.values = self.parts or self.width
        #: steps whose metrics should be asked for at once
        self.chunk = max(1, _CHUNK // self.width)

    @classmethod
    def given(cls, width: int, dtype: Any) -> Metrics:
        """Of a detector that is handed metrics: `width` per step, n_branches or n_states."""
        return cls(np.empty((1, 0, width), dtype), np.zeros((1, width), dtype))

    @classmethod
    def of_channel(
        cls,
        taps: Array,
        alphabet: Array,
        *,
        is_complex: bool,
        silence: bool = False,
        noise_var: float = 1.0,
        snr: float | None = None,
        dtype: Any = np.float32,
    ) -> Metrics:
        """Of samples from a channel with known taps.

        Gaussian noise: |y - mean|^2 / (2 noise_var) for real samples; complex samples have circular
        noise of that total variance, |y - mean|^2 / noise_var. Poisson noise:
        y ~ Poisson(sqrt(snr) sum_l taps[l] s_{i-l} + 1), mean - y log(mean).

        taps        impulse response, newest symbol first, real or complex
        alphabet    symbol of each index
        is_complex  whether the samples are
        silence     nothing was sent before the first symbol, see `outputs`
        snr         of Poisson noise (linear); None: Gaussian noise
        dtype       float32 or float64, of the metrics and their arithmetic

        Raises ValueError where Poisson noise would have a mean that is not positive, or where real
        samples are expected of a complex channel.
        """
        means = outputs(taps, alphabet, silence=silence)
        if means.dtype.kind == "c" and not is_complex:
            raise ValueError("complex taps or symbols give complex samples")
        if snr is not None:
            means = np.sqrt(snr) * means + 1.0
            if is_complex or not (means > 0).all():
                raise ValueError("Poisson noise needs a positive mean count for every branch")
            slopes, offsets = -np.log(means)[:, None], means
        else:
            scale = (1.0 if is_complex else 0.5) / noise_var
            parts = [means.real, means.imag] if is_complex else [means.real]
            slopes = -2.0 * scale * np.stack(parts, axis=1)
            offsets = scale * (means.real**2 + means.imag**2)
        return cls(slopes.astype(dtype), offsets.astype(dtype))

    def flat(self, given: Array) -> Array:
        """What a detector is given as one flat array of values, in the order of its axes."""
        is_complex = given.dtype.kind == "c"
        dtype = np.result_type(self.dtype, np.complex64) if is_complex else self.dtype
        # A writable array of one dtype and layout: the kernels compile once, not once per caller.
        return np.require(given, dtype, ["C", "W"]).reshape(-1).view(self.dtype)

    def __call__(self, flat: Array, place: int, steps: int, first: int, scratch: Array) -> Array:
        """Metrics (steps, width) of the values from this place on.

        first     number of the first of these steps in its stream or word
        scratch   (>= steps width,)  may be written
        """
        if self.parts == 0:
            return flat[place : place + steps * self.width].reshape(steps, self.width)
        metrics = scratch[: steps * self.width].reshape(steps, self.width)
        branch_metrics.linear(flat[place:], first, self.slopes, self.offsets, metrics)
        return metrics
