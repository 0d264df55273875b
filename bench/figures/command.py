"""The command: counts, then writes pictures, JSON and tables."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import bench.figures
from bench.figures import tables
from bench.figures.channels import CHANNELS, DECAYS, KNOWLEDGE, TRAINING, WORD
from bench.figures.detectors import GRAPH, LEAST_SQUARES, MAP
from bench.figures.study import Cell, Counts, count_all, ratio, summary

QUICK_DECAYS = (0.2, 0.7, 1.2, 1.7)
_SNRS = (-2, 2, 6, 8)
QUICK_SNRS = {"gaussian": _SNRS, "poisson": (13, 19, 25, 28), "tanh": _SNRS, "quantised": _SNRS}
_SNRS = (2, 6, 10)
BOX_SNRS = {"gaussian": _SNRS, "poisson": (19, 25, 31), "tanh": _SNRS, "quantised": _SNRS}
#: Black boxes, which take seconds each to train, see these decays alone; in quick runs one.
BOX_DECAYS = (0.2, 1.2)
#: The bar on the tanh channel: decay, SNR, draws of labels and words, symbols each.
PAIRED = ("tanh", 0.2, 10, 20, 200_000)


PARTS = ("detectors", "trackers")


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=(bench.figures.__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"{', '.join(PARTS)}; none: both")
    parser.add_argument("--quick", action="store_true", help="fewer of everything")
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder to write to")
    parser.add_argument("--seed", type=int, default=1, help="of the detectors")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the work")
    parser.add_argument(
        "--channels", nargs="*", choices=CHANNELS, default=list(CHANNELS), help="some of them"
    )
    options = parser.parse_args()
    parts = options.parts or PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"there is no {', '.join(sorted(unknown))}, but {', '.join(PARTS)}")
    if "detectors" in parts:
        detectors(options)
    if "trackers" in parts:
        from bench.figures.trackers.command import study

        study(options.out / "trackers", options.quick, options.jobs)


def detectors(options: argparse.Namespace) -> None:
    """Error rates of detectors."""
    began = time.perf_counter()
    given = options.quick, options.seed, options.channels
    cells, paired = list(_cells(*given)), list(_paired(*given))

    def progress(done: int) -> None:
        if done % 20 == 0 or done == len(cells) + len(paired):
            passed = time.perf_counter() - began
            print(f"{done} of {len(cells) + len(paired)} parts, {passed:.0f} s", flush=True)

    counts = count_all([*cells, *paired], options.jobs, progress)
    results = _results(cells, counts[: len(cells)])
    results["bars"] = _bars(results, counts[len(cells) :])
    results["paired"] = _sums(counts[len(cells) :])
    results |= {"seconds": time.perf_counter() - began, "seed": options.seed}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "detectors.json").write_text(json.dumps(results, indent=1) + "\n")
    below = ["\n".join(f"- {line}" for line in tables.verdicts(results))]
    below.append(tables.bars(results["bars"]))
    (options.out / "detectors.md").write_text("\n\n".join([tables.table(results), *below]) + "\n")
    print(*[tables.table(results, tables.SHORT), *below], sep="\n\n")
    from bench.figures.pictures import draw  # matplotlib, when the rest has come through

    for name in results["channels"]:
        draw(results, name, options.out / f"{name}.png")
    print(f"\n{time.perf_counter() - began:.0f} s; pictures and numbers are in {options.out}")


def _cells(quick: bool, seed: int, channels: list[str]) -> Iterator[Cell]:
    for channel in map(CHANNELS.__getitem__, channels):
        box_snrs, box_decays = BOX_SNRS[channel.name], BOX_DECAYS
        if quick:
            box_snrs, box_decays = box_snrs[1:2], box_decays[1:2]
        for snr_db, symbols in channel.symbols.items():
            if quick and snr_db not in QUICK_SNRS[channel.name]:
                continue
            for decay in QUICK_DECAYS if quick else DECAYS:
                yield Cell(
                    channel.name, snr_db, decay, symbols // WORD, seed,
                    black_boxes=decay in box_decays and snr_db in box_snrs,
                )  # fmt: skip


def _paired(quick: bool, seed: int, channels: list[str]) -> Iterator[Cell]:
    channel, decay, snr_db, draws, symbols = PAIRED
    for draw in range((5 if quick else draws) * (channel in channels)):
        yield Cell(channel, snr_db, decay, symbols // WORD, seed + 1 + draw, ("perfect",))


def _results(cells: list[Cell], counts: list[Counts]) -> dict[str, Any]:
    channels: dict[str, Any] = {}
    for channel, snr_db in dict.fromkeys((cell.channel, cell.snr_db) for cell in cells):
        chosen = [
            one for cell, one in zip(cells, counts, strict=True)
            if (cell.channel, cell.snr_db) == (channel, snr_db)
        ]  # fmt: skip
        for knowledge in KNOWLEDGE:
            by_snr = channels.setdefault(channel, {}).setdefault(knowledge, {})
            by_snr[str(snr_db)] = summary(chosen, knowledge)
    decays = list(dict.fromkeys(cell.decay for cell in cells))
    return {"channels": channels, "decays": decays, "labels": TRAINING}


def _bars(results: dict[str, Any], paired: list[Counts]) -> list[dict[str, Any]]:
    """Each with its ratio, interval and bound."""
    found = []
    for channel in (name for name in ("gaussian", "poisson") if name in results["channels"]):
        for snr, by_name in results["channels"][channel]["perfect"].items():
            rate = by_name[MAP]["symbol_error_rate"]
            if 0 <= int(snr) <= 8 if channel == "gaussian" else rate > 1e-3:
                what = (
                    f"{CHANNELS[channel].title}, {snr} dB: learned factor graph / exact MAP "
                    f"({by_name[MAP]['errors']:,} errors of MAP)"
                )
                ends = by_name[GRAPH]["ratio_to_map"]
                found.append({"what": what, "ratio": ends, "at_most": 1.3})
    if not paired:
        return found
    channel, decay, snr_db, _, _ = PAIRED
    graph, squares = (
        # Draws of labels and words together are the units: what was learned counts, too.
        np.array([one["perfect", name].sum() for one in paired])
        for name in (GRAPH, LEAST_SQUARES)
    )
    what = (
        f"{CHANNELS[channel].title}, decay {decay}, {snr_db} dB: learned factor graph / least "
        f"squares ({squares.sum():,} errors of least squares in {len(paired)} draws)"
    )
    found.append({"what": what, "ratio": list(ratio([graph], [squares])), "at_most": 0.5})
    return found


def _sums(paired: list[Counts]) -> dict[str, list[int]]:
    """Errors of each detector in each draw of the paired comparison."""
    groups = paired[0] if paired else ()
    return {name: [int(one[group, name].sum()) for one in paired] for group, name in groups}
