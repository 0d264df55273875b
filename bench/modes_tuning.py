"""Mode S: what the parameters of detector.modes are worth, on simulated traffic.

    python -m bench.modes_tuning                     # 10 minutes on one core
    python -m bench.modes_tuning --seconds 10        # shorter

Three tables for each rate, around the values that are set: the phases at which the response is
fitted (`tries`) with how firmly it is pulled to a typical one (`pull`); the `rounds` of fitting;
and the gate, `threshold` with `likeness`. Every setting gets the same air, bench.modes_curve's.

lost     share of messages between 8 and 20 dB that are not found [%], and its difference to the
         values that are set, with its standard error
false    messages that nobody sent, of those found
candidates/s, ms/s
         candidates, and time of detector and decoder (of the thread), per second of air: of that
         traffic, and of noise alone
recorded strict messages in the shared recording of that rate, for comparison

A setting is marked + if it loses less by more than three standard errors, has at most 1000
candidates/s on noise, and no more than a tenth more candidates/s than the one that is set: those
are reasons to set it. bench/MODES.md holds a run, and says what was done about it.
"""

from __future__ import annotations

import argparse
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from bench.modes_curve import Air, received, simulated
from blocks.kernels.mode_s_detection import RATES
from tests import mode_s_air

LOW_DB, HIGH_DB = 8.0, 20.0
TRIES = {
    2.0e6: ((-1,), (0,), (-1, 1), (-2, 0), (-2, -1, 0)),
    2.4e6: ((0, 2, 4), (-1, 1, 3), (-1, 0, 1), (0, 1, 2), (-1, 0, 1, 2, 3)),
}
PULLS = {2.0e6: (0.0,), 2.4e6: (3.0, 10.0, 30.0, 100.0)}
ROUNDS = (1, 2, 3, 4)
THRESHOLDS, LIKENESSES = (0.45, 0.5, 0.55, 0.6), (0.4, 0.45, 0.5)
MOST = 1000.0  # candidates/s on noise
HEAD = "   lost    against set   false  candidates/s  ms/s  noise: cand/s  ms/s  recorded"
RECORDINGS = {2.0e6: "modes1.bin", 2.4e6: "test_1641427457780.iq"}


class Setting(NamedTuple):
    """All that is chosen."""

    tries: tuple[int, ...]
    pull: float
    rounds: int = 2
    threshold: float = 0.5
    likeness: float = 0.45

    def use(self, rate_hz: float) -> dict[str, Any]:
        """Set what is a constant; returns the parameters of the block."""
        RATES[rate_hz] = RATES[rate_hz]._replace(tries=self.tries, pull=self.pull)
        return {name: getattr(self, name) for name in ("rounds", "threshold", "likeness")}


class Outcome(NamedTuple):
    """Of one setting: messages lost, one by one; and the rest per second of air."""

    lost: np.ndarray
    false: int
    candidates: float
    time_ms: float
    noise_candidates: float
    noise_ms: float
    recorded: str


def outcome(airs: list[Air], noise: Air, setting: Setting) -> Outcome:
    rate_hz = noise.rate_hz
    values = setting.use(rate_hz)
    parts = [received(air, **values) for air in airs]
    lost = [~one.right[(one.snr_db >= LOW_DB) & (one.snr_db < HIGH_DB)] for one in parts]
    seconds = sum(one.air_s for one in parts)
    alone = received(noise, **values)
    recorded = mode_s_air.recording(RECORDINGS[rate_hz])
    strict = "-"
    if recorded is not None:
        found = mode_s_air.detect(*recorded, **values)
        strict = str(len(mode_s_air.strict(found, rate_hz)))
    return Outcome(
        np.concatenate(lost).astype(float),
        sum(one.false for one in parts),
        sum(one.candidates for one in parts) / seconds,
        1e3 * sum(one.thread_s for one in parts) / seconds,
        alone.candidates / alone.air_s,
        1e3 * alone.thread_s / alone.air_s,
        strict,
    )


def table(airs: list[Air], noise: Air, settings: list[Setting], own: Setting) -> None:
    """Print a table of settings, of which `own` is the one that is set."""
    shown = [name for name in Setting._fields if len({getattr(s, name) for s in settings}) > 1]
    found = {setting: outcome(airs, noise, setting) for setting in settings}
    base = found[own]
    print("\n" + "".join(f"{name:>17s}" for name in shown) + HEAD)
    for setting, one in found.items():
        difference = one.lost - base.lost
        error = float(difference.std() / np.sqrt(difference.size))
        better = (
            difference.mean() < -3.0 * error
            and one.noise_candidates <= MOST
            and one.candidates <= 1.1 * base.candidates
        )
        print(
            "".join(f"{getattr(setting, name)!s:>17s}" for name in shown)
            + f"{100 * one.lost.mean():7.2f}{100 * difference.mean():+7.2f} +-{100 * error:.2f}"
            f"{one.false:7d}{one.candidates:14.0f}{one.time_ms:6.0f}"
            f"{one.noise_candidates:14.0f}{one.noise_ms:6.0f}{one.recorded:>10s}"
            + ("  set" if setting == own else "  +" if better else "")
        )


def tune(rate_hz: float, seconds: float) -> None:
    """Print the tables of a rate."""
    rate = RATES[rate_hz]
    own = Setting(rate.tries, rate.pull)
    airs = [simulated(rate_hz, 10.0, 100 + n) for n in range(max(1, round(seconds / 10.0)))]
    noise = simulated(rate_hz, 3.0, 99, aircraft=0)
    count = sum(int((air.counts).sum()) for air in airs)
    print(f"\n{rate_hz / 1e6} Msps, {count} messages between 4 and 26 dB", flush=True)
    received(noise, **own.use(rate_hz))  # compiles
    for settings in (
        [own._replace(tries=t, pull=p) for t, p in product(TRIES[rate_hz], PULLS[rate_hz])],
        [own._replace(rounds=rounds) for rounds in ROUNDS],
        [own._replace(threshold=t, likeness=k) for t, k in product(THRESHOLDS, LIKENESSES)],
    ):
        table(airs, noise, settings, own)
    RATES[rate_hz] = rate


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of air, at each rate")
    given = parser.parse_args()
    for rate_hz in RATES:
        tune(rate_hz, given.seconds)


if __name__ == "__main__":
    main()
