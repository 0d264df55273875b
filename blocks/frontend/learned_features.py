"""What a network reads from images, for a tracker to take."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64

from blocks import fields
from blocks.kernels.image_encoder import Encoder, encoder_of
from pipeline.block import Learned, param
from pipeline.errors import FieldError, ParameterError, WeightsError
from pipeline.frame import Array
from pipeline.weights import Weights


class Features(NamedTuple):
    """What the network tells of each image."""

    observations: Annotated[Float64[Array, "*word time observation"], fields.OBSERVATIONS]
    observation_variances: Annotated[
        Float64[Array, "*word time observation"], fields.OBSERVATION_VARIANCES
    ]


class LearnedFeatures(Learned, name="frontend.learned_features"):
    """Observations of a state, read from images by a small convolutional network.

    Shlezinger, Eldar, Boyd, "Model-Based Deep Learning: On the Intersection of Deep Learning and
    Optimization", IEEE Access 2022, Example 19: a network maps what is too involved for a model
    into what a Kalman filter takes; with the layers of Buchnik et al., "Latent-KalmanNet", arXiv
    2304.07827. Each image is read alone, so any tracker may follow; how it looks is learned, no
    camera is modelled.

    The network says for each number how far it expects to be off. An image that it cannot read
    counts as missing where `most_variance` says so.

    images                 (..., time, row, column) float32
    observations           (..., time, m)  angles in -pi ... pi; NaN where a pixel is NaN
    observation_variances  (..., time, m)

    Raises FieldError for images of another size, and WeightsError where there are no weights.
    """

    trained_by = "blocks.trainer.learned_features:fit"
    learns_from = ("states",)

    numbers: tuple[int, ...] = param(
        default=(0,), at_least=0, doc="which numbers of the state are told, in this order"
    )
    angles: tuple[int, ...] = param(
        default=(), at_least=0, doc="which of them are angles, told in -pi ... pi"
    )
    most_variance: float = param(
        default=0.0, at_least=0.0,
        doc="a number of which the variance is larger counts as missing; 0: none does",
    )  # fmt: skip

    def check(self) -> None:
        if not self.numbers or len(set(self.numbers)) < len(self.numbers):
            raise ParameterError(
                f"numbers = {self.numbers}, but must name some numbers of the state, each once"
            )
        if not set(self.angles) <= set(self.numbers):
            raise ParameterError(
                f"angles = {self.angles}, but these are not all among numbers = {self.numbers}"
            )

    def start(self) -> None:
        self._encoder: Encoder | None = None

    def take(self, weights: Weights) -> None:
        where = f"weights {weights.name!r} v{weights.version}"
        try:
            encoder = encoder_of(weights.hyper, weights.arrays)
        except KeyError as error:
            raise WeightsError(f"{where} lack {error}; train others for {self.name}") from None
        except (ValueError, TypeError) as error:
            raise WeightsError(f"{where}: {error}; train others for {self.name}") from None
        angles = [n in self.angles for n in self.numbers]
        if encoder.angles.tolist() != angles or encoder.extra:
            told = ", ".join("angle" if a else "number" for a in encoder.angles)
            raise WeightsError(
                f"{where} tell {told} and see {encoder.extra} numbers beside an image, but "
                f"numbers = {self.numbers} and angles = {self.angles} here; train others"
            )
        means, variances = np.empty((2, 1, len(angles)))
        encoder(np.zeros((1, *encoder.shape), np.float32), means, variances)  # compiled, tried
        if not np.isfinite([means, variances]).all():
            raise WeightsError(f"{where} lead to numbers that are not finite; train others")
        self._encoder = encoder

    def process(self, images: Float32[Array, "*word time row column"]) -> Features:
        encoder = self._encoder
        if encoder is None:
            raise WeightsError(
                f"{self.name}: there are no weights to read images with; train some with `kalvit "
                "train FLOW --block BLOCK` and name them by model = NAME (those that are there: "
                "`kalvit models list`)"
            )
        if images.shape[-2:] != encoder.shape:
            raise FieldError(
                f"{self.name}: 'images' are {images.shape[-2]} x {images.shape[-1]} pixels, but "
                f"its weights read {encoder.shape[0]} x {encoder.shape[1]}"
            )
        flat = np.array(images.reshape(-1, *encoder.shape))
        means, variances = np.empty((2, len(flat), len(self.numbers)))
        encoder(flat, means, variances)
        if self.most_variance:
            means[variances > self.most_variance] = np.nan
        shape = (*images.shape[:-2], len(self.numbers))
        return Features(means.reshape(shape), variances.reshape(shape))
