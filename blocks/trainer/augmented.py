"""Gradient steps on every word and on samples that look like its classes."""

from __future__ import annotations

from blocks.trainer.gradients import GradientTrainer
from blocks.training.augmented import Augmented as WithSamples
from blocks.training.strategy import Strategy
from pipeline.block import param


class Augmented(GradientTrainer, name="trainer.augmented"):
    """Steps of Adam from the serving node, on the newest word with synthetic samples behind it.

    Raviv and Shlezinger, "Data augmentation for deep receivers", IEEE TWC 22(11), 2023.
    """

    count: int = param(
        default=16, at_least=1, at_most=10_000, doc="synthetic samples of each class of symbols"
    )
    keep: float = param(
        default=0.5, at_least=0.0, at_most=1.0,
        doc="share of the statistics of classes that is kept from word to word",
    )  # fmt: skip

    def _strategy(self) -> Strategy:
        seed = self.context.seed
        return WithSamples(self._continued(), count=self.count, memory=self.keep, seed=seed)
