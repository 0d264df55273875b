"""Gain networks made without torch: of random weights, or with the same gain at every step."""

from __future__ import annotations

from typing import Any

import numpy as np

from blocks.kernels import kalmannet, rtsnet
from pipeline.weights import Weights


def random_gain(m: int, n: int, architecture: int = 2, seed: int = 0) -> Weights:
    """A network that learned nothing; its gains are small."""
    sizes = {} if architecture == 2 else {"in_mult": 5, "units": 2}
    layers = (kalmannet.layers if architecture == 2 else kalmannet.single_layers)(m, n, **sizes)
    rng = np.random.default_rng(seed)
    arrays: dict[str, Any] = {}
    for name, (n_in, n_out) in layers.items():
        if name.startswith("GRU"):
            shapes = {"weight_ih": (3 * n_out, n_in), "weight_hh": (3 * n_out, n_out),
                      "bias_ih": (3 * n_out,), "bias_hh": (3 * n_out,)}  # fmt: skip
        else:
            shapes = {"weight": (n_out, n_in), "bias": (n_out,)}
        for part, shape in shapes.items():
            values = rng.uniform(-1.0, 1.0, shape) / np.sqrt(n_in)
            arrays[f"{name}.{part}"] = (0.7 * values).astype(np.float32)
    hyper = {"architecture": architecture, "m": m, "n": n, **sizes}
    return Weights("gain", 1, arrays, hyper)


def constant_gain(gain: np.ndarray, architecture: int = 2) -> Weights:
    """A network that tells this gain, (m, n), whatever it sees."""
    made = random_gain(*gain.shape, architecture)
    arrays = {name: np.array(array) for name, array in made.arrays.items()}
    last = "FC2.2" if architecture == 2 else "L3"
    arrays[f"{last}.weight"][:] = 0.0
    arrays[f"{last}.bias"][:] = gain.ravel()
    return Weights("gain", 1, arrays, made.hyper)


def random_passes(
    m: int, n: int, passes: int, sees: str = "observations", seed: int = 0
) -> Weights:
    """An RTSNet that learned nothing."""
    arrays = {}
    for number in range(1, passes + 1):
        seen = m if number > 1 or sees == "smoothed" else n
        for way, rows in (("there", seen), ("back", m)):
            made = random_gain(m, rows, seed=2 * seed + number + (way == "back"))
            arrays[f"{number}.{way}"] = rtsnet.joined(made.arrays, m, rows, 5, 40)
    hyper = {"passes": passes, "sees": sees, "m": m, "n": n, "in_mult": 5, "out_mult": 40}
    return Weights("rtsnet", 1, arrays, hyper)
