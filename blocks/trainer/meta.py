"""Gradient steps from parameters that such steps suit."""

from __future__ import annotations

from blocks.trainer.gradients import GradientTrainer
from blocks.training.meta import Meta as MetaLearning
from blocks.training.strategy import Strategy
from pipeline.block import param


class Meta(GradientTrainer, name="trainer.meta"):
    """Predictive meta-learning: parameters from which one word's steps suit the next word.

    Raviv et al., "Meta-ViterbiNet", arXiv 2103.13483. The steps of Adam on the newest word start
    from there, not from the serving node.
    """

    every: int = param(
        default=5, at_least=1, unit="lessons", doc="from one improvement of the start to the next"
    )
    pairs: int = param(
        default=20, at_least=1, doc="of neighbouring words in an improvement, a step for each"
    )
    step: float = param(default=0.1, above=0.0, doc="gradient step on the first word of a pair")
    meta_rate: float = param(default=1e-3, above=0.0, doc="of Adam on the parameters to start from")
    words: int = param(
        default=25, at_least=2, unit="lessons", doc="the newest ones, from which pairs are drawn"
    )
    first_order: bool = param(default=False, doc="leave Hessians out: half the work")

    def _strategy(self) -> Strategy:
        return MetaLearning(
            steps=self.steps, rate=self.rate, batch=self.batch, every=self.every,
            pairs=self.pairs, step=self.step, meta_rate=self.meta_rate, words=self.words,
            first_order=self.first_order, seed=self.context.seed,
        )  # fmt: skip
