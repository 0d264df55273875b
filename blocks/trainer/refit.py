"""Closed forms, fitted anew to every word that the receiver accepted."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np

from blocks.kernels.trellis import ALPHABETS
from blocks.nodes.class_gaussians import ClassGaussians
from blocks.nodes.node import Fitted, Node
from blocks.nodes.taps import Taps
from blocks.trainer.feedback import DecisionFeedback
from blocks.training.refit import Refit as Refitting
from blocks.training.strategy import Strategy
from pipeline.block import param


class Refit(DecisionFeedback, name="trainer.refit"):
    """Least squares, or Gaussians of classes, on the last words that were accepted.

    The honest baseline of receivers that learn: same labels, same gate, no network.
    """

    trains: ClassVar[type[Any]] = Fitted

    kind: Literal["taps", "class_gaussians"] = param(
        default="taps", doc="what is fitted where no model is given"
    )
    modulation: Literal["bpsk", "ook", "qpsk"] = param(
        default="bpsk", doc="alphabet of the symbols where no model is given"
    )
    memory: int = param(
        default=4, at_least=1, at_most=16, unit="symbols",
        doc="that a sample depends on, where no model is given",
    )  # fmt: skip
    words: int = param(
        default=1, at_least=1, at_most=10_000, unit="lessons",
        doc="the newest ones, which are fitted",
    )  # fmt: skip

    def _fresh(self) -> Node:
        order = ALPHABETS[self.modulation].size
        dtype = np.complex128 if self.modulation == "qpsk" else np.float64
        if self.kind == "taps":
            arrays = {"taps": np.zeros(self.memory, dtype), "noise_var": np.array(1.0)}
            return Taps(self.modulation, self.memory, arrays)
        n_classes = order**self.memory
        arrays = {"mean": np.zeros(n_classes, dtype), "variance": np.ones(n_classes)}
        return ClassGaussians(self.modulation, self.memory, arrays)

    def _strategy(self) -> Strategy:
        return Refitting(words=self.words)
