"""Gradient steps on every word, from a start that is learned too."""

from __future__ import annotations

from blocks.trainer.gradients import GradientTrainer
from blocks.training.meta import Meta as Predictive
from blocks.training.strategy import Strategy
from pipeline.block import param


class Meta(GradientTrainer, name="trainer.meta"):
    """Steps of Adam on the newest word, from parameters from which such steps serve the next word.

    Predictive meta-learning, Raviv et al., "Meta-ViterbiNet", arXiv 2103.13483.
    """

    every: int = param(
        default=5, at_least=1, unit="words", doc="from one improvement of the start to the next"
    )
    pairs: int = param(
        default=20,
        at_least=1,
        doc="of neighbouring words in an improvement, a step of Adam for each",
    )
    step: float = param(
        default=0.1, above=0.0, doc="of the gradient step on the first word of a pair"
    )
    meta_rate: float = param(default=1e-3, above=0.0, doc="of Adam on the start")
    words: int = param(
        default=25, at_least=2, at_most=10_000, unit="words", doc="newest ones that pairs are from"
    )
    first_order: bool = param(default=False, doc="leave second derivatives out: half the work")

    def _strategy(self) -> Strategy:
        return Predictive(
            steps=self.steps, rate=self.rate, batch=self.batch, every=self.every,
            pairs=self.pairs, step=self.step, meta_rate=self.meta_rate, words=self.words,
            first_order=self.first_order, seed=self.context.seed,
        )  # fmt: skip
