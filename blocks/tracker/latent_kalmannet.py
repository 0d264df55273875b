"""A KalmanNet that reads images with the help of its own prediction, as a block."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from blocks.kernels import kalman, latent
from blocks.kernels.image_encoder import Encoder
from blocks.kernels.kalman import Track
from blocks.kernels.kalmannet_filter import Filters, Tracks
from blocks.state_space import checked_intervals
from blocks.tracker.filtering import Intervals, Tracked
from blocks.tracker.learned import LearnedTracker
from pipeline.errors import FieldError, WeightsError
from pipeline.frame import Array, FrameInfo
from pipeline.weights import Weights


class LatentKalmanNet(LearnedTracker, name="tracker.latent_kalmannet"):
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
        self._encoder: Encoder | None = None
        self._filters: Filters | None = None

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
            for words in (False, True):  # a step of both compiles all, too
                step = np.full((1, 1), self.step_s)
                self._run(encoder, filters, image, step, filters.start(1), words=words)
        self._tracks = self._went_on(filters)
        self._encoder, self._filters = encoder, filters

    def process(
        self,
        images: Float32[Array, "*word time row column"],
        interval_s: Intervals | None = None,
        info: FrameInfo = FrameInfo(),
    ) -> Tracked:
        encoder, filters, tracks = self._encoder, self._filters, self._tracks
        if encoder is None or filters is None:
            raise self._without_weights()
        if images.shape[-2:] != encoder.shape:
            raise FieldError(
                f"{self.name}: 'images' are {images.shape[-2]} x {images.shape[-1]} pixels, but "
                f"its weights read {encoder.shape[0]} x {encoder.shape[1]}"
            )
        intervals = checked_intervals(self.name, interval_s, images.shape[:-2], self.step_s)
        shown = np.array(images)
        if images.ndim == 4:
            tracks = filters.start(len(images))
            out = self._run(encoder, filters, shown, intervals, tracks, info.sample, words=True)
        else:
            out = self._run(encoder, filters, shown[None], intervals[None], tracks, info.sample)
            out = out.of(0)
        return Tracked(*out[:4], kalman.log_likelihood(out.innovations, out.nis, out.det))

    def _run(
        self, encoder: Encoder, filters: Filters, images: Array, intervals: Array, tracks: Tracks,
        sample: int = 0, *, words: bool = False,
    ) -> Track:  # fmt: skip
        """Track what images (track, time, side, side) show; RunError where one is lost."""
        out = Track.empty(images.shape[:2], self._model.size, self._model.rows)
        done, _, _ = latent.run(encoder, filters, images, intervals, tracks, out, together=words)
        self._check_finite(
            done, images.shape[1], sample, "image",
            "train the networks on frames like these, or start nearer to where the tracks do "
            "(initial_state)",
        )  # fmt: skip
        return out
