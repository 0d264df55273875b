"""A small convolutional network: from an image to a few numbers, and how sure they are; float32.

    image (rows, columns) -> each pixel x, and how grey it is, 4 x (1 - x): black and white are not
    those -> convolutions with a stride, each followed by relu -> features
    features, and `extra` numbers beside them -> dense layers, relu between -> outputs

A convolution is a product: each place of its output looks at a patch, and all patches side by side
go through kernels/dense.py as inputs of one layer (im2col). Images lie row by row with the channels
of a pixel side by side. The outputs are, for each number that is told, its mean, or of an angle its
cosine and sine, and then the logarithms of the variances, one for each number.

blocks/models/image_encoder.py has the same as a torch module.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from blocks.kernels.activations import LINEAR, RELU
from blocks.kernels.caching import njit
from blocks.kernels.dense import aligned, join, layer, pack, padded

Array = np.ndarray[Any, Any]

ONE, GREY = np.float32(1.0), np.float32(4.0)
SURE, UNSURE = -20.0, 20.0  # least and largest logarithm of a variance


@njit(cache=True, nogil=True)
def _patches(maps: Array, size: Array, out: Array) -> None:
    """Write the patch that each place of a convolution looks at, zeros beyond the edge.

    maps  (rows * columns, width)              channels of a pixel from column 0 on
    size  rows, columns, channels, kernel, stride, padding, and of the output rows and columns
    out   (places, kernel * kernel * channels) written
    """
    rows, columns, channels, kernel, stride, padding = size[:6]
    for i in range(size[6]):
        for j in range(size[7]):
            place, to = i * size[7] + j, 0
            for u in range(kernel):
                row = i * stride + u - padding
                for v in range(kernel):
                    column = j * stride + v - padding
                    inside = 0 <= row < rows and 0 <= column < columns
                    for c in range(channels):
                        out[place, to] = maps[row * columns + column, c] if inside else 0.0
                        to += 1


@njit(cache=True, nogil=True)
def features(
    weights: Array, places: Array, sizes: Array, image: Array, patches: Array, maps: Array,
    out: Array,
) -> int:  # fmt: skip
    """Write the features of one image to row 0 of `out`; returns how many.

    weights  (n,)         of `dense.join`
    places   (layers,)    where each layer begins, convolutions first
    sizes    (convolutions, 9)  as in `_patches`, then channels of the output
    image    (rows, columns)
    patches  (n,)         scratch: patches of the largest convolution
    maps     (2, n)       scratch: its inputs and outputs
    out      (1, width)   written
    """
    width, to = 2, 0
    for i in range(image.shape[0]):
        for j in range(image.shape[1]):
            pixel = image[i, j]
            maps[0, to], maps[0, to + 1] = pixel, GREY * pixel * (ONE - pixel)
            to += 2
    for k in range(sizes.shape[0]):
        size = sizes[k]
        count, n_in, n_out = size[6] * size[7], size[2] * size[3] * size[3], size[8]
        before = maps[k % 2, : size[0] * size[1] * width].reshape(size[0] * size[1], width)
        width = padded(n_out)
        after = maps[(k + 1) % 2, : count * width].reshape(count, width)
        x = patches[: count * n_in].reshape(count, n_in)
        _patches(before, size, x)
        layer(weights, places[k], n_in, n_out, RELU, x, 0, after, 0)
    last = sizes[-1]
    count, channels = last[6] * last[7], last[8]
    end = maps[sizes.shape[0] % 2]
    for place in range(count):
        for c in range(channels):
            out[0, place * channels + c] = end[place * width + c]
    return int(count * channels)


@njit(cache=True, nogil=True)
def head(
    weights: Array, places: Array, dense: Array, scratch: Array, numbers: int, angles: Array,
    means: Array, variances: Array, at: int,
) -> None:  # fmt: skip
    """Write what one image tells, and how sure it is, to row `at`.

    places     (layers,)      where each dense layer begins
    dense      (layers + 1,)  inputs of each, and outputs of the last
    scratch    (2, 1, width)  the inputs stand in the first
    numbers    that are told
    angles     (numbers,)     which of them are angles
    means      (count, numbers)  written; angles in -pi ... pi
    variances  (count, numbers)  written
    """
    layers = dense.size - 1
    for k in range(layers):
        kind = RELU if k + 1 < layers else LINEAR
        x, y = scratch[k % 2], scratch[(k + 1) % 2]
        layer(weights, places[k], dense[k], dense[k + 1], kind, x, 0, y, 0)
    y = scratch[layers % 2]
    place, spread = 0, dense[-1] - numbers
    for j in range(numbers):
        log_var = min(max(float(y[0, spread + j]), SURE), UNSURE)
        variances[at, j] = math.exp(log_var)
        if angles[j]:
            c, s = float(y[0, place]), float(y[0, place + 1])
            means[at, j] = math.atan2(s, c)
            # an error of the pair, seen from its own length away
            variances[at, j] /= max(c * c + s * s, 1e-6)
            place += 2
        else:
            means[at, j] = y[0, place]
            place += 1


@njit(cache=True, nogil=True)
def _encode(
    weights: Array, places: Array, sizes: Array, dense: Array, angles: Array, patches: Array,
    maps: Array, scratch: Array, images: Array, means: Array, variances: Array,
) -> None:  # fmt: skip
    layers = sizes.shape[0]
    for k in range(images.shape[0]):
        features(weights, places[:layers], sizes, images[k], patches, maps, scratch[0])
        head(
            weights, places[layers:], dense, scratch, angles.size, angles, means, variances, k
        )  # fmt: skip


class Encoder(NamedTuple):
    """Weights and sizes of an encoder, with scratch of its own: one thread at a time.

    A changed encoder is another one of these, made beside it.
    """

    weights: Array
    places: Array
    sizes: Array
    dense: Array
    angles: Array
    patches: Array
    maps: Array
    scratch: Array

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of an image."""
        return int(self.sizes[0, 0]), int(self.sizes[0, 1])

    @property
    def extra(self) -> int:
        """Numbers that the dense layers take beside the features."""
        return int(self.dense[0] - self.sizes[-1, 6:].prod())

    def __call__(self, images: Array, means: Array, variances: Array) -> None:
        """Write what images (count, rows, columns) float32 tell; an encoder without `extra`.

        means, variances  (count, numbers) float64, written; NaN for images that hold NaN
        """
        count, numbers = len(images), self.angles.size
        if self.extra or images.shape[1:] != self.shape or images.dtype != np.float32:
            raise ValueError(
                f"images are {images.dtype} {images.shape}, expected float32 {self.shape} each"
            )
        if means.shape != (count, numbers) or variances.shape != (count, numbers):
            raise ValueError(f"means {means.shape}, variances {variances.shape} are to be written")
        _encode(*self, images, means, variances)


def conv_sizes(
    side: int, channels: list[int], kernels: list[int], stride: int = 2
) -> list[list[int]]:
    """Sizes of the convolutions, as `features` wants them; half a kernel is added at each edge."""
    sizes, n_in = [], 2
    for n_out, kernel in zip(channels, kernels, strict=True):
        after = (side + 2 * (kernel // 2) - kernel) // stride + 1
        sizes.append([side, side, n_in, kernel, stride, kernel // 2, after, after, n_out])
        side, n_in = after, n_out
    return sizes


def encoder_of(hyper: Mapping[str, Any], arrays: Mapping[str, Array]) -> Encoder:
    """An encoder from what the torch module exports.

    Raises KeyError for what is missing and ValueError for what does not fit.
    """
    side, extra = int(hyper["side"]), int(hyper["extra"])
    channels, kernels = list(hyper["channels"]), list(hyper["kernels"])
    angles: Array = np.array(hyper["angles"], np.bool_)
    if not channels or side < 1 or angles.ndim != 1 or not angles.size:
        raise ValueError(f"no encoder has side {side}, channels {channels}, angles {angles}")
    sizes = conv_sizes(side, channels, kernels)
    dense = [sizes[-1][6] * sizes[-1][7] * sizes[-1][8] + extra, *hyper["hidden"]]
    dense.append(2 * angles.size + int(angles.sum()))
    parts = []
    for k, size in enumerate(sizes):
        weight, bias = arrays[f"conv{k}.weight"], arrays[f"conv{k}.bias"]
        _expect(f"conv{k}", weight, bias, (size[8], size[2], size[3], size[3]))
        rows = np.ascontiguousarray(weight.transpose(0, 2, 3, 1)).reshape(size[8], -1)
        parts.append(pack(rows, bias))
    for k in range(len(dense) - 1):
        weight, bias = arrays[f"dense{k}.weight"], arrays[f"dense{k}.bias"]
        _expect(f"dense{k}", weight, bias, (dense[k + 1], dense[k]))
        parts.append(pack(weight, bias))
    weights, places = join(parts)
    patch = max(s[6] * s[7] * s[2] * s[3] ** 2 for s in sizes)
    most = max(2 * side * side, *(s[6] * s[7] * padded(s[8]) for s in sizes))
    return Encoder(
        weights, places, np.array(sizes), np.array(dense), angles, aligned(patch),
        aligned(2, most), aligned(2, 1, padded(max(dense))),
    )  # fmt: skip


def _expect(name: str, weight: Array, bias: Array, shape: tuple[int, ...]) -> None:
    if weight.shape != shape or bias.shape != shape[:1]:
        raise ValueError(
            f"{name} has weight {weight.shape} and bias {bias.shape}, but {shape} and "
            f"{shape[:1]} are due"
        )
