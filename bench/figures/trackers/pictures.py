"""Errors of trackers, as PNG."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bench.figures.trackers.methods import METHODS
from bench.figures.trackers.published import PUBLISHED
from bench.figures.trackers.results import Results, tested
from bench.figures.trackers.scenarios import SCENARIOS

DECIMATED = ("decimated", "decimated_rk4")
LEARNED_NOISE = ("learned_noise", "learned_noise_corrected")
#: What `python -m bench.smoothers_by_size join` writes, and how its curves are shown.
SIZES = "sizes.json"
_METHODS = {
    "smoother": ("extended RTS smoother, tuned", "tab:blue", "s"),
    "network": ("graph network alone", "tab:brown", "d"),
    "gradient": ("both, steps along the gradient", "tab:orange", "v"),
    "hybrid": ("both, Newton steps", "tab:purple", "X"),
}


def draw(results: Results, folder: Path) -> list[Path]:
    """Pictures of all that is there."""
    paths = []
    if (folder / SIZES).exists():
        sizes = json.loads((folder / SIZES).read_text())
        paths.append(_against_size(sizes, folder / "smoothers_by_size.png"))
    if any(key[2] in LEARNED_NOISE for key in results):
        paths.append(_training(results, folder / "learned_noise.png"))
    for name in SCENARIOS:
        if name not in DECIMATED and any(key[0] == name for key in results):
            paths.append(_against_noise(results, name, folder / f"{name}.png"))
    if any(key[0] in DECIMATED for key in results):
        paths.append(_side_by_side(results, folder / "decimated.png"))
    return paths


def _figure(width: float, height: float, columns: int = 1) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns)


def _tidy(axes: Any) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _against_noise(results: Results, name: str, path: Path) -> Path:
    """Left the errors, right what they are above the variance of the noise."""
    scenario = SCENARIOS[name]
    figure, (left, right) = _figure(13.0, 6.5, 2)
    figure.suptitle(f"{scenario.title} ({scenario.table}): {tested(results, name)}")
    lowest: list[float] = []
    for kind, method in METHODS.items():
        dbs = [db for db in scenario.noises if (name, db, kind) in results]
        if not dbs:
            continue
        values = np.array([results[name, db, kind].median_db for db in dbs])
        marker = method.marker or ("_" if len(dbs) == 1 else "")  # a line of one point is none
        how = {"color": method.colour, "linestyle": method.line, "marker": marker,
               "markersize": 4.5, "linewidth": 1.4}  # fmt: skip
        left.plot(dbs, values, label=method.title, **how)
        right.plot(dbs, values + dbs, **how)
        for db in dbs:
            seeds = results[name, db, kind].pooled
            if len(seeds) > 1:
                right.plot([db] * len(seeds), np.array(seeds) + db, ".", color=method.colour)
        lowest += list((values + dbs)[np.isfinite(values)])
        printed = PUBLISHED.get(name, {}).get(kind, {})
        if printed:
            hollow = {"color": method.colour, "marker": "o", "linestyle": "none", "markersize": 9,
                      "markerfacecolor": "none", "alpha": 0.7}  # fmt: skip
            x, y = np.array(list(printed)), np.array(list(printed.values()))
            left.plot(x, y, **hollow)
            right.plot(x, y + x, **hollow)
    left.plot([], [], "o", color="black", markersize=9, markerfacecolor="none", label="papers'")
    left.set_ylabel("mean squared error [dB]")
    right.set_ylabel("mean squared error / r2 [dB]")
    for axes in (left, right):
        axes.set_xlabel("1 / r2 [dB]")
        axes.set_xticks(scenario.noises)
        _tidy(axes)
    if lowest:
        bottom = min(lowest) - 1.0
        right.set_ylim(bottom, max(bottom + 3.0, min(max(lowest) + 1.0, bottom + 35.0)))
        ends = [bottom - db for db in (max(scenario.noises), min(scenario.noises))]
        left.set_ylim(ends[0] - 2.0, ends[1] + 35.0)
    left.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    return path


def _against_size(found: Mapping[str, Any], path: Path) -> Path:
    """Errors of smoothers by how much they learned from: median of the seeds, each a dot."""
    figure, axes = _figure(8.0, 6.0)
    axes.set_title("Lorenz attractor seen every 50 ms in noise of variance 0.25, smoothed")
    axes.axhline(found["observations"], color="black", linestyle=":", label="observations")
    for method, (title, colour, marker) in _METHODS.items():
        by_size: dict[int, list[float]] = {}
        for curve in found["curves"]:
            for point in curve["points"] if curve["method"] == method else ():
                by_size.setdefault(point["samples"], []).append(point["mse"])
        sizes = sorted(by_size)
        middle = [float(np.median(by_size[size])) for size in sizes]
        if sizes:
            axes.plot(sizes, middle, color=colour, marker=marker, label=title)
        for size in sizes:
            axes.plot([size] * len(by_size[size]), by_size[size], ".", color=colour, alpha=0.5)
        if method in found["paper"]:
            axes.plot(
                50_000, found["paper"][method], "o", color=colour, markersize=10,
                markerfacecolor="none",
            )  # fmt: skip
    axes.plot([], [], "o", color="black", markersize=10, markerfacecolor="none", label="papers'")
    axes.set(xscale="log", yscale="log")
    axes.set(xlabel="samples to learn from", ylabel="mean squared error")
    axes.legend(fontsize=8)
    _tidy(axes)
    figure.savefig(path, dpi=110)
    return path


def _training(results: Results, path: Path) -> Path:
    """How learned noise comes by its weights: its best loss on what was held out."""
    figure, axes = _figure(8.0, 6.0)
    axes.set_title("learned noise: loss on held-out trajectories, less where it ends")
    for key, one in results.items():
        if key[2] not in LEARNED_NOISE:
            continue
        for told in one.told:
            steps, losses = np.array(told["training"]["curve"]).T
            label = f"{SCENARIOS[key[0]].title}, {key[1]:g} dB, {METHODS[key[2]].title}"
            colour, line = f"C{list(SCENARIOS).index(key[0])}", "-:"[LEARNED_NOISE.index(key[2])]
            axes.plot(steps, losses - losses[-1], line, label=label, marker=".", color=colour)
    axes.set(xlabel="steps of Adam", ylabel="loss", yscale="symlog")
    axes.legend(fontsize=8)
    _tidy(axes)
    figure.savefig(path, dpi=110)
    return path


def _side_by_side(results: Results, path: Path) -> Path:
    """The decimated attractor: every tracker, each trajectory a dot."""
    figure, panels = _figure(13.0, 7.5, 2)
    figure.suptitle(
        "Lorenz attractor in steps of 10 us, every 2000th seen in noise of 0 dB (T.IX); "
        "dot: a trajectory, bar: all of them, circle: the papers'"
    )
    for axes, name in zip(panels, DECIMATED, strict=True):
        axes.set_title(SCENARIOS[name].title, fontsize=11)
        kinds = [kind for kind in METHODS if (name, 0.0, kind) in results]
        kinds.sort(key=lambda kind: -results[name, 0.0, kind].median_db)
        for place, kind in enumerate(kinds):
            _dots(axes, place, kind, results, name)
        axes.set_yticks(range(len(kinds)), [METHODS[kind].title for kind in kinds])
        axes.set_xlabel("mean squared error [dB]")
        axes.set_xlim(-36.0, 6.0)
        _tidy(axes)
    figure.savefig(path, dpi=110)
    return path


def _dots(axes: Any, place: int, kind: str, results: Results, name: str) -> None:
    one, colour = results[name, 0.0, kind], METHODS[kind].colour
    for errors in one.errors:
        finite: Sequence[float] = errors[np.isfinite(errors)]
        axes.plot(10.0 * np.log10(finite), [place] * len(finite), ".", color=colour, alpha=0.4)
    axes.plot(one.pooled, [place] * len(one.pooled), "|", color=colour, markersize=22)
    printed = PUBLISHED.get(name, {}).get(kind, {})
    if printed:
        axes.plot(printed[0.0], place, "o", color=colour, markersize=9, markerfacecolor="none")
