"""How far off observations were foretold."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from pipeline.block import Sink, param
from pipeline.frame import Array, FrameInfo, Scalar

LEAST, PER_DECADE = 1e-9, 400  # distances that the median is made of, good to 0.3 %
SHOWN = 12  # words in the picture, the last ones
STEPS = 400  # of a stream in the picture

Innovations = Float64[Array, "*word time observation"]
Observations = Float64[Array, "*word time observation"]
Estimates = Float64[Array, "*word time estimate"]
LogLikelihood = Float64[Array, "*word time"]


class PredictionError(Sink, name="sink.prediction_error"):
    """How far observations were from what a tracker had foretold of them: no truth is needed.

    prediction_rmse is the root of the mean squared distance between each observation and what was
    predicted of it before it came, prediction_median and prediction_p95 are what half and 95 % of
    these distances do not exceed (to 0.3 %), and worst_rmse is the largest prediction_rmse of a
    word, or of a stream. log_likelihood is the mean per observation [nat]; of two trackers of the
    same observations the one with the larger foretells better, and how far off it may be.

    Steps at which any row did not come are left out, and `skip` at the start of a track, in which a
    tracker finds out how it moves.

    innovations     (..., time, n)  observations less what was predicted
    observations, estimates   (..., time, n), (..., time, m)  for the picture, if they are there
    log_likelihood  (..., time)     if something writes it
    """

    skip: int = param(
        default=0, at_least=0, unit="steps",
        doc="steps at the start of a stream, and of each word, to leave out",
    )  # fmt: skip
    plane: tuple[int, int] = param(
        default=(0, 1), at_least=0, doc="numbers of the observation that span the picture"
    )

    def start(self) -> None:
        self._streams: dict[str, Array] = {}  # steps seen, steps counted, sum of squares
        self._counts: dict[int, int] = {}  # logarithm of a distance -> how often it was
        self._worst = -math.inf  # mean square of a word
        self._words = 0
        self._likely = np.zeros(2)  # sum of the log-likelihoods [nat], and of how many
        self._trails: list[tuple[Array, ...]] = []  # observations, estimates, distances

    def process(
        self,
        innovations: Innovations,
        observations: Observations | None = None,
        estimates: Estimates | None = None,
        log_likelihood: LogLikelihood | None = None,
        info: FrameInfo = FrameInfo(),
    ) -> None:
        sums = self._streams.setdefault(info.stream, np.zeros(3))
        whole = innovations.ndim == 2
        squares = np.square(innovations).sum(axis=-1)
        first = max(self.skip - int(sums[0]), 0) if whole else self.skip
        sums[0] += len(innovations)
        for row, own in enumerate(squares[None] if whole else squares):
            came = np.zeros(len(own), np.bool_)
            came[first:] = ~np.isnan(own[first:])
            sums[1] += came.sum()
            # one by one, so that the sum does not depend on how the stream was cut
            sums[2] = np.cumsum(np.append(sums[2], own[came]))[-1]
            places, counts = np.unique(_place(own[came]), return_counts=True)
            for place, count in zip(places.tolist(), counts.tolist(), strict=True):
                self._counts[place] = self._counts.get(place, 0) + count
            if log_likelihood is not None:
                likely = (log_likelihood[None] if whole else log_likelihood)[row]
                likely = likely[came & ~np.isnan(likely)]
                self._likely[0] = np.cumsum(np.append(self._likely[0], likely))[-1]
                self._likely[1] += likely.size
            if not whole and came.any():
                self._words += 1
                self._worst = max(self._worst, float(own[came].mean()))
        if observations is not None and estimates is not None:
            self._keep((observations, estimates, np.sqrt(squares)), whole)

    def _keep(self, new: tuple[Array, ...], whole: bool) -> None:
        """Note what the picture shows: the last words, or the end of the stream."""
        if whole:
            old = self._trails[0] if self._trails else tuple(array[:0] for array in new)
            joined = (np.concatenate([a, b[-STEPS:]]) for a, b in zip(old, new, strict=True))
            self._trails = [tuple(array[-STEPS:] for array in joined)]
            return
        words = zip(*(array[-SHOWN:] for array in new), strict=True)
        kept = (tuple(array.copy() for array in word) for word in words)
        self._trails = [*self._trails, *kept][-SHOWN:]

    def report(self, folder: Path | None) -> Mapping[str, Any]:
        steps = sum(sums[1] for sums in self._streams.values())
        found: dict[str, Any] = {"steps": int(steps)}
        if not steps:
            return found
        total = sum(self._streams[name][2] for name in sorted(self._streams))
        found["prediction_rmse"] = math.sqrt(total / steps)
        found["prediction_median"] = self._quantile(0.5 * steps)
        found["prediction_p95"] = self._quantile(0.95 * steps)
        worst = max(
            [s[2] / s[1] for s in self._streams.values() if s[1]] if not self._words else [],
            default=self._worst,
        )
        found["worst_rmse"] = math.sqrt(worst)
        found["trajectories"] = self._words or len(self._streams)
        if self._likely[1]:
            found["log_likelihood"] = float(self._likely[0] / self._likely[1])
        if folder is not None and self._trails and self._trails[0][0].shape[1] > max(self.plane):
            found["picture"] = f"{self.context.name}.png"
            self._draw(folder / found["picture"])
        return found

    def _quantile(self, count: float) -> float:
        """The distance that so many do not exceed."""
        below, place = 0, 0
        for place in sorted(self._counts):
            below += self._counts[place]
            if below >= count:
                break
        return LEAST * math.pow(10.0, (place + 0.5) / PER_DECADE)

    def state(self) -> Mapping[str, Array | Scalar]:
        names = sorted(self._streams)
        notes = {
            "streams": names, "counts": sorted(self._counts.items()), "worst": self._worst,
            "words": self._words, "trails": len(self._trails),
        }  # fmt: skip
        found: dict[str, Array | Scalar] = {"notes": json.dumps(notes)}
        found["likely"] = self._likely.copy()
        for number, name in enumerate(names):
            found[f"sums_{number}"] = self._streams[name].copy()
        for number, trail in enumerate(self._trails):
            for place, array in enumerate(trail):
                found[f"trail_{number}_{place}"] = array.copy()
        return found

    def restore(self, state: Mapping[str, Any]) -> None:
        notes = json.loads(state["notes"])
        self._streams = {
            name: np.array(state[f"sums_{number}"]) for number, name in enumerate(notes["streams"])
        }
        self._counts = {int(place): int(count) for place, count in notes["counts"]}
        self._worst, self._words = float(notes["worst"]), int(notes["words"])
        self._likely = np.array(state["likely"])
        self._trails = [
            tuple(np.array(state[f"trail_{number}_{place}"]) for place in range(3))
            for number in range(notes["trails"])
        ]

    def _draw(self, path: Path) -> None:
        """Leave a picture of the last tracks as seen and as estimated."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.0, 7.6), layout="constrained")
        FigureCanvasAgg(figure)
        (axes, below), (a, b) = figure.subplots(2, height_ratios=(3, 1)), self.plane
        labels = ["observed", "estimated"]
        for seen, found, away in self._trails:
            came = ~np.isnan(seen).any(axis=1)
            axes.plot(
                seen[came, a], seen[came, b], "o", color="black", markersize=1.5, label=labels[0]
            )
            axes.plot(
                found[came, a], found[came, b], color="tab:blue", linewidth=0.8, label=labels[1]
            )
            below.semilogy(np.flatnonzero(came), away[came], linewidth=0.6, alpha=0.7)
            labels = ["_", "_"]
        axes.set_xlabel(f"number {a} of the observation")
        axes.set_ylabel(f"number {b} of the observation")
        axes.set_title("the last tracks", fontsize=9)
        axes.set_aspect("equal", adjustable="datalim")
        axes.legend(loc="best", fontsize=8)
        below.set_xlabel("step")
        below.set_ylabel("prediction error")
        for one in (axes, below):
            one.grid(alpha=0.25)
        figure.savefig(path, dpi=130)


def _place(squares: Array) -> Array:
    """Numbers of the steps, PER_DECADE to a decade, that these squared distances fall into."""
    distances = np.sqrt(np.maximum(squares, LEAST * LEAST))
    places: Array = np.floor(PER_DECADE * np.log10(distances / LEAST)).astype(np.int64)
    return places


__all__ = ["PredictionError"]
