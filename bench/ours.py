"""Our own side of the benches: one small function for each workload, which returns the call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from bench.workloads import LORENZ_STEP_S, Coded, Isi, Tracks
from blocks.decoder.convolutional import Convolutional
from blocks.detector.sum_product import SumProduct
from blocks.detector.viterbi import Viterbi
from blocks.kernels import kalman, particle
from blocks.kernels.extended_kalman import extended as extended_filter
from blocks.kernels.kalman_tracks import linear_tracks

Array = np.ndarray[Any, Any]
Call = Callable[[], Array]


def _channel(given: Isi) -> dict[str, Any]:
    return {
        "taps": tuple(map(float, given.taps)), "modulation": given.modulation,
        "start_state": "known",
    }  # fmt: skip


def viterbi(given: Isi) -> Call:
    """Words to decided symbols."""
    block = Viterbi(**_channel(given))
    block.start()
    return lambda: block.process(given.samples)[0].symbols


def viterbi_stream(given: Isi) -> Call:
    """The first word as one stream, from its start to its end."""
    block, samples = Viterbi(**_channel(given)), given.samples[0]

    def call() -> Array:
        block.start()
        found = [*block.process(samples), *block.finish()]
        return np.concatenate([decided.symbols for decided in found])[None]

    return call


def sum_product(given: Isi, mode: Literal["exact", "max_log"]) -> Call:
    """Words to decided symbols and LLRs; no posteriors of states, which no peer gives either."""
    block = SumProduct(**_channel(given), noise_var=given.noise_var, mode=mode, states=False)
    block.start()
    return lambda: block.process(given.samples)[0].symbols


def convolutional(given: Coded, metric_bits: Literal[8, 16]) -> Call:
    """Soft bits in 8 bits to information bits."""
    block = Convolutional(generators=given.code.generators, metric_bits=metric_bits)
    block.start()
    return lambda: block.process(given.soft)[0].payload


def kalman_track(given: Tracks, *, is_joseph: bool) -> Call:
    """One track, a frame at a time: means, covariances, innovations, NIS and likelihoods."""
    system = given.matrices()
    observations = given.observations[0]
    out = kalman.Track.empty(observations.shape[:1], 4, 2)

    def call() -> Array:
        kalman.linear(
            observations, system["F"][None], system["Q"][None], system["H"], system["R"],
            system["mean"].copy(), system["covariance"].copy(), out, is_joseph=is_joseph,
        )  # fmt: skip
        return out.estimates[None]

    return call


def kalman_tracks(given: Tracks, *, is_joseph: bool) -> Call:
    """Many tracks at once, with the same results."""
    system, tracks = given.matrices(), len(given.observations)
    out = kalman.Track.empty(given.observations.shape[:2], 4, 2)

    def call() -> Array:
        linear_tracks(
            given.observations, system["F"][None], system["Q"][None], system["H"], system["R"],
            np.tile(system["mean"], (tracks, 1)), np.tile(system["covariance"], (tracks, 1, 1)),
            out, is_joseph=is_joseph,
        )  # fmt: skip
        return out.estimates

    return call


def extended(given: Tracks) -> Call:
    """The extended Kalman filter, Joseph form, a frame at a time."""
    time = len(given.observations)
    out, intervals = kalman.Track.empty((time,), 3, 3), np.full(time, LORENZ_STEP_S)

    def call() -> Array:
        start = given.start()
        extended_filter(
            given.model, given.observations, intervals, start["mean"].copy(),
            start["covariance"].copy(), out,
        )  # fmt: skip
        return out.estimates

    return call


def bootstrap(given: Tracks, count: int) -> Call:
    """The bootstrap particle filter, a frame at a time."""
    time = len(given.observations)
    out, intervals = particle.Cloud.empty((time,), 3, 3), np.full(time, LORENZ_STEP_S)

    def call() -> Array:
        particles, weights = particle.scatter(given.model, 1, 0, count)
        particle.bootstrap(
            given.model, 2, 0, given.observations, intervals, particles, weights, out
        )
        return out.estimates

    return call
