"""Error rates against SNR, as PNG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from bench.figures.channels import CHANNELS
from bench.figures.detectors import DETECTORS, Detector

#: Read off the curves of the ViterbiNet paper by others, two digits; -6 ... 10 dB.
PUBLISHED = {
    ("perfect", "ViterbiNet as published"): (
        0.31, 0.26, 0.21, 0.17, 0.11, 0.058, 0.023, 5.2e-3, 7e-4,
    ),
    ("uncertain", "ViterbiNet as published"): (
        0.31, 0.26, 0.21, 0.17, 0.11, 0.064, 0.027, 6.8e-3, 1.5e-3,
    ),
    ("uncertain", "Viterbi, wrong taps, as published"): (
        0.31, 0.28, 0.25, 0.22, 0.18, 0.15, 0.12, 0.10, 0.085,
    ),
}  # fmt: skip

HEADINGS = {
    "perfect": "labels from the channel itself (perfect CSI)",
    "uncertain": "labels from channels with other taps (CSI uncertainty)",
}


def draw(results: Mapping[str, Any], name: str, path: Path) -> None:
    """One kind of channel: above the error rates, below their ratios to exact MAP."""
    channel = results["channels"][name]
    figure = Figure(figsize=(13.0, 10.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(
        2, 2, sharex=True, sharey="row", gridspec_kw={"height_ratios": [1.2, 1.0]}
    )
    figure.suptitle(
        f"{CHANNELS[name].title}: {results['labels']} labelled symbols, 4 taps exp(-decay l), "
        f"mean over {len(results['decays'])} decays"
    )
    for (knowledge, by_snr), (above, below) in zip(channel.items(), panels.T, strict=True):
        above.set_title(HEADINGS[knowledge], fontsize=11)
        snrs = np.array([int(snr) for snr in by_snr])
        for detector, style in DETECTORS.items():
            if style.group == "wrong" and knowledge == "perfect":
                continue
            rows = [(snr, found[detector]) for snr, found in by_snr.items() if detector in found]
            if rows:
                _curve(above, below, rows, style, len(results["decays"]))
        for (when, label), rates in PUBLISHED.items():
            if name == "gaussian" and when == knowledge:
                marker = "*" if label.startswith("ViterbiNet") else "P"
                above.plot(
                    range(-6, 11, 2), rates, marker, color="tab:purple", markersize=8, label=label,
                    linestyle="none", markerfacecolor="none",
                )  # fmt: skip
        above.legend(fontsize=8.5, loc="lower left")
        below.set_xlabel("SNR [dB]")
        below.set_xticks(snrs)
        for axes in (above, below):
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
    above, below = panels[:, 0]
    above.set_yscale("log")
    lowest = min(
        found["map"]["symbol_error_rate"] for kind in channel.values() for found in kind.values()
    )
    above.set_ylim(max(lowest / 2.0, 1e-7), 0.6)
    above.set_ylabel("symbol error rate")
    below.set_yscale("log")
    below.set_ylim(0.95, 8.0)
    below.set_ylabel("ratio to exact MAP")
    below.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.3, 2.0, 3.0, 5.0, 8.0)))
    below.yaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
    below.yaxis.set_minor_formatter(FuncFormatter(lambda value, place: ""))
    figure.savefig(path, dpi=110)


def _curve(above: Any, below: Any, rows: Any, style: Detector, most: int) -> None:
    """One detector: its rates, and their ratios with intervals; `most` channels are there."""
    snrs = [int(snr) for snr, _ in rows]
    how = {"color": style.colour, "linestyle": style.line, "marker": style.marker}
    rates = [found["comparable_rate"] or np.nan for _, found in rows]
    channels = max(found["channels"] for _, found in rows)
    label = style.title if channels == most else f"{style.title}: {channels} of {most} channels"
    above.plot(snrs, rates, **how, markersize=4.5, linewidth=1.4, label=label)
    ratios = np.array([found["ratio_to_map"] for _, found in rows], float)
    ratios[~np.isfinite(ratios)] = np.nan
    below.plot(snrs, ratios[:, 0], **how, markersize=4.5, linewidth=1.4)
    below.fill_between(
        snrs, ratios[:, 1], ratios[:, 2], color=style.colour, alpha=0.12, linewidth=0
    )
