"""Counts wrong symbols, and draws how often they come."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Complex, Integer

from pipeline.block import FieldType, Sink, param
from pipeline.errors import ConnectError
from pipeline.frame import Array, FrameInfo, Scalar

Symbols = Bool[Array, "..."] | Integer[Array, "..."] | Complex[Array, "..."]

MOST_BINS = 512  # points of a curve; neighbours merge when there would be more
MOST_CHANGES = 64  # changes of a model's version that are remembered
Z95 = 1.959963984540054  # 97.5 % point of the standard normal distribution


def wilson(errors: float, symbols: float) -> tuple[float, float]:
    """95 % interval of an error rate, (low, high); Wilson, JASA 22 (1927).

    It takes errors as independent. Detectors make them in bursts, so that the true interval is
    wider, by about the root of the mean number of errors per burst.

    >>> [round(limit, 4) for limit in wilson(0, 10)]
    [0.0, 0.2775]
    """
    if symbols <= 0:
        return 0.0, 1.0
    rate, z2 = errors / symbols, Z95 * Z95 / symbols
    centre = (rate + z2 / 2.0) / (1.0 + z2)
    reach = Z95 * math.sqrt(rate * (1.0 - rate) / symbols + z2 / (4.0 * symbols)) / (1.0 + z2)
    return max(0.0, centre - reach), min(1.0, centre + reach)


class Curve:
    """Errors and symbols by place, in at most MOST_BINS bins of equal, growing width.

    What it holds depends on what was added and not on the order of adding.

    counts  (2, MOST_BINS) int64: errors, symbols
    """

    def __init__(self, width: int = 1, used: int = 0, counts: Array | None = None) -> None:
        self.width = width
        self.used = used  # bins in use
        self.counts = np.zeros((2, MOST_BINS), np.int64) if counts is None else counts

    def add(self, first: int, places: int, wrong: Array, times: int = 1) -> None:
        """Add `times` symbols at each of first ... first + places - 1.

        wrong    (n,) offsets from `first` of the errors among them, one for each error
        """
        while first + places > self.width * MOST_BINS:
            self._merge()
        low, high = first // self.width, (first + places - 1) // self.width
        edges = np.arange(low, high + 2) * self.width
        inside: Array = np.diff(np.clip(edges, first, first + places))
        self.counts[1, low : high + 1] += times * inside
        if wrong.size:
            bins = (first + wrong) // self.width - low
            self.counts[0, low : high + 1] += np.bincount(bins, minlength=high + 1 - low)
        self.used = max(self.used, high + 1)

    def merged(self, errors_wanted: float, least: int) -> tuple[int, Array]:
        """Width and counts, neighbours merged until bins hold so many errors on average."""
        width, counts = self.width, self.counts[:, : self.used]
        while counts.shape[1] >= 2 * least and counts[0].sum() < errors_wanted * counts.shape[1]:
            if counts.shape[1] % 2:
                counts = np.pad(counts, ((0, 0), (0, 1)))
            counts, width = counts.reshape(2, -1, 2).sum(axis=2), 2 * width
        return width, counts

    def _merge(self) -> None:
        halves = self.counts.reshape(2, -1, 2).sum(axis=2)
        self.counts = np.concatenate([halves, np.zeros_like(halves)], axis=1)
        self.used = (self.used + 1) // 2
        self.width *= 2


class ErrorRate(Sink, name="sink.error_rate"):
    """How often `symbols` differ from `sent`, over all streams.

    Integers differ if they are not equal; complex symbols if the sign of the real or of the
    imaginary part differs, which is the nearest symbol of QPSK. For words, also how many words
    hold an error and the error rate by position in the word. Nothing depends on how the streams
    were cut, or on the order in which their frames came.

    Pilots, which the receiver knows, are left out where the decoder says which words they are
    (`pilot`), as if they had not been sent: nothing below counts them.

    Where a mark `<block>.version` changes, the report remembers it (the first 64 of them):
    [symbol, stream, block, version], `symbol` counted from the start of the stream.

    sent, symbols  (time) or (word, time) integers or complex; or other dims, such as (data) of
                   information bits: reads = { sent = "bits", symbols = "payload" }
    pilot          (word) bool, optional
    """

    skip: int = param(
        default=0, at_least=0, unit="symbols", doc="symbols at the start of a stream to leave out"
    )

    def narrow(self, reads: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        sent, symbols = reads["sent"], reads["symbols"]
        if sent.dims != symbols.dims or len(sent.dims) not in (1, 2):
            raise ConnectError(
                f"'symbols' is {symbols}, but 'sent' is {sent}; they must have the same dims, of a "
                "stream or of words"
            )
        if _is_complex(sent) != _is_complex(symbols):
            raise ConnectError(
                f"'symbols' is {symbols}, but 'sent' is {sent}; they must come from one alphabet"
            )
        if "pilot" in reads and len(sent.dims) != 2:
            raise ConnectError(
                f"'pilot' is told for each word, but 'sent' is {sent}; compare words with words"
            )
        return {}

    def start(self) -> None:
        self._errors = self._symbols = self._words = self._word_errors = 0
        self._over_time, self._by_position = Curve(), Curve()
        self._seen: dict[str, int] = {}  # symbols by stream
        self._versions: dict[str, dict[str, Scalar]] = {}  # stream -> mark -> the last value
        self._changes: list[list[Any]] = []

    def process(
        self,
        sent: Symbols,
        symbols: Symbols,
        info: FrameInfo = FrameInfo(),
        pilot: Bool[Array, "word"] | None = None,
    ) -> None:
        if pilot is not None and pilot.any():
            sent, symbols = sent[~pilot], symbols[~pilot]
        seen = self._seen.get(info.stream, 0)
        self._seen[info.stream] = seen + sent.size
        if info.marks:
            self._note_versions(info, seen)
        if sent.dtype.kind == "c":
            unequal = ((sent.real > 0) != (symbols.real > 0)) | (
                (sent.imag > 0) != (symbols.imag > 0)
            )
        else:
            unequal = sent != symbols
        skipped = min(max(self.skip - seen, 0), sent.size)
        if sent.size == skipped:
            return
        if skipped:
            unequal = unequal.copy()
            unequal.reshape(-1)[:skipped] = False
        wrong = np.flatnonzero(unequal)
        self._errors += wrong.size
        self._symbols += sent.size - skipped
        self._over_time.add(seen + skipped, sent.size - skipped, wrong - skipped)
        if sent.ndim == 2:
            self._count_words(wrong, skipped, sent.shape)

    def report(self, folder: Path | None) -> Mapping[str, Any]:
        low, high = wilson(self._errors, self._symbols)
        found: dict[str, Any] = {
            "symbol_error_rate": self._errors / max(self._symbols, 1),
            "errors": self._errors,
            "symbols": self._symbols,
            "ci95": [low, high],
        }
        if self._words:
            errors, symbols = self._by_position.counts[:, : self._by_position.used]
            found |= {
                "words": self._words,
                "word_errors": self._word_errors,
                "by_position": (errors / np.maximum(symbols, 1)).tolist(),
                "positions_per_item": self._by_position.width,
            }
        if self._changes:
            found["version_changes"] = [list(change) for change in self._changes]
        if folder is not None and self._symbols:
            found["picture"] = f"{self.context.name}.png"
            self._draw(folder / found["picture"])
        return found

    def state(self) -> Mapping[str, Array | Scalar]:
        notes = {
            "totals": [self._errors, self._symbols, self._words, self._word_errors],
            "over_time": [self._over_time.width, self._over_time.used],
            "by_position": [self._by_position.width, self._by_position.used],
            "seen": self._seen,
            "versions": self._versions,
            "changes": self._changes,
        }
        return {
            "notes": json.dumps(notes),
            "over_time": self._over_time.counts.copy(),
            "by_position": self._by_position.counts.copy(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        notes = json.loads(state["notes"])
        self._errors, self._symbols, self._words, self._word_errors = notes["totals"]
        self._over_time = _curve(notes["over_time"], state["over_time"])
        self._by_position = _curve(notes["by_position"], state["by_position"])
        self._seen, self._versions = notes["seen"], notes["versions"]
        self._changes = notes["changes"]

    def _count_words(self, wrong: Array, skipped: int, shape: tuple[int, ...]) -> None:
        """Count by word and by position; words that `skip` touches are left out whole."""
        length = shape[1]
        first = -(-skipped // length)  # the first word that counts
        wrong = wrong[wrong >= first * length]
        words = shape[0] - first
        self._words += words
        self._word_errors += np.unique(wrong // length).size
        if words:
            self._by_position.add(0, length, wrong % length, times=words)

    def _note_versions(self, info: FrameInfo, symbol: int) -> None:
        known = self._versions.setdefault(info.stream, {})
        for mark, version in info.marks.items():
            if mark.endswith(".version") and known.get(mark) != version:
                if mark in known:
                    block = mark.removesuffix(".version")
                    self._changes.append([symbol, info.stream, block, version])
                    self._changes.sort(key=lambda change: change[:3])
                    del self._changes[MOST_CHANGES:]
                known[mark] = version

    @property
    def symbols(self) -> int:
        """How many have been counted."""
        return self._symbols

    @property
    def rate(self) -> float:
        """Share of them that was wrong."""
        return self._errors / max(self._symbols, 1)

    @property
    def over_time(self) -> Curve:
        """Errors by the place of the symbol in its stream."""
        return self._over_time

    def _draw(self, path: Path) -> None:
        """Leave a picture of the error rate over time and, for words, by position."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.0, 7.6 if self._words else 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(2 if self._words else 1, squeeze=False)[:, 0]
        low, high = wilson(self._errors, self._symbols)
        panels[0].set_title(
            f"{self.context.name}: symbol error rate {self.rate:.3g}, 95 % interval {low:.3g} to "
            f"{high:.3g}\n{self._errors:,} errors in {self._symbols:,} symbols",
            loc="left", fontsize=10,
        )  # fmt: skip
        self._plot(panels[0], self._over_time, "symbols")
        panels[0].set_xlabel("symbols since the start of the stream")
        self.draw_changes(panels[0])
        if self._words:
            self._plot(panels[1], self._by_position, "positions")
            panels[1].set_xlabel("position in the word, from 0")
        figure.savefig(path, dpi=130)

    def draw_changes(self, axes: Any) -> None:
        """Draw a line where a version changed, with its number."""
        first, label = axes.get_xlim()[0], "a new version serves"
        for symbol, stream, block, version in self._changes:
            if symbol < first:
                continue  # left out
            axes.axvline(symbol, color="0.4", linewidth=0.6, linestyle=":", label=label)
            label = ""
            axes.annotate(
                f"{block} {version}" + ("" if len(self._seen) == 1 else f" ({stream})"),
                (symbol, 1.0), xycoords=("data", "axes fraction"), rotation=90, fontsize=5,
                horizontalalignment="right", verticalalignment="top", annotation_clip=True,
            )  # fmt: skip

    def _plot(self, axes: Any, curve: Curve, unit: str) -> None:
        """A curve with its intervals and the overall rate."""
        width, limits = draw_curve(axes, curve)
        axes.patches[-1].set_label("in each " + (unit[:-1] if width == 1 else f"{width:,} {unit}"))
        axes.patches[-2].set_label("its 95 % interval")
        if self.rate > 0:
            axes.axhline(self.rate, color="black", linewidth=0.8, linestyle="--", label="overall")
        scale_axes(axes, *limits)


def draw_curve(
    axes: Any, curve: Curve, *, colour: str = "tab:blue", least: int = 32
) -> tuple[int, tuple[float, float]]:
    """Draw a curve and its intervals, the last two patches of the axes.

    least   bins to draw, at least

    Returns the width of a bin, and limits of a log axis on which the curve shows.
    """
    width, (errors, symbols) = curve.merged(errors_wanted=200.0, least=least)
    used = np.flatnonzero(symbols)  # without a hole
    edges = np.append(used, used[-1] + 1) * width
    errors, symbols = errors[used], symbols[used]
    if used.size > 1 and symbols[-1] < symbols[-2] / 2:  # the last bin has just begun
        edges = np.delete(edges, -2)
        errors, symbols = _joined(errors), _joined(symbols)
    rate = errors / symbols
    band = np.array([wilson(*pair) for pair in zip(errors, symbols, strict=True)])
    bottom, top = _decade(rate[rate > 0], band[:, 1])
    axes.stairs(
        band[:, 1], edges, baseline=np.maximum(band[:, 0], bottom), fill=True, alpha=0.25,
        color=colour,
    )  # fmt: skip
    axes.stairs(
        np.where(errors > 0, rate, np.nan), edges, baseline=None, linewidth=1.4, color=colour
    )
    axes.set_xlim(edges[0], edges[-1])
    return width, (bottom, top)


def scale_axes(axes: Any, bottom: float, top: float) -> None:
    """Make the axis of error rates logarithmic, between these limits and no more."""
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator

    axes.set_yscale("log")
    axes.set_ylim(bottom, top)
    axes.set_ylabel("symbol error rate")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, place: ""))
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles[::-1], labels[::-1], loc="upper right", bbox_to_anchor=(1.0, -0.12), fontsize=8,
        ncols=4, frameon=False,
    )  # fmt: skip


def _is_complex(kind: FieldType) -> bool:
    return kind.dtypes[0].startswith("complex")


def _curve(notes: list[int], counts: Array) -> Curve:
    width, used = notes
    return Curve(width, used, counts.copy())


def _joined(counts: Array) -> Array:
    """The last two as one."""
    return np.append(counts[:-2], counts[-2:].sum())


def _decade(rates: Array, highest: Array) -> tuple[float, float]:
    """Limits of a log axis for these rates and upper limits: a decade at least, with some air."""
    top = min(1.0, 2.0 * float(highest.max()))
    bottom = float(rates.min()) / 2.0 if rates.size else top / 100.0
    return min(bottom, top / 10.0), top
