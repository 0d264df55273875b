"""One step of an extended Kalman filter on every word that the receiver accepted."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from blocks.nodes.node import Trainable
from blocks.trainer.feedback import DecisionFeedback
from blocks.training.bayesian import Bayesian as Tracking
from blocks.training.strategy import Strategy
from pipeline.block import param


class Bayesian(DecisionFeedback, name="trainer.bayesian"):
    """Tracks the parameters of a node as the state of an extended Kalman filter.

    For nodes of few parameters (`kalvit train` with a wiener node makes one); larger ones need
    covariance = "diagonal". The step has no size to choose: it follows from what is known of the
    parameters (training/bayesian.py).
    """

    trains: ClassVar[type[Any]] = Trainable

    prior: float = param(
        default=0.3, above=0.0, doc="standard deviation of the parameters at the start"
    )
    drift: float = param(
        default=0.1, at_least=0.0, doc="standard deviation of their change from word to word"
    )
    covariance: Literal["full", "diagonal"] = param(
        default="full", doc="full: its work grows with the square of the number of parameters"
    )
    iterations: int = param(default=1, at_least=1, at_most=100, doc="of the step on a word")

    def _strategy(self) -> Strategy:
        return Tracking(
            prior=self.prior, drift=self.drift, covariance=self.covariance,
            iterations=self.iterations,
        )  # fmt: skip
