"""Makes the covariances of a filter that was learned agree with its errors.

Bar-Shalom, Li, Kirubarajan, "Estimation with Applications to Tracking and Navigation", 2001, 5.4:
of a consistent filter of m states the normalised squared error, e' P^-1 e, is m on average. The
observation noise R is measured on trajectories whose states are known. Q and the share c of the
noise that the gain lets in (kernels/kalmannet_filter.py) are those under which errors and
innovations on these trajectories are likeliest; then both are scaled to make the average m. Of
Recursive KalmanNet, whose networks tell the noise, only c is fitted, and Q is measured, for what it
foretells of observations. Of learned noise, whose covariances are its own, Q and c are fitted where
those are not consistent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from blocks.kernels import consistency, learned_noise, state_space
from blocks.kernels.caching import njit
from blocks.kernels.calibration import Calibration
from blocks.kernels.indirect import call_advance, call_observe
from blocks.kernels.kalman import Track
from blocks.kernels.kalmannet_filter import Filters, Network
from blocks.kernels.recursive_kalmannet import RecursiveGain
from blocks.kernels.state_space import StateSpace
from blocks.training.trajectories import Trajectories

Array = np.ndarray[Any, Any]

MOST = 30000  # steps that are looked at: every evaluation runs the filter over all of them
GRID = np.arange(-4.0, 1.01, 0.5)  # powers of ten of the measured Q that are tried
ROUNDS = 20  # of the search for Q and c
NUDGE = 1e-4  # by which a parameter is changed to see what it does
BOUND = 1e9  # loss of covariances that are none


def measured(model: StateSpace, known: Trajectories) -> tuple[Array, Array]:
    """Q (m, m) per nominal interval and R (n, n): mean products of what the model gets wrong.

    R is of the observations that came whole; where there are none, only its diagonal is known.
    """
    states, seen = known.states, known.observations
    moved: Array = np.empty(states[:, 1:].shape)
    off: Array = np.empty(seen.shape)
    _residuals(
        model.advance, model.parameters, model.observe, model.observe_parameters, model.angles,
        states, seen, known.intervals, moved, off,
    )  # fmt: skip
    moved = moved.reshape(-1, model.size)
    weights = model.step_s / np.maximum(known.intervals[:, 1:].reshape(-1), 1e-6 * model.step_s)
    Q: Array = np.einsum("ti,tj,t->ij", moved, moved, weights) / len(moved)
    off = off.reshape(-1, model.rows)
    whole = off[~np.isnan(off).any(1)]
    if not len(whole):
        return Q, np.diag(np.nanmean(np.square(off), 0))
    return Q, whole.T @ whole / len(whole)


@njit(cache=True, nogil=True)
def _residuals(
    advance: Any, parameters: Array, observe: Any, observe_parameters: Array, angles: Array,
    states: Array, observations: Array, intervals: Array, moved: Array, off: Array,
) -> None:  # fmt: skip
    count, steps, m = states.shape
    before, after, seen = np.empty(m), np.empty(m), np.empty(angles.size)
    for track in range(count):
        for t in range(steps):
            for i in range(m):
                before[i] = states[track, t, i]
            call_observe(observe, before, observe_parameters, seen)
            for j in range(angles.size):
                value = observations[track, t, j] - seen[j]
                off[track, t, j] = state_space.wrapped(value) if angles[j] else value
            if t + 1 < steps:
                call_advance(advance, before, intervals[track, t + 1], parameters, after)
                for i in range(m):
                    moved[track, t, i] = states[track, t + 1, i] - after[i]


def calibrated(network: Network, model: StateSpace, known: Trajectories) -> Calibration:
    """The calibration of a network in its filter, on trajectories that it did not learn from.

    Raises ValueError where all of them are lost.
    """
    known = known.part(slice(max(1, MOST // known.states.shape[1])), slice(None))
    first = filtered(Filters(network, model), known, spread=False)
    kept = _kept(first)
    known, first = known.part(kept, slice(None)), first.of(kept)
    Q, R = measured(model, known)

    def run(calibration: Calibration) -> Track:
        return filtered(Filters(network, model, calibration), known, spread=True)

    if isinstance(network, RecursiveGain):
        return _scaled(run, known, Calibration(Q, R, 1.0), share_alone=True)
    errors = np.square(first.estimates - known.states).mean((0, 1))

    def loss(parameters: Array) -> float:
        return _loss(run(_of(parameters, R)), known)

    shares = (1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-6)
    begins = [_parameters(Q + np.diag(share * errors)) for share in shares]
    return _scaled(run, known, _of(_least(loss, min(begins, key=loss)), R))


def calibrated_noise(
    noise: learned_noise.Noise, model: StateSpace, known: Trajectories
) -> Calibration | None:
    """That of learned noise, on trajectories that it did not learn from; None where none is due.

    That is, where the mean NEES of its own covariances is inside the band of 95 %. Every other
    trajectory counts from where the model starts, the rest from their first state, told to be
    known: what is wrong with a model shows at once where nothing else is. Raises ValueError where
    all are lost.
    """
    known = known.part(slice(max(1, MOST // known.states.shape[1])), slice(None))
    m, first = model.size, known.states[1::2, 0]
    rest = len(known.states) - len(first)
    starts = np.concatenate((np.tile(model.initial, (rest, 1)), first))
    spread = np.zeros((len(starts), m, m))
    spread[:rest] = model.initial_covariance
    parts = known.part(slice(0, None, 2), slice(-1)), known.part(slice(1, None, 2), slice(1, None))
    known = Trajectories(*(np.concatenate(pair) for pair in zip(*parts, strict=True)))

    def run(calibration: Calibration | None) -> Track:
        one = learned_noise.Filter(noise, model, calibration)
        return _with_noise(one, known, starts, spread)

    own = run(None)
    kept = _kept(own)
    known, starts, spread = known.part(kept, slice(None)), starts[kept], spread[kept]
    if is_consistent(own.of(kept), known):
        return None
    Q, _ = measured(model, known)
    begins = [Calibration(share * Q, np.empty((0, 0)), 1.0) for share in 10.0**GRID]
    found = min(begins, key=lambda calibration: _loss(run(calibration), known))
    return _scaled(run, known, found)


def _kept(out: Track) -> Array:
    """Which trajectories are not lost, (trajectory,) bool."""
    kept = np.asarray(np.isfinite(out.estimates.reshape(len(out.estimates), -1)).all(1))
    if not kept.any():
        raise ValueError("all held-out trajectories are lost, so covariances cannot be calibrated")
    return kept


def _scaled(
    run: Callable[[Calibration], Track], known: Trajectories, found: Calibration, *,
    share_alone: bool = False,
) -> Calibration:  # fmt: skip
    """The calibration with which the mean NEES is m."""
    for _ in range(3):  # the start of a trajectory has a covariance of its own
        scale = float(_nees(run(found), known).mean() / known.states.shape[-1])
        process = found.process if share_alone else scale * found.process
        found = Calibration(process, found.observation, scale * found.share)
    return found


def _parameters(Q: Array) -> Array:
    """Numbers that say Q, of which any are a covariance, and log c = 0."""
    L = np.linalg.cholesky(Q)
    scale = L.diagonal()
    below = (L / scale[:, None])[np.tril_indices(len(Q), -1)]
    return np.concatenate((np.log(scale), below, [0.0]))


def _of(parameters: Array, R: Array) -> Calibration:
    """The calibration that they say."""
    m = int((np.sqrt(8 * len(parameters) - 7) - 1) / 2)
    L = np.eye(m)
    L[np.tril_indices(m, -1)] = parameters[m:-1]
    L *= np.exp(parameters[:m])[:, None]
    return Calibration(L @ L.T, R, float(np.exp(parameters[-1])))


def filtered(filters: Filters, known: Trajectories, *, spread: bool) -> Track:
    """What the filter makes of trajectories that begin where the model does."""
    shape = known.observations.shape[:2]
    out = Track.empty(shape, filters.model.size, filters.model.rows)
    filters.run(
        np.ascontiguousarray(known.observations), np.ascontiguousarray(known.intervals),
        filters.start(shape[0]), out, together=True, spread=spread,
    )  # fmt: skip
    return out


def _with_noise(
    one: learned_noise.Filter, known: Trajectories, starts: Array, spread: Array
) -> Track:
    """The same of a filter of learned noise that begins there; NaN from where a track is lost."""
    model = one.model
    out = Track.empty(known.observations.shape[:2], model.size, model.rows)
    out.estimates[:] = np.nan
    for k, seen in enumerate(known.observations):
        one.run(
            np.ascontiguousarray(seen), np.ascontiguousarray(known.intervals[k]),
            starts[k].copy(), np.stack([spread[k]] * 2), one.hidden(), out.of(k),
        )  # fmt: skip
    return out


def is_consistent(out: Track, known: Trajectories) -> bool:
    """Whether the mean NEES is where 95 % of those of right covariances are."""
    m = known.states.shape[-1]
    sums: Array = np.zeros(consistency.SUMS)
    for k, states in enumerate(known.states):
        sums[consistency.NEES_LAST] = np.nan
        consistency.add_errors(
            np.ascontiguousarray(states), out.estimates[k], out.covariances[k], 0, 0, 0, sums,
            np.zeros(1), np.empty(0), np.empty((2, m, m)),
        )  # fmt: skip
    low, high = consistency.band(m, consistency.independent_steps(sums))
    mean = float(sums[consistency.NEES] / sums[consistency.NEES_STEPS])
    return low <= mean <= high


def _nees(out: Track, known: Trajectories) -> Array:
    """Normalised squared errors (trajectory, time)."""
    off = out.estimates - known.states
    found: Array = (off * np.linalg.solve(out.covariances, off[..., None])[..., 0]).sum(-1)
    return found


def _loss(out: Track, known: Trajectories) -> float:
    """Negative log-likelihood of errors and innovations per step, without its constant [nat]."""
    signs, logs = np.linalg.slogdet(out.covariances)
    if not ((signs > 0.0) & np.isfinite(logs) & (out.det > 0.0)).all():
        return BOUND
    off = out.estimates - known.states
    solved = np.linalg.solve(out.covariances, off[..., None])[..., 0]
    return float(0.5 * ((off * solved).sum(-1) + logs + out.nis + np.log(out.det)).mean())


def _least(loss: Callable[[Array], float], begin: Array) -> Array:
    """Where the loss is least near `begin`, by L-BFGS with differences for gradients."""
    x = torch.tensor(begin, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([x], max_iter=ROUNDS, line_search_fn="strong_wolfe")

    def evaluate() -> float:
        at = x.detach().numpy().copy()
        here = loss(at)
        steps = NUDGE * np.eye(len(at))
        slopes = [(loss(at + step) - here) / NUDGE for step in steps]
        x.grad = torch.tensor(slopes, dtype=torch.float64)
        return here

    search.step(evaluate)  # type: ignore[no-untyped-call]
    return x.detach().numpy().copy()
