"""A file that a sink makes once it has something to write into it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from io import FileIO
from pathlib import Path

from pipeline.errors import ParameterError, RunError


class NewFile:
    """Bytes into a file that is opened at the first write.

    Nothing is buffered: a file of lines, written in whole ones, ends with one however the program
    ends.

    where   who says so in error texts

    Raises ParameterError, when it is made, if the file exists or cannot be made; RunError where it
    cannot be written.
    """

    def __init__(self, where: str, path: str, overwrite: bool) -> None:
        self._where = where
        self._path = Path(path).expanduser()
        self._file: FileIO | None = None
        folder = self._path.parent
        if self._path.is_dir():
            raise ParameterError(f"{self._path} is a folder; expected a file")
        if self._path.exists() and not overwrite:
            raise ParameterError(f"{self._path} exists; give another path, or set overwrite = true")
        if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            raise ParameterError(f"no file can be made in the folder {folder}")

    def write(self, content: bytes) -> None:
        """Write all of it."""
        try:
            if self._file is None:
                self._file = self._path.open("wb", buffering=0)
            left = memoryview(content)
            while left:
                left = left[self._file.write(left) or 0 :]
        except OSError as error:
            raise self._failed(error) from None

    def replace(self, parts: Iterable[bytes]) -> None:
        """Make the file of these, whole or not at all."""
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")
        try:
            with draft.open("wb") as file:
                file.writelines(parts)
            draft.replace(self._path)
        except OSError as error:
            draft.unlink(missing_ok=True)
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
