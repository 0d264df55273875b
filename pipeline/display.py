"""How a run looks: a live screen in a terminal, plain lines elsewhere, the summary at the end.

Everything here returns what is to be shown; the command line shows it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text

Summary = Mapping[str, Any]
Line = tuple[str, str]  # text and style, such as ("block  frames", "dim")
Row = tuple[Sequence[str], str]  # cells and style

RECENT_S = 3.0  # rates on a live screen are those of so long
BAR = 40  # columns of a progress bar, at most
#: Keys of results that read better as words.
WORDS = {"ci95": "95 % interval"}


class View:
    """A run while it lasts; `show` takes each new summary, rich draws the last one.

    It is never higher or wider than the terminal: the least busy blocks and the last columns are
    left out first.

    limit_s   seconds after which the sources stop; 0: no limit
    """

    def __init__(self, summary: Summary, limit_s: float = 0.0) -> None:
        self._limit_s = limit_s
        self._past: deque[Summary] = deque()
        self.show(summary)

    def show(self, summary: Summary) -> None:
        """Take a new summary."""
        self._now = summary
        if not self._past or _measured(summary) > _measured(self._past[-1]):
            self._past.append(summary)
        while len(self._past) > 2 and _measured(self._past[1]) < _measured(summary) - RECENT_S:
            self._past.popleft()

    def plain(self) -> str:
        """How far the run is, on one line."""
        if not self._now["frames"]:
            return self._waits()
        numbers = [f"{self._now['seconds']:.1f} s", *self._progress()[1], *self._numbers()]
        return "; ".join([", ".join(numbers), *result_lines(self._now)])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # the last line stays free: a terminal scrolls when something is written behind it
        yield from self._lines(options.max_width, max(1, (options.height or console.height) - 1))

    def _lines(self, width: int, height: int) -> Iterator[Text]:
        if not self._now["frames"]:
            yield _text(f"{self._now['run']}   {self._waits()}", "dim")
            return
        head = self._head(width)[:height]
        room = height - len(head)
        blocks = block_rows(self._now, self._busy)
        edges = edge_rows(self._now)
        results = list(result_lines(self._now))
        folded = wrapped(results, width)
        if len(blocks) + len(edges) + len(folded) <= room:
            results = folded
        shares = _shared(room, (len(blocks), len(edges), len(results)))
        sections = [
            _table(_busiest(blocks, shares[0], self._busy), width)[: shares[0]],
            _table(_first(edges, shares[1], "edges"), width)[: shares[1]],
            _first_lines(results, shares[2]),
        ]
        airy = sum(len(lines) + bool(lines) for lines in sections) <= room
        yield from head
        for lines in sections:
            if airy and lines:
                yield _text("")
            for text, style in lines:
                yield _text(text, style)

    def _waits(self) -> str:
        return "waits for the first frame" if _measured(self._now) else "starting"

    def _head(self, width: int) -> list[Text]:
        title = _text(self._now["run"], "bold")
        title.append(f"   {self._now['seconds']:.1f} s", "dim")
        lines = [title, _text("   ".join(self._numbers()))]
        fraction, words = self._progress()
        if fraction is not None:
            columns = max(4, min(BAR, width - 20))
            full = round(columns * fraction)
            bar = _text("")
            bar.append("━" * full, "green")
            bar.append("━" * (columns - full), "bright_black")
            bar.append("  " + ", ".join(words))
            lines.insert(1, bar)
        return lines

    def _numbers(self) -> list[str]:
        """Frames, rate and latency so far."""
        p50, p99, p999 = (duration(us) for us in self._now["latency_us"].values())
        return [
            f"{self._now['frames']:,} frames",
            f"{self._rate():,.0f} frames/s",
            f"latency p50 {p50}, p99 {p99}, p99.9 {p999}",
        ]

    def _rate(self) -> float:
        """Frames per second of late."""
        before, now = self._past[0], self._past[-1]
        seconds = _measured(now) - _measured(before)
        if not seconds:
            return float(now["frames_per_s"])
        return float(now["frames"] - before["frames"]) / seconds

    def _busy(self, block: str) -> float:
        """The part of the time that a block has been busy of late."""
        before, now = self._past[0], self._past[-1]
        seconds = _measured(now) - _measured(before)
        if not seconds or block not in before["blocks"]:
            return _busy_part(now, block)
        busy_s = now["blocks"][block]["busy_s"] - before["blocks"][block]["busy_s"]
        return float(busy_s / seconds)

    def _progress(self) -> tuple[float | None, list[str]]:
        """How much of the run is over, and in words; None where nobody knows."""
        fractions, left_s = [], []
        frames, left, rate = self._now["frames"], self._now.get("left"), self._rate()
        if left is not None and frames + left:
            fractions.append(frames / (frames + left))
            if rate > 0.0:
                left_s.append(left / rate)
        if self._limit_s:
            fractions.append(min(1.0, self._now["seconds"] / self._limit_s))
            left_s.append(max(0.0, self._limit_s - self._now["seconds"]))
        if not fractions:
            return None, []
        words = [f"{100 * max(fractions):.0f} %"]
        return max(fractions), words + ([f"{_clock(min(left_s))} left"] if left_s else [])


def _measured(summary: Summary) -> float:
    """Seconds from the start of the run to the counts in its summary."""
    return float(summary.get("measured_s", summary["seconds"]))


def _busy_part(summary: Summary, block: str) -> float:
    return float(summary["blocks"][block]["busy_s"] / max(summary["seconds"], 1e-9))


def block_rows(summary: Summary, busy: Callable[[str], float] | None = None) -> list[Row]:
    """A table of the blocks, titles first.

    busy    the part of the time that a block works; by default that of the whole run
    """
    rows: list[Row] = [(("block", "frames", "busy", "us/frame p50", "p99"), "dim")]
    for name, block in summary["blocks"].items():
        part = busy(name) if busy else _busy_part(summary, name)
        times = block["us_per_frame"]
        cells = (
            name, f"{block['frames']:,}", f"{100 * part:.1f} %",
            f"{times['p50']:,.1f}", f"{times['p99']:,.1f}",
        )  # fmt: skip
        rows.append((cells, ""))
    return rows


def edge_rows(summary: Summary, live: bool = True) -> list[Row]:
    """A table of the edges between workers, titles first; empty if there are none.

    live    the run goes on: show what is under way
    """
    edges = {
        name: edge
        for name, edge in summary["edges"].items()
        if edge["bytes"] or edge["lost"] or edge["dropped"] or "queue" in edge
    }
    lossy = any(edge["lost"] or edge["dropped"] for edge in edges.values())
    if not edges:
        return []
    titles = ["edge", "frames", "MB"] + ["under way"] * live + ["lost", "dropped"] * lossy
    rows: list[Row] = [(titles, "dim")]
    for name, edge in edges.items():
        cells = [name, f"{edge['frames']:,}", f"{edge['bytes'] / 1e6:,.1f}"]
        cells += [f"{edge.get('queue', 0) / 1024:,.0f} KiB"] * live
        cells += [f"{edge['lost']:,}", f"{edge['dropped']:,}"] * lossy
        rows.append((cells, "red" if edge["lost"] else "yellow" if edge["dropped"] else ""))
    return rows


def result_lines(summary: Summary) -> Iterator[str]:
    """A line for each sink with its numbers; lists and histories are left to the JSON.

    And one for each source that lost something, and each block with weights.
    """
    for name, block in summary["blocks"].items():
        if block.get("gaps"):
            yield f"{name}: {block['lost_samples']:,} samples lost in {block['gaps']:,} gaps"
    for name, result in summary["results"].items():
        shown = [
            f"{WORDS.get(key, key).replace('_', ' ')} {_value(value)}"
            for key, value in result.items()
            if _short(value) and not str(value).endswith(".png")
        ]
        if shown:
            yield f"{name}: {', '.join(shown)}"
    yield from (f"warning: {text}" for text in summary.get("warnings", ()))
    for name, block in summary["blocks"].items():
        if "use" in block:
            yield f"{name}: {block['use']} serves, replaced {block['replaced']} times"
    for name, model in summary["models"].items():
        weights = f"weights {model['name']}@{model['version']}" if model["name"] else "no weights"
        yield (
            f"{name}: {weights}, {model['swaps']:,} swaps, {model['refused']:,} refused, "
            f"{model['rolled_back']:,} rolled back"
        )


def final_lines(
    summary: Summary, folder: str, pictures: Sequence[str] = (), width: int = 0
) -> Iterator[str]:
    """What is printed when a run has ended.

    folder    of the run, as the user should see it
    pictures  names of the pictures in it
    width     of the terminal; 0: results stay on one line each
    """
    latency = summary["latency_us"]
    yield (
        f"{summary['flow']}: {summary['frames']:,} frames in {summary['seconds']:.2f} s"
        + (f", {summary['frames_per_s']:,.0f} frames/s" if summary["frames"] else "")
        + (", interrupted" if summary.get("exit_code", 0) > 128 else "")
    )
    if latency["p50"]:
        yield (
            f"latency from source to sink: p50 {duration(latency['p50'])}, "
            f"p99 {duration(latency['p99'])}, p99.9 {duration(latency['p999'])}"
        )
    if summary["frames"]:
        yield from _plain_tables(summary, live=False)
    yield from wrapped(result_lines(summary), width) if width else result_lines(summary)
    for picture in pictures:
        yield f"picture: {folder}/{picture}"
    yield f"summary: {folder}/summary.json"


def status_lines(summary: Summary) -> Iterator[str]:
    """Where a run stands, in plain lines."""
    yield f"{summary['run']}: {View(summary).plain()}"
    yield from _plain_tables(summary, live=True)


def duration(us: float) -> str:
    """A time in the unit that suits it.

    >>> duration(830.0), duration(1250.0), duration(2.5e6)
    ('830 us', '1.2 ms', '2.50 s')
    """
    if us < 1e3:
        return f"{us:.0f} us"
    return f"{us / 1e3:.1f} ms" if us < 1e6 else f"{us / 1e6:.2f} s"


def _plain_tables(summary: Summary, live: bool) -> Iterator[str]:
    """The tables of blocks and edges, an empty line around each."""
    yield ""
    for rows in (block_rows(summary), edge_rows(summary, live)):
        if rows:
            yield from (f"  {text}" for text, _ in _table(rows))
            yield ""


def _clock(seconds: float) -> str:
    """Seconds as a person says them: 12 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _short(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) == 2 and all(isinstance(item, (int, float)) for item in value)
    return isinstance(value, (int, float, str)) and len(str(value)) < 80


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " ... ".join(_value(item) for item in value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


# Lines that fit


def _text(text: str, style: str = "") -> Text:
    """A line that is cut rather than wrapped."""
    from rich.text import Text

    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _table(rows: Sequence[Row], width: int = 0) -> list[Line]:
    """Rows as aligned lines, names left and numbers right; columns that do not fit are left out."""
    count = len(rows[0][0]) if rows else 0
    widths = [max(len(cells[c]) for cells, _ in rows if c < len(cells)) for c in range(count)]
    while width and count > 2 and sum(widths[:count]) + 3 * (count - 1) > width:
        count -= 1
    lines = []
    for cells, style in rows:
        parts = [
            f"{cell:<{widths[c]}}" if c == 0 else f"{cell:>{widths[c]}}"
            for c, cell in enumerate(cells[:count])
        ]
        lines.append(("   ".join(parts).rstrip(), style))
    return lines


def _busiest(rows: Sequence[Row], most: int, busy: Callable[[str], float]) -> list[Row]:
    """The titles and the busiest blocks, in the order of the flow."""
    if len(rows) <= most:
        return list(rows)
    kept = sorted(rows[1:], key=lambda row: -busy(row[0][0]))[: max(0, most - 2)]
    left_out = len(rows) - 1 - len(kept)
    return [row for row in rows if row is rows[0] or row in kept] + [_more(left_out, "blocks")]


def _first(rows: Sequence[Row], most: int, what: str) -> list[Row]:
    """The titles and the first rows."""
    if len(rows) <= most:
        return list(rows)
    kept = max(1, most - 1)
    return [*rows[:kept], _more(len(rows) - kept, what)]


def _first_lines(lines: Sequence[str], most: int) -> list[Line]:
    """The first lines, and how many follow."""
    if len(lines) <= most:
        return [(line, "") for line in lines]
    kept = max(0, most - 1)
    return [*((line, "") for line in lines[:kept]), (f"and {len(lines) - kept} more", "dim")][:most]


def _more(count: int, what: str) -> Row:
    return (f"and {count} more {what}",), "dim"


def _shared(height: int, wanted: Sequence[int]) -> list[int]:
    """Lines for each section: the longest give way until all fit; below 3 a table is nothing."""
    room = list(wanted)
    while sum(room) > max(0, height):
        longest = max(range(len(room)), key=lambda section: room[section])
        room[longest] -= 1
        if longest < 2 and room[longest] < 3:
            room[longest] = 0
    return room


def wrapped(lines: Iterable[str], width: int) -> list[str]:
    """Lines broken at spaces to a width, the rest of each indented."""
    import textwrap

    return [
        part
        for line in lines
        for part in textwrap.wrap(line, max(width, 20), subsequent_indent="    ") or [""]
    ]
