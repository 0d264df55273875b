"""A Gaussian for each class: what counting can do without a network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from blocks.nodes.node import Fitted
from pipeline.frame import Array

_PRIOR = 2.0  # samples that the pooled variance counts for in each class


class ClassGaussians(Fitted):
    """p(sample | class) = N(mean, variance), both per class; circular for complex samples.

    Variances are drawn towards their mean over classes, and a class that was not seen keeps the
    mean that it had; so few labels make no class certain.

    arrays: mean (n_classes,) float64 or complex128, variance (n_classes,) float64
    """

    kind = "class_gaussians"

    @classmethod
    def of(cls, hyper: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        node = cls(str(hyper["modulation"]), int(hyper["memory"]), arrays)
        for name in ("mean", "variance"):
            if arrays[name].shape != (node.n_classes,):
                raise ValueError(
                    f"{name} has shape {arrays[name].shape}; expected ({node.n_classes},)"
                )
        if not (arrays["variance"] > 0.0).all():
            raise ValueError("variance holds numbers that are not above 0")
        return node

    def metrics(self, samples: Array, metrics: Array) -> None:
        scale = 1.0 if self.is_complex else 0.5
        mean, variance = self.arrays["mean"], self.arrays["variance"]
        distance = np.abs(samples[:, None] - mean) ** 2
        metrics[:] = scale * (distance / variance + np.log(math.pi / scale * variance))

    def fitted(self, samples: Array, labels: Array) -> Self:
        known = labels >= 0
        samples, labels = samples[known], labels[known]
        counts = np.bincount(labels, minlength=self.n_classes)
        if len(samples) <= np.count_nonzero(counts):
            raise ValueError(
                f"{len(samples)} labelled samples do not determine {self.n_classes} Gaussians; "
                "give more"
            )
        mean = self.arrays["mean"].copy()
        seen = counts > 0
        sums = np.zeros(self.n_classes, mean.dtype)
        np.add.at(sums, labels, samples)
        mean[seen] = sums[seen] / counts[seen]
        squares = np.bincount(labels, np.abs(samples - mean[labels]) ** 2, self.n_classes)
        pooled = squares.sum() / (len(samples) - np.count_nonzero(seen))
        variance = (squares + _PRIOR * pooled) / (np.maximum(counts - 1, 0) + _PRIOR)
        return type(self)(self.modulation, self.memory, {"mean": mean, "variance": variance})
