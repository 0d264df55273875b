"""A smoother whose messages a graph network corrects, as a block."""

from __future__ import annotations

import numpy as np

from blocks.kernels.neural_augmented import GraphNetwork, NeuralSmoother
from blocks.tracker.filtering import Intervals, Observations
from blocks.tracker.learned import LearnedTracker
from blocks.tracker.smoothing import Smoothed, WindowSmoother
from pipeline.block import param
from pipeline.frame import Array, FrameInfo
from pipeline.weights import Weights


class NeuralAugmentedSmoother(
    LearnedTracker, WindowSmoother, name="tracker.neural_augmented_smoother"
):
    """Smoothed states by a model that is wrong, and a graph network that has learned where.

    Garcia Satorras, Akata, Welling, "Combining generative and discriminative models for hybrid
    inference", NeurIPS 2019; Shlezinger et al., "Model-Based Deep Learning", Proc. IEEE, Example 7.
    From a first estimate, that of tracker.smoother with the same parameters unless the weights say
    otherwise, all states are improved together, a few times: the network looks at the differences
    between states, model and observations, and corrects what the model makes of them. What is
    learned and what is not stands in blocks/kernels/neural_augmented.py.

    Words are smoothed as a whole. A stream is smoothed in windows of `lag` observations, each once
    those of the next window are in; the result does not depend on how the stream is cut. New
    weights smooth the windows that are not yet smoothed, from where the others stood.

    observations  (..., time, m)     NaN where nothing came
    interval_s    (..., time)        time before each observation [s]; step_s if absent
    estimates     (..., time, n)     smoothed states
    covariances   (..., time, n, n)  of the last iteration; NaN for weights that tell none

    Raises FieldError for observations of another length or that are infinite, RunError where a
    covariance is no longer positive or a number not finite, and WeightsError without weights.
    """

    trained_by = "blocks.trainer.neural_augmented:fit"
    learns_from = ("states",)

    lag: int = param(
        default=100, at_least=1, at_most=1_000_000, unit="observations",
        doc="observations after each that are waited for, in streams",
    )  # fmt: skip

    def start(self) -> None:
        super().start()
        self._smoother: NeuralSmoother | None = None

    def take(self, weights: Weights) -> None:
        with self._fitting(weights):
            network = GraphNetwork.of(weights.hyper, weights.arrays)
            made = NeuralSmoother(network, self._model)
            nothing = np.full((2, self._model.rows), np.nan), np.full(2, self.step_s)
            start = self._model.initial, self._model.initial_covariance
            found = made.run(*nothing, *start)  # which also compiles all that is due
            if isinstance(found, int):
                raise self._lost(found)
        self._smoother = made

    def process(
        self,
        observations: Observations,
        interval_s: Intervals | None = None,
        info: FrameInfo = FrameInfo(),
    ) -> list[Smoothed]:
        self._serving()
        return super().process(observations, interval_s, info)

    def _smooth(
        self, seen: Array, intervals: Array, mean: Array, covariance: Array
    ) -> tuple[Array, Array] | int:
        found = self._serving().run(seen, intervals, mean, covariance)
        return found if isinstance(found, int) else found[:2]

    def _smooth_held(self, count: int) -> tuple[Array, Array] | int:
        held = self._windows.held
        found = self._serving().run(
            self._seen[:held], self._intervals[:held], *self._before, count
        )  # fmt: skip
        if isinstance(found, int):
            return found
        self._before = found.mean, found.covariance
        return found[:2]

    def _serving(self) -> NeuralSmoother:
        if self._smoother is None:
            raise self._without_weights()
        return self._smoother

    def _advice(self) -> str:
        return f"{super()._advice()}, or train the network on frames like these"
