"""Graph networks of the neural-augmented smoother, made without torch: random, or of one answer."""

from __future__ import annotations

from typing import Any

import numpy as np
from gain_networks import random_arrays

from blocks.kernels import neural_augmented
from pipeline.weights import Weights


def random_graph(n: int, m: int, step: str = "newton", seed: int = 0, **hyper: Any) -> Weights:
    """A network that learned nothing; its corrections are small."""
    made = {
        "n": n, "m": m, "width": 9, "wide": 12, "iterations": 3, "step": step, "start": "smoother",
        "rate": 0.005, **hyper,
    }  # fmt: skip
    sizes = neural_augmented.layers(n, m, made["width"], made["wide"], step)
    arrays = random_arrays(sizes, seed)
    for name, shape in neural_augmented.units(n, m, made["iterations"]).items():
        is_zero = name in ("log_scale", "state_centre", "seen_centre")
        arrays[name] = np.full(shape, 0.0 if is_zero else 0.3, np.float32)
    return Weights("graph", 1, arrays, made)


def constant_graph(told: np.ndarray, m: int, step: str = "newton", **hyper: Any) -> Weights:
    """A network that tells this correction of every step, in the model's units."""
    n = told.size if step != "newton" else told.size - m - 1
    weights = random_graph(n, m, step, **hyper)
    arrays = dict(weights.arrays)
    arrays["outer.weight"] = np.zeros_like(arrays["outer.weight"])
    arrays["outer.bias"] = told.astype(np.float32)
    arrays["shift_unit"], arrays["bias_unit"] = np.ones(n, np.float32), np.ones(m, np.float32)
    return Weights("graph", 1, arrays, weights.hyper)
