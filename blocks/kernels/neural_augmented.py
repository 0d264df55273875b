"""The neural-augmented smoother: messages of a model that a graph network corrects, repeatedly.

Garcia Satorras, Akata, Welling, "Combining generative and discriminative models for hybrid
inference", NeurIPS 2019; Shlezinger et al., "Model-Based Deep Learning", Proc. IEEE, Example 7 with
Algorithm 6 and (30) to (32). An iteration compares each state with what its neighbours and its
observation say by the model: these differences are the messages. A graph network with a node for
each step, the same everywhere, tells from them and from the nodes beside it what they err by; each
node keeps a state of its own from iteration to iteration, by a GRU cell. Then all states move:

newton   s + A^-1 (gradient + correction). The step of (31) with the inverse of the curvature A of
         -log p(x, s) in place of a number eta: a pass of the smoother (kernels/smoother.py)
         linearised at the last estimate, so that one iteration reaches over the whole record, and
         the last one tells covariances. What the network tells is how far the motion into a step
         is from the model's, how far the observation is, and how many times Q to expect.
gradient s + eta (gradient + correction), as in the papers; an iteration reaches one step far.
network  s + correction: the network alone, which knows no model.

The layers, all over each step, in the order in which they are evaluated; `width` numbers of a node:

    seen      relu    observation                             -> width, once
    messages  relu    three nodes, seen, the features below   -> wide
    cell      gru     messages                                -> width, the new node
    inner     relu    node                                    -> width
    outer     linear  inner                                   -> corrections

`messages` is f_e of (30) for all three messages of a node at once. Features of a step: the state,
its difference to the motion from the state before, that of the state after, the innovation, and the
interval; each in units that the weights say, and none beyond LIMIT. What is missing of an
observation counts as seen where the first estimate has it, and its innovation is 0, so that nothing
looks unlike what a network has learned from records without gaps.

blocks/models/neural_augmented.py has the layers as a torch module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from blocks.kernels import smoother
from blocks.kernels.activations import LINEAR, RELU
from blocks.kernels.caching import njit
from blocks.kernels.calibration import PREFIX
from blocks.kernels.dense import aligned, join, layer, pack, padded
from blocks.kernels.indirect import (
    call_advance,
    call_linearise,
    call_noise,
    call_observe,
    call_observe_linearised,
)
from blocks.kernels.recurrent import gru_cell, pack_gru
from blocks.kernels.smoother import Passed
from blocks.kernels.state_space import StateSpace, wrapped

Array = np.ndarray[Any, Any]

LIMIT = 10.0  # of a feature: what is further off is only far off
FURTHEST = 23.0  # of the logarithm of what Q is multiplied by
TRUST = 10.0  # natural units of that logarithm per unit of the weight `log_scale`
TILE = 96  # steps that go through all layers together, within the L2 cache; a multiple of six
STEPS = ("newton", "gradient", "network")
STARTS = ("smoother", "observations")
SHARE = f"{PREFIX}share"  # the array of weights that says it


def outputs(n: int, m: int, step: str) -> int:
    """Numbers that the network tells of each step."""
    return n + m + 1 if step == "newton" else n


def feature_count(n: int, m: int) -> int:
    """Features of a step."""
    return 3 * n + m + 1


def layers(n: int, m: int, width: int, wide: int, step: str) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of each layer."""
    return {
        "seen": (m, width),
        "messages": (4 * width + feature_count(n, m), wide),
        "cell": (wide, width),
        "inner": (width, width),
        "outer": (width, outputs(n, m, step)),
    }


def units(n: int, m: int, iterations: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays beside those of the layers.

    state_centre, state_weight   (n,)  features of a state x are (x - centre) weight
    motion_weight                (n,)  those of a difference to the motion
    innovation_weight            (m,)
    seen_centre, seen_weight     (m,)  observations, as those of a state
    shift_unit, bias_unit        (n,), (m,)  what a correction of 1 is
    log_scale                    (iterations,)  log of what Q is multiplied by, over TRUST
    """
    return {
        "state_centre": (n,), "state_weight": (n,), "motion_weight": (n,),
        "innovation_weight": (m,), "seen_centre": (m,), "seen_weight": (m,),
        "shift_unit": (n,), "bias_unit": (m,), "log_scale": (iterations,),
    }  # fmt: skip


class GraphNetwork(NamedTuple):
    """What the weights of a neural-augmented smoother hold, ready for the kernels.

    weights, places   of `dense.join`, in the order of `layers`
    constants         by name, float64, as `units` says
    rate              eta of gradient steps
    share             what covariances are multiplied by, so that they agree with errors
    """

    weights: Array
    places: Array
    constants: dict[str, Array]
    n: int
    m: int
    width: int
    wide: int
    iterations: int
    step: str
    start: str
    rate: float
    share: float

    @classmethod
    def of(cls, hyper: Mapping[str, Any], arrays: Mapping[str, Array]) -> GraphNetwork:
        """From what weights hold; ValueError where that does not fit together.

        hyper   n, m, width, wide, iterations, step, start, rate
        arrays  float32, those of layers by torch's names; SHARE where that was fitted
        """
        n, m, width, wide, iterations = (
            int(hyper[key]) for key in ("n", "m", "width", "wide", "iterations")
        )
        step, start = str(hyper["step"]), str(hyper["start"])
        for what, name, known in (("step", step, STEPS), ("start", start, STARTS)):
            if name not in known:
                raise ValueError(f"{what} = {name!r}, but there are {', '.join(known)}")
        if min(n, m, width, wide, iterations) < 1:
            raise ValueError("n, m, width, wide and iterations are to be at least 1")
        parts = []
        for name, (n_in, n_out) in layers(n, m, width, wide, step).items():
            if name == "cell":
                kinds = {"weight_ih": (3 * n_out, n_in), "weight_hh": (3 * n_out, n_out),
                         "bias_ih": (3 * n_out,), "bias_hh": (3 * n_out,)}  # fmt: skip
            else:
                kinds = {"weight": (n_out, n_in), "bias": (n_out,)}
            found = [_array(arrays, f"{name}.{kind}", shape) for kind, shape in kinds.items()]
            parts.append((pack_gru if name == "cell" else pack)(*found))
        constants = {
            name: _array(arrays, name, shape).astype(np.float64)
            for name, shape in units(n, m, iterations).items()
        }
        share = np.asarray(arrays.get(SHARE, 1.0), np.float64)
        if share.size != 1 or not share > 0.0:
            raise ValueError(f"{SHARE} = {share}, but must be above 0")
        return cls(
            *join(parts), constants, n, m, width, wide, iterations, step, start,
            float(hyper["rate"]), float(share),
        )  # fmt: skip


def _array(arrays: Mapping[str, Array], name: str, shape: tuple[int, ...]) -> Array:
    if name not in arrays:
        raise ValueError(f"no array {name}")
    if arrays[name].shape != shape:
        raise ValueError(f"{name} has shape {arrays[name].shape}, but {shape} is due")
    return arrays[name]


# --- Before the network ---------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _clipped(value: float, limit: float) -> float:
    return min(max(value, -limit), limit)


@njit(cache=True, nogil=True)
def sense(
    advance: Any, parameters: Array, observe: Any, observe_parameters: Array, angles: Array,
    observations: Array, intervals: Array, step_s: float, around: Array, centre: Array,
    state_weight: Array, motion_weight: Array, innovation_weight: Array, limit: float,
    features: Array,
) -> None:  # fmt: skip
    """Write the features of each step.

    around    (time + 1, n)  states, that one interval before the first observation in front
    limit     largest feature
    features  (time, width)   written: the columns of `feature_count`
    """
    steps, m = observations.shape
    n = around.shape[1]
    moved, foretold, state = np.empty(n), np.empty(m), np.empty(n)
    for i in range(steps):
        for j in range(n):
            state[j] = around[i, j]
        call_advance(advance, state, intervals[i], parameters, moved)
        for j in range(n):
            off = _clipped((around[i + 1, j] - moved[j]) * motion_weight[j], limit)
            features[i, n + j] = off
            if i:
                features[i - 1, 2 * n + j] = off
            state[j] = around[i + 1, j]
            features[i, j] = _clipped((state[j] - centre[j]) * state_weight[j], limit)
            features[i, 2 * n + j] = 0.0
        call_observe(observe, state, observe_parameters, foretold)
        for j in range(m):
            off = observations[i, j] - foretold[j]
            came = not np.isnan(off)
            off = wrapped(off) if angles[j] and came else off
            features[i, 3 * n + j] = _clipped(off * innovation_weight[j], limit) if came else 0.0
        features[i, 3 * n + m] = _clipped(intervals[i] / step_s - 1.0, limit)


def sensed(
    model: StateSpace, network: GraphNetwork, observations: Array, intervals: Array, around: Array,
    features: Array,
) -> None:  # fmt: skip
    """`sense` with the model and the units of a network, which may know no model."""
    known = network.constants
    motion, innovation = known["motion_weight"], known["innovation_weight"]
    if network.step == "network":
        motion, innovation = np.zeros_like(motion), np.zeros_like(innovation)
    sense(
        model.advance, model.parameters, model.observe, model.observe_parameters, model.angles,
        observations, intervals, model.step_s, around, known["state_centre"],
        known["state_weight"], motion, innovation, LIMIT, features,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _look(
    observe: Any, observe_parameters: Array, observations: Array, around: Array, centre: Array,
    weight: Array, seen: Array,
) -> None:  # fmt: skip
    steps, m = observations.shape
    state, foretold = np.empty(around.shape[1]), np.empty(m)
    for i in range(steps):
        for j in range(state.size):
            state[j] = around[i + 1, j]
        call_observe(observe, state, observe_parameters, foretold)
        for j in range(m):
            value = observations[i, j]
            value = foretold[j] if np.isnan(value) else value
            seen[i, j] = _clipped((value - centre[j]) * weight[j], LIMIT)


def seen_of(
    model: StateSpace, network: GraphNetwork, observations: Array, around: Array, seen: Array
) -> None:
    """Write what the layer `seen` gets, (time, m) and more columns, given the first estimate."""
    known = network.constants
    _look(
        model.observe, model.observe_parameters, observations, around, known["seen_centre"],
        known["seen_weight"], seen,
    )  # fmt: skip


def first_guess(
    model: StateSpace, network: GraphNetwork, observations: Array, intervals: Array, mean: Array,
    covariance: Array,
) -> Array | int:  # fmt: skip
    """States to start from (time + 1, n), or the step at which the smoother broke.

    smoother      what tracker.smoother finds
    observations  pulled back by the pseudo-inverse of H at the centre of the states; where some of
                  an observation is missing, that part of the centre
    """
    steps, n = len(observations), model.size
    if network.start == "smoother":
        passed = begun(model, steps, mean, covariance)
        found = solved(model, observations, intervals, passed, spread=False)
        return found if isinstance(found, int) else found[0]
    centre = network.constants["state_centre"]
    foretold, H = np.empty(model.rows), np.empty((model.rows, n))
    seen_at(model.observe_linearised, model.observe_parameters, centre, foretold, H)
    off = observations - foretold
    off[:, model.angles] = (off[:, model.angles] + np.pi) % (2.0 * np.pi) - np.pi
    return np.concatenate((mean[None], centre + np.nan_to_num(off) @ np.linalg.pinv(H).T))


@njit(cache=True, nogil=True)
def seen_at(observe: Any, parameters: Array, state: Array, seen: Array, H: Array) -> None:
    """Write what is seen of a state, with its Jacobian."""
    call_observe_linearised(observe, state, parameters, seen, H)


# --- The network ----------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _embed(weights: Array, first: int, m: int, width: int, inputs: Array, seen: Array) -> None:
    """Write the layer `seen` of all steps."""
    layer(weights, first, m, width, RELU, inputs, 0, seen, 0)


@njit(cache=True, nogil=True)
def think(
    weights: Array, places: Array, width: int, wide: int, told: int, count: int, features: Array,
    seen: Array, nodes: Array, after: Array, gathered: Array, scratch: Array, corrections: Array,
) -> None:  # fmt: skip
    """Write new nodes and corrections of all steps.

    told, count  numbers of a correction, and of features
    nodes        (time, padded(width))  before
    after        (time, padded(width))  written
    gathered     (TILE, padded(4 width + count))  scratch
    scratch      (TILE, padded(wide) + padded(width) + padded(told))
    corrections  (time, told)           written
    """
    steps = features.shape[0]
    inner = padded(wide)
    outer = inner + padded(width)
    for begin in range(0, steps, TILE):
        rows = min(TILE, steps - begin)
        for row in range(rows):
            i = begin + row
            for j in range(width):
                gathered[row, j] = nodes[i - 1, j] if i else 0.0
                gathered[row, width + j] = nodes[i, j]
                gathered[row, 2 * width + j] = nodes[i + 1, j] if i + 1 < steps else 0.0
                gathered[row, 3 * width + j] = seen[i, j]
            for j in range(count):
                gathered[row, 4 * width + j] = features[i, j]
        x, y = gathered[:rows], scratch[:rows]
        old, new = nodes[begin : begin + rows], after[begin : begin + rows]
        layer(weights, places[1], 4 * width + count, wide, RELU, x, 0, y, 0)
        gru_cell(weights, places[2], wide, width, y, 0, old, 0, new, 0)
        layer(weights, places[3], width, width, RELU, new, 0, y, inner)
        layer(weights, places[4], width, told, LINEAR, y, inner, y, outer)
        for row in range(rows):
            for j in range(told):
                corrections[begin + row, j] = y[row, outer + j]


# --- After it -------------------------------------------------------------------------------------


def begun(model: StateSpace, steps: int, mean: Array, covariance: Array) -> Passed:
    """Room for a pass over so many steps, with the state before them in front."""
    passed = Passed.empty(steps + 1, model.size)
    passed.means[0], passed.covariances[0] = mean, covariance
    return passed


def solved(
    model: StateSpace, observations: Array, intervals: Array, passed: Passed,
    around: Array | None = None, shift: Array | None = None, scale: Array | None = None, *,
    spread: bool = True,
) -> tuple[Array, Array, Passed] | int:  # fmt: skip
    """Smoothed states (time + 1, n), covariances (time + 1, n, n), and the forward pass.

    passed   of `begun`; written
    around, shift, scale   as of smoother.forward

    Returns the step at which it broke instead.
    """
    steps = len(observations)
    done = smoother.forward(
        model, observations, intervals, passed.means[0].copy(), passed.covariances[0].copy(),
        passed.part(1, steps + 1), around, shift, scale,
    )  # fmt: skip
    if done < steps:
        return done
    found = smoother.backward(passed, spread=spread)
    return 0 if found is None else (*found, passed)


@njit(cache=True, nogil=True)
def _climb(
    linearise: Any, parameters: Array, observe: Any, observe_parameters: Array, angles: Array,
    observations: Array, intervals: Array, W: Array, V: Array, rate: float, around: Array,
    after: Array,
) -> None:  # fmt: skip
    """As `climbed`: W (time, n, n) are inverses of Q, V (m, m) that of R; writes `after`."""
    steps, n, m = observations.shape[0], around.shape[1], observations.shape[1]
    moved, state, off = np.empty(n), np.empty(n), np.empty(n)
    F, H, e = np.empty((n, n)), np.empty((m, n)), np.empty(m)
    for j in range(n):
        after[0, j] = around[0, j]
    for i in range(steps):
        for j in range(n):
            state[j] = around[i, j]
        call_linearise(linearise, state, intervals[i], parameters, moved, F)
        for j in range(n):
            off[j] = around[i + 1, j] - moved[j]
        for j in range(n):
            state[j] = 0.0
            for k in range(n):
                state[j] += W[i, j, k] * off[k]
        for j in range(n):
            after[i + 1, j] = around[i + 1, j] - rate * state[j]
            if i:
                for k in range(n):
                    after[i, j] += rate * F[k, j] * state[k]
        for j in range(n):
            state[j] = around[i + 1, j]
        call_observe_linearised(observe, state, observe_parameters, e, H)
        for j in range(m):
            value = observations[i, j] - e[j]
            value = wrapped(value) if angles[j] else value
            e[j] = 0.0 if np.isnan(value) else value
        for j in range(n):
            for k in range(m):
                for q in range(m):
                    after[i + 1, j] += rate * H[k, j] * V[k, q] * e[q]


def climbed(
    model: StateSpace, observations: Array, intervals: Array, around: Array, rate: float
) -> Array:
    """States (time + 1, n) after a step of Algorithm 6 along the gradient of log p(x, s).

    around   (time + 1, n)  the states before; the one in front stays
    """
    Q = np.empty((len(intervals), model.size, model.size))
    _noises(model.noise, model.parameters, intervals, Q)
    after = np.empty_like(around)
    _climb(
        model.linearise, model.parameters, model.observe_linearised, model.observe_parameters,
        model.angles, observations, intervals, np.linalg.pinv(Q, hermitian=True),
        np.linalg.pinv(model.R, hermitian=True), rate, around, after,
    )  # fmt: skip
    return after


@njit(cache=True, nogil=True)
def _noises(noise: Any, parameters: Array, intervals: Array, Q: Array) -> None:
    for i in range(intervals.size):
        call_noise(noise, intervals[i], parameters, Q[i])


class Estimated(NamedTuple):
    """What became of a record.

    states       (time, n)
    covariances  (time, n, n)  NaN but of newton steps
    mean, covariance   of the filter after the step that was asked for
    """

    states: Array
    covariances: Array
    mean: Array
    covariance: Array


class NeuralSmoother:
    """A network with its model, and the scratch that it needs: one thread at a time.

    A changed network is another one of these, made beside it.
    """

    def __init__(self, network: GraphNetwork, model: StateSpace) -> None:
        if (network.n, network.m) != (model.size, model.rows):
            raise ValueError(
                f"a network for {network.n} states and {network.m} observations, but the model "
                f"has {model.size} and {model.rows}"
            )
        self.network, self.model = network, model
        width, count = network.width, feature_count(network.n, network.m)
        told = outputs(network.n, network.m, network.step)
        self._sizes = width, network.wide, told, count
        self._gathered = aligned(TILE, padded(4 * width + count))
        self._scratch = aligned(TILE, padded(network.wide) + padded(width) + padded(told))

    def run(
        self, observations: Array, intervals: Array, mean: Array, covariance: Array,
        keep: int | None = None,
    ) -> Estimated | int:  # fmt: skip
        """States of a record, or the step at which it broke.

        observations      (time, m) float64, NaN where nothing came
        intervals         (time,) float64  [s]
        mean, covariance  (n,), (n, n)  one interval before the first; left as they are
        keep              steps after which the filter is asked for; None: all
        """
        network, model = self.network, self.model
        steps, n, m = len(observations), network.n, network.m
        width, _, told, count = self._sizes
        around = first_guess(model, network, observations, intervals, mean, covariance)
        if isinstance(around, int):
            return around
        passed: Passed | None = None
        covariances: Array = np.full((steps + 1, n, n), np.nan)
        seen, inputs = aligned(steps, padded(width)), aligned(steps, padded(m))
        seen_of(model, network, observations, around, inputs)
        _embed(network.weights, int(network.places[0]), m, width, inputs, seen)
        nodes, after = aligned(steps, padded(width)), aligned(steps, padded(width))
        features = np.zeros((steps, count), np.float32)
        corrections = np.empty((steps, told), np.float32)
        for turn in range(network.iterations):
            sensed(model, network, observations, intervals, around, features)
            think(
                network.weights, network.places, *self._sizes, features, seen, nodes, after,
                self._gathered, self._scratch, corrections,
            )  # fmt: skip
            nodes, after = after, nodes
            told_now = corrections.astype(np.float64)
            if network.step == "newton":
                shift, bias, scale = corrected(network, turn, told_now)
                found = solved(
                    model, observations + bias, intervals, begun(model, steps, mean, covariance),
                    around, shift, scale, spread=turn + 1 == network.iterations,
                )  # fmt: skip
                if isinstance(found, int):
                    return found
                around, covariances, passed = found
                continue
            told_now *= network.constants["shift_unit"]
            if network.step == "gradient":
                around = climbed(model, observations, intervals, around, network.rate)
                told_now *= network.rate
            around[1:] += told_now
        lost = np.flatnonzero(~np.isfinite(around).all(1))
        if lost.size:
            return max(int(lost[0]) - 1, 0)
        last = steps if keep is None else keep
        filtered = around[last], covariance
        if passed is not None:
            filtered = passed.means[last], passed.covariances[last]
        return Estimated(
            around[1:], network.share * covariances[1:], filtered[0].copy(), filtered[1].copy()
        )


def corrected(network: GraphNetwork, turn: int, told: Array) -> tuple[Array, Array, Array]:
    """Shift (time, n), bias (time, m) and scale (time,) of newton steps, from what was told."""
    n, known = network.n, network.constants
    log_scale = TRUST * known["log_scale"][turn] + told[:, -1]
    return (
        told[:, :n] * known["shift_unit"],
        told[:, n:-1] * known["bias_unit"],
        np.exp(np.clip(log_scale, -FURTHEST, FURTHEST)),
    )
