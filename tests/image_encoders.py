"""Encoders of images made without torch, of random weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from blocks.kernels.image_encoder import conv_sizes
from pipeline.weights import Weights


def random_encoder(
    angles: tuple[bool, ...] = (True,), side: int = 9, extra: int = 0, seed: int = 0
) -> Weights:
    """A network that learned nothing."""
    rng = np.random.default_rng(seed)
    hyper = {
        "side": side, "angles": list(angles), "channels": [3, 5], "kernels": [5, 3],
        "hidden": [7], "extra": extra,
    }  # fmt: skip
    shapes = {}
    for k, size in enumerate(conv_sizes(side, [3, 5], [5, 3])):
        shapes[f"conv{k}"] = (size[8], size[2], size[3], size[3])
    shapes["dense0"] = (7, size[6] * size[7] * 5 + extra)
    shapes["dense1"] = (2 * len(angles) + sum(angles), 7)
    arrays: dict[str, Any] = {}
    for name, shape in shapes.items():
        values = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        arrays[f"{name}.weight"] = values.astype(np.float32)
        arrays[f"{name}.bias"] = 0.1 * rng.standard_normal(shape[0]).astype(np.float32)
    return Weights("encoder", 1, arrays, hyper)
