"""How it looks what `tune` found: tables, and what keeps one from taking it as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType


def report(found: Mapping[str, Any], width: int = 100) -> RenderableType:
    """Tables of what `tune` found, and what is to be said of it.

    width   into which the columns should fit; those that do not are left out
    """
    from rich.console import Group
    from rich.text import Text

    points, held_out = found["points"], found["held_out"]
    seeds = _many(len(found["seeds"]), "seed") + ", interrupted" * found["interrupted"]
    columns = _columns(found, width)
    truth = "reads truth: for simulations only" if found["reads_truth"] else "needs no truth"
    parts: list[RenderableType] = [
        Text(f"{found['flow']}: {found['block']} by {found['by']}, {found['best_is']}; {truth}"),
        Text(f"{_many(len(points), 'point')}, pooled over {seeds}\n"),
        _table(found, columns, [(point["parameters"], point["results"]) for point in points]),
    ]
    failed = [
        f"{_assigned(point['parameters'])} failed, {point['failed']}"
        for point in points
        if point["failed"]
    ]
    if failed:
        parts.append(Text("\n" + "\n".join(failed)))
    if held_out is not None and held_out["differs"]:
        count = len(held_out["seeds"])
        rows = [(found["best"], held_out["best"])]
        if found["now"] != found["best"]:
            rows.append((found["now"], held_out["now"]))
        parts += [Text(f"\n{_many(count, 'other seed')}\n"), _table(found, columns, rows)]
        if len(rows) > 1:
            parts.append(Text(f"\nbetter than now on {held_out['better_on']} of {count}"))
    return Group(*parts)


def warnings_of(found: Mapping[str, Any]) -> list[str]:
    """What should keep one from taking the best value as it is."""
    said, held_out, best = [], found["held_out"], found["best"]
    if best is None:
        return ["no point could be run to its end"] if found["points"] else ["nothing was run"]
    for parameter in found["at_edge"]:
        said.append(
            f"the best {parameter} = {best[parameter]:.4g} is at the edge of what was tried; widen "
            "the grid with --grid"
        )
    if held_out is None:
        said.append("it was not confirmed on other seeds")
    elif not held_out["differs"]:
        said.append("the numbers do not depend on the seed, so nothing confirms the choice")
    elif held_out["failed"]:
        said.append(f"the best point fails on other seeds, {held_out['failed']}")
    elif best != found["now"] and 2 * held_out["better_on"] <= len(held_out["seeds"]):
        said.append("on most other seeds what the flow has now is no worse")
    return said


def _columns(found: Mapping[str, Any], width: int) -> list[str]:
    """The numbers that are shown: that which decides, and others that fit beside it."""
    key = found["by"].rpartition(".")[2]
    left = (
        width - len("best, now") - len(key) - sum(max(len(name), 10) + 2 for name in found["now"])
    )
    shown = [key]
    results = (point["results"] for point in found["points"])
    for name in next((numbers for numbers in results if numbers), ()):
        if name != key and (left := left - max(len(name), 8) - 2) >= 0:
            shown.append(name)
    return shown


def _table(
    found: Mapping[str, Any],
    columns: Sequence[str],
    rows: Sequence[tuple[Mapping[str, float], Mapping[str, float | None]]],
) -> RenderableType:
    """Points and their numbers; the best is marked, and that of now."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in (*found["now"], *columns):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("")
    for point, numbers in rows:
        marks = [word for word in ("best", "now") if point == found[word]]
        values = [numbers.get(name) for name in columns]
        cells = ["-" if value is None else f"{value:.5g}" for value in values]
        table.add_row(
            *(f"{value:.4g}" for value in point.values()), *cells, ", ".join(marks),
            style="bold" if "best" in marks else "",
        )  # fmt: skip
    return table


def _assigned(parameters: Mapping[str, float]) -> str:
    return ", ".join(f"{name} = {value:.4g}" for name, value in parameters.items())


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


__all__ = ["report", "warnings_of"]
