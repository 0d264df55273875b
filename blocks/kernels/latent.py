"""Latent-KalmanNet over whole frames: a KalmanNet whose encoder sees image and prediction.

Buchnik et al., "Latent-KalmanNet", arXiv 2304.07827. The features of all images are found at once;
then step by step the model foretells what would be observed, the head of the encoder makes of that
and of the features an observation, and a KalmanNet (kernels/kalmannet_filter.py) takes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from blocks.kernels.caching import njit
from blocks.kernels.image_encoder import Encoder, encoder_of
from blocks.kernels.indirect import call_advance, call_observe
from blocks.kernels.kalman import Track
from blocks.kernels.kalmannet import Gain, SingleGain, network_of
from blocks.kernels.kalmannet_filter import Filters, Tracks
from blocks.kernels.state_space import StateSpace

Array = np.ndarray[Any, Any]

ENCODER, GAIN = "encoder.", "gain."  # what the names of the arrays of both networks begin with


@njit(cache=True, nogil=True)
def _foretell(
    advance: Any, parameters: Array, observe: Any, observe_parameters: Array, mean: Array,
    intervals: Array, before: Array, after: Array, seen: Array, foretold: Array,
) -> None:  # fmt: skip
    for row in range(foretold.shape[0]):
        for i in range(before.size):
            before[i] = mean[row, i]
        call_advance(advance, before, intervals[row], parameters, after)
        call_observe(observe, after, observe_parameters, seen)
        for j in range(seen.size):
            foretold[row, j] = seen[j]


def run(
    encoder: Encoder, filters: Filters, images: Array, intervals: Array, tracks: Tracks,
    out: Track, *, together: bool,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Track what images show; returns steps that went well, what was read and what was foretold.

    images     (tracks, time, side, side) float32; NaN where nothing came
    intervals  (tracks, time) float64  [s]
    tracks, out, together   as in Filters.run; covariances and nis are NaN
    returned   (tracks,) int64, and (tracks, time, n) float64 twice
    """
    model, (count, steps) = filters.model, images.shape[:2]
    m, n = model.size, model.rows
    found = encoder.look(images.reshape(-1, *images.shape[2:]))
    found = found.reshape(count, steps, found.shape[1])
    read, foretold = np.empty((count, steps, n)), np.empty((count, steps, n))
    done = np.full(count, steps, np.int64)
    one = Track.empty((count, 1), m, n)
    prior, seen, variances = np.empty((count, n)), np.empty((count, 1, n)), np.empty((count, n))
    before, after, observed = np.empty(m), np.empty(m), np.empty(n)
    for t in range(steps):
        now = np.ascontiguousarray(intervals[:, t])
        _foretell(
            model.advance, model.parameters, model.observe, model.observe_parameters, tracks.mean,
            now, before, after, observed, prior,
        )  # fmt: skip
        encoder.tell(np.ascontiguousarray(found[:, t]), prior, seen[:, 0], variances)
        good = filters.run(seen, now[:, None], tracks, one, together=together, spread=False)
        done[(good < 1) & (done == steps)] = t
        read[:, t], foretold[:, t] = seen[:, 0], prior
        for whole, part in zip(out, one, strict=True):
            whole[:, t] = part[:, 0]
    return done, read, foretold


@njit(cache=True, nogil=True)
def _observe(
    observe: Any, parameters: Array, states: Array, state: Array, seen: Array, out: Array
) -> None:
    for row in range(states.shape[0]):
        for i in range(state.size):
            state[i] = states[row, i]
        call_observe(observe, state, parameters, seen)
        for j in range(seen.size):
            out[row, j] = seen[j]


def observed(model: StateSpace, states: Array) -> Array:
    """What a model observes of states (..., m), without noise: (..., n)."""
    m, n = model.size, model.rows
    flat = np.ascontiguousarray(states.reshape(-1, m))
    seen = np.empty((len(flat), n))
    _observe(model.observe, model.observe_parameters, flat, np.empty(m), np.empty(n), seen)
    return seen.reshape(*states.shape[:-1], n)


def networks_of(
    hyper: Mapping[str, Any], arrays: Mapping[str, Array]
) -> tuple[Encoder, Gain | SingleGain]:
    """Both networks of the weights of a tracker.latent_kalmannet."""
    encoder, gain = (
        {name.removeprefix(first): a for name, a in arrays.items() if name.startswith(first)}
        for first in (ENCODER, GAIN)
    )
    return encoder_of(hyper["encoder"], encoder), network_of(hyper["gain"], gain)
