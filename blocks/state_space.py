"""What sources and trackers share: parameters that say which system is simulated or assumed."""

from __future__ import annotations

from typing import Any

import numpy as np

from blocks.kernels import state_space
from blocks.kernels.state_space import StateSpace
from pipeline.block import Block, param
from pipeline.errors import FieldError, ParameterError
from pipeline.frame import Array

Rows = tuple[tuple[float, ...], ...]


class Modelled(Block):
    """Parameters of a state-space model; kernels/motions.py and observations.py describe them.

    Users add their own to MOTIONS and OBSERVATIONS there.
    """

    motion: str = param(
        default="constant_velocity",
        doc="constant_velocity, constant_acceleration, coordinated_turn, random_walk, canonical, "
        "sinusoidal, pendulum, lorenz_rk4, lorenz_taylor, or a user's own",
    )
    observation: str = param(
        default="position",
        doc="identity, position, velocity, canonical, angle, range_bearing, bearings, spherical, "
        "quadratic, or a user's own",
    )
    dimensions: int = param(
        default=2, at_least=1, at_most=64,
        doc="of space, or of the state where the motion is not one in space",
    )  # fmt: skip
    step_s: float = param(
        default=1.0, above=0.0, unit="s", doc="nominal interval between observations"
    )
    process_noise: float = param(
        default=1.0, at_least=0.0, tune=(1e-7, 1e2),
        doc="density of white acceleration [m^2/s^3] or jerk [m^2/s^5]; elsewhere variance per "
        "step",
    )  # fmt: skip
    observation_noise: float | tuple[float, ...] = param(
        default=1.0, above=0.0, doc="variance of every row of an observation, or of each"
    )
    motion_parameters: dict[str, float] = param(
        default={}, doc="the motion's own parameters that differ from their defaults"
    )
    observation_parameters: dict[str, float] = param(
        default={}, doc="the observation's own parameters that differ from their defaults"
    )
    transition: Rows = param(
        default=(), doc="matrix F in place of a motion, the same for every interval"
    )
    process_covariance: Rows = param(
        default=(), doc="matrix Q per step_s, in place of the motion's own"
    )
    observation_matrix: Rows = param(default=(), doc="matrix H in place of an observation")
    observation_covariance: Rows = param(default=(), doc="matrix R in place of observation_noise")
    initial_state: tuple[float, ...] = param(
        default=(),
        doc="mean one step before the first observation; one number stands for all; none: the "
        "motion's own",
    )
    initial_variance: float | tuple[float, ...] = param(
        default=0.0, at_least=0.0,
        doc="variance of every number of that state, or of each; 0: known exactly",
    )  # fmt: skip

    def check(self) -> None:
        self._build()

    def _build(self) -> StateSpace:
        """The model; ParameterError says which of the parameters do not fit."""
        try:
            return state_space.build(
                self.motion, self.observation,
                dimensions=self.dimensions, step_s=self.step_s, process_noise=self.process_noise,
                observation_noise=self.observation_noise,
                motion_parameters=self.motion_parameters,
                observation_parameters=self.observation_parameters,
                transition=self.transition, process_covariance=self.process_covariance,
                observation_matrix=self.observation_matrix,
                observation_covariance=self.observation_covariance,
                initial_state=self.initial_state, initial_variance=self.initial_variance,
            )  # fmt: skip
        except ValueError as error:
            raise ParameterError(str(error)) from None


def checked_observations(where: str, observations: Array, rows: int) -> Array:
    """A float64 copy of observations, NaN where they are missing; FieldError if they are wrong.

    rows   length of one observation
    """
    if observations.ndim not in (2, 3) or observations.shape[-1] != rows:
        raise FieldError(
            f"{where}: 'observations' has shape {observations.shape}; the model sees {rows} rows, "
            f"so expected (time, {rows}) or (word, time, {rows})"
        )
    copy = np.array(observations, np.float64, order="C")
    if np.isinf(copy).any():
        raise FieldError(
            f"{where}: 'observations' holds infinity; expected finite numbers, or NaN where "
            "nothing came"
        )
    return copy


def checked_intervals(where: str, intervals: Array | None, shape: Any, step_s: float) -> Array:
    """A float64 copy of intervals, `step_s` where there are none; FieldError if they are wrong."""
    if intervals is None:
        return np.full(shape, step_s)
    if intervals.shape != tuple(shape):
        raise FieldError(
            f"{where}: 'interval_s' has shape {intervals.shape}, but there are {tuple(shape)} "
            "observations"
        )
    wrong = intervals[~(np.isfinite(intervals) & (intervals >= 0.0))]
    if wrong.size:
        raise FieldError(
            f"{where}: 'interval_s' holds {wrong[0]} s; expected finite times that are not "
            "negative, in the order of the observations"
        )
    return np.array(intervals, np.float64, order="C")
