"""Learned noise made without torch: of random weights, or constant."""

from __future__ import annotations

from typing import Any

import numpy as np

from blocks.kernels import learned_noise
from pipeline.weights import Weights


def random_noise(
    m: int, n: int, units: int = 5, drift: int = 3, tilt: bool = True, seed: int = 0
) -> Weights:
    """A network that learned nothing: its factors and corrections are small."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, Any] = {
        name: (0.2 * rng.standard_normal(shape)).astype(np.float32)
        for name, shape in learned_noise.shapes(m, n, units, drift, tilt).items()
    }
    if drift >= 0:
        arrays["drift_scale"] = np.abs(arrays["drift_scale"]) + np.float32(20.0)
        arrays["drift_matrix"] *= np.float32(0.01)
        arrays["drift_out"] *= np.float32(0.01)
    hyper = {"m": m, "n": n, "units": units, "drift": drift, "tilt": tilt}
    return Weights("noise", 1, arrays, hyper)


def constant_noise(Q: np.ndarray, R: np.ndarray) -> Weights:
    """These covariances, whatever comes."""
    roots = {"process_root": Q, "observation_root": R}
    arrays = {
        name: learned_noise.root_of(np.asarray(given), 0.0).astype(np.float32)
        for name, given in roots.items()
    }
    hyper = {"m": len(Q), "n": len(R), "units": 0, "drift": -1, "tilt": False}
    return Weights("noise", 1, arrays, hyper)
