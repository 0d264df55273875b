"""Fits a neural-augmented smoother, for blocks/training/trajectories.py.

The loss is (32) of Shlezinger et al., "Model-Based Deep Learning", Proc. IEEE: squared errors of
the states after each iteration, which weigh the more the later it is. A Newton step is a smoother
whose answer is linear in what the network tells, so its gradient is another pass of the same
smoother (`_Solve`), and nothing of the recursion over time is kept by torch. No gradient passes
through the points at which an iteration linearises and compares, only through the nodes and, in
steps of the other kinds, through the states that are added to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blocks.kernels import neural_augmented as kernels
from blocks.kernels import smoother_gradients
from blocks.kernels.neural_augmented import FURTHEST, TRUST, NeuralSmoother
from blocks.kernels.state_space import StateSpace
from blocks.training.trajectories import Learner, Trajectories

Array = np.ndarray[Any, Any]

LOOKED = 20  # records of which units are taken


class _Solve(torch.autograd.Function):
    """Smoothed states (rows, time + 1, n) by shift, bias and the logarithm of the scale."""

    @staticmethod
    def forward(
        ctx: Any, shift: Tensor, bias: Tensor, log_scale: Tensor, around: Array, model: StateSpace,
        observations: Array, intervals: Array, starts: tuple[Array, Array],
        ends: tuple[Array, Array],
    ) -> Tensor:  # fmt: skip
        """`ends`, (rows, n) and (rows, n, n), are written: where the filters end."""
        means, covariances = starts
        shifts, biases, scales = (t.double().numpy() for t in (shift, bias, log_scale.exp()))
        states = np.full((len(shifts), shifts.shape[1] + 1, model.size), np.nan)
        ctx.passes = []
        for row in range(len(shifts)):
            passed = kernels.begun(model, shifts.shape[1], means[row], covariances[row])
            found = kernels.solved(
                model, observations[row] + biases[row], intervals[row], passed, around[row],
                shifts[row], scales[row], spread=False,
            )  # fmt: skip
            if isinstance(found, int):
                break  # the loss is then no number, and teaches nothing
            states[row] = found[0]
            ends[0][row], ends[1][row] = passed.means[-1], passed.covariances[-1]
            ctx.passes.append(passed)
        ctx.given = model, observations, around, states
        return torch.from_numpy(states).to(shift)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (by_states,) = gradients
        model, observations, around, states = ctx.given
        given = by_states.double().numpy()
        count, steps, m = observations.shape
        by_shift, by_bias = np.zeros((count, steps, model.size)), np.zeros((count, steps, m))
        by_scale = np.zeros((count, steps))
        for row, passed in enumerate(ctx.passes):
            before, after = states[row, :-1] - passed.means[:-1], states[row, 1:]
            off = after - passed.predicted[1:] - np.einsum("tij,tj->ti", passed.F[1:], before)
            smoother_gradients.gradients(
                model, observations[row], around[row], passed, given[row], by_shift[row],
                by_bias[row],
            )  # fmt: skip
            # more Q lets the trajectory be where it is off the motion
            by_scale[row] = np.einsum("ti,ti->t", by_shift[row], off)
        found = (torch.from_numpy(a).to(by_states) for a in (by_shift, by_bias, by_scale))
        return (*found, None, None, None, None, None, None)


_solved: Callable[..., Tensor] = _Solve.apply


class Smoothing(Learner):
    """Neural-augmented smoothers of records side by side, and what they learn.

    A track is where records begin: means (rows, n) and covariances (rows, n, n) one interval before
    their first observation. What follows a record goes on from the filter of its last iteration.

    network   a GraphNetwork, whose parameters get the gradients
    unit      of the loss: what an error is divided by
    """

    def __init__(self, network: Any, model: StateSpace, unit: float = 1.0) -> None:
        self.network, self.model, self.unit = network, model, unit

    def start(self, states: Array) -> tuple[Array, Array]:
        return states, np.tile(self.model.initial_covariance, (len(states), 1, 1))

    def teach(self, track: Any, part: Trajectories) -> tuple[float, Any]:
        estimates, ends = self.estimates(track, part)
        loss: Tensor = torch.zeros(())
        for turn, states in enumerate(estimates):
            off = states - torch.from_numpy(part.states).to(states)
            loss = loss + (turn + 1) / len(estimates) * off.square().mean()
        loss = loss / (self.unit * len(estimates))
        if bool(loss.isfinite()):
            loss.backward()  # type: ignore[no-untyped-call]
        return loss.item(), ends

    def judge(self, track: Any, part: Trajectories) -> tuple[float, Any]:
        served, total, ends = NeuralSmoother(self._arranged(), self.model), 0.0, []
        for row, seen in enumerate(part.observations):
            found = served.run(seen, part.intervals[row], track[0][row], track[1][row])
            if isinstance(found, int):
                return math.nan, track
            total += float(np.square(found.states - part.states[row]).mean())
            ends.append((found.mean, found.covariance))
        means, covariances = zip(*ends, strict=True)
        return total / len(part.states), (np.stack(means), np.stack(covariances))

    def judged(self, trajectories: Trajectories, starts: Array) -> float:
        """Whole records at once: each state is told by all observations."""
        return self.judge(self.start(starts), trajectories)[0]

    def estimates(self, track: Any, part: Trajectories) -> tuple[list[Tensor], Any]:
        """States (rows, time, n) after each iteration, and the end."""
        network, model = self._arranged(), self.model
        seen, intervals = part.observations, part.intervals
        count, steps, m = seen.shape
        like = self.network.outer.weight
        guesses = [
            kernels.first_guess(model, network, *rows)
            for rows in zip(seen, intervals, *track, strict=True)
        ]
        if any(isinstance(guess, int) for guess in guesses):
            return [torch.full((count, steps, model.size), math.nan)], track
        around = np.stack([guess for guess in guesses if not isinstance(guess, int)])
        inputs: Array = np.empty((count, steps, m))
        features: Array = np.zeros((count, steps, kernels.feature_count(model.size, m)), np.float32)
        for row in range(count):
            kernels.seen_of(model, network, seen[row], around[row], inputs[row])
        embedded = self.network.embed(torch.from_numpy(inputs).to(like))
        nodes = self.network.start(embedded)
        states = torch.from_numpy(around).to(like)
        found, ends = [], tuple(array.copy() for array in track)
        for turn in range(network.iterations):
            for row in range(count):
                kernels.sensed(
                    model, network, seen[row], intervals[row], around[row], features[row]
                )
            told, nodes = self.network(torch.from_numpy(features).to(like), embedded, nodes)
            states = self._step(turn, told, states, around, track, part, ends)
            around = states.detach().double().numpy()
            found.append(states[:, 1:])
        if network.step != "newton":
            ends[0][:] = around[:, -1]
        return found, ends

    def _step(
        self, turn: int, told: Tensor, states: Tensor, around: Array, track: Any,
        part: Trajectories, ends: Any,
    ) -> Tensor:  # fmt: skip
        """States with the one in front (rows, time + 1, n) after an iteration."""
        net, model, n = self.network, self.model, self.model.size
        step = net.hyper["step"]
        shift = told[..., :n] * net.shift_unit
        if step == "newton":
            log_scale = (TRUST * net.log_scale[turn] + told[..., -1]).clamp(-FURTHEST, FURTHEST)
            return _solved(
                shift, told[..., n:-1] * net.bias_unit, log_scale, around, model,
                part.observations, part.intervals, track, ends,
            )  # fmt: skip
        none = torch.zeros_like(shift[:, :1])
        if step == "network":
            return states + torch.cat((none, shift), 1)
        moved = [
            kernels.climbed(model, seen, intervals, states, 1.0)
            for seen, intervals, states in zip(
                part.observations, part.intervals, around, strict=True
            )
        ]
        rate = float(net.hyper["rate"])
        slope = torch.from_numpy(np.stack(moved) - around).to(states)
        return states + rate * (slope + torch.cat((none, shift), 1))

    def _arranged(self) -> kernels.GraphNetwork:
        return kernels.GraphNetwork.of(self.network.hyper, self.network.arrays())


def measure(
    network: Any, model: StateSpace, training: Trajectories, sees_states: bool = True
) -> float:
    """Give a fresh network the units of these trajectories; returns the error it begins with.

    network       a GraphNetwork
    sees_states   whether corrections may depend on where a state is, or only on how it differs
                  from what the model says
    """
    n, step = model.size, network.hyper["step"]
    some = training.part(slice(LOOKED), slice(None))
    states, seen = some.states, some.observations
    units = {
        "state_centre": states.mean((0, 1)),
        "state_weight": _over(states - states.mean((0, 1))) if sees_states else np.zeros(n),
        "seen_centre": np.nan_to_num(np.nanmean(seen, (0, 1))),
        "seen_weight": _over(seen - np.nanmean(seen, (0, 1))),
    }
    _fill(network, units)
    # how far the truth, and the first guess, are off what the model says
    guesses, unit = np.empty_like(states), 0.0
    for row, record in enumerate(seen):
        found = kernels.first_guess(
            model, kernels.GraphNetwork.of(network.hyper, network.arrays()), record,
            some.intervals[row], model.initial, model.initial_covariance,
        )  # fmt: skip
        if isinstance(found, int):
            raise ValueError(
                f"the smoother breaks at step {found} of a trajectory; raise process_noise or "
                "observation_noise"
            )
        guesses[row] = found[1:]
        unit += float(np.square(guesses[row] - states[row]).mean()) / len(seen)
    moved, told = _differences(model, some, states)
    guessed, innovation = _differences(model, some, guesses)
    shift_unit = 1.0 / _over(moved)
    if step == "network":
        shift_unit = 1.0 / _over(states - units["state_centre"])
    elif step == "gradient":
        shift_unit = np.ones(n)
    _fill(
        network,
        {
            "motion_weight": _over(guessed), "innovation_weight": _over(innovation),
            "shift_unit": shift_unit, "bias_unit": 1.0 / _over(told),
        },
    )  # fmt: skip
    return unit


def share_of(smoother: kernels.NeuralSmoother, known: Trajectories) -> tuple[float, float]:
    """What to multiply covariances by so that the mean NEES is n, and the mean squared error.

    Of trajectories that the network did not learn from. Raises ValueError where one is lost.
    """
    model, nees, squared = smoother.model, 0.0, 0.0
    for states, seen, intervals in zip(*known, strict=True):
        found = smoother.run(seen, intervals, model.initial, model.initial_covariance)
        if isinstance(found, int):
            raise ValueError(f"the smoother breaks at step {found} of a trajectory held out")
        off = found.states - states
        squared += float(np.square(off).mean())
        nees += float((off * np.linalg.solve(found.covariances, off[..., None])[..., 0]).mean())
    return nees / len(known.states), squared / len(known.states)


def _fill(network: Any, units: dict[str, Any]) -> None:
    with torch.no_grad():
        for name, values in units.items():
            getattr(network, name)[:] = torch.as_tensor(values, dtype=torch.float32)


def _over(values: Array) -> Array:
    """One over the root mean square of each column; NaN does not count."""
    mean = np.nanmean(np.square(values), tuple(range(values.ndim - 1)))
    over: Array = 1.0 / np.sqrt(np.maximum(np.nan_to_num(mean, nan=1.0), 1e-12))
    return over


def _differences(model: StateSpace, some: Trajectories, states: Array) -> tuple[Array, Array]:
    """States less where the model moves those before, and observations less what it sees."""
    one = np.ones(model.size), np.ones(model.rows)
    shape = (len(states), states.shape[1] - 1, kernels.feature_count(model.size, model.rows))
    features: Array = np.zeros(shape, np.float64)
    for row in range(len(states)):
        kernels.sense(
            model.advance, model.parameters, model.observe, model.observe_parameters, model.angles,
            np.ascontiguousarray(some.observations[row, 1:]),
            np.ascontiguousarray(some.intervals[row, 1:]), model.step_s,
            np.ascontiguousarray(states[row]), *(np.zeros(model.size), one[0]), *one, np.inf,
            features[row],
        )  # fmt: skip
    n, m = model.size, model.rows
    missing = np.isnan(some.observations[:, 1:])
    return features[..., n : 2 * n], np.where(missing, np.nan, features[..., 3 * n : 3 * n + m])
