"""How far a tracker is off, and whether it knows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from blocks.kernels import consistency
from blocks.sink.over_time import OverTime, decibel
from blocks.sink.tracking_picture import draw
from pipeline.block import FieldType, Sink, param
from pipeline.errors import ConnectError, FieldError
from pipeline.frame import Array, FrameInfo, Scalar

DB_STEP = 0.01  # resolution of the median over trajectories
DB_MOST = 400.0
SHOWN = 400  # steps in the picture
MOST_CHANGES = 64  # changes of a model's version that are remembered

Truth = Float64[Array, "*word time state"]
Estimates = Float64[Array, "*word time estimate"]
Covariances = Float64[Array, "*word time estimate estimate"]
Innovations = Float64[Array, "*word time observation"]
Nis = Float64[Array, "*word time"]
LogLikelihood = Float64[Array, "*word time"]


class _Stream:
    """The sums of one stream, and the end of it for the picture."""

    def __init__(self) -> None:
        self.over_time: dict[str, OverTime] = {}  # by field of estimates
        self.seen = 0  # steps, `skip` included
        self.sums = np.zeros(consistency.SUMS)
        self.sums[consistency.NEES_LAST] = np.nan
        self.part = np.zeros(1)
        self.likely = np.zeros(2)  # sum of the log-likelihoods [nat], and of how many observations
        self.trail: list[Array] = []  # states, estimates, covariances of the last steps


class TrackingError(Sink, name="sink.tracking_error"):
    """Error of `estimates` against `states`, and how well the covariances foretell it.

    mse_db is 10 log10 of the squared error per number of the state, averaged over all steps and
    trajectories (Revach et al., "KalmanNet", IEEE TSP 2022); median_mse_db and worst_mse_db are
    over trajectories: the words, or pieces of a stream of `trajectory` steps, or the streams. rmse
    is the root of the mean squared distance of positions.

    nees, the mean of e' P^-1 e over the steps, should be as large as the state; nis, the mean of
    the normalised innovation squared, as large as an observation. In nees_band and nis_band they
    lie in 95 of 100 runs of a tracker whose model is right. The NEES is correlated from step to
    step, for which its band makes room by the correlation of neighbours. log_likelihood is the mean
    per observation [nat]; of two trackers of the same observations, the one with the larger is the
    better model, which can be said without the truth. Steps at which a tracker gives NaN for any of
    these, or no covariance, are left out of them.

    Beside them may stand the estimates of a tracker that does not learn and of an extended filter:
    writes = { estimates = "unlearned" }. Of those there is mse_db, and all are in the picture of
    the error over time, with a line wherever the version of the block `marked` changed;
    version_changes has the first 64: [step, stream, block, version].

    An estimate of another length than the state, as a tracker with another model gives, is compared
    in `components` leading numbers.

    states, estimates     (..., time, n)     float64
    covariances           (..., time, n, n)  if something writes them
    innovations, nis      (..., time, m), (..., time)  likewise
    log_likelihood        (..., time)      likewise
    unlearned, extended   (..., time, n)   likewise
    """

    components: int = param(
        default=0, at_least=0, doc="leading numbers of the state to compare; 0: all"
    )
    positions: int = param(
        default=0, at_least=0, doc="leading numbers that are a position; 0: all that are compared"
    )
    trajectory: int = param(
        default=0, at_least=0, unit="steps",
        doc="steps of a stream that count as one trajectory; 0: the whole stream",
    )  # fmt: skip
    skip: int = param(
        default=0, at_least=0, unit="steps",
        doc="steps at the start of a stream, and of each word, to leave out",
    )  # fmt: skip
    angles: tuple[int, ...] = param(
        default=(), at_least=0, doc="numbers that are angles: their errors are around the circle"
    )
    plane: tuple[int, int] = param(
        default=(0, 1), at_least=0,
        doc="numbers of the state that span the picture; positions on a line are drawn over time",
    )  # fmt: skip
    marked: str = param(default="", doc="block whose versions are marked; none: all")

    def narrow(self, reads: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        if ("innovations" in reads) != ("nis" in reads):
            raise ConnectError("'innovations' and 'nis' are read together, but only one is there")
        return {}

    def start(self) -> None:
        self._streams: dict[str, _Stream] = {}
        self._counts: dict[int, int] = {}  # mean squared error in DB_STEP -> trajectories
        self._worst = -math.inf
        self._count = 0  # trajectories completed
        self._work = np.empty((2, 1, 1))
        self._versions: dict[str, dict[str, Scalar]] = {}  # stream -> mark -> the last value
        self._changes: list[list[Any]] = []

    def process(
        self,
        states: Truth,
        estimates: Estimates,
        covariances: Covariances | None = None,
        innovations: Innovations | None = None,
        nis: Nis | None = None,
        log_likelihood: LogLikelihood | None = None,
        unlearned: Estimates | None = None,
        extended: Estimates | None = None,
        info: FrameInfo = FrameInfo(),
    ) -> None:
        size = self._size(states, estimates)
        stream = self._streams.setdefault(info.stream, _Stream())
        self._add_over_time(
            stream, size, states, info,
            {"estimates": estimates, "unlearned": unlearned, "extended": extended},
        )  # fmt: skip
        first = self.skip if states.ndim == 3 else max(self.skip - stream.seen, 0)
        if log_likelihood is not None:
            self._add_likely(stream.likely, log_likelihood, innovations, first)
        if self._work.shape[1] != size:
            self._work = np.empty((2, size, size))
        truth = np.array(states[..., :size])
        found = np.array(estimates[..., :size])
        for angle in self.angles:
            off = found[..., angle] - truth[..., angle]
            found[..., angle] -= 2.0 * math.pi * np.round(off / (2.0 * math.pi))
        spread = np.empty((0, size, size))
        if covariances is not None:
            spread = np.array(covariances[..., :size, :size])
        if states.ndim == 3:
            for word in range(len(truth)):
                self._add_word(
                    stream, truth[word], found[word],
                    spread[word] if covariances is not None else spread,
                )  # fmt: skip
                if innovations is not None and nis is not None:
                    consistency.add_innovations(
                        np.array(innovations[word]), np.array(nis[word]), self.skip, stream.sums
                    )
            if len(truth):
                stream.trail = [truth[-1][-SHOWN:], found[-1][-SHOWN:]]
                if covariances is not None:
                    stream.trail.append(spread[-1][-SHOWN:])
            stream.seen += len(truth)
            return
        first = min(first, len(truth))
        pieces = np.empty(len(truth) // self.trajectory + 1 if self.trajectory else 0)
        done = consistency.add_errors(
            truth, found, spread, self.positions or size, first, self.trajectory, stream.sums,
            stream.part, pieces, self._work,
        )  # fmt: skip
        for mean in pieces[:done]:
            self._complete(float(mean))
        if innovations is not None and nis is not None:
            consistency.add_innovations(np.array(innovations), np.array(nis), first, stream.sums)
        stream.seen += len(truth)
        new = [truth, found] + ([spread] if covariances is not None else [])
        if stream.trail:
            new = [
                np.concatenate([old, added[-SHOWN:]])
                for old, added in zip(stream.trail, new, strict=True)
            ]
        stream.trail = [array[-SHOWN:] for array in new]

    def _size(self, states: Array, estimates: Array) -> int:
        """How many leading numbers are compared."""
        least = min(states.shape[-1], estimates.shape[-1])
        if self.components > least or self.positions > (self.components or least):
            raise FieldError(
                f"{self.name}: components = {self.components} and positions = {self.positions}, "
                f"but 'states' have {states.shape[-1]} numbers and 'estimates' "
                f"{estimates.shape[-1]}"
            )
        if max(self.angles, default=-1) >= (self.components or least):
            raise FieldError(
                f"{self.name}: angles = {self.angles}, but {self.components or least} numbers are "
                "compared, counted from 0"
            )
        if states.shape[-1] != estimates.shape[-1] and not self.components:
            raise FieldError(
                f"{self.name}: 'states' have {states.shape[-1]} numbers and 'estimates' "
                f"{estimates.shape[-1]}; set components to how many leading ones mean the same"
            )
        return self.components or least

    def _add_over_time(
        self, stream: _Stream, size: int, states: Array, info: FrameInfo,
        found: Mapping[str, Array | None],
    ) -> None:  # fmt: skip
        """Add the squared errors of each tracker, by step, and what changed before them.

        Words follow one another without what is skipped of each.
        """
        rows = states.shape[-2]
        first, step = max(self.skip - stream.seen, 0), stream.seen
        if states.ndim == 3:
            first, step = self.skip, stream.seen * max(rows - self.skip, 0)
        known = self._versions.setdefault(info.stream, {})
        for mark, version in info.marks.items():
            block = mark.removesuffix(".version")
            if block == mark or self.marked not in ("", block) or known.get(mark) == version:
                continue
            if mark in known:
                self._changes.append([step, info.stream, block, version])
                self._changes.sort(key=lambda change: change[:3])
                del self._changes[MOST_CHANGES:]
            known[mark] = version
        for name, estimates in found.items():
            if estimates is None:
                continue
            off = estimates[..., first:, :size] - states[..., first:, :size]
            squares = np.square(off).mean(axis=-1).ravel()
            over_time = stream.over_time.setdefault(name, OverTime())
            over_time.add(step + (first if states.ndim == 2 else 0), squares)

    @staticmethod
    def _add_likely(
        sums: Array, log_likelihood: Array, innovations: Array | None, first: int
    ) -> None:
        """Add the log-likelihoods from step `first` on.

        Steps are left out where nothing came, or where the tracker knows none.
        """
        kept = log_likelihood[..., first:].ravel()
        if innovations is not None:
            kept = kept[~np.isnan(innovations[..., first:, :]).all(axis=-1).ravel()]
        kept = kept[~np.isnan(kept)]
        # one by one, so that the sum does not depend on how the stream was cut
        sums[0] = np.cumsum(np.append(sums[0], kept))[-1]
        sums[1] += kept.size

    def _add_word(self, stream: _Stream, truth: Array, found: Array, spread: Array) -> None:
        size, steps = truth.shape[1], len(truth) - self.skip
        if steps <= 0:
            return
        sums = stream.sums
        sums[consistency.NEES_LAST] = np.nan
        before = sums[consistency.SQUARED]
        sums[consistency.SQUARED] = 0.0
        consistency.add_errors(
            truth, found, spread, self.positions or size, self.skip, 0, sums, stream.part,
            np.empty(0), self._work,
        )  # fmt: skip
        own = float(sums[consistency.SQUARED])
        sums[consistency.SQUARED] = before + own
        self._complete(own / (steps * size))

    def _complete(self, mean: float) -> None:
        """Count a trajectory of this mean squared error."""
        self._count += 1
        level = decibel(mean) if math.isfinite(mean) else DB_MOST
        place = math.floor(min(level, DB_MOST) / DB_STEP)
        self._counts[place] = self._counts.get(place, 0) + 1
        self._worst = max(self._worst, level)

    def report(self, folder: Path | None) -> Mapping[str, Any]:
        streams = [self._streams[name] for name in sorted(self._streams)]
        sums, likely = np.zeros(consistency.SUMS), np.zeros(2)
        for stream in streams:
            sums += stream.sums
            likely += stream.likely
        steps, size = sums[consistency.STEPS], self._work.shape[1]
        found: dict[str, Any] = {"steps": int(steps)}
        if not steps:
            return found
        found["mse_db"] = decibel(sums[consistency.SQUARED] / (steps * size))
        found["rmse"] = math.sqrt(sums[consistency.POSITION] / steps)
        if sums[consistency.NEES_STEPS]:
            found["nees"] = float(sums[consistency.NEES] / sums[consistency.NEES_STEPS])
            worth = consistency.independent_steps(sums)
            found["nees_band"] = list(consistency.band(size, worth))
        if sums[consistency.NIS_STEPS]:
            count = sums[consistency.NIS_STEPS]
            found["nis"] = float(sums[consistency.NIS] / count)
            found["nis_band"] = list(consistency.band(sums[consistency.NIS_DEGREES] / count, count))
        if likely[1]:
            found["log_likelihood"] = float(likely[0] / likely[1])
        for name in ("unlearned", "extended"):
            curves = [s.over_time[name] for s in streams if name in s.over_time]
            if curves:
                count = sum(float(curve.sums[1].sum()) for curve in curves)
                total = sum(curve.total for curve in curves)
                found[f"{name}_mse_db"] = decibel(total / max(count, 1.0))
        if self._changes:
            found["version_changes"] = [list(change) for change in self._changes]
        found |= self._over_trajectories(streams, size)
        if folder is not None and streams[0].trail:
            found["picture"] = f"{self.context.name}.png"
            name = min(self._streams)
            stream = self._streams[name]
            changes = [
                (step, f"{block} {v}") for step, key, block, v in self._changes if key == name
            ]
            path = folder / found["picture"]
            plane = None if self.positions == 1 else self.plane
            draw(path, stream.trail, stream.over_time, changes, plane)
        return found

    def _over_trajectories(self, streams: list[_Stream], size: int) -> dict[str, Any]:
        if self._count:
            half, below = (self._count + 1) // 2, 0
            for place in sorted(self._counts):
                below += self._counts[place]
                if below >= half:
                    break
            median, worst, count = (place + 0.5) * DB_STEP, self._worst, self._count
        else:  # whole streams
            levels = [
                decibel(s.sums[consistency.SQUARED] / (s.sums[consistency.STEPS] * size))
                for s in streams
                if s.sums[consistency.STEPS]
            ]
            median, worst, count = float(np.median(levels)), float(np.max(levels)), len(levels)
        return {"median_mse_db": median, "worst_mse_db": worst, "trajectories": count}

    def state(self) -> Mapping[str, Array | Scalar]:
        names = sorted(self._streams)
        notes = {
            "streams": names,
            "seen": [self._streams[name].seen for name in names],
            "counts": sorted(self._counts.items()),
            "worst": self._worst,
            "count": self._count,
            "size": self._work.shape[1],
            "versions": self._versions,
            "changes": self._changes,
            "over_time": [
                {
                    key: [curve.width, curve.used, curve.total]
                    for key, curve in self._streams[name].over_time.items()
                }
                for name in names
            ],
        }
        found: dict[str, Array | Scalar] = {"notes": json.dumps(notes)}
        for number, name in enumerate(names):
            stream = self._streams[name]
            found[f"sums_{number}"] = np.concatenate([stream.sums, stream.part, stream.likely])
            for place, array in enumerate(stream.trail):
                found[f"trail_{number}_{place}"] = array.copy()
            for key, curve in stream.over_time.items():
                found[f"over_time_{number}_{key}"] = curve.sums.copy()
        return found

    def restore(self, state: Mapping[str, Any]) -> None:
        notes = json.loads(state["notes"])
        self._streams = {}
        for number, name in enumerate(notes["streams"]):
            stream = self._streams[name] = _Stream()
            stream.seen = notes["seen"][number]
            stream.sums, stream.part, stream.likely = np.split(
                np.array(state[f"sums_{number}"]), [consistency.SUMS, consistency.SUMS + 1]
            )
            stream.trail = [
                np.array(state[f"trail_{number}_{place}"])
                for place in range(3)
                if f"trail_{number}_{place}" in state
            ]
            stream.over_time = {
                key: OverTime(width, used, total, np.array(state[f"over_time_{number}_{key}"]))
                for key, (width, used, total) in notes["over_time"][number].items()
            }
        self._versions, self._changes = notes["versions"], notes["changes"]
        self._counts = {int(place): int(count) for place, count in notes["counts"]}
        self._worst, self._count = float(notes["worst"]), notes["count"]
        self._work = np.empty((2, notes["size"], notes["size"]))
