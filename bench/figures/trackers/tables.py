"""The results as markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import median

from bench.figures.trackers.methods import METHODS
from bench.figures.trackers.published import PUBLISHED
from bench.figures.trackers.results import Result, Results, ahead, tested
from bench.figures.trackers.scenarios import SCENARIOS

#: What is asked of KalmanNet where the model is wrong: no more than this behind the paper's.
BARS = ("sinusoidal_partial", "lorenz_motion", "lorenz_rotated")
MOST_BEHIND_DB = 0.5
#: Of these the one counts that is better on trajectories that were held out from its training.
KALMANNETS = ("kalmannet", "kalmannet_1", "kalmannet_scaled")
LEARNED = ("learned filter", "learned smoother", "black box")


def rows_of(rows: Sequence[Sequence[str]]) -> str:
    """A table of markdown, the first row its head."""
    ruled = [rows[0], ["---", *["---:"] * (len(rows[0]) - 1)], *rows[1:]]
    return "\n".join("| " + " | ".join(row) + " |" for row in ruled)


def _text(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "lost"


def short(results: Results) -> str:
    """All trackers on all models, at one level of noise each."""
    columns = [(name, scenario.short) for name, scenario in SCENARIOS.items()]
    columns = [one for one in columns if any(key[:2] == one for key in results)]
    head = ["MSE [dB]"] + [f"{SCENARIOS[s].title}, {db:g} dB" for s, db in columns]
    rows = [head]
    best = {
        (column, smooths): min(
            (r.median_db for key, r in results.items() if key[:2] == column
             and _smooths(key[2]) == smooths and METHODS[key[2]].told != "truth"),
            default=math.inf,
        )
        for column in columns for smooths in (False, True)
    }  # fmt: skip
    for name, method in METHODS.items():
        found = [results.get((*column, name)) for column in columns]
        if not any(found):
            continue
        texts = []
        for column, one in zip(columns, found, strict=True):
            text = "" if one is None else _text(one.median_db)
            is_best = one is not None and one.median_db <= best[column, _smooths(name)] + 0.005
            texts.append(f"**{text}**" if is_best and method.told != "truth" else text)
        rows.append([method.title, *texts])
    return rows_of(rows)


def _smooths(name: str) -> bool:
    return METHODS[name].group.endswith("smoother")


def whole(results: Results) -> Iterator[str]:
    """A table of each scenario, with the papers' figures in brackets."""
    for name, scenario in SCENARIOS.items():
        noises = [db for db in scenario.noises if any(key[:2] == (name, db) for key in results)]
        if not noises:
            continue
        sizes = f"{tested(results, name)}{_pieces(results, name)}"
        yield f"### {scenario.table}: {scenario.title}\n\n{sizes}."
        rows = [["1 / r2 [dB]", *(f"{db:g}" for db in noises)]]
        for kind, method in METHODS.items():
            found = [results.get((name, db, kind)) for db in noises]
            if any(found):
                printed = PUBLISHED.get(name, {}).get(kind, {})
                rows.append([method.title, *(
                    _with_printed(one, printed.get(db))
                    for db, one in zip(noises, found, strict=True)
                )])  # fmt: skip
        yield rows_of(rows)
        rows = [["seeds: least to most; worst trajectory", *(f"{db:g}" for db in noises)]]
        for kind, method in METHODS.items():
            found = [results.get((name, db, kind)) for db in noises]
            if any(found) and method.group in LEARNED:
                rows.append([method.title, *map(_spread, found)])
        if len(rows) > 1:
            yield rows_of(rows)


def _pieces(results: Results, name: str) -> str:
    """What was learned from, where something was."""
    training = [
        t.get("training", {}) for key, r in results.items() if key[0] == name for t in r.told
    ]
    lengths = sorted({one["piece"] for one in training if "piece" in one})
    return f"; pieces of {' or '.join(map(str, lengths))} steps to learn from" if lengths else ""


def _held_out(one: Result) -> float:
    """Error on trajectories that were held out, median of the seeds [dB]."""
    return median(told["training"]["mse_db"] for told in one.told)


def _with_printed(one: Result | None, printed: float | None) -> str:
    text = "" if one is None else _text(one.median_db)
    return text if printed is None else f"{text} ({printed:.2f})"


def _spread(one: Result | None) -> str:
    if one is None:
        return ""
    pooled = sorted(one.pooled)
    seeds = _text(pooled[0]) if len(pooled) == 1 else f"{_text(pooled[0])} to {_text(pooled[-1])}"
    return f"{seeds}; {_text(one.worst_db)}"


def bars(results: Results) -> str:
    """KalmanNet where the model is wrong: beside the paper's, and beside the tuned filter."""
    rows = [[
        "model", "1 / r2 [dB]", "which", "KalmanNet", "seeds", "paper's", "within 0.5 dB",
        "EKF, tuned", "ahead of it by [dB]",
    ]]  # fmt: skip
    for name in BARS:
        for db in SCENARIOS[name].noises:
            candidates = [k for k in KALMANNETS if (name, db, k) in results]
            ekf = results.get((name, db, "ekf"))
            if not candidates or ekf is None:
                continue
            kind = min(candidates, key=lambda k: _held_out(results[name, db, k]))
            found = results[name, db, kind]
            printed = PUBLISHED[name]["kalmannet"][db]
            met = "yes" if found.median_db <= printed + MOST_BEHIND_DB else "no"
            by = ahead(found, ekf)
            text = "a trajectory is lost" if by is None else f"{by.by:+.2f} +- {by.half:.2f}"
            rows.append([
                SCENARIOS[name].title, f"{db:g}", METHODS[kind].title.partition(", ")[2],
                _text(found.median_db), str(len(found.seeds)),
                _text(printed), met, _text(ekf.median_db), text,
            ])  # fmt: skip
    return rows_of(rows)
