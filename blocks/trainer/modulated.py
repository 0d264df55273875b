"""A KalmanNet whose weights follow the noise without being trained."""

from __future__ import annotations

from typing import ClassVar, Literal

from blocks.nodes.gain import GainNode
from blocks.trainer.tracks import TrackFeedback
from blocks.training.strategy import Strategy
from blocks.training.tracks import Contextual
from pipeline.block import param
from pipeline.errors import ParameterError, WeightsError
from pipeline.models import Models
from pipeline.weights import Weights


class Modulated(TrackFeedback, name="trainer.modulated"):
    """The weights that a hypernetwork tells for the noise that there seems to be.

    After Ni, Revach, Shlezinger, "Adaptive KalmanNet", ICASSP 2024, as blocks/kernels/modulation.py
    says. Nothing is retrained, so that candidates are few and do not add up: unlike others they
    serve unless clearly worse. The noise that is told is the one number that is fitted, `by` what
    is best with it over the last observations: their likelihood; the prediction of each by the
    network, for which process_noise need not be right; or the distance of its estimates from those
    of the smoother of trainer.smoothed, which know `lag` observations more.
    `model` is taken to be for the noise that observation_noise says, and stays while that is so.
    """

    labels: ClassVar[str] = "noise"

    tolerance: float = param(
        default=1.0, unit="standard errors",
        doc="by which a candidate's loss may exceed that of what serves",
    )  # fmt: skip
    hypernetwork: str = param(
        doc="weights of the hypernetwork with its gain network: NAME or NAME@VERSION"
    )
    by: Literal["likelihood", "prediction", "smoother"] = param(
        default="likelihood", doc="what is best with the noise that is told"
    )
    least_db: float = param(
        default=2.0, at_least=0.0, unit="dB", doc="change of the noise at which weights change"
    )
    lag: int = param(
        default=20, at_least=1, unit="steps", doc="that the smoother has to know after a state"
    )

    def check(self) -> None:
        super().check()
        try:
            weights = Models().load(self.hypernetwork)
            strategy = self._contextual(weights)
            GainNode(self._build(), *strategy.told(0.0))
        except WeightsError as error:
            raise ParameterError(str(error)) from None
        except (KeyError, TypeError, ValueError) as error:
            raise ParameterError(
                f"hypernetwork = {self.hypernetwork!r} holds none for this model: {error}"
            ) from None

    def _strategy(self) -> Strategy:
        return self._contextual(Models().load(self.hypernetwork))

    def _contextual(self, weights: Weights) -> Contextual:
        return Contextual(weights.hyper, weights.arrays, self.least_db, self.by, self.lag)
