"""Text files that sinks write line by line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TextIO

from pipeline.errors import ParameterError, RunError


class Lines:
    """A file of lines, made when the first one comes.

    owner   who writes, for errors
    path    of the file
    """

    def __init__(self, owner: str, path: str) -> None:
        self._owner, self._path = owner, Path(path).expanduser()
        self._file: TextIO | None = None

    def check(self, overwrite: bool) -> None:
        """Raise ParameterError where the file is there, unless it may be replaced, or cannot be."""
        path = self._path
        if path.is_dir():
            raise ParameterError(f"{path} is a folder; expected a file for lines")
        if path.exists() and not overwrite:
            raise ParameterError(f"{path} exists; give another path, or set overwrite = true")
        if not (path.parent.is_dir() and os.access(path.parent, os.W_OK | os.X_OK)):
            raise ParameterError(f"no file can be made in the folder {path.parent}")

    def write(self, line: str) -> None:
        """Add a line; RunError where the disk does not take it."""
        try:
            if self._file is None:
                self._file = self._path.open("w", encoding="utf-8")
            self._file.write(line + "\n")
        except OSError as error:
            raise self._failed(error) from None

    def close(self) -> None:
        """End the file, if any line came."""
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
            except OSError as error:
                raise self._failed(error) from None

    def _failed(self, error: OSError) -> RunError:
        return RunError(f"{self._owner}: cannot write {self._path}: {error.strerror}")
