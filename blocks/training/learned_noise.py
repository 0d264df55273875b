"""Gradients of learned noise through a whole extended Kalman filter, by autograd.

Means go back through the motion and what is seen of it with the Jacobians of the kernels; that
these Jacobians change with the mean, and covariances with them, counts for nothing: of F P F' and
H P H' only P is followed. The exact gradient takes second derivatives, which the models do not
have; for linear models it is exact.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from blocks.kernels.caching import njit
from blocks.kernels.indirect import call_linearise, call_observe_linearised
from blocks.kernels.learned_noise import noise_of, root_of
from blocks.kernels.learned_noise_gradients import Parameters, Tape, backward, forward
from blocks.kernels.state_space import StateSpace
from blocks.training.calibration import measured
from blocks.training.trajectories import Learner, Trajectories

Array = np.ndarray[Any, Any]

SHARES = {"mse": 0.0, "mixed": 0.5, "likelihood": 1.0, "joint": 1.0}  # of the states' density
REFINE = 300  # steps of L-BFGS for the units of a drift
FLOOR = 1e-9  # of the largest variance: what is added where a first covariance has a root of zero


@njit(cache=True, nogil=True)
def move(
    linearise: Any, parameters: Array, states: Array, intervals: Array, moved: Array,
    jacobians: Array,
) -> None:  # fmt: skip
    """Predict states (rows, m); `moved` and their Jacobians (rows, m, m) are written."""
    for row in range(states.shape[0]):
        call_linearise(
            linearise, states[row], intervals[row], parameters, moved[row], jacobians[row]
        )


@njit(cache=True, nogil=True)
def see(observe: Any, parameters: Array, states: Array, seen: Array, jacobians: Array) -> None:
    """The same of what is seen, (rows, n) and (rows, n, m)."""
    for row in range(states.shape[0]):
        call_observe_linearised(observe, states[row], parameters, seen[row], jacobians[row])


def begin(network: Any, model: StateSpace) -> None:
    """Let noise begin at that of the model, with a little added where that is singular."""
    _, Q, _ = model.matrices(np.array([model.step_s]))
    _put(network, Q[0], model.R)


def begin_near(
    learner: Learner, model: StateSpace, training: Trajectories, held_out: Trajectories
) -> None:
    """Let noise begin as by `begin`, or as it is measured, whichever is better held out.

    Where the model is right, what is measured is the likeliest noise: of a filter's errors alone
    far less can be known. Where it is not, a filter may need quite another one. An observation
    noise that does not learn stays as it is.
    """
    network = learner.network
    starts = np.tile(model.initial, (len(held_out.states), 1))
    begin(network, model)
    kept = copy.deepcopy(network.state_dict())
    with np.errstate(over="ignore", invalid="ignore"):
        own = learner.judged(held_out, starts)
        Q, R = measured(model, training)
        _put(network, Q, R if network.observation_root.requires_grad else model.R)
        found = learner.judged(held_out, starts)
    if not math.isfinite(found) or own <= found:
        network.load_state_dict(kept)


def _put(network: Any, Q: Array, R: Array) -> None:
    """Give a network this noise, with a little added where it is singular."""
    with torch.no_grad():
        for root, covariance in ((network.process_root, Q), (network.observation_root, R)):
            largest = float(np.diagonal(covariance).max()) or 1.0
            root.copy_(torch.from_numpy(root_of(covariance, FLOOR * largest)))


def regress(network: Any, model: StateSpace, training: Trajectories) -> None:
    """Fit drift and tilt to the true states alone, by least squares: where they begin.

    The drift is fitted to the errors of one-step predictions per nominal interval; its units by
    L-BFGS, after the affine part.
    """
    states = training.states.astype(np.float64)
    if network.hyper["tilt"]:
        flat = states.reshape(-1, model.size)
        seen = np.empty((len(flat), model.rows))
        see(
            model.observe_linearised, model.observe_parameters, flat, seen,
            np.empty((len(flat), model.rows, model.size)),
        )  # fmt: skip
        off = training.observations.reshape(seen.shape) - seen
        off[:, model.angles] -= math.tau * np.round(off[:, model.angles] / math.tau)
        came = ~np.isnan(off).any(1)
        found = _affine(seen[came], off[came])
        with torch.no_grad():
            network.tilt_matrix.copy_(torch.from_numpy(found[:-1].T))
            network.tilt_bias.copy_(torch.from_numpy(found[-1]))
    if network.hyper["drift"] < 0:
        return
    before = np.ascontiguousarray(states[:, :-1]).reshape(-1, model.size)
    intervals = np.ascontiguousarray(training.intervals[:, 1:]).ravel()
    after = np.empty_like(before)
    move(
        model.linearise, model.parameters, before, intervals, after,
        np.empty((len(before), model.size, model.size)),
    )  # fmt: skip
    off = (states[:, 1:].reshape(-1, model.size) - after) * (model.step_s / intervals)[:, None]
    centre, scale = before.mean(0), np.maximum(before.std(0), 1e-9)
    target = off / scale
    found = _affine((before - centre) / scale, target)
    with torch.no_grad():
        network.drift_centre.copy_(torch.from_numpy(centre))
        network.drift_scale.copy_(torch.from_numpy(scale))
        network.drift_matrix.copy_(torch.from_numpy(found[:-1].T))
        network.drift_bias.copy_(torch.from_numpy(found[-1]))
    if not network.hyper["drift"]:
        return
    rest = target - np.column_stack(((before - centre) / scale, np.ones(len(before)))) @ found
    weight = torch.from_numpy(1.0 / np.maximum(rest.std(0), 1e-9 * np.abs(target).max() + 1e-300))
    x, y = torch.from_numpy(before), torch.from_numpy(target)
    fitted = [p for name, p in network.named_parameters() if name.startswith("drift")]
    search = torch.optim.LBFGS(
        fitted, max_iter=REFINE, history_size=30, line_search_fn="strong_wolfe"
    )

    def error() -> Tensor:
        search.zero_grad()
        z = (x - network.drift_centre) / network.drift_scale
        t = network.drift_in(z).tanh()
        got = z @ network.drift_matrix.T + t @ network.drift_out.T + network.drift_bias
        loss: Tensor = ((got - y) * weight).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.no_grad():
        nn.init.normal_(network.drift_out, std=float(rest.std()) * 0.3)
    search.step(error)  # type: ignore[no-untyped-call]


def _affine(inputs: Array, outputs: Array) -> Array:
    """The matrix (inputs + 1, outputs) of least squares, its bias last."""
    whole = np.column_stack((inputs, np.ones(len(inputs))))
    found: Array = np.linalg.lstsq(whole, outputs, rcond=None)[0]
    return found


class Unrolled(Learner):
    """The filter of kernels/learned_noise.py, with gradients by kernels/learned_noise_gradients.py.

    Rows are filters side by side.

    network      a NoiseNetwork in float64
    loss_name    mse: half the logarithm of the mean squared error per number of a state;
                 likelihood: less the mean log density of the true states per number of them, by
                 the filter's mean and covariance, less that of a normal number; mixed: the mean of
                 both, which agree where every error has the same variance and the filter knows it;
                 joint: as likelihood, of states and observations together, given the observations
                 before, which settles the observation noise far better. All are in nats.
    """

    def __init__(self, network: Any, model: StateSpace, loss_name: str = "mixed") -> None:
        if loss_name not in SHARES:
            raise ValueError(f"loss = '{loss_name}', but there are {', '.join(SHARES)}")
        self.network, self.model, self.loss_name = network, model, loss_name

    def start(self, states: Array) -> tuple[Array, Array, Array]:
        rows = len(states)
        covariance = np.tile(self.model.initial_covariance, (rows, 1, 1))
        return np.array(states, np.float64), covariance, self.network.first(rows).numpy()

    def teach(self, track: Any, part: Trajectories) -> tuple[float, Any]:
        loss, end, by_means, by_covariances, by_evidence = self._pass(track, part)
        if math.isfinite(loss):
            self._back(part, by_means, by_covariances, by_evidence)
        return loss, end

    def judge(self, track: Any, part: Trajectories) -> tuple[float, Any]:
        loss, end, *_ = self._pass(track, part)
        return (math.exp(2.0 * loss) if self.loss_name == "mse" else loss), end

    def _pass(self, track: Any, part: Trajectories) -> tuple[float, Any, Array, Array, float]:
        """Loss, end, and the gradients by updated means, covariances and evidence."""
        model, hyper = self.model, self.network.hyper
        observations = np.ascontiguousarray(part.observations, np.float64)
        rows, time, n = observations.shape
        m = model.size
        self._values, self._tape = self._parameters(), Tape.empty(rows, time, m, n, hyper["units"])
        means, covariances = np.empty((rows, time, m)), np.empty((rows, time, m, m))
        evidence = np.empty((rows, time))
        end = tuple(array.copy() for array in track)
        forward(
            observations, np.ascontiguousarray(part.intervals), model.linearise, model.parameters,
            model.observe_linearised, model.observe_parameters, model.angles, model.step_s,
            hyper["drift"] >= 0, hyper["tilt"], *self._values, *end, self._tape, means,
            covariances, evidence,
        )  # fmt: skip
        off = means - part.states
        squared = float(np.square(off).mean())
        if not (math.isfinite(squared) and np.isfinite(covariances).all()):
            return math.nan, end, off, covariances, 0.0
        loss, by_means, by_covariances = 0.0, np.zeros_like(means), np.zeros_like(covariances)
        share, joint = SHARES[self.loss_name], self.loss_name == "joint"
        by_evidence = 0.5 / (rows * time * (m + n)) if joint else 0.0
        if joint:
            share = m / (m + n)
            loss = by_evidence * float((evidence - n).sum())
        elif share < 1.0:
            loss += (1.0 - share) * 0.5 * math.log(max(squared, 1e-300))
            by_means += (1.0 - share) / (off.size * squared) * off
        if share:
            with np.errstate(all="ignore"):
                _, spread = np.linalg.slogdet(covariances)
            inverse = np.linalg.inv(covariances)
            pulled = (inverse @ off[..., None])[..., 0]
            loss += share * 0.5 * float((spread + (pulled * off).sum(-1) - m).mean()) / m
            by_means += share / off.size * pulled
            outer = pulled[..., :, None] * pulled[..., None, :]
            by_covariances += 0.5 * share / off.size * (inverse - outer)
        return loss, end, by_means, by_covariances, by_evidence

    def _back(
        self, part: Trajectories, by_means: Array, by_covariances: Array, by_evidence: float
    ) -> None:
        network, hyper = self.network, self.network.hyper
        found = Parameters(*(np.zeros_like(array) for array in self._values))
        backward(
            np.ascontiguousarray(part.intervals), self.model.step_s, hyper["drift"] >= 0,
            hyper["tilt"], *self._values, np.ascontiguousarray(part.observations, np.float64),
            self._tape, by_means, by_covariances, by_evidence, found,
        )  # fmt: skip
        m, n = self.model.size, self.model.rows
        by_Q, by_R = (torch.from_numpy(array) for array in found[:2])
        torch.autograd.backward(network.covariances(), (by_Q, by_R))
        if hyper["units"]:
            for name, array in zip(
                ("weight_ih", "weight_hh", "bias_ih", "bias_hh"), found[2:6], strict=True
            ):
                _add(getattr(network.cell, name), array)
            _add(network.told.weight, found.told[:, :-1])
            _add(network.told.bias, found.told[:, -1])
        if hyper["drift"] >= 0:
            _add(network.drift_matrix, found.affine[:, :m])
            _add(network.drift_bias, found.affine[:, m])
            _add(network.drift_in.weight, found.drift[:, :m])
            _add(network.drift_in.bias, found.drift[:, 2 * m])
            _add(network.drift_out, found.drift[:, m : 2 * m].T)
        if hyper["tilt"]:
            _add(network.tilt_matrix, found.tilt[:, :n])
            _add(network.tilt_bias, found.tilt[:, n])

    def _parameters(self) -> Parameters:
        arrays = {name: t.numpy() for name, t in self.network.state_dict().items()}
        noise = noise_of(self.network.hyper, arrays)
        cell = np.zeros((0, 0)), np.zeros((0, 0)), np.zeros(0), np.zeros(0)
        if self.network.hyper["units"]:
            w_in, w_hidden = arrays["cell.weight_ih"], arrays["cell.weight_hh"]
            cell = w_in, w_hidden, arrays["cell.bias_ih"], arrays["cell.bias_hh"]
        return Parameters(
            noise.Q, noise.R, *cell, noise.told, noise.drift, noise.affine, noise.tilt
        )


def _add(parameter: Any, gradient: Array) -> None:
    """Add to the gradient of a parameter, unless it does not learn."""
    if parameter.requires_grad:
        tensor = torch.from_numpy(np.ascontiguousarray(gradient))
        parameter.grad = tensor.clone() if parameter.grad is None else parameter.grad + tensor
