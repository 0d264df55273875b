"""The channel as a linear filter in Gaussian noise: least squares, the honest baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from blocks.kernels.trellis import ALPHABETS, digits
from blocks.nodes.node import Fitted
from pipeline.frame import Array

LEAST_VARIANCE = 1e-12  # [V^2]


class Taps(Fitted):
    """p(sample | class) = N(taps . symbols, noise_var), circular for complex samples.

    arrays: taps (memory,) float64 or complex128, newest symbol first; noise_var () float64
    """

    kind = "taps"

    @classmethod
    def of(cls, hyper: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        node = cls(str(hyper["modulation"]), int(hyper["memory"]), arrays)
        taps, noise_var = arrays["taps"], arrays["noise_var"]
        if taps.shape != (node.memory,):
            raise ValueError(f"taps has shape {taps.shape}; expected ({node.memory},)")
        if noise_var.shape != () or not noise_var > 0.0:
            raise ValueError(f"noise_var = {noise_var!r}; expected one number above 0")
        return node

    @property
    def means(self) -> Array:
        """Noise-free sample of each class, (n_classes,)."""
        found: Array = _symbols(self.modulation, self.memory) @ self.arrays["taps"]
        return found

    def metrics(self, samples: Array, metrics: Array) -> None:
        scale = (1.0 if self.is_complex else 0.5) / float(self.arrays["noise_var"])
        metrics[:] = scale * np.abs(samples[:, None] - self.means) ** 2

    def fitted(self, samples: Array, labels: Array) -> Self:
        known = labels >= 0
        symbols = _symbols(self.modulation, self.memory)[labels[known]]
        if len(symbols) <= self.memory or np.linalg.matrix_rank(symbols) < self.memory:
            raise ValueError(
                f"{len(symbols)} labelled samples do not determine {self.memory} taps; give more"
            )
        taps, *_ = np.linalg.lstsq(symbols, samples[known].astype(symbols.dtype), rcond=None)
        error = np.abs(samples[known] - symbols @ taps) ** 2
        noise_var = max(float(error.sum()) / (len(symbols) - self.memory), LEAST_VARIANCE)
        arrays = {"taps": taps, "noise_var": np.array(noise_var)}
        return type(self)(self.modulation, self.memory, arrays)


def _symbols(modulation: str, memory: int) -> Array:
    """Symbols of each class, (n_classes, memory), newest first; float64 or complex128."""
    alphabet = ALPHABETS[modulation]
    wide = np.result_type(alphabet, np.float64)
    found: Array = alphabet.astype(wide)[
        digits(np.arange(alphabet.size**memory), alphabet.size, memory)
    ]
    return found
