"""Weights: what a model is, on an edge and on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.errors import FieldError, WeightsError
from pipeline.frame import Array, Frame, Kind, Scalar, as_field


@dataclass(frozen=True)
class Weights:
    """Named arrays with the hyperparameters that give them a meaning.

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
        for name, array in self.arrays.items():
            try:
                as_field(array, f"{where}: {name!r}")
            except FieldError as error:
                raise WeightsError(str(error)) from None
            if array.dtype.kind in "fc" and not np.isfinite(array).all():
                raise WeightsError(f"{where}: {name!r} holds NaN or infinity")

    @property
    def digest(self) -> str:
        """SHA-256 over name, hyperparameters and arrays, as hex digits."""
        sha = hashlib.sha256(json.dumps([self.name, dict(self.hyper)], sort_keys=True).encode())
        for name in sorted(self.arrays):
            array = self.arrays[name]
            sha.update(json.dumps([name, array.dtype.name, array.shape]).encode())
            sha.update(np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()

    def to_frame(self, stream: str, seq: int, born_ns: int) -> Frame:
        """A frame of kind `weights`."""
        marks: dict[str, Scalar] = {
            "name": self.name, "version": self.version, "parent": self.parent,
            "labels": self.labels, "hyper": json.dumps(dict(self.hyper), sort_keys=True),
            "sha256": self.digest,
        }  # fmt: skip
        return Frame(Kind.WEIGHTS, stream, seq, 0, born_ns, dict(self.arrays), marks)

    @classmethod
    def from_frame(cls, frame: Frame) -> Weights:
        """Read weights back; WeightsError where the digest or the description is wrong."""
        marks = frame.marks
        try:
            weights = cls(
                name=str(marks["name"]), version=int(marks["version"]), arrays=frame.fields,
                hyper=json.loads(str(marks["hyper"])), parent=int(marks["parent"]),
                labels=str(marks["labels"]),
            )  # fmt: skip
        except (KeyError, ValueError) as error:
            raise WeightsError(f"a weights frame without a proper {error}") from None
        if weights.digest != marks.get("sha256"):
            raise WeightsError(f"weights {weights.name!r} v{weights.version} fail their SHA-256")
        return weights
