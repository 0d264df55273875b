"""Trellises of channels with memory: how states and branches are numbered, and their metrics.

Symbols are indices 0 ... order-1 into an alphabet. A state is the last `memory` symbols, the
newest in the lowest digit to base `order`; a branch is a state and the symbol that follows it:

    state s_i  = a_i + order a_{i-1} + ... + order^(memory-1) a_{i-memory+1}
    branch b_i = a_i + order s_{i-1},  so that  s_i = b_i mod n_states,  s_{i-1} = b_i // order

The branches into state s are s + n_states d, where d is the symbol that drops out of memory.

A metric is -log p(sample | branch) up to a constant that the branches of one sample share: less
is better. All detectors take metrics as arrays, (..., time, n_branches), or (..., time, n_states)
where all branches into a state have the same; known channels and learned networks write them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from blocks.kernels import isi_metrics

Array = np.ndarray[Any, Any]

#: Alphabets by modulation: symbol of each index. Bit j of a symbol is bit j of its index; for
#: QPSK bit 0 is the sign of the real part, bit 1 that of the imaginary part, 1 for plus.
ALPHABETS: dict[str, Array] = {
    "bpsk": np.array([-1, 1], np.int8),
    "ook": np.array([0, 1], np.int8),
    "qpsk": (np.array([-1 - 1j, 1 - 1j, -1 + 1j, 1 + 1j]) / np.sqrt(2)).astype(np.complex64),
}

MAX_STATES = 4096  # 12 symbols of BPSK, 6 of QPSK
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


class IsiMetrics:
    """Branch metrics of samples from a channel with known taps.

    Gaussian noise: |y - mean|^2 / (2 noise_var) for real samples; complex samples have circular
    noise of that total variance, |y - mean|^2 / noise_var. Poisson noise:
    y ~ Poisson(sqrt(snr) sum_l taps[l] s_{i-l} + 1), where the factorial of y is left out.

    taps      impulse response, newest symbol first, real or complex
    alphabet  symbol of each index
    silence   nothing was sent before the first symbol, see `outputs`
    snr       of Poisson noise (linear); None: Gaussian noise
    dtype     of the metrics and their arithmetic
    """

    def __init__(
        self,
        taps: Array,
        alphabet: Array,
        *,
        silence: bool = False,
        noise_var: float = 1.0,
        snr: float | None = None,
        dtype: Any = np.float64,
    ) -> None:
        means = outputs(taps, alphabet, silence=silence)
        self.dtype = np.dtype(dtype)
        is_complex = means.dtype.kind == "c"
        self._complex_dtype = np.result_type(self.dtype, np.complex64)
        self._noise_var = noise_var
        self._poisson = snr is not None
        if snr is not None:
            means = np.sqrt(snr) * means + 1.0
        if self._poisson and (is_complex or not (means > 0).all()):
            raise ValueError("Poisson noise needs a positive mean count for every branch")
        self._means = means.astype(self._complex_dtype if is_complex else self.dtype)
        self._complex_means = means.astype(self._complex_dtype)
        self._scratch = np.empty(0, self.dtype)
        #: samples whose metrics should be asked for at once
        self.chunk = max(1, _CHUNK // means.shape[1])

    def __call__(self, samples: Array, first: int) -> Array:
        """Metrics (words, time, n_branches) of samples (words, time), valid until the next call.

        first    number of the first sample in its stream or word
        """
        is_complex = samples.dtype.kind == "c"
        means = self._complex_means if is_complex else self._means
        # A writable copy of one dtype and layout: the kernels compile once, not once per caller.
        samples = np.array(samples, self._complex_dtype if is_complex else self.dtype, order="C")
        count = samples.size * means.shape[1]
        if self._scratch.size < count:
            self._scratch = np.empty(count, self.dtype)
        metrics = self._scratch[:count].reshape(*samples.shape, means.shape[1])
        if self._poisson:
            isi_metrics.poisson(samples, means, first, metrics)
        else:
            scale = (1.0 if is_complex else 0.5) / self._noise_var
            isi_metrics.gaussian(samples, means, first, self.dtype.type(scale), metrics)
        return metrics
