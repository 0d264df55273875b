"""A picture of positions, as on a map."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.frame import Array

LABELS = 12  # of those that are named


def draw(path: Path, trail: Array, name_of: Callable[[int], str], value: str, whose: str) -> None:
    """Leave a picture of positions, the last of those with the most of them named.

    trail    (n, 4): number of who it is, latitude, longitude [deg], and what gives the colour, NaN
             where it is not told
    name_of  number -> name
    value    what gives the colour, with its unit
    whose    what they are positions of
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    numbers, latitude, longitude, colour = trail.T
    untold = np.isnan(colour)
    axes.scatter(longitude[untold], latitude[untold], s=6.0, color="grey")
    points = axes.scatter(
        longitude[~untold], latitude[~untold], c=colour[~untold], s=6.0, cmap="viridis"
    )
    figure.colorbar(points, ax=axes, label=f"{value}; grey: not told")
    named, places, counts = np.unique(
        numbers[::-1], return_index=True, return_counts=True
    )  # the last place of each
    for which in np.argsort(-counts)[:LABELS]:
        last = len(numbers) - 1 - places[which]
        axes.annotate(
            name_of(int(named[which])),
            (longitude[last], latitude[last]),
            textcoords="offset points", xytext=(4, 4), fontsize=8,
        )  # fmt: skip
    axes.set_aspect(1.0 / max(np.cos(np.radians(latitude.mean())), 0.1), adjustable="box")
    axes.set_xlabel("longitude [deg]")
    axes.set_ylabel("latitude [deg]")
    axes.set_title(f"{len(latitude)} positions of {len(named)} {whose}", fontsize=9)
    axes.grid(alpha=0.25)
    figure.savefig(path, dpi=130)
