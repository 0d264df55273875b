"""From an image to a few numbers, and how sure they are: the network of learned features.

Buchnik et al., "Latent-KalmanNet", arXiv 2304.07827: convolutions, then dense layers that may see
a prior beside the features. blocks/kernels/image_encoder.py runs its arrays without torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from blocks.models.export import array_of


class ImageEncoder(nn.Module):
    """Images (rows, side, side) and extra numbers (rows, extra) to means and log-variances.

    Means are (rows, numbers + angles): each number, or of an angle its cosine and sine, in units of
    `scale` from `centre`, which the arrays have in them; log-variances (rows, numbers) likewise.

    side      rows, and columns, of an image
    angles    for each number that is told, whether it is an angle
    channels, kernels   of the convolutions, which halve rows and columns each
    hidden    units of the dense layers between
    extra     numbers that these see beside the features, in units of `extra_scale` from
              `extra_centre`
    """

    centre: Tensor
    scale: Tensor
    extra_centre: Tensor
    extra_scale: Tensor

    def __init__(
        self, *, side: int, angles: Sequence[bool], channels: Sequence[int] = (8, 16, 32),
        kernels: Sequence[int] = (5, 3, 3), hidden: Sequence[int] = (32,), extra: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.hyper: dict[str, Any] = {
            "side": side, "angles": [bool(a) for a in angles], "channels": list(channels),
            "kernels": list(kernels), "hidden": list(hidden), "extra": extra,
        }  # fmt: skip
        self.numbers = len(angles)
        self.parts = self.numbers + sum(map(bool, angles))
        self.convs, last = nn.ModuleList(), side
        for n_in, n_out, kernel in zip([2, *channels[:-1]], channels, kernels, strict=True):
            self.convs.append(nn.Conv2d(n_in, n_out, kernel, stride=2, padding=kernel // 2))
            last = (last + 2 * (kernel // 2) - kernel) // 2 + 1
        self.convs.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.width = last * last * channels[-1]
        sizes = [self.width + extra, *hidden, self.parts + self.numbers]
        self.dense = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))
        for name, size in (("", self.parts), ("extra_", extra)):
            self.register_buffer(f"{name}centre", torch.zeros(size), persistent=False)
            self.register_buffer(f"{name}scale", torch.ones(size), persistent=False)

    def features(self, images: Tensor) -> Tensor:
        """What the convolutions find, (rows, width)."""
        x = torch.stack((images, 4.0 * images * (1.0 - images)), 1)
        x = x.contiguous(memory_format=torch.channels_last)  # trains a third faster
        for conv in self.convs:
            x = conv(x).relu()
        return x.permute(0, 2, 3, 1).flatten(1)

    def head(self, features: Tensor, extra: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Means and log-variances of features, in units of `scale`."""
        x = features
        if extra is not None:
            x = torch.cat((x, (extra - self.extra_centre) / self.extra_scale), 1)
        for k, layer in enumerate(self.dense):
            x = layer(x if k == 0 else x.relu())
        return x[:, : self.parts], x[:, self.parts :]

    def forward(self, images: Tensor, extra: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.head(self.features(images), extra)

    def arrays(self) -> dict[str, Any]:
        """Name -> float32 array, with centres and scales within the layers beside them."""
        found: dict[str, Any] = {}
        for kind, layers in (("conv", self.convs), ("dense", self.dense)):
            for k, layer in enumerate(layers):
                for name, parameter in layer.named_parameters():
                    found[f"{kind}{k}.{name}"] = array_of(parameter)
        first, last = "dense0", f"dense{len(self.dense) - 1}"
        weight = found[f"{first}.weight"][:, self.width :]
        weight /= array_of(self.extra_scale)
        found[f"{first}.bias"] -= weight @ array_of(self.extra_centre)
        scale = array_of(self.scale)
        found[f"{last}.weight"][: self.parts] *= scale[:, None]
        found[f"{last}.bias"][: self.parts] *= scale
        found[f"{last}.bias"][: self.parts] += array_of(self.centre)
        # the variance of a number is in the square of its unit
        found[f"{last}.bias"][self.parts :] += 2.0 * array_of(self.units().log())
        return found

    def forget(self) -> None:
        """Tell nearly the same of all images: a network to begin with."""
        last: Any = self.dense[-1]
        with torch.no_grad():
            last.weight *= 0.1
            last.bias *= 0.0

    def units(self) -> Tensor:
        """The scale of each number: of an angle, that of its cosine and sine."""
        places, at = [], 0
        for is_angle in self.hyper["angles"]:
            places.append(at)
            at += 2 if is_angle else 1
        return self.scale[places]
