"""Networks of tracker.recurrent made without torch, of random weights."""

from __future__ import annotations

import numpy as np

from blocks.kernels.recurrent_filter import shapes
from pipeline.weights import Weights


def random_network(m: int, n: int, sees: str = "differences", seed: int = 0) -> Weights:
    """A network that learned nothing."""
    hyper = {"sees": sees, "m": m, "n": n, "wide": 10, "units": 6}
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, shape in shapes(**hyper).items():
        values = 0.3 * rng.uniform(-1.0, 1.0, shape)
        arrays[name] = (values if "scale" not in name else 1.0 + values**2).astype(np.float32)
    return Weights("recurrent", 1, arrays, hyper)
