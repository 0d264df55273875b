"""The trackers of the study: a line each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from bench.figures.trackers.scenarios import Scenario
from pipeline import catalogue

Values = Mapping[str, Any]

SEEDS = (0, 1, 2)


class Method(NamedTuple):
    """A tracker: a block, what it is told besides what all are told, and what is looked for.

    values   parameters of the block
    grid     settings that are tried on the tuning trajectories, in units of r2 where they are
             noise; none: the noise is that of the truth
    tuning_share  of the tuning trajectories that settings are tried on
    learns   options of its training beside those of the scenario, or None: nothing is learned
    begins_as  tracker whose process noise it is told, as that was tuned; else that of the truth
    told     "told"; "truth": what is simulated; "frozen": as the papers' extended filter
    group    "filter", "learned filter", "black box", "smoother", "learned smoother"
    only     scenarios that it is for, or (): all
    short    only at the level of noise of the short table
    """

    title: str
    block: str
    colour: str
    group: str = "filter"
    values: Values = {}  # noqa: RUF012
    grid: tuple[Values, ...] = ()
    tuning_share: float = 1.0
    learns: Values | None = None
    begins_as: str = ""
    told: str = "told"
    only: tuple[str, ...] = ()
    short: bool = False
    line: str = "-"
    marker: str = "o"

    def serves(self, name: str, scenario: Scenario, noise_db: float) -> bool:
        """Whether the study runs it there."""
        if self.short and noise_db != scenario.short:
            return False
        if self.block not in catalogue.names():
            return False
        if self.told == "truth" and not scenario.truth:
            return False
        if self.told == "truth" and scenario.substeps > 1:
            return False
        if self.told == "frozen" and name in ("linear", "decimated_rk4"):
            return False
        return not self.only or name in self.only

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of what it learns from."""
        return (0,) if self.learns is None else SEEDS


def noises(low: float, high: float, per_decade: int = 3) -> tuple[float, ...]:
    """From 10^low to 10^high."""
    count = round(per_decade * (high - low))
    return tuple(float(f"{10.0 ** (low + k / per_decade):.3g}") for k in range(count + 1))


def process(values: Iterable[float], **more: float) -> tuple[Values, ...]:
    """Settings of the process noise."""
    return tuple({"process_noise": value, **more} for value in values)


_EVERY = process(noises(-6.0, 4.0))
_FEW = process(noises(-6.0, 4.0, 1))
_CLOUDS = tuple(
    {"process_noise": q, "observation_noise": r, "shrink": a}
    for a in (1.0, 0.98) for q in noises(-6.0, 2.0, 1) for r in (1.0, 10.0)
)  # fmt: skip
_LINEAR = ("linear",)
_NOISE = {"steps": 400, "long_steps": 60, "rate": 1e-2, "decay": 0.0, "every": 20}

METHODS = {
    "kalman": Method("Kalman filter", "tracker.kalman", "black", only=_LINEAR, marker=""),
    "ekf_true": Method(
        "EKF, told the truth, tuned", "tracker.extended_kalman", "black", grid=_EVERY,
        told="truth", line=":", marker="",
    ),
    "ekf_paper": Method(
        "EKF of the papers", "tracker.extended_kalman", "tab:gray", told="frozen", line="--",
        marker="x",
    ),
    "ekf": Method("EKF, tuned", "tracker.extended_kalman", "tab:blue", grid=_EVERY, marker="s"),
    "ukf": Method("UKF, tuned", "tracker.unscented_kalman", "tab:cyan", grid=_EVERY, marker="D"),
    "particle": Method(
        "particle filter, 500, tuned", "tracker.particle", "tab:green", grid=_CLOUDS,
        tuning_share=0.25, values={"particles": 500}, marker="^",
    ),
    "moving_horizon": Method(
        "moving horizon of 10, tuned", "tracker.moving_horizon", "tab:olive", grid=_FEW,
        marker="v",
    ),
    "rnn": Method(
        "vanilla RNN", "tracker.recurrent", "tab:brown", "black box",
        short=True, learns={"sees": "observations"}, line="-.", marker="d",
    ),
    "mb_rnn": Method(
        "model-based RNN", "tracker.recurrent", "tab:pink", "black box",
        short=True, learns={"sees": "predictions"}, line="-.", marker="p",
    ),
    "mb_rnn_difference": Method(
        "model-based RNN, differences", "tracker.recurrent", "tab:purple", "black box",
        short=True, learns={"sees": "differences"}, line="-.", marker="h",
    ),
    "kalmannet": Method(
        "KalmanNet, architecture #2", "tracker.kalmannet", "tab:red", "learned filter", learns={},
        values={"covariance": "none"},
    ),
    "kalmannet_1": Method(
        "KalmanNet, architecture #1", "tracker.kalmannet", "salmon", "learned filter",
        short=True, learns={"architecture": 1}, values={"covariance": "none"}, marker="8",
    ),
    "kalmannet_scaled": Method(
        "KalmanNet, #2 that sees lengths", "tracker.kalmannet", "maroon", "learned filter",
        short=True, learns={"scaled": True, "steps": 2000}, values={"covariance": "none"},
        only=("sinusoidal_partial", "decimated"), marker="H",
    ),
    "split_kalmannet": Method(
        "Split-KalmanNet", "tracker.split_kalmannet", "tab:orange", "learned filter", short=True,
        learns={}, marker="<",
    ),
    "recursive_kalmannet": Method(
        "recursive KalmanNet", "tracker.recursive_kalmannet", "gold", "learned filter", short=True,
        learns={}, begins_as="ekf", marker=">",
    ),
    "learned_noise": Method(
        "EKF, learned noise", "tracker.learned_noise", "navy", "learned filter", begins_as="ekf",
        short=True, learns=_NOISE, marker="*",
    ),
    "learned_noise_corrected": Method(
        "EKF, learned noise, drift and tilt", "tracker.learned_noise", "teal", "learned filter",
        begins_as="ekf", short=True, learns={**_NOISE, "drift": 24, "tilt": True}, marker="P",
    ),
    "smoother": Method(
        "RTS smoother, tuned", "tracker.smoother", "tab:blue", "smoother", grid=_EVERY, line="--",
        marker="s",
    ),
    "smoother_iterated": Method(
        "RTS smoother, 5 passes, tuned", "tracker.smoother", "tab:cyan", "smoother", grid=_FEW,
        values={"iterations": 5}, line="--", marker="D",
    ),
    "rtsnet": Method(
        "RTSNet", "tracker.rtsnet", "tab:red", "learned smoother", short=True, learns={},
        begins_as="smoother", line="--",
    ),
    "neural_augmented": Method(
        "neural-augmented smoother", "tracker.neural_augmented_smoother", "tab:purple",
        "learned smoother", short=True, begins_as="smoother", line="--", marker="X",
        learns={"rate": 1e-2, "decay": 0.0, "batch": 8, "long_steps": 0},
    ),
}  # fmt: skip
