"""Where things stand in a TOML text: the line of each table, key and list element.

`tomllib` names the line of a text that is no TOML, but not that of a value in a good one, and
an error about a flow must name its line.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right

Path = tuple[str | int, ...]

_GAP = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})'  # up to two quotes may precede the closing three
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_BARE_VALUE = re.compile(r"[^,\[\]{}#\n]+")  # dates may hold a space


def lines_of(text: str) -> dict[Path, int]:
    r"""Line of every table, key and list element, by its path; for a text that tomllib accepts.

    >>> lines_of("[blocks.channel]\ntaps = [\n  1.0,\n  0.5]")[("blocks", "channel", "taps", 1)]
    4
    """
    return _Scanner(text).lines()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._breaks = [index for index, letter in enumerate(text) if letter == "\n"]
        self._found: dict[Path, int] = {}
        self._repeated: dict[Path, int] = {}  # [[tables]] -> how many so far

    def lines(self) -> dict[Path, int]:
        table: Path = ()
        self._skip(_GAP)
        while self._at < len(self._text):
            start = self._at
            if self._text[start] == "[":
                table = self._header()
            else:
                self._pair(table)
            if self._at == start:  # no TOML; what was found so far may still help
                break
            self._skip(_GAP)
        return self._found

    def _skip(self, what: re.Pattern[str]) -> str:
        """Move past a match of `what`, if one begins here, and return it."""
        match = what.match(self._text, self._at)
        if match is None:
            return ""
        self._at = match.end()
        return match.group()

    def _next_is(self, letters: str) -> bool:
        return self._text.startswith(letters, self._at)

    def _note(self, path: Path, at: int) -> None:
        line = bisect_right(self._breaks, at - 1) + 1
        for length in range(1, len(path) + 1):
            self._found.setdefault(path[:length], line)

    def _header(self) -> Path:
        start = self._at
        repeated = self._next_is("[[")
        self._at += 2 if repeated else 1
        *outer, last = self._key()
        self._at += 2 if repeated else 1
        path: Path = ()
        for key in outer:
            path = self._newest((*path, key))
        path = (*path, last)
        if repeated:
            self._repeated[path] = self._repeated.get(path, 0) + 1
        path = self._newest(path)
        self._note(path, start)
        return path

    def _newest(self, path: Path) -> Path:
        """The path of the newest element, where the path is one of repeated tables."""
        return (*path, self._repeated[path] - 1) if path in self._repeated else path

    def _key(self) -> list[str]:
        parts = []
        while True:
            self._skip(_SPACE)
            if self._next_is('"') or self._next_is("'"):
                parts.append(str(tomllib.loads("key = " + self._skip(_STRING))["key"]))
            else:
                parts.append(self._skip(_BARE_KEY))
            self._skip(_SPACE)
            if not self._next_is("."):
                return parts
            self._at += 1

    def _pair(self, table: Path) -> None:
        start = self._at
        path = (*table, *self._key())
        self._note(path, start)
        if self._next_is("="):
            self._at += 1
            self._skip(_SPACE)
            self._value(path)

    def _value(self, path: Path) -> None:
        if self._next_is('"') or self._next_is("'"):
            self._skip(_STRING)
        elif self._next_is("["):
            self._items(path, "]")
        elif self._next_is("{"):
            self._items(path, "}")
        else:
            self._skip(_BARE_VALUE)

    def _items(self, path: Path, end: str) -> None:
        """The elements of a list, or the pairs of a table in braces."""
        self._at += 1
        self._skip(_GAP)
        index = 0
        while self._at < len(self._text) and not self._next_is(end):
            start = self._at
            if end == "]":
                self._note((*path, index), start)
                self._value((*path, index))
            else:
                self._pair(path)
            if self._at == start:
                return
            index += 1
            self._skip(_GAP)
            if self._next_is(","):
                self._at += 1
                self._skip(_GAP)
        self._at += 1


__all__ = ["Path", "lines_of"]
