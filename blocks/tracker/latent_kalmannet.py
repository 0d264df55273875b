"""A KalmanNet that reads images with the help of its own prediction, as a block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32

from blocks.kernels import kalman, kalmannet_filter, latent
from blocks.kernels.image_encoder import Encoder
from blocks.kernels.kalman import Track
from blocks.kernels.kalmannet_filter import Filters, Tracks
from blocks.state_space import Modelled, checked_intervals
from blocks.tracker.filtering import Intervals, Tracked
from pipeline.block import Learned
from pipeline.errors import FieldError, RunError, WeightsError
from pipeline.frame import Array, FrameInfo, Scalar
from pipeline.weights import Weights


class LatentKalmanNet(Learned, Modelled, name="tracker.latent_kalmannet"):
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

    def start(self) -> None:
        self._model = self._build()
        self._encoder: Encoder | None = None
        self._filters: Filters | None = None
        self._tracks: Tracks | None = None

    def take(self, weights: Weights) -> None:
        where = f"weights {weights.name!r} v{weights.version}"
        try:
            encoder, gain = latent.networks_of(weights.hyper, weights.arrays)
            filters = Filters(gain, self._model)
        except KeyError as error:
            raise WeightsError(f"{where} lack {error}; train others for {self.name}") from None
        except (ValueError, TypeError) as error:
            raise WeightsError(f"{where}: {error}; train others for {self.name}") from None
        angles = self._model.angles
        if (
            encoder.angles.tolist() != angles.tolist()
            or encoder.extra != angles.size + angles.sum()
        ):
            raise WeightsError(
                f"{where} read {encoder.angles.size} numbers and see {encoder.extra} beside an "
                f"image, but the model observes {angles.size}; train others for {self.name}"
            )
        image = np.zeros((1, 1, *encoder.shape), np.float32)
        try:  # which also compiles all that is due
            self._run(encoder, filters, image, np.full((1, 1), self.step_s), filters.start(1))
        except RunError:
            raise WeightsError(
                f"{where} lead to numbers that are not finite; train others"
            ) from None
        if self._tracks is None:
            self._tracks = filters.start(1)
        else:
            hidden = filters.hidden_of(self._tracks.hidden)
            if hidden is None:
                hidden = filters.start(1).hidden
            self._tracks = self._tracks._replace(hidden=hidden)
        self._encoder, self._filters = encoder, filters

    def process(
        self,
        images: Float32[Array, "*word time row column"],
        interval_s: Intervals | None = None,
        info: FrameInfo = FrameInfo(),
    ) -> Tracked:
        encoder, filters, tracks = self._encoder, self._filters, self._tracks
        if encoder is None or filters is None or tracks is None:
            raise WeightsError(
                f"{self.name}: there are no weights to track with; train some with `kalvit train "
                "FLOW --block BLOCK` and name them by model = NAME (those that are there: `kalvit "
                "models list`)"
            )
        if images.shape[-2:] != encoder.shape:
            raise FieldError(
                f"{self.name}: 'images' are {images.shape[-2]} x {images.shape[-1]} pixels, but "
                f"its weights read {encoder.shape[0]} x {encoder.shape[1]}"
            )
        intervals = checked_intervals(self.name, interval_s, images.shape[:-2], self.step_s)
        shown = np.array(images)
        if images.ndim == 4:
            rows = -(-len(images) // kalmannet_filter.TOGETHER) * kalmannet_filter.TOGETHER
            tracks = filters.start(rows)
            out = self._run(encoder, filters, shown, intervals, tracks, info.sample, words=True)
        else:
            out = self._run(encoder, filters, shown[None], intervals[None], tracks, info.sample)
            out = out.of(0)
        return Tracked(*out[:4], kalman.log_likelihood(out.innovations, out.nis, out.det))

    def state(self) -> Mapping[str, Array | Scalar]:
        if self._tracks is None:
            return {}
        return {name: array.copy() for name, array in self._tracks._asdict().items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        if state:
            self._tracks = Tracks(*(np.array(state[name]) for name in Tracks._fields))

    def _run(
        self, encoder: Encoder, filters: Filters, images: Array, intervals: Array, tracks: Tracks,
        sample: int = 0, *, words: bool = False,
    ) -> Track:  # fmt: skip
        """Track what images (track, time, side, side) show; RunError where one is lost."""
        out = Track.empty(images.shape[:2], self._model.size, self._model.rows)
        done, _, _ = latent.run(encoder, filters, images, intervals, tracks, out, together=words)
        for track in np.flatnonzero(done < images.shape[1]):
            at = sample + int(track) * images.shape[1] + int(done[track])
            raise RunError(
                f"{self.name}: at image {at} a number is not finite; train the networks on frames "
                "like these, or start nearer to where the tracks do (initial_state)"
            )
        return out
