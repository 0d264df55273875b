"""What decided from which frame on: what a run writes down, and how a replay reads it.

`swaps.jsonl` in the folder of a run has a line for each stream of a learned block whose weights
have changed, written when the first frame is decided with them:

    {"block": "detector", "stream": "main", "seq": 120, "name": "net", "version": 3, "sha256": ...}

The weights themselves lie beside it, in `weights`, named by their digest. Refused weights have a
line with `refused` and why. A block that took the place of another has a line with its name in the
catalogue, and all parameters that are not its defaults:

    {"block": "detector", "stream": "main", "seq": 300, "use": "detector.viterbi", "params": {...}}

Blocks that take weights with an integer delay are not logged: they
decide alike in every run.

`trainer.jsonl` beside it has a line for each thing that a trainer decided, and why; what the lines
hold is the trainer's own matter, beside `block`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.errors import RunError, WeightsError
from pipeline.weights import Weights

LOG, KEPT, TRAINER_LOG = "swaps.jsonl", "weights", "trainer.jsonl"


@dataclass(frozen=True)
class Use:
    """A block that took the place of another: its name in the catalogue, and its parameters."""

    use: str
    params: Mapping[str, Any]


Place = tuple[str, int]  # stream, first seq
Swaps = Mapping[Place, Weights]  # what decides from there on
Uses = Mapping[Place, Use]


@dataclass(frozen=True)
class Replay:
    """What the log of a run says, by the name of the block."""

    weights: Mapping[str, Swaps] = field(default_factory=dict)
    uses: Mapping[str, Uses] = field(default_factory=dict)


class SwapLog:
    """Writes the log of one worker; several may write to the same folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: set[str] = set()

    def swapped(self, block: str, stream: str, seq: int, weights: Weights) -> None:
        """Frame `seq` is the first of this stream that these weights decide."""
        line = {
            "block": block, "stream": stream, "seq": seq, "name": weights.name,
            "version": weights.version, "sha256": weights.digest,
        }  # fmt: skip
        self._write(line, weights)

    def replaced(self, block: str, stream: str, seq: int, use: Use) -> None:
        """Frame `seq` is the first of this stream that this block decides in the other's place."""
        line = {
            "block": block, "stream": stream, "seq": seq, "use": use.use, "params": dict(use.params)
        }  # fmt: skip
        self._write(line)

    def keep(self, weights: Weights) -> None:
        """Write weights down before they serve, where nobody waits for it.

        What could not be written is tried again by `swapped`.
        """
        with suppress(OSError):
            self._keep(weights)

    def _write(self, line: Mapping[str, Any], weights: Weights | None = None) -> None:
        try:
            if weights is not None:
                self._keep(weights)
            self._append(line)
        except OSError as error:
            raise RunError(
                f"cannot write {error.filename or self._folder / LOG}: {error.strerror}; make "
                "room, or set KALVIT_RUNS to another directory"
            ) from None

    def refused(self, block: str, why: str) -> None:
        """Weights were refused; the old ones serve."""
        try:
            self._append({"block": block, "refused": why})
        except OSError:
            return  # nothing has changed that a replay would need

    def _append(self, line: Mapping[str, Any]) -> None:
        _append(self._folder / LOG, [line])

    def _keep(self, weights: Weights) -> None:
        if weights.digest in self._kept:
            return
        path = self._folder / KEPT / weights.digest
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            partial = path.with_name(f".{weights.digest}-{os.getpid()}")
            partial.write_bytes(weights.to_bytes())
            partial.rename(path)
        self._kept.add(weights.digest)


def keep_notes(folder: Path, block: str, notes: Sequence[Mapping[str, Any]]) -> None:
    """Write down what a trainer said since it was last asked."""
    try:
        if notes:
            _append(folder / TRAINER_LOG, [{"block": block, **note} for note in notes])
    except OSError:
        return  # the run does not depend on it


def _append(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write lines at once, so that those of several workers do not mix."""
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    log = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
    try:
        os.write(log, data)
    finally:
        os.close(log)


def read_swaps(folder: Path) -> Replay:
    """The log of a run; RunError where it left none, or a damaged one."""
    log = folder / LOG
    try:
        lines = log.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise RunError(
            f"{folder} has no {LOG}: no block there took weights live, or was replaced"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"cannot read {log}: {error}") from None
    found: dict[str, dict[Place, Weights]] = {}
    uses: dict[str, dict[Place, Use]] = {}
    kept: dict[str, Weights] = {}
    for number, text in enumerate(lines, 1):
        try:
            line = json.loads(text)
            if "refused" in line:
                continue
            block, place = str(line["block"]), (str(line["stream"]), int(line["seq"]))
            if "use" in line:
                uses.setdefault(block, {})[place] = Use(str(line["use"]), dict(line["params"]))
                continue
            digest, version = str(line["sha256"]), int(line["version"])
            if digest not in kept:
                kept[digest] = Weights.from_bytes((folder / KEPT / Path(digest).name).read_bytes())
                if kept[digest].digest != digest:
                    raise WeightsError(f"{KEPT}/{digest} holds other weights")
            found.setdefault(block, {})[place] = replace(kept[digest], version=version)
        except (OSError, ValueError, KeyError, TypeError, WeightsError) as error:
            raise RunError(f"{log}:{number}: cannot be replayed: {error}") from None
    return Replay(found, uses)


__all__ = ["Replay", "SwapLog", "Swaps", "Use", "Uses", "keep_notes", "read_swaps"]
