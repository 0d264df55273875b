"""What ours and peers are given, with the truth: the same arrays for all, from fixed seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bench.peers.kalman import runge_kutta
from blocks.kernels import state_space, trellis
from blocks.kernels.shift_register import STANDARD, ShiftRegisterCode
from blocks.kernels.state_space import StateSpace

Array = np.ndarray[Any, Any]

SNR_DB = 10.0
CODE_NOISE = 0.7  # standard deviation beside code bits of +-1: Eb/N0 = 3.1 dB at rate 1/2


@dataclass(frozen=True)
class Isi:
    """Words over the channel of kernels.md: taps exp(-l / 2), normalised, at 10 dB.

    sent     (word, time)  indices into the alphabet; before a word, index 0 was sent
    samples  (word, time)  float32, complex64 for QPSK
    levels   (edge,)       noiseless samples; an edge has the newest symbol in its lowest digit
    """

    modulation: str
    taps: Array
    sent: Array
    samples: Array
    levels: Array
    noise_var: float

    @property
    def alphabet(self) -> Array:
        return trellis.ALPHABETS[self.modulation]

    def for_peer(self, words: int | None = None) -> dict[str, Any]:
        """What a peer gets: all words, or the first ones."""
        return {
            "samples": self.samples[:words], "levels": self.levels, "order": self.alphabet.size,
            "noise_var": self.noise_var,
        }  # fmt: skip

    def error_rate(self, symbols: Array) -> float:
        """Of decided symbols of the first words."""
        return float((symbols != self.alphabet[self.sent[: len(symbols)]]).mean())


def isi(memory: int, words: int, length: int, modulation: str = "bpsk") -> Isi:
    """Words of independent symbols."""
    rng = np.random.default_rng([memory, words])
    alphabet = trellis.ALPHABETS[modulation]
    order, noise_var = alphabet.size, 10.0 ** (-SNR_DB / 10.0)
    taps: Array = np.exp(-0.5 * np.arange(memory + 1))
    taps /= np.linalg.norm(taps)
    sent = rng.integers(0, order, (words, length))
    before: Array = np.concatenate([np.zeros((words, memory), np.int64), sent], axis=1)
    edges = np.arange(order ** (memory + 1))
    levels, noiseless = np.zeros(edges.size, complex), np.zeros(sent.shape, complex)
    for k, tap in enumerate(taps):
        levels += tap * alphabet[edges // order**k % order]
        noiseless += tap * alphabet[before[:, memory - k : memory - k + length]]
    spread = np.sqrt(noise_var if order == 2 else noise_var / 2.0)
    noise = spread * rng.standard_normal((2, words, length))
    if order == 2:
        samples = (noiseless.real + noise[0]).astype(np.float32)
        return Isi(modulation, taps, sent, samples, levels.real, noise_var)
    samples = (noiseless + noise[0] + 1j * noise[1]).astype(np.complex64)
    return Isi(modulation, taps, sent, samples, levels, noise_var)


class Coded(NamedTuple):
    """Terminated words of K = 7, rate 1/2.

    bits  (word, bit) uint8
    soft  (word, bit + 6, 2) int8, positive for bit 1
    """

    code: ShiftRegisterCode
    bits: Array
    soft: Array

    def error_rate(self, bits: Array) -> float:
        """Of decided bits of the first words; what comes after the bits sent does not count."""
        words, length = len(bits), self.bits.shape[1]
        return float((bits[:, :length] != self.bits[:words]).mean())


def coded(words: int, length: int) -> Coded:
    """Words of independent bits."""
    rng = np.random.default_rng(7)
    code = ShiftRegisterCode(STANDARD[7, 2])
    bits = rng.integers(0, 2, (words, length), dtype=np.uint8)
    tail = np.zeros((words, code.memory), np.uint8)
    signs = 2.0 * code.encode(np.concatenate([bits, tail], axis=1), tail) - 1.0
    llr = 2.0 * (signs + CODE_NOISE * rng.standard_normal(signs.shape)) / CODE_NOISE**2
    soft = np.rint((16.0 * llr).clip(-127, 127)).astype(np.int8)
    return Coded(code, bits, soft.reshape(words, -1, 2))


class Tracks(NamedTuple):
    """Observations of a model, and the states behind them.

    model         starts one step before the first observation
    states        (..., time, n)
    observations  (..., time, m)
    """

    model: StateSpace
    states: Array
    observations: Array

    def matrices(self) -> dict[str, Array]:
        """Of a linear model: F, Q, H, R and what it starts from."""
        F, Q, H = self.model.matrices(np.ones(1))
        return {"F": F[0], "Q": Q[0], "H": H, "R": self.model.R, **self.start()}

    def start(self) -> dict[str, Array]:
        """Mean and covariance that filters start from."""
        return {"mean": self.model.initial, "covariance": self.model.initial_covariance}

    def rms_error(self, estimates: Array) -> float:
        """Root of the mean square over all numbers of the states of the first tracks."""
        return float(np.sqrt(((estimates - self.states[: len(estimates)]) ** 2).mean()))


def motion(tracks: int, time: int) -> Tracks:
    """Constant velocity in the plane: n = 4, m = 2."""
    rng = np.random.default_rng([tracks, time])
    model = state_space.build(
        "constant_velocity", "position", dimensions=2, process_noise=0.1, initial_variance=1.0
    )
    F, Q, H = (np.squeeze(A) for A in model.matrices(np.ones(1)))
    state, root = rng.standard_normal((tracks, 4)), np.linalg.cholesky(Q)
    states: Array = np.empty((tracks, time, 4))
    for i in range(time):
        state = state @ F.T + rng.standard_normal((tracks, 4)) @ root.T
        states[:, i] = state
    return Tracks(model, states, states @ H.T + rng.standard_normal((tracks, time, 2)))


LORENZ_STEP_S = 0.02
LORENZ_NOISE = 0.01  # variance per step


def lorenz(time: int, form: str = "lorenz_rk4") -> Tracks:
    """The Lorenz system, seen whole under noise of variance 1, for a filter of this form."""
    rng = np.random.default_rng(3)
    model = state_space.build(
        form, "identity", dimensions=3, step_s=LORENZ_STEP_S, process_noise=LORENZ_NOISE,
        initial_variance=0.01,
    )  # fmt: skip
    state, states = model.initial, np.empty((time, 3))
    for i in range(time):
        state = runge_kutta(state, LORENZ_STEP_S) + LORENZ_NOISE**0.5 * rng.standard_normal(3)
        states[i] = state
    return Tracks(model, states, states + rng.standard_normal((time, 3)))
