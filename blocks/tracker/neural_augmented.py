"""A smoother whose messages a graph network corrects, as a block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from blocks.kernels.neural_augmented import Estimated, GraphNetwork, NeuralSmoother
from blocks.late import LateRows
from blocks.state_space import Modelled, checked_intervals, checked_observations
from blocks.tracker.filtering import Intervals, Observations
from blocks.tracker.smoother import Smoothed
from pipeline.block import Learned, param
from pipeline.errors import RunError, WeightsError
from pipeline.frame import Array, FrameInfo, Scalar
from pipeline.weights import Weights


class NeuralAugmentedSmoother(Learned, Modelled, name="tracker.neural_augmented_smoother"):
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
        self._model = model = self._build()
        self._smoother: NeuralSmoother | None = None
        n, m = model.size, model.rows
        self._mean, self._covariance = model.initial.copy(), model.initial_covariance.copy()
        self._seen, self._intervals = np.empty((2 * self.lag, m)), np.empty(2 * self.lag)
        self._held = 0  # observations of the window and the next that are in
        self._sample = 0  # of the first of these
        self._late = LateRows(np.empty((0, n)), np.empty((0, n, n)))

    def take(self, weights: Weights) -> None:
        where = f"weights {weights.name!r} v{weights.version}"
        try:
            network = GraphNetwork.of(weights.hyper, weights.arrays)
            made = NeuralSmoother(network, self._model)
        except KeyError as error:
            raise WeightsError(f"{where} lack {error}; train others for {self.name}") from None
        except (ValueError, TypeError) as error:
            raise WeightsError(f"{where}: {error}; train others for {self.name}") from None
        nothing = np.full((2, self._model.rows), np.nan)
        found = made.run(  # which also compiles all that is due
            nothing, np.full(2, self.step_s), self._model.initial, self._model.initial_covariance
        )
        if isinstance(found, int):
            raise WeightsError(f"{where} lead to numbers that are not finite; train others")
        self._smoother = made

    def process(
        self,
        observations: Observations,
        interval_s: Intervals | None = None,
        info: FrameInfo = FrameInfo(),
    ) -> list[Smoothed]:
        if self._smoother is None:
            raise WeightsError(
                f"{self.name}: there are no weights to smooth with; train some with `kalvit train "
                "FLOW --block BLOCK` and name them by model = NAME (those that are there: `kalvit "
                "models list`)"
            )
        seen = checked_observations(self.name, observations, self._model.rows)
        intervals = checked_intervals(self.name, interval_s, seen.shape[:-1], self.step_s)
        if seen.ndim == 3:
            self._late.check_idle(self.name)
            return [self._words(seen, intervals, info.sample)]
        self._late.expect(len(seen))
        at = 0
        while at < len(seen):
            count = min(len(seen) - at, 2 * self.lag - self._held)
            new = slice(self._held, self._held + count)
            self._seen[new] = seen[at : at + count]
            self._intervals[new] = intervals[at : at + count]
            at += count
            self._held += count
            if self._held == 2 * self.lag:
                self._decide(self.lag)
        return [Smoothed(*rows) for rows in self._late.complete()]

    def finish(self) -> list[Smoothed]:
        if self._held:
            self._decide(self._held)
        return [Smoothed(*rows) for rows in self._late.complete()]

    def state(self) -> Mapping[str, Array | Scalar]:
        return {
            "mean": self._mean.copy(), "covariance": self._covariance.copy(),
            "seen": self._seen[: self._held].copy(),
            "intervals": self._intervals[: self._held].copy(),
            "held": self._held, "sample": self._sample, **self._late.state(),
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        self._mean, self._covariance = np.array(state["mean"]), np.array(state["covariance"])
        self._held, self._sample = int(state["held"]), int(state["sample"])
        self._seen[: self._held] = state["seen"]
        self._intervals[: self._held] = state["intervals"]
        self._late.restore(state)

    def _words(self, seen: Array, intervals: Array, sample: int) -> Smoothed:
        n, model = self._model.size, self._model
        estimates = np.empty((*seen.shape[:2], n))
        covariances = np.empty((*seen.shape[:2], n, n))
        for word in range(len(seen)):
            found = self._smooth(
                seen[word], intervals[word], model.initial, model.initial_covariance,
                sample + word * seen.shape[1], seen.shape[1],
            )  # fmt: skip
            estimates[word], covariances[word] = found.states, found.covariances
        return Smoothed(estimates, covariances)

    def _decide(self, count: int) -> None:
        """Smooth all that is held, and let go of the first `count`."""
        held = slice(0, self._held)
        found = self._smooth(
            self._seen[held], self._intervals[held], self._mean, self._covariance, self._sample,
            count,
        )  # fmt: skip
        self._late.add(found.states[:count].copy(), found.covariances[:count].copy())
        self._mean, self._covariance = found.mean, found.covariance
        rest = slice(count, self._held)
        self._held -= count
        self._sample += count
        for array in (self._seen, self._intervals):
            array[: self._held] = array[rest].copy()

    def _smooth(
        self, seen: Array, intervals: Array, mean: Array, covariance: Array, sample: int, keep: int
    ) -> Estimated:
        assert self._smoother is not None  # noqa: S101 (process has seen to it)
        found = self._smoother.run(seen, intervals, mean, covariance, keep)
        if isinstance(found, int):
            raise RunError(
                f"{self.name}: at observation {sample + found} a covariance is not positive, or a "
                "number not finite; raise process_noise or observation_noise, or train the network "
                "on frames like these"
            )
        return found
