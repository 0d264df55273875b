"""Parameters tracked as the state of an extended Kalman filter."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from blocks.nodes.node import Trainable
from blocks.trainer.feedback import DecisionFeedback
from blocks.training.bayesian import Bayesian as Tracking
from blocks.training.strategy import Strategy
from pipeline.block import param
from pipeline.errors import ParameterError

MOST_PARAMETERS = 500  # of which a full covariance is kept: 2 MB, some 10 ms for each word


class Bayesian(DecisionFeedback, name="trainer.bayesian"):
    """One step per accepted word, of a size that follows from what is known and how fast it drifts.

    The parameters of the node drift as a random walk; each word is an observation of them
    (blocks/training/bayesian.py, which names the sources).
    """

    trains: ClassVar[type[Any]] = Trainable

    prior: float = param(
        default=0.3, above=0.0, doc="standard deviation of the parameters at first, by their scale"
    )
    drift: float = param(
        default=0.1, at_least=0.0, doc="likewise, of their change from lesson to lesson"
    )
    covariance: Literal["full", "diagonal"] = param(
        default="full", doc="full: for small nodes; diagonal: parameters are taken one by one"
    )
    iterations: int = param(default=1, at_least=1, at_most=100, doc="of a step")

    def check(self) -> None:
        super().check()
        count = self._first().node.parameters.size
        if self.covariance == "full" and count > MOST_PARAMETERS:
            raise ParameterError(
                f"a full covariance of {count} parameters is too large; set covariance = "
                f"'diagonal', or give a model of at most {MOST_PARAMETERS}, as of kind wiener"
            )

    def _strategy(self) -> Strategy:
        return Tracking(
            prior=self.prior, drift=self.drift, covariance=self.covariance,
            iterations=self.iterations,
        )  # fmt: skip
