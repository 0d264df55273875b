"""A KalmanNet that reads images with the help of its own prediction, as a block."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from blocks.kernels import latent
from blocks.kernels.image_encoder import Encoder
from blocks.kernels.kalman import Track
from blocks.kernels.kalmannet_filter import Filters, Tracks
from blocks.state_space import checked_intervals
from blocks.tracker.filtering import Intervals, Tracked
from blocks.tracker.learned import LearnedFilter
from pipeline.errors import FieldError, WeightsError
from pipeline.frame import Array, FrameInfo
from pipeline.weights import Weights


class LatentKalmanNet(LearnedFilter, name="tracker.latent_kalmannet"):
    """States from images, each read by a network that knows what the model predicts.

    Buchnik et al., "Latent-KalmanNet", arXiv 2304.07827. Prediction and correction are those of
    tracker.kalmannet; what it is given as observations is read from each image by a network like
    that of frontend.learned_features, which sees what the model foretells beside the image. An
    image with a NaN is missing. Noise need not be known; no covariance is told.

    A stream is one track that goes on from frame to frame; words are tracks of their own. New
    weights go on from the states that were reached, as in tracker.kalmannet.

    images          (..., time, row, column) float32
    interval_s      (..., time)         [s]; step_s if absent
    estimates       (..., time, n)      updated states
    innovations     (..., time, m)      what was read less what was predicted
    covariances, nis, log_likelihood    NaN

    Raises FieldError for images of another size, RunError where a number is no longer finite, and
    WeightsError where there are no weights.
    """

    trained_by = "blocks.trainer.latent_kalmannet:fit"
    learns_from = ("states",)
    carries = Tracks

    def start(self) -> None:
        super().start()
        self._networks: tuple[Encoder, Filters] | None = None

    def take(self, weights: Weights) -> None:
        with self._fitting(weights):
            encoder, gain = latent.networks_of(weights.hyper, weights.arrays)
            filters = Filters(gain, self._model)
            angles = self._model.angles
            if (
                encoder.angles.tolist() != angles.tolist()
                or encoder.extra != angles.size + angles.sum()
            ):
                raise WeightsError(
                    f"weights {weights.name!r} v{weights.version} read {encoder.angles.size} "
                    f"numbers and see {encoder.extra} beside an "
                    f"image, but the model observes {angles.size}; train others for {self.name}"
                )
            image = np.zeros((1, 1, *encoder.shape), np.float32)
            for tracks in (
                filters.start(1),
                None,
            ):  # a step, of a stream and of words, compiles all
                self._run((encoder, filters), image, np.full((1, 1), self.step_s), tracks)
        self._serve(filters)
        self._networks = encoder, filters

    def process(
        self,
        images: Float32[Array, "*word time row column"],
        interval_s: Intervals | None = None,
        info: FrameInfo = FrameInfo(),
    ) -> Tracked:
        if self._networks is None:
            raise self._without_weights()
        encoder, _ = self._networks
        if images.shape[-2:] != encoder.shape:
            raise FieldError(
                f"{self.name}: 'images' are {images.shape[-2]} x {images.shape[-1]} pixels, but "
                f"its weights read {encoder.shape[0]} x {encoder.shape[1]}"
            )
        intervals = checked_intervals(self.name, interval_s, images.shape[:-2], self.step_s)
        return self._follow(self._networks, np.array(images), intervals, info.sample)

    def _run(
        self, filters: tuple[Encoder, Filters], seen: Array, intervals: Array,
        tracks: Tracks | None, sample: int = 0,
    ) -> Track:  # fmt: skip
        encoder, gains = filters
        together = tracks is None
        if tracks is None:
            tracks = gains.start(len(seen))
        out = Track.empty(seen.shape[:2], self._model.size, self._model.rows)
        done, _, _ = latent.run(encoder, gains, seen, intervals, tracks, out, together=together)
        self._check_finite(
            done, seen.shape[1], sample, "image",
            "train the networks on frames like these, or start nearer to where the tracks do "
            "(initial_state)",
        )  # fmt: skip
        return out
