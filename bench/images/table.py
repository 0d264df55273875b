"""The table of all runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from bench.images.scenes import CASES, SCENES


def decibel(value: Any) -> float:
    return float(10.0 * np.log10(value))


def table(files: list[str]) -> None:
    """Pooled over all seeds and trajectories, and the spread over seeds."""
    runs = [json.loads(Path(file).read_text()) for file in files]
    for scene in SCENES:
        own = [run for run in runs if run["scene"] == scene]
        for what in ("read", "state"):
            names: list[str] = []
            for run in own:
                for case in run["cases"].values():
                    names += [n for n, r in case["rows"].items() if n not in names and what in r]
            if not names or (what == "state" and SCENES[scene].numbers == 3):
                continue
            print(f"\n{scene}, {what}\n\n| | {' | '.join(CASES)} |\n|---{'|---' * len(CASES)}|")
            for name in names:
                cells = []
                for case in CASES:
                    seeds = [
                        np.array(run["cases"][case]["rows"][name][what])
                        for run in own
                        if name in run["cases"].get(case, {"rows": {}})["rows"]
                    ]
                    if not seeds:
                        cells.append("")
                        continue
                    each = [decibel(s.mean()) for s in seeds]
                    every = np.concatenate(seeds)
                    cells.append(
                        f"{decibel(every.mean()):.2f} ({min(each):.2f} ... {max(each):.2f}), "
                        f"{decibel(np.median(every)):.2f}, {decibel(every.max()):.2f}"
                    )
                print(f"| {name} | {' | '.join(cells)} |")
