"""Weights: what a model is, on an edge and on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import msgpack
import numpy as np

from pipeline.errors import FieldError, FrameError, WeightsError
from pipeline.frame import Array, Frame, Kind, Scalar, as_field
from pipeline.wire import Codec

_CODEC = Codec(cap=1 << 62)  # only to see whether weights can travel; the cap is the edge's matter
_MARKS: Mapping[str, type] = {
    "name": str, "version": int, "parent": int, "labels": str, "hyper": str, "sha256": str,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Weights:
    """Named arrays with the hyperparameters that give them a meaning.

    They never change: arrays that the caller could still write to are copied. Two are alike if
    their digests are. WeightsError says which array is no finite one, or that `hyper` is not JSON.

    name      of the model, such as "state_likelihood"
    version   counts up; the one it came from is `parent` (0: none)
    hyper     what rebuilds the module
    arrays    name -> finite array
    labels    what it was trained on: simulator, pilots, or decisions that a check accepted
    """

    name: str
    version: int
    arrays: Mapping[str, Array]
    hyper: Mapping[str, Any] = field(default_factory=dict)
    parent: int = 0
    labels: str = ""

    def __post_init__(self) -> None:
        where = f"weights {self.name!r} v{self.version}"
        arrays = {}
        for name, array in self.arrays.items():
            try:
                arrays[name] = as_field(array, f"{where}: {name!r}")
            except FieldError as error:
                raise WeightsError(str(error)) from None
            if arrays[name].dtype.kind in "fc" and not np.isfinite(arrays[name]).all():
                raise WeightsError(f"{where}: {name!r} holds NaN or infinity")
        try:
            hyper = json.loads(json.dumps(dict(self.hyper), sort_keys=True, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise WeightsError(
                f"{where}: hyper = {self.hyper!r:.200} cannot be written as JSON: {error}"
            ) from None
        object.__setattr__(self, "arrays", MappingProxyType(arrays))
        object.__setattr__(self, "hyper", hyper)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over name, hyperparameters and arrays, as hex digits."""
        sha = hashlib.sha256(json.dumps([self.name, dict(self.hyper)], sort_keys=True).encode())
        for name in sorted(self.arrays):
            array = self.arrays[name]
            sha.update(json.dumps([name, array.dtype.name, array.shape]).encode())
            sha.update(array.tobytes())
        return sha.hexdigest()

    def to_frame(self, stream: str, seq: int, born_ns: int) -> Frame:
        """A frame of kind `weights`; WeightsError where they are more than a frame can carry."""
        marks: dict[str, Scalar] = {
            "name": self.name, "version": self.version, "parent": self.parent,
            "labels": self.labels, "hyper": json.dumps(dict(self.hyper), sort_keys=True),
            "sha256": self.digest,
        }  # fmt: skip
        frame = Frame(Kind.WEIGHTS, stream, seq, 0, born_ns, self.arrays, marks)
        try:
            _CODEC.encode(frame)  # refused alike whatever the split into workers
        except FieldError as error:
            where = f"weights {self.name!r} v{self.version}"
            raise WeightsError(f"{where} cannot travel: {error}") from None
        return frame

    def to_bytes(self) -> bytes:
        """Their frame in one piece, for a message or a file of a run."""
        frame = self.to_frame("weights", 0, 0)
        parts = [p if isinstance(p, bytes) else p.tobytes() for p in _CODEC.encode(frame)]
        packed: bytes = msgpack.packb(parts if _CODEC.is_large(frame) else [b"".join(parts)])
        return packed

    @classmethod
    def from_bytes(cls, data: bytes) -> Weights:
        """What `to_bytes` made; WeightsError for any other bytes."""
        try:
            first, *rest = msgpack.unpackb(data)
            (frame,) = _CODEC.decode(first, rest)
        except (FrameError, ValueError, TypeError, msgpack.UnpackException) as error:
            raise WeightsError(f"these bytes are no weights: {error}") from None
        return cls.from_frame(frame)

    @classmethod
    def from_frame(cls, frame: Frame) -> Weights:
        """Read weights back; WeightsError where the digest or the description is wrong."""
        if frame.kind is not Kind.WEIGHTS:
            raise WeightsError(f"a frame of kind {frame.kind.name.lower()} holds no weights")
        marks: Mapping[str, Any] = frame.marks
        for key, kind in _MARKS.items():
            if type(marks.get(key)) is not kind:
                came = f"{key} = {marks[key]!r:.80}" if key in marks else f"no {key}"
                expected = "a whole number" if kind is int else "a text"
                raise WeightsError(f"a weights frame has {came}; expected {expected}")
        where = f"weights {marks['name']!r} v{marks['version']}"
        try:
            hyper = json.loads(marks["hyper"])
        except (ValueError, RecursionError) as error:
            raise WeightsError(f"{where}: hyper is not JSON: {error}") from None
        if not isinstance(hyper, dict):
            raise WeightsError(f"{where}: hyper is a {type(hyper).__name__}; expected an object")
        weights = cls(
            name=marks["name"], version=marks["version"], arrays=frame.fields, hyper=hyper,
            parent=marks["parent"], labels=marks["labels"],
        )  # fmt: skip
        if weights.digest != marks["sha256"]:
            raise WeightsError(f"{where} fail their SHA-256: they were damaged on the way")
        return weights
