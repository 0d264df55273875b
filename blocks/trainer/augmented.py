"""Gradient steps on words and on samples that are drawn like theirs."""

from __future__ import annotations

from blocks.trainer.gradients import GradientTrainer
from blocks.training.augmented import Augmented as Augmenting
from blocks.training.strategy import Strategy
from pipeline.block import param


class Augmented(GradientTrainer, name="trainer.augmented"):
    """Steps of Adam on accepted words with synthetic samples behind them, of each class as many.

    Raviv and Shlezinger, "Data augmentation for deep receivers", IEEE TWC 22(11), 2023.
    """

    count: int = param(default=16, at_least=1, doc="synthetic samples of each class")
    keep: float = param(
        default=0.5, at_least=0.0, below=1.0,
        doc="share of the statistics that is kept from lesson to lesson",
    )  # fmt: skip

    def _strategy(self) -> Strategy:
        return Augmenting(
            self._continued(), count=self.count, memory=self.keep, seed=self.context.seed
        )
