"""A file that a sink makes once it has something to write into it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import ParameterError, RunError


class NewFile:
    """Bytes into a file that is opened at the first write.

    where   who says so in error texts

    Raises ParameterError, when it is made, if the file exists or cannot be made; RunError where it
    cannot be written.
    """

    def __init__(self, where: str, path: str, overwrite: bool) -> None:
        self._where = where
        self._path = Path(path).expanduser()
        self._file: BinaryIO | None = None
        folder = self._path.parent
        if self._path.is_dir():
            raise ParameterError(f"{self._path} is a folder; expected a file for messages")
        if self._path.exists() and not overwrite:
            raise ParameterError(f"{self._path} exists; give another path, or set overwrite = true")
        if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            raise ParameterError(f"no file can be made in the folder {folder}")

    def write(self, content: bytes) -> None:
        """Write all of it."""
        try:
            if self._file is None:
                self._file = self._path.open("wb")
            self._file.write(content)
        except OSError as error:
            raise self._failed(error) from None

    def close(self) -> None:
        """Close the file; the next write makes it anew."""
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            file.close()
        except OSError as error:
            raise self._failed(error) from None

    def _failed(self, error: OSError) -> RunError:
        return RunError(f"{self._where}: cannot write {self._path}: {error.strerror}")
