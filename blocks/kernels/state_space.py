"""State-space models: a motion and an observation with all their numbers, ready for the kernels.

The motions are in kernels/motions.py, the observations in kernels/observations.py; there a user
adds others. `build` puts a model together from their names, and says what does not fit.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from blocks.kernels import matrices
from blocks.kernels.caching import njit
from blocks.kernels.indirect import (
    address_of,
    call_advance,
    call_linearise,
    call_noise,
    call_observe,
    call_observe_linearised,
)
from blocks.kernels.motions import (
    MOTIONS,
    given_noise,
    matrix_advance,
    matrix_linearise,
    step_noise,
)
from blocks.kernels.observations import (
    OBSERVATIONS,
    matrix_observe,
    matrix_observe_linearised,
)

Array = np.ndarray[Any, Any]
Sequence = tuple[float, ...]
Rows = tuple[tuple[float, ...], ...]

TWO_PI = 2.0 * math.pi


@njit(cache=True, nogil=True)
def wrapped(angle: float) -> float:
    """The same angle in -pi ... pi."""
    return float(angle - TWO_PI * np.round(angle / TWO_PI))


@dataclass(frozen=True)
class StateSpace:
    """A motion and an observation with all their numbers.

    size, rows          n, m: lengths of a state and of an observation
    advance ... observe_linearised   addresses of the compiled functions, for kernels/indirect.py
    parameters, observe_parameters   what they get
    R                   (m, m)  covariance of the observation noise
    angles              (m,)    which rows are angles
    initial             (n,)    mean of the state one interval before the first observation
    initial_covariance  (n, n)
    linear_seen         whether what is seen is H x with the same H for every state
    linear              whether the state moves by F x, too
    step_s              nominal interval between observations [s]
    """

    size: int
    rows: int
    advance: Any
    linearise: Any
    noise: Any
    parameters: Array
    observe: Any
    observe_linearised: Any
    observe_parameters: Array
    R: Array
    angles: Array
    initial: Array
    initial_covariance: Array
    linear_seen: bool
    linear: bool
    step_s: float

    def matrices(self, intervals: Array) -> tuple[Array, Array, Array]:
        """F (time, n, n), Q (time, n, n) and H (m, n) of a linear model for these intervals."""
        n, state, out = self.size, np.zeros(self.size), np.empty(self.size)
        F, Q = np.empty((len(intervals), n, n)), np.empty((len(intervals), n, n))
        _discretise(self.linearise, self.noise, self.parameters, intervals, state, out, F, Q)
        return F, Q, self.seen_matrix()

    def seen_matrix(self) -> Array:
        """H (m, n) of a linear observation."""
        H, state = np.empty((self.rows, self.size)), np.zeros(self.size)
        _observe_at(self.observe_linearised, self.observe_parameters, state, np.empty(self.rows), H)
        return H

    def residuals(self, observations: Array, states: Array) -> Array:
        """Observations (time, m) less what is seen of states (time, n), angles wrapped."""
        found: Array = np.array(observations, np.float64)
        _see(
            self.observe, self.observe_parameters, self.angles,
            np.ascontiguousarray(states, np.float64), np.empty(self.rows), found,
        )  # fmt: skip
        return found

    def simulate(
        self, states: Array, observations: Array, intervals: Array, starts: Array, substeps: int = 1
    ) -> None:
        """Let states run and see them.

        states        (tracks * time, n)  given: standard normal numbers of the process noise;
                                          written
        observations  (tracks * time, m)  given: those of the observation noise; written, angles
                                          wrapped
        intervals     (tracks * time,)    [s]
        starts        (tracks, n)         where each track starts; replaced by where it ends
        substeps      steps of the motion within an interval; the noise comes after the last
        """
        n, m = self.size, self.rows
        R_root = np.empty((m, m))
        if not matrices.root(self.R, m, R_root):
            raise ValueError("the covariance of the observation noise is not positive")
        good = _simulate(
            self.advance, self.noise, self.parameters, self.observe, self.observe_parameters,
            R_root, self.angles, intervals, substeps, starts, np.empty(n), np.empty(m),
            np.empty((2, n, n)), states, observations,
        )  # fmt: skip
        if not good:
            raise ValueError("the covariance of the process noise is not positive")


def build(
    motion: str = "constant_velocity",
    observation: str = "position",
    *,
    dimensions: int = 2,
    step_s: float = 1.0,
    process_noise: float = 1.0,
    observation_noise: float | Sequence = 1.0,
    motion_parameters: Mapping[str, float] | None = None,
    observation_parameters: Mapping[str, float] | None = None,
    transition: Rows = (),
    process_covariance: Rows = (),
    observation_matrix: Rows = (),
    observation_covariance: Rows = (),
    initial_state: Sequence = (),
    initial_variance: float | Sequence = 0.0,
) -> StateSpace:
    """A model from names and numbers; ValueError says which of them do not fit.

    motion, observation      keys of MOTIONS, OBSERVATIONS
    dimensions               of space, or of the state where the motion is not one in space
    process_noise            as the motion says
    observation_noise        variance of every row, or of each
    motion_parameters, observation_parameters   own parameters that differ from their defaults
    transition               F in place of a motion, the same for every interval
    process_covariance       Q per step_s in place of the motion's own
    observation_matrix       H in place of an observation
    observation_covariance   R in place of observation_noise
    initial_state            mean one interval before the first observation
    initial_variance         variance of every number of that state, or of each
    """
    _finite("process_noise", process_noise, 0.0)
    if not 0.0 < step_s < np.inf:
        raise ValueError(f"step_s = {step_s:g} s, but must be finite and above 0")
    moving = _known(MOTIONS, "motion", motion)
    seeing = _known(OBSERVATIONS, "observation", observation)
    own = _own("motion_parameters", moving.parameters, motion_parameters or {}, motion)
    linear_motion = moving.linear
    functions = (moving.advance, moving.linearise, moving.noise)
    if transition:
        F = _square("transition", transition)
        n, tail, linear_motion = len(F), tuple(F.ravel()), True
        functions = (matrix_advance, matrix_linearise, step_noise)
    else:
        low, high = moving.dimensions
        if not low <= dimensions <= high:
            raise ValueError(
                f"dimensions = {dimensions}, but {motion} has {low} to {high} dimensions"
            )
        n = moving.size(dimensions)
        tail = moving.prepare(dimensions, own) if moving.prepare else tuple(own.values())
    parameters: tuple[float, ...] = (process_noise, step_s, *tail)
    if process_covariance:
        Q = _covariance("process_covariance", process_covariance, n)
        parameters = (*parameters, *Q.ravel())
        functions = (*functions[:2], given_noise)
    own = _own(
        "observation_parameters", seeing.parameters, observation_parameters or {}, observation
    )
    linear_observation, angles = seeing.linear, seeing.angles
    observe = (seeing.observe, seeing.linearise)
    if observation_matrix:
        H = np.array(_rectangle("observation_matrix", observation_matrix))
        if H.shape[1] != n:
            raise ValueError(
                f"observation_matrix has {H.shape[1]} columns, but the state has {n} numbers"
            )
        m, seen, linear_observation, angles = len(H), tuple(H.ravel()), True, ()
        observe = (matrix_observe, matrix_observe_linearised)
    else:
        if n < seeing.needs:
            raise ValueError(
                f"observation = '{observation}' needs a state of at least {seeing.needs} numbers, "
                f"but this one has {n}"
            )
        m = seeing.rows(n, dimensions)
        if observation == "velocity" and n < 2 * dimensions:
            raise ValueError(f"observation = 'velocity', but {motion} has no velocities")
        seen = seeing.prepare(n, dimensions, own) if seeing.prepare else tuple(own.values())
    if observation_covariance:
        R = _covariance("observation_covariance", observation_covariance, m)
    else:
        R = np.diag(_each("observation_noise", observation_noise, m, "rows of an observation", 0.0))
    wrap = np.zeros(m, np.bool_)
    wrap[list(angles)] = True
    start = initial_state or moving.initial if not transition else initial_state or (0.0,)
    return StateSpace(
        size=n, rows=m,
        advance=address_of(functions[0], "advance"),
        linearise=address_of(functions[1], "linearise"),
        noise=address_of(functions[2], "noise"),
        parameters=np.array(parameters, np.float64),
        observe=address_of(observe[0], "observe"),
        observe_linearised=address_of(observe[1], "observe_linearised"),
        observe_parameters=np.array(seen, np.float64),
        R=R, angles=wrap,
        initial=_each("initial_state", start, n, "numbers in the state"),
        initial_covariance=np.diag(
            _each("initial_variance", initial_variance, n, "numbers in the state", 0.0)
        ),
        linear_seen=linear_observation, linear=linear_motion and linear_observation,
        step_s=step_s,
    )  # fmt: skip


def _known(models: Mapping[str, Any], what: str, name: str) -> Any:
    if name in models:
        return models[name]
    near = difflib.get_close_matches(name, list(models), n=1)
    hint = f"; did you mean '{near[0]}'?" if near else f"; expected one of {', '.join(models)}"
    raise ValueError(f"{what} = '{name}' is no model{hint}")


def _own(
    what: str, defaults: Mapping[str, float], given: Mapping[str, float], model: str
) -> dict[str, float]:
    for name in given:
        if name not in defaults:
            known = ", ".join(defaults) or "none"
            raise ValueError(f"{what} has '{name}', but those of {model} are: {known}")
        _finite(f"{what}['{name}']", given[name])
    return {**defaults, **given}


def _finite(what: str, values: Any, least: float = -np.inf) -> Array:
    """The numbers, none of which is infinite, NaN, or below `least`."""
    numbers: Array = np.atleast_1d(np.array(values, np.float64))
    wrong = numbers[~(np.isfinite(numbers) & (numbers >= least))]
    if wrong.size:
        bound = "" if least == -np.inf else f" of at least {least:g}"
        raise ValueError(f"{what} has {wrong[0]:g}, but must have finite numbers{bound}")
    return numbers


def _each(
    what: str, values: float | Sequence, count: int, of: str, least: float = -np.inf
) -> Array:
    numbers = _finite(what, values, least)
    if numbers.size == 1:
        numbers = np.repeat(numbers, count)
    if numbers.size != count:
        raise ValueError(f"{what} has {numbers.size} items, but there are {count} {of}")
    return numbers


def _rectangle(what: str, rows: Rows) -> Rows:
    if len({len(row) for row in rows}) != 1 or not rows[0]:
        raise ValueError(f"{what} has rows of {sorted({len(row) for row in rows})} items")
    _finite(what, rows)
    return rows


def _square(what: str, rows: Rows) -> Array:
    matrix: Array = np.array(_rectangle(what, rows), np.float64)
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{what} has shape {matrix.shape}, but must be square")
    return matrix


def _covariance(what: str, rows: Rows, size: int) -> Array:
    matrix = _square(what, rows)
    if len(matrix) != size:
        raise ValueError(f"{what} has {len(matrix)} rows, but {size} are needed")
    if not np.allclose(matrix, matrix.T, rtol=1e-12, atol=0.0):
        raise ValueError(f"{what} is not symmetric")
    if not matrices.root(matrix, size, np.empty_like(matrix)):
        raise ValueError(f"{what} has a negative eigenvalue, so it is no covariance")
    return matrix


@njit(cache=True, nogil=True)
def _discretise(
    linearise: Any, noise: Any, parameters: Array, intervals: Array, state: Array, out: Array,
    F: Array, Q: Array,
) -> None:  # fmt: skip
    for i in range(intervals.size):
        call_linearise(linearise, state, intervals[i], parameters, out, F[i])
        call_noise(noise, intervals[i], parameters, Q[i])


@njit(cache=True, nogil=True)
def _observe_at(observe: Any, parameters: Array, state: Array, out: Array, H: Array) -> None:
    call_observe_linearised(observe, state, parameters, out, H)


@njit(cache=True, nogil=True)
def _see(
    observe: Any, parameters: Array, angles: Array, states: Array, seen: Array, residuals: Array
) -> None:
    for i in range(states.shape[0]):
        call_observe(observe, states[i], parameters, seen)
        for j in range(seen.size):
            off = residuals[i, j] - seen[j]
            residuals[i, j] = wrapped(off) if angles[j] else off


@njit(cache=True, nogil=True)
def _simulate(
    advance: Any, noise: Any, parameters: Array, observe: Any, observe_parameters: Array,
    R_root: Array, angles: Array, intervals: Array, substeps: int, starts: Array, after: Array,
    seen: Array, work: Array, states: Array, observations: Array,
) -> bool:  # fmt: skip
    n, m = after.size, seen.size
    Q, Q_root = work[0], work[1]
    last = np.nan
    length = intervals.size // max(starts.shape[0], 1)
    for i in range(length * starts.shape[0]):
        state = starts[i // length]
        if intervals[i] != last:
            last = intervals[i]
            call_noise(noise, last, parameters, Q)
            if not matrices.root(Q, n, Q_root):
                return False
        for _ in range(substeps):
            call_advance(advance, state, last / substeps, parameters, after)
            for j in range(n):
                state[j] = after[j]
        for j in range(n):
            for k in range(j + 1):
                state[j] += Q_root[j, k] * states[i, k]
        for j in range(n):
            states[i, j] = state[j]
        call_observe(observe, state, observe_parameters, seen)
        for j in range(m):
            for k in range(j + 1):
                seen[j] += R_root[j, k] * observations[i, k]
        for j in range(m):
            observations[i, j] = wrapped(seen[j]) if angles[j] else seen[j]
    return True
