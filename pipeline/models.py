"""Trained models on disk: a folder of versions, each written once and never edited.

    models/state_likelihood/7/weights.safetensors    the arrays
    models/state_likelihood/7/card.json              what they are, and a checksum of all else
    models/state_likelihood/current                  the versions promoted so far, the last serves

A version is written under another name and renamed when it is whole, which also takes its number:
of two who write at once, the second finds the number taken and goes on to the next. The user's
models lie in `models` or where KALVIT_MODELS says; those that packages ship lie in the folder
`weights` beside their flows and are only read.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pydantic

from pipeline import catalogue
from pipeline.errors import RunError, WeightsError, did_you_mean
from pipeline.frame import Array
from pipeline.weights import Weights

CARD, ARRAYS, CURRENT = "card.json", "weights.safetensors", "current"
CARD_LIMIT = 256 << 10  # bytes
HEADER_LIMIT = 256 << 10  # bytes that name the arrays, ahead of them
KEPT = 100  # promotions that `current` remembers
STALE_S = 3600.0  # what a writer that was killed left behind is removed after so long
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_SEAL = '  "seal": '  # the last entry of a card: SHA-256 of all before it


class Card(pydantic.BaseModel):
    """What a version is, beside its arrays.

    parent       the version it came from; 0: none
    labels       what it was trained on: simulator, pilots, or decisions that a check accepted
    hyper        what rebuilds the module
    arrays       name -> dtype and shape, such as "float32[16, 1]"
    sha256       `Weights.digest`
    file_bytes   and file_sha256: of the file with the arrays
    training     how it was trained: flow, block, seed, steps and the like
    scores       what it reached, by name
    created      UTC
    command      the command that makes it again; "" if there is none
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    version: int
    parent: int
    labels: str
    hyper: dict[str, Any]
    arrays: dict[str, str]
    sha256: str
    file_bytes: int
    file_sha256: str
    training: dict[str, Any]
    scores: dict[str, float]
    created: str
    command: str


class Models:
    """The versions of all models. A model is named as in "gain@7", or "gain" for its current one.

    folder    the user's; None: KALVIT_MODELS, or `models` here
    shipped   folders that are only read; None: those of the installed packages

    WeightsError says what is missing or was changed, RunError what the system refused.
    """

    def __init__(self, folder: Path | None = None, shipped: Iterable[Path] | None = None) -> None:
        self.folder = folder or Path(os.environ.get("KALVIT_MODELS", "models"))
        if shipped is None:
            shipped = sorted({file.parent / "weights" for file in catalogue.flows().values()})
        self._folders = (self.folder, *shipped)

    # looking

    def names(self) -> list[str]:
        """Models that have a version."""
        found = {name for folder in self._folders for name in _listed(folder, NAME)}
        return sorted(name for name in found if self.versions(name))

    def versions(self, name: str) -> list[int]:
        """Numbers of the versions of a model, in order."""
        found = {
            int(number) for folder in self._folders for number in _listed(folder / name, NUMBER)
        }
        return sorted(found)

    def current(self, name: str) -> int:
        """The version that serves where none is asked for; 0: none was promoted."""
        return (self._promoted(self._known(name)) or [0])[-1]

    def card(self, model: str) -> Card:
        """The card of a version."""
        return self._card(*self._settle(model))

    def load(self, model: str) -> Weights:
        """The weights of a version, once both of its files are found to be as they were written."""
        name, version = self._settle(model)
        return _weights(self._path(name, version), self._card(name, version))

    def verify(self, model: str = "") -> Iterator[tuple[str, str]]:
        """(version or pointer, what is wrong with it or "") of one model, or of all."""
        if "@" in model:
            name, version = self._settle(model)
            yield model, _told(partial(self._check, name, version))
            return
        for name in [self._known(model)] if model else self.names():
            for version in self.versions(name):
                yield f"{name}@{version}", _told(partial(self._check, name, version))
            yield f"{name}/{CURRENT}", _told(partial(self._check_pointer, name))

    # changing

    def add(
        self,
        weights: Weights,
        *,
        training: Mapping[str, Any] | None = None,
        scores: Mapping[str, float] | None = None,
        command: str = "",
    ) -> Weights:
        """Write a new version; returns the weights with the number that it got.

        It serves nowhere until it is promoted. Its parent has to be there.
        """
        name = weights.name
        if not NAME.fullmatch(name):
            raise WeightsError(
                f"{name!r} is no name for a model on disk; expected small letters, digits and _, "
                "such as 'state_likelihood'"
            )
        if weights.parent:
            self._path(name, weights.parent)
        home = self.folder / name
        with _told_as_run_error(home):
            home.mkdir(parents=True, exist_ok=True)
            _sweep(home)
            fresh = home / f".new-{secrets.token_hex(8)}"
            fresh.mkdir()
            try:
                data = _to_bytes(weights)
                _write(fresh / ARRAYS, data)
                while True:
                    version = max(self.versions(name), default=0) + 1
                    card = Card(
                        name=name, version=version, parent=weights.parent, labels=weights.labels,
                        hyper=dict(weights.hyper), arrays=_kinds(weights.arrays),
                        sha256=weights.digest, file_bytes=len(data),
                        file_sha256=hashlib.sha256(data).hexdigest(),
                        training=dict(training or {}),
                        scores={key: float(score) for key, score in (scores or {}).items()},
                        created=datetime.now(UTC).isoformat(timespec="seconds"), command=command,
                    )  # fmt: skip
                    (fresh / CARD).unlink(missing_ok=True)
                    _write(fresh / CARD, _sealed(card))
                    _weights(fresh, _read_card(fresh))  # it can be read back
                    _sync(fresh)
                    try:
                        fresh.rename(home / str(version))
                        break
                    except OSError:
                        if version not in self.versions(name):
                            raise  # nobody else took the number
                _sync(home)
            except BaseException:
                shutil.rmtree(fresh, ignore_errors=True)
                raise
        return replace(weights, version=version)

    def promote(self, model: str) -> int:
        """Let a version serve, once it is verified; returns its number."""
        name, version = self._settle(model)
        if "@" not in model:
            raise WeightsError(f"which version? write {name}@N; {self._there_are(name)}")
        self._check(name, version)
        with self._alone(name):
            try:
                promoted = self._promoted(name)
            except WeightsError:
                promoted = []  # a pointer that was damaged is replaced
            if promoted[-1:] != [version]:
                self._point(name, [*promoted, version])
        return version

    def rollback(self, name: str) -> int:
        """Let the version serve that served before the current one; returns its number."""
        name = self._known(name)
        with self._alone(name):
            promoted = self._promoted(name)
            if len(promoted) < 2:
                before = f"before {name}@{promoted[0]}" if promoted else "yet"
                raise WeightsError(
                    f"no version of {name!r} served {before}; promote one instead, "
                    + self._there_are(name)
                )
            self._check(name, promoted[-2])
            self._point(name, promoted[:-1])
        return promoted[-2]

    # finding

    def _known(self, name: str) -> str:
        """The name, if there is a model of this name."""
        if not NAME.fullmatch(name) or not self.versions(name):
            known = self.names()
            hint = did_you_mean(name, known) or (
                f"; there are {', '.join(known)}"
                if known
                else f"; {self.folder} holds none (KALVIT_MODELS names another folder)"
            )
            raise WeightsError(f"no model named {name!r}{hint}")
        return name

    def _settle(self, model: str) -> tuple[str, int]:
        """Name and version that a text such as "gain@7" or "gain" means."""
        name, at, number = model.partition("@")
        name = self._known(name)
        if not at:
            version = self.current(name)
            if not version:
                raise WeightsError(
                    f"no version of {name!r} is promoted; name one, such as {name}@"
                    f"{self.versions(name)[-1]}, or `kalvit models promote` it; "
                    + self._there_are(name)
                )
            return name, version
        if not NUMBER.fullmatch(number):
            raise WeightsError(f"{model!r} names no version; write {name}@N, N from 1")
        return name, int(number)

    def _there_are(self, name: str) -> str:
        return "there are " + ", ".join(f"{name}@{number}" for number in self.versions(name))

    def _path(self, name: str, version: int) -> Path:
        for folder in self._folders:
            path = folder / name / str(version)
            if path.is_dir():
                return path
        there = self._there_are(name) if self.versions(name) else "it has no versions at all"
        raise WeightsError(f"no model {name}@{version}; {there}")

    # reading and checking

    def _card(self, name: str, version: int) -> Card:
        path = self._path(name, version)
        card = _read_card(path)
        if (card.name, card.version) != (name, version):
            raise WeightsError(
                f"{path / CARD} is the card of {card.name}@{card.version}, not of {name}@{version};"
                " a version keeps its place, so move it back"
            )
        return card

    def _check(self, name: str, version: int) -> None:
        """WeightsError unless a version is whole and its parent is there."""
        card = self._card(name, version)
        _weights(self._path(name, version), card)
        if card.parent and card.parent not in self.versions(name):
            raise WeightsError(
                f"{name}@{version} came from {name}@{card.parent}, which is gone; put it back"
            )

    def _check_pointer(self, name: str) -> None:
        version = self.current(name)
        if version and version not in self.versions(name):
            raise WeightsError(
                f"{name}@{version} is the current version, but it is gone; put it back, or promote "
                f"another: {self._there_are(name)}"
            )

    def _promoted(self, name: str) -> list[int]:
        """Versions in the order in which they were promoted, as the pointer says."""
        for folder in self._folders:
            path = folder / name / CURRENT
            try:
                text = _read(path, CARD_LIMIT).decode("ascii", "replace")
            except FileNotFoundError:
                continue
            lines = text.splitlines()
            if not lines or not text.endswith("\n") or not all(map(NUMBER.fullmatch, lines)):
                raise WeightsError(
                    f"{path} is no list of versions, one a line; `kalvit models promote {name}@N` "
                    f"writes it anew ({self._there_are(name)})"
                )
            return [int(line) for line in lines]
        return []

    def _point(self, name: str, promoted: list[int]) -> None:
        """Replace the pointer by one that ends with the version that serves."""
        home = self.folder / name
        with _told_as_run_error(home):
            partial = home / f".{CURRENT}-{secrets.token_hex(8)}"
            try:
                text = "".join(f"{version}\n" for version in promoted[-KEPT:])
                _write(partial, text.encode())
                partial.rename(home / CURRENT)
                _sync(home)
            finally:
                partial.unlink(missing_ok=True)

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Nobody else changes the pointer of this model meanwhile."""
        home = self.folder / name
        with _told_as_run_error(home):
            home.mkdir(parents=True, exist_ok=True)
            lock = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _listed(folder: Path, pattern: re.Pattern[str]) -> list[str]:
    """Names of the folders in a folder that fit a pattern."""
    try:
        return [p.name for p in folder.iterdir() if pattern.fullmatch(p.name) and p.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RunError(f"cannot read {folder}: {error.strerror}") from None


def _told(check: Callable[[], None]) -> str:
    """What is wrong, or nothing."""
    try:
        check()
    except (WeightsError, RunError) as error:
        return str(error)
    return ""


@contextmanager
def _told_as_run_error(home: Path) -> Iterator[None]:
    """Make of what the system refuses an error that says what to do."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"cannot write in {home}: {error.strerror}; set KALVIT_MODELS to a directory that has "
            "room and that you may write to"
        ) from None


def _read(path: Path, limit: int) -> bytes:
    """The bytes of a file, at most one more than `limit`; FileNotFoundError where it is missing."""
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None


def _changed(path: Path, what: str) -> WeightsError:
    return WeightsError(
        f"{path}: {what}; the file was changed after it was written. Put it back from a copy, or "
        "use another version"
    )


def _read_card(path: Path) -> Card:
    """The card in the folder of a version."""
    file = path / CARD
    try:
        data = _read(file, CARD_LIMIT)
    except FileNotFoundError:
        raise WeightsError(
            f"{file} is missing, so nobody knows what {path} is; use another version"
        ) from None
    body, _, seal = data.rpartition(_SEAL.encode())
    if seal != _seal(body):
        raise _changed(file, "it does not agree with its checksum")
    try:
        found = json.loads(data)
        found.pop("seal")
        return Card.model_validate(found)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise WeightsError(f"{file}: {key}: {first['msg']}; another release wrote it") from None
    except (ValueError, RecursionError, AttributeError, KeyError) as error:
        raise WeightsError(f"{file} is no card: {error}") from None


def _sealed(card: Card) -> bytes:
    """A card as bytes, every one of which its checksum covers."""
    try:
        text = json.dumps(card.model_dump(), indent=2, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise WeightsError(
            f"{card.name}: what was said of its training and scores cannot be written as JSON: "
            f"{error}"
        ) from None
    body = text.removesuffix("\n}").encode() + b",\n"
    data = body + _SEAL.encode() + _seal(body)
    if len(data) > CARD_LIMIT:
        raise WeightsError(f"{card.name}: its card has {len(data)} bytes; at most {CARD_LIMIT} fit")
    return data


def _seal(body: bytes) -> bytes:
    return f'"{hashlib.sha256(body).hexdigest()}"\n}}\n'.encode()


def _to_bytes(weights: Weights) -> bytes:
    """The arrays as a safetensors file."""
    from safetensors import SafetensorError  # not for those who only ask what there is
    from safetensors.numpy import save

    weights.to_frame("models", 0, 0)  # refused where a swap could not carry them
    try:
        return save(dict(weights.arrays))
    except SafetensorError as error:
        raise WeightsError(f"weights {weights.name!r} cannot be kept on disk: {error}") from None


def _weights(path: Path, card: Card) -> Weights:
    """The weights in the folder of a version, every byte compared with its card."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    file = path / ARRAYS
    try:
        data = _read(file, card.file_bytes)
    except FileNotFoundError:
        raise WeightsError(f"{file} is missing; put it back, or use another version") from None
    if len(data) != card.file_bytes:
        longer = "more" if len(data) > card.file_bytes else f"only {len(data)}"
        raise _changed(file, f"it should have {card.file_bytes} bytes, but has {longer}")
    header = int.from_bytes(data[:8], "little")
    if header > HEADER_LIMIT:
        raise _changed(file, f"its header has {header} bytes; at most {HEADER_LIMIT} are read")
    try:
        arrays = load(data)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise _changed(file, f"it is no safetensors file ({error})") from None
    found = _kinds(arrays)
    for name in sorted(found.keys() | card.arrays.keys()):
        came, wanted = found.get(name, "missing"), card.arrays.get(name, "nothing")
        if came != wanted:
            raise _changed(file, f"array {name!r} is {came}, but its card says {wanted}")
    weights = Weights(card.name, card.version, arrays, card.hyper, card.parent, card.labels)
    if weights.digest != card.sha256 or hashlib.sha256(data).hexdigest() != card.file_sha256:
        raise _changed(file, "it does not agree with the checksum on its card")
    return weights


def _kinds(arrays: Mapping[str, Array]) -> dict[str, str]:
    """Name -> dtype and shape of each array, by name.

    >>> import numpy as np
    >>> _kinds({"weight": np.zeros((16, 1), np.float32)})
    {'weight': 'float32[16, 1]'}
    """
    return {name: f"{arrays[name].dtype}{list(arrays[name].shape)}" for name in sorted(arrays)}


def _write(path: Path, data: bytes) -> None:
    """Write a new read-only file, down to the disk."""
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o444), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Bring the entries of a folder down to the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sweep(home: Path) -> None:
    """Remove what writers that were killed left behind."""
    for path in home.glob(".new-*"):
        try:
            if time.time() - path.stat().st_mtime > STALE_S:
                shutil.rmtree(path, ignore_errors=True)
        except FileNotFoundError:
            continue  # its writer has ended


__all__ = ["Card", "Models"]
