"""Gradient steps, but only when something has changed."""

from __future__ import annotations

from typing import Literal

from blocks.trainer.gradients import GradientTrainer
from blocks.training.drift import Ddm, DriftTest, PageHinkley
from blocks.training.on_drift import OnDrift as WhenFired
from blocks.training.strategy import Strategy
from pipeline.block import param
from pipeline.errors import ParameterError


class OnDrift(GradientTrainer, name="trainer.on_drift"):
    """Steps of Adam on the words from which a test says that they are unlike those before.

    The test sees what a receiver can: the serving node's loss, the share of bits that the decoder
    changed, or whether words are accepted. After it has fired it begins anew.
    """

    watch: Literal["loss", "difference", "acceptance"] = param(
        default="loss", doc="what the test looks at, word by word"
    )
    test: Literal["page_hinkley", "ddm"] = param(
        default="page_hinkley", doc="ddm: for shares only, which losses are not"
    )
    allowance: float = param(
        default=0.02, at_least=0.0, doc="of page_hinkley: how much above the mean is no change"
    )
    threshold: float = param(
        default=0.2, above=0.0, doc="of page_hinkley: sum of what is above, at which it fires"
    )
    deviations: float = param(
        default=3.0, above=0.0, unit="standard deviations", doc="of ddm: at which it fires"
    )
    words: int = param(
        default=5, at_least=1, unit="words", doc="trained on from the one at which it fires"
    )

    def check(self) -> None:
        super().check()
        if self.test == "ddm" and self.watch == "loss":
            raise ParameterError(
                "test = 'ddm' is for shares, and watch = 'loss' is none; choose watch = "
                "'difference' or 'acceptance', or test = 'page_hinkley'"
            )

    def _strategy(self) -> Strategy:
        test: DriftTest = PageHinkley(allowance=self.allowance, threshold=self.threshold)
        if self.test == "ddm":
            test = Ddm(deviations=self.deviations)
        return WhenFired(self._continued(), test, watch=self.watch, words=self.words)
