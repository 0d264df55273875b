"""How a run looks in a terminal: a live table, plain lines, the summary at the end.

Everything here returns what is to be shown; the command line shows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Summary = Mapping[str, Any]


def live_table(summary: Summary) -> RenderableType:
    """Frames, rates and results so far."""
    blocks = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("block", "frames", "busy", "us/frame p50", "p99"):
        blocks.add_column(title, justify="left" if title == "block" else "right")
    seconds = max(summary["seconds"], 1e-9)
    for name, block in summary["blocks"].items():
        times = block["us_per_frame"]
        blocks.add_row(
            name, f"{block['frames']:,}", f"{block['busy_s'] / seconds:.0%}",
            f"{times['p50']:.1f}", f"{times['p99']:.1f}",
        )  # fmt: skip
    parts: list[RenderableType] = [Text(headline(summary), style="bold"), blocks]
    queues = [
        f"{name} {edge['queue'] / 1024:.0f} KiB"
        + (f", {edge['dropped']} dropped" if edge["dropped"] else "")
        for name, edge in summary["edges"].items()
        if "queue" in edge
    ]
    if queues:
        parts.append(Text("under way: " + "   ".join(queues), style="dim"))
    parts += [Text(line) for line in result_lines(summary)]
    return Group(*parts)


def headline(summary: Summary) -> str:
    """One line: how far, how fast, how late."""
    latency = summary["latency_us"]
    line = (
        f"{summary['run']}  {summary['seconds']:.1f} s  {summary['frames']:,} frames  "
        f"{summary['frames_per_s']:,.0f} frames/s  latency p50 {_time(latency['p50'])} "
        f"p99 {_time(latency['p99'])}"
    )
    left = summary.get("left")
    if left and summary["frames"]:
        whole = left + summary["frames"]
        remaining = summary["seconds"] * left / summary["frames"]
        line += f"  {summary['frames'] / whole:.0%}, {remaining:.0f} s left"
    return line


def result_lines(summary: Summary) -> Iterator[str]:
    """A line for each sink with its numbers; lists and histories are left to the JSON."""
    for name, result in summary["results"].items():
        shown = [f"{key} {_number(value)}" for key, value in result.items() if _short(value)]
        if shown:
            yield f"{name}: " + ", ".join(shown)
    for name, model in summary["models"].items():
        swaps, refused = model["swaps"], model["refused"]
        yield f"{name}: weights v{model['version']}, {swaps} swaps, {refused} refused"


def final_lines(summary: Summary, folder: str, pictures: list[str]) -> Iterator[str]:
    """What is printed when a run has ended."""
    latency = summary["latency_us"]
    yield (
        f"{summary['flow']}: {summary['frames']:,} frames in {summary['seconds']:.2f} s, "
        f"{summary['frames_per_s']:,.0f} frames/s; latency p50 {_time(latency['p50'])}, "
        f"p99 {_time(latency['p99'])}, p99.9 {_time(latency['p999'])}"
    )
    for name, block in summary["blocks"].items():
        times = block["us_per_frame"]
        yield (
            f"  {name}: {block['frames']:,} frames, {block['busy_s']:.2f} s busy, "
            f"{times['p50']:.1f} us per frame (p99 {times['p99']:.1f})"
        )
    for name, edge in summary["edges"].items():
        if edge["bytes"] or edge["lost"] or edge["dropped"]:
            yield (
                f"  {name}: {edge['frames']:,} frames, {edge['bytes'] / 1e6:,.1f} MB, "
                f"{edge['lost']} lost, {edge['dropped']} dropped"
            )
    for line in result_lines(summary):
        yield f"  {line}"
    for picture in pictures:
        yield f"picture: {picture}"
    yield f"summary: {folder}/summary.json"


def _short(value: Any) -> bool:
    numbers = (int, float, str)
    if isinstance(value, list):
        return len(value) == 2 and all(isinstance(item, (int, float)) for item in value)
    return isinstance(value, numbers) and len(str(value)) < 80


def _number(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_number(item) for item in value) + "]"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _time(us: float) -> str:
    if us < 1e3:
        return f"{us:.0f} us"
    return f"{us / 1e3:.1f} ms" if us < 1e6 else f"{us / 1e6:.2f} s"
