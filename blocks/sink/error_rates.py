"""Counts the wrong symbols of several receivers on the same samples, and draws them together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Bool

from blocks.sink.error_rate import ErrorRate, Symbols, draw_curve, scale_axes
from pipeline.block import FieldType, Sink, param
from pipeline.frame import Array, FrameInfo, Scalar

#: Fields of the receivers, with their names and colours in the picture.
RECEIVERS = {
    "symbols": ("learned", "tab:blue"),
    "least_squares": ("least squares", "tab:orange"),
    "full_knowledge": ("full knowledge", "tab:green"),
}


class ErrorRates(Sink, name="sink.error_rates"):
    """How often the symbols of each receiver differ from `sent`: error rates side by side.

    Of a receiver that learns, beside one that fits the taps by least squares, and one that is told
    the channel. What differs is told as by sink.error_rate. The picture has their error rates over
    time, and a line wherever the version of the block `marked` changed.

    sent, symbols, least_squares, full_knowledge  (time) or (word, time) integers or complex; the
        latter two where something writes them: writes = { symbols = "least_squares" }
    pilot  (word) bool, optional: words that do not count, as the receivers know them
    """

    marked: str = param(default="", doc="block whose versions are marked; none: all")
    skip: int = param(
        default=0, at_least=0, unit="symbols", doc="symbols at the start of a stream to leave out"
    )

    def _counter(self) -> ErrorRate:
        counter = ErrorRate(skip=self.skip)
        counter.context = self.context
        counter.start()
        return counter

    def narrow(self, reads: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        for name in RECEIVERS:
            if name in reads:
                self._counter().narrow({"sent": reads["sent"], "symbols": reads[name]})
        return {}

    def start(self) -> None:
        self._counters = {name: self._counter() for name in RECEIVERS}

    def process(
        self,
        sent: Symbols,
        symbols: Symbols,
        least_squares: Symbols | None = None,
        full_knowledge: Symbols | None = None,
        pilot: Bool[Array, "word"] | None = None,
        info: FrameInfo = FrameInfo(),
    ) -> None:
        marks = {
            key: value
            for key, value in info.marks.items()
            if self.marked in ("", key.removesuffix(".version"))
        }
        found = (symbols, least_squares, full_knowledge)
        for counter, decided in zip(self._counters.values(), found, strict=True):
            if decided is not None:
                counter.process(sent, decided, info._replace(marks=marks), pilot)

    def report(self, folder: Path | None) -> Mapping[str, Any]:
        found: dict[str, Any] = {}
        for name, counter in self._used().items():
            counts = counter.report(None)
            prefix = "" if name == "symbols" else f"{name}_"
            for key in ("symbol_error_rate", "errors", "ci95"):
                found[prefix + key] = counts[key]
            if name == "symbols":
                shared = ("symbols", "version_changes")
                found |= {key: counts[key] for key in shared if key in counts}
        if folder is not None and self._used():
            found["picture"] = f"{self.context.name}.png"
            self._draw(folder / found["picture"])
        return found

    def state(self) -> Mapping[str, Array | Scalar]:
        return {
            f"{name}.{key}": value
            for name, counter in self._counters.items()
            for key, value in counter.state().items()
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        for name, counter in self._counters.items():
            prefix = f"{name}."
            counter.restore(
                {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}
            )

    def _used(self) -> Mapping[str, ErrorRate]:
        """Those that have symbols."""
        return {name: counter for name, counter in self._counters.items() if counter.symbols}

    def _draw(self, path: Path) -> None:
        """Leave a picture of all error rates over time."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9.0, 5.0), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        counters = self._used()
        limits = []
        for name, counter in counters.items():
            label, colour = RECEIVERS[name]
            _, limit = draw_curve(axes, counter.over_time, colour=colour, least=128)
            axes.patches[-1].set_label(f"{label}, {counter.rate:.2g} overall")
            limits.append(limit)
        counters["symbols"].draw_changes(axes)
        axes.set_title(f"{self.context.name}: wrong symbols, with 95 % intervals", loc="left")
        axes.set_xlabel("symbols since the start of the stream")
        scale_axes(axes, min(low for low, _ in limits), max(high for _, high in limits))
        figure.savefig(path, dpi=130)
