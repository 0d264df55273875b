"""Gradient steps only when the channel seems to have changed."""

from __future__ import annotations

from typing import Literal

from blocks.trainer.gradients import GradientTrainer
from blocks.training.drift import Ddm, DriftTest, PageHinkley
from blocks.training.on_drift import OnDrift as WhenDrifting
from blocks.training.strategy import Strategy
from pipeline.block import param
from pipeline.errors import ParameterError


class OnDrift(GradientTrainer, name="trainer.on_drift"):
    """Steps of Adam on accepted words, but only from when a test says that something has changed.

    The test looks at what a receiver sees of each word: the loss of the serving node, the share of
    bits that the decoder changed, or whether the word was lost. Page-Hinkley (Biometrika 58, 1971)
    takes any of them, DDM (Gama et al., SBIA 2004) the latter two.
    """

    watch: Literal["loss", "difference", "acceptance"] = param(
        default="loss", doc="what the test looks at"
    )
    test: Literal["page_hinkley", "ddm"] = param(default="page_hinkley", doc="which test")
    allowance: float = param(
        default=0.02,
        at_least=0.0,
        doc="page_hinkley: by how much a larger number is still the same",
    )
    threshold: float = param(
        default=0.2, above=0.0, doc="page_hinkley: sum of what is beyond that at which it fires"
    )
    deviations: float = param(default=3.0, above=0.0, doc="ddm: at which it fires")
    words: int = param(
        default=5,
        at_least=1,
        unit="lessons",
        doc="learned from when it has fired, and at the start",
    )

    def check(self) -> None:
        super().check()
        if self.test == "ddm" and self.watch == "loss":
            raise ParameterError(
                "test = 'ddm' takes shares, which a loss is not; set watch = 'difference' or "
                "'acceptance', or test = 'page_hinkley'"
            )

    def _strategy(self) -> Strategy:
        test: DriftTest = PageHinkley(allowance=self.allowance, threshold=self.threshold)
        if self.test == "ddm":
            test = Ddm(deviations=self.deviations)
        return WhenDrifting(self._continued(), test, watch=self.watch, words=self.words)
