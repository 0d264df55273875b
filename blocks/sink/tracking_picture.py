"""Draws the end of a track, and the error over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from blocks.sink.over_time import OverTime
from pipeline.frame import Array

ELLIPSES = 12
BINS = 128  # of the error over time
Z95, Z95_PLANE = 1.959964, 2.447747  # 95 % of a normal distribution on the line, in the plane
#: Fields of the trackers, with their names and colours.
TRACKERS = {
    "estimates": ("estimate", "tab:blue"),
    "unlearned": ("without learning", "tab:orange"),
    "extended": ("extended filter", "tab:green"),
}


def draw(
    path: Path, trail: Sequence[Array], over_time: Mapping[str, OverTime],
    changes: Sequence[tuple[int, str]], plane: tuple[int, int] | None,
) -> None:  # fmt: skip
    """Leave a picture of truth, estimate, where the covariance sees it, and errors over time.

    trail      states, estimates and, where there are any, covariances of the last steps
    over_time  by field of estimates
    changes    steps at which new versions began to serve, and what they are
    plane      numbers of the state that span the picture; None: number 0 is drawn over time
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 9.0), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, height_ratios=(1.6, 1.0))
    truth, found, *spread = trail
    covariances = spread[0] if spread else None
    if plane is not None and truth.shape[1] > max(plane):
        _plane(above, truth, found, covariances, *plane)
    else:
        _line(above, truth, found, covariances)
    _over_time(below, over_time, changes)
    for axes in (above, below):
        axes.grid(alpha=0.25)
        axes.legend(loc="best", fontsize=8)
    figure.savefig(path, dpi=130)


def _line(axes: Any, truth: Array, found: Array, spread: Array | None) -> None:
    steps = np.arange(len(truth))
    axes.plot(steps, truth[:, 0], color="black", linewidth=1.0, label="truth")
    axes.plot(steps, found[:, 0], color="tab:blue", linewidth=1.0, label="estimate")
    if spread is not None:
        reach = Z95 * np.sqrt(spread[:, 0, 0])
        axes.fill_between(
            steps, found[:, 0] - reach, found[:, 0] + reach, alpha=0.25, linewidth=0.0,
            label="95 % interval",
        )  # fmt: skip
    axes.set_xlabel(f"the last {len(truth)} steps")
    axes.set_ylabel("number 0 of the state")


def _plane(axes: Any, truth: Array, found: Array, spread: Array | None, a: int, b: int) -> None:
    axes.plot(truth[:, a], truth[:, b], color="black", linewidth=1.0, label="truth")
    axes.plot(found[:, a], found[:, b], color="tab:blue", linewidth=1.0, label="estimate")
    if spread is not None:
        turn = np.linspace(0.0, 2.0 * np.pi, 65)
        circle = Z95_PLANE * np.array([np.cos(turn), np.sin(turn)])
        label = "95 % ellipse"
        for at in np.linspace(0, len(found) - 1, ELLIPSES).astype(int):
            part = spread[at][np.ix_([a, b], [a, b])]
            if not np.isfinite(part).all():
                continue  # the tracker knows none
            values, vectors = np.linalg.eigh(part)
            outline = vectors @ (np.sqrt(np.maximum(values, 0.0))[:, None] * circle)
            axes.plot(
                found[at, a] + outline[0], found[at, b] + outline[1], color="tab:red",
                linewidth=0.8, label=label,
            )  # fmt: skip
            label = "_"
    axes.set_xlabel(f"number {a} of the state")
    axes.set_ylabel(f"number {b} of the state")
    axes.set_title(f"the last {len(truth)} steps", fontsize=9)


def _over_time(
    axes: Any, over_time: Mapping[str, OverTime], changes: Sequence[tuple[int, str]]
) -> None:
    for field, curve in over_time.items():
        label, colour = TRACKERS[field]
        edges, levels = curve.levels(BINS)
        axes.stairs(levels, edges, baseline=None, linewidth=1.2, color=colour, label=label)
    label = "a new version serves"
    for step, version in changes:
        axes.axvline(step, color="0.4", linewidth=0.6, linestyle=":", label=label)
        label = ""
        axes.annotate(
            version, (step, 1.0), xycoords=("data", "axes fraction"), rotation=90, fontsize=5,
            horizontalalignment="right", verticalalignment="top",
        )  # fmt: skip
    axes.set_xlabel("steps")
    axes.set_ylabel("mean squared error [dB]")
