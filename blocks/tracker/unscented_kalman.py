"""The unscented Kalman filter as a block."""

from __future__ import annotations

from blocks.kernels import unscented
from blocks.kernels.kalman import Track
from blocks.tracker.filtering import Filter
from pipeline.block import param
from pipeline.errors import ParameterError
from pipeline.frame import Array


class UnscentedKalman(Filter, name="tracker.unscented_kalman"):
    """A Kalman filter that carries a few points through the motion and the observation.

    Julier and Uhlmann, "Unscented filtering and nonlinear estimation", Proc. IEEE 92(3), 2004. It
    needs no Jacobian. The points are drawn anew before the observation, so that on a linear system
    this is the Kalman filter; angles are averaged around the circle. Fields and errors are those
    of Filter.
    """

    alpha: float = param(
        default=1.0, above=0.0, at_most=1.0, doc="how far the points stand from the mean"
    )
    beta: float = param(
        default=0.0, at_least=0.0,
        doc="added to the weight of the middle point in covariances; 2 suits a small alpha",
    )  # fmt: skip
    kappa: float = param(
        default=1.0, doc="the points stand alpha sqrt(n + kappa) standard deviations away"
    )

    def check(self) -> None:
        size = self._build().size
        if size + self.kappa <= 0.0:
            raise ParameterError(
                f"kappa = {self.kappa}, but must be above -{size}, the size of the state"
            )

    def _filter(self, seen: Array, intervals: Array, mean: Array, matrix: Array, out: Track) -> int:
        return unscented.unscented(
            self._model, seen, intervals, mean, matrix, out,
            alpha=self.alpha, beta=self.beta, kappa=self.kappa,
        )  # fmt: skip

    def _advice(self) -> str:
        return "raise process_noise, observation_noise or kappa"
