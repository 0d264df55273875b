"""What trainers that follow gradients have in common."""

from __future__ import annotations

from abc import ABC
from typing import Any, ClassVar

from blocks.nodes.node import Trainable
from blocks.trainer.feedback import DecisionFeedback
from blocks.training.continued import Continued
from pipeline.block import param


class GradientTrainer(DecisionFeedback, ABC):
    """A trainer whose strategy takes steps of Adam."""

    trains: ClassVar[type[Any]] = Trainable

    steps: int = param(
        default=5, at_least=1, at_most=100_000, doc="of Adam per word; more fit one word's noise"
    )
    rate: float = param(default=1e-3, above=0.0, doc="of Adam")
    batch: int = param(
        default=0, at_least=0, unit="symbols", doc="drawn for each step; 0: the whole word"
    )

    def _continued(self) -> Continued:
        return Continued(steps=self.steps, rate=self.rate, batch=self.batch, seed=self.context.seed)
