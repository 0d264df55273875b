"""What is simulated, what the trackers are told of it, and how much of it they see.

Figures of Revach et al., "KalmanNet", IEEE Trans. Signal Processing 2022, tables I to IX (T.I ...),
whose experiments these are. Noise is given as 1 / r2 in dB, r2 the variance of each number that is
observed; q2, the variance of the process noise per step, is r2 times `ratio_db`. Matrices are
r2 I and q2 I.

A(x) of the Lorenz attractor is [[-10, 10, 0], [28 - z, -1, 0], [y, 0, -8/3]]; rotations are
Rz Ry Rx. Trackers start at the true state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from blocks.kernels import state_space
from blocks.kernels.state_space import StateSpace

Array = np.ndarray[Any, Any]
Values = Mapping[str, Any]


class Tracks(NamedTuple):
    """What is tracked.

    states        (track, time, n)
    observations  (track, time, m)
    starts        (track, n)  the state one interval before the first observation
    """

    states: Array
    observations: Array
    starts: Array


class Size(NamedTuple):
    """So many trajectories of so many steps."""

    count: int
    steps: int


class Scenario(NamedTuple):
    """One table of the paper.

    table     its number in the paper
    noises    1 / r2 [dB]
    short     that of them which stands in the short table, where all trackers run
    ratio_db  q2 / r2, or None: no process noise
    told      what trackers are told, parameters of their blocks but for noise
    truth     where what is simulated differs from that
    frozen    the papers' extended filter: where its parameters differ from `told`, or None:
              where they do not, but for its noise, which is then that of the truth
    training, held_out, tuning, test   sizes of the sets; settings of filters are looked for on
              `tuning`
    schedule  how what learns is trained, blocks/training/trajectories.py: Schedule; its decay
              counts in units of r2, as the errors do that it is weighed against
    substeps  of the motion of the truth within a step
    start_variance  of the starts of different trajectories
    spread    variance of what trackers that learn start with around the true state
    shipped   tracker -> model that comes with Kalvit, which stands for its seed 0
    """

    title: str
    table: str
    noises: tuple[float, ...]
    short: float
    ratio_db: float | None
    told: Values
    test: Size
    training: Size
    schedule: Values
    held_out: Size
    tuning: Size
    truth: Values = {}  # noqa: RUF012
    frozen: Values | None = None
    substeps: int = 1
    start_variance: float = 0.0
    spread: float = 0.0
    shipped: Mapping[str, str] = {}

    def noise(self, noise_db: float) -> tuple[float, float]:
        """q2 and r2."""
        r2 = 10.0 ** (-noise_db / 10.0)
        return 0.0 if self.ratio_db is None else r2 * 10.0 ** (self.ratio_db / 10.0), r2

    def true_values(self) -> dict[str, Any]:
        """Parameters of what is simulated, but for noise."""
        return {**self.told, **self.truth}

    def simulated(self, noise_db: float, size: Size, purpose: str, seed: int = 0) -> Tracks:
        """Trajectories for a purpose: sets of different purposes or seeds have nothing in common.

        The same size, purpose and seed give the same numbers before they are scaled by the noise.
        """
        count, steps = size
        q2, r2 = self.noise(noise_db)
        rng = np.random.default_rng([seed, *purpose.encode()])
        model: StateSpace = state_space.build(
            **self.true_values(), process_noise=q2, observation_noise=r2
        )
        n, m = model.size, model.rows
        starts = np.tile(model.initial, (count, 1))
        starts += np.sqrt(self.start_variance) * rng.standard_normal((count, n))
        states, seen = (rng.standard_normal((count * steps, k)) for k in (n, m))
        intervals = np.full(count * steps, model.step_s)
        model.simulate(states, seen, intervals, starts.copy(), substeps=self.substeps)
        return Tracks(states.reshape(count, steps, n), seen.reshape(count, steps, m), starts)


_SINUSOID = {"motion": "sinusoidal", "dimensions": 2, "observation": "quadratic",
             "initial_state": (1.0,)}  # fmt: skip
_LORENZ = {"motion": "lorenz_taylor", "observation": "identity", "step_s": 0.02,
           "motion_parameters": {"true_jacobian": 1.0}}  # fmt: skip
_FROZEN = {"motion_parameters": {"true_jacobian": 0.0}}
_LONG = {"training": Size(60, 500), "held_out": Size(16, 400), "tuning": Size(8, 1000)}
#: Some 10 s of processor time; what a cell took stands in its JSON.
_PIECES = {"steps": 300, "piece": 25, "batch": 32, "long_steps": 60, "truncate": 40, "rate": 2e-3,
           "decay": 1e-4}  # fmt: skip
_LONGER = {**_PIECES, "steps": 1200, "piece": 40, "long_steps": 400, "truncate": 60}

SCENARIOS = {
    "linear": Scenario(
        "linear, 2 states", "T.I", (-10.0, 0.0, 10.0, 20.0, 30.0), 20.0, 0.0,
        {"motion": "canonical", "dimensions": 2, "observation": "identity"},
        test=Size(200, 200), training=Size(1000, 21), held_out=Size(100, 30), tuning=Size(50, 200),
        schedule={**_PIECES, "piece": 20, "steps": 500, "long_steps": 0, "rate": 3e-3},
    ),
    "sinusoidal": Scenario(
        "sinusoidal, model known", "T.III", (-12.04, -6.02, 0.0, 20.0, 40.0), 20.0, -20.0,
        _SINUSOID, test=Size(50, 1000), training=Size(200, 200), held_out=Size(30, 200),
        tuning=Size(20, 500), schedule=_PIECES,
    ),
    "sinusoidal_partial": Scenario(
        "sinusoidal, other parameters", "T.IV", (-12.04, -6.02, 0.0, 20.0, 40.0), 20.0, -20.0,
        {**_SINUSOID, "motion_parameters": {"a": 1.0, "b": 1.0, "phi": 0.0, "delta": 0.0}},
        truth={"motion_parameters": {}},
        test=Size(50, 1000), training=Size(200, 200), held_out=Size(30, 200),
        tuning=Size(20, 500), schedule={**_PIECES, "steps": 1000, "long_steps": 200, "rate": 3e-3},
    ),
    "lorenz": Scenario(
        "Lorenz, model known", "T.V", (0.0, 10.0, 20.0, 30.0, 40.0), 20.0, -20.0, _LORENZ,
        frozen=_FROZEN, test=Size(20, 2000), **_LONG, schedule=_PIECES,
    ),
    "lorenz_spherical": Scenario(
        "Lorenz, seen in spherical coordinates", "T.VI", (-10.0, 0.0, 10.0, 20.0, 30.0), 10.0, 0.0,
        {**_LORENZ, "observation": "spherical"}, frozen=_FROZEN,
        test=Size(1000, 20), training=Size(1000, 21), held_out=Size(200, 20),
        tuning=Size(200, 20), schedule={**_PIECES, "piece": 20, "truncate": 20},
    ),
    "lorenz_motion": Scenario(
        "Lorenz, motion of 2 terms for 5", "T.VII", (10.0, 20.0, 30.0, 40.0), 20.0, -20.0,
        {**_LORENZ, "motion_parameters": {"true_jacobian": 1.0, "order": 2.0}},
        truth={"motion_parameters": {}},
        frozen={"motion_parameters": {"true_jacobian": 0.0, "order": 2.0}},
        test=Size(20, 2000), **_LONG, schedule=_PIECES,
    ),
    "lorenz_rotated": Scenario(
        "Lorenz, observation rotated by 1 degree", "T.VIII", (0.0, 10.0, 20.0, 30.0), 20.0, -20.0,
        _LORENZ, truth={"observation_parameters": {"rotation_deg": 1.0}}, frozen=_FROZEN,
        test=Size(20, 1000), **_LONG, schedule=_PIECES,
    ),
    "decimated": Scenario(
        "Lorenz in steps of 10 us, told the papers' step", "T.IX", (0.0,), 0.0, None, _LORENZ,
        shipped={"kalmannet": "lorenz_kalmannet"}, frozen=_FROZEN,
        substeps=2000, start_variance=10.0, spread=0.1, test=Size(20, 3000),
        training=Size(20, 2000), held_out=Size(8, 1000), tuning=Size(10, 1500),
        schedule=_LONGER,
    ),
    "decimated_rk4": Scenario(
        "Lorenz in steps of 10 us, told Runge-Kutta", "T.IX", (0.0,), 0.0, None,
        {**_LORENZ, "motion": "lorenz_rk4", "motion_parameters": {}}, truth=_LORENZ,
        substeps=2000, start_variance=10.0, spread=0.1, test=Size(20, 3000),
        training=Size(20, 2000), held_out=Size(8, 1000), tuning=Size(10, 1500),
        schedule=_LONGER,
    ),
}  # fmt: skip
