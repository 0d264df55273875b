"""Gain networks made without torch: of random weights, or with the same gain at every step."""

from __future__ import annotations

from typing import Any

import numpy as np

from blocks.kernels import kalmannet, recursive_kalmannet, rtsnet, split_kalmannet
from blocks.kernels.calibration import Calibration
from pipeline.weights import Weights


def random_gain(m: int, n: int, architecture: int = 2, seed: int = 0) -> Weights:
    """A network that learned nothing; its gains are small."""
    sizes = {} if architecture == 2 else {"in_mult": 5, "units": 2}
    layers = (kalmannet.layers if architecture == 2 else kalmannet.single_layers)(m, n, **sizes)
    hyper = {"architecture": architecture, "m": m, "n": n, **sizes}
    return Weights("gain", 1, random_arrays(layers, seed), hyper)


def random_split(m: int, n: int, seed: int = 0) -> Weights:
    """The two networks of a Split-KalmanNet."""
    sizes = {"in_mult": 4, "units": 1}
    arrays = random_arrays(split_kalmannet.layers(m, n, **sizes), seed)
    return Weights("gain", 1, arrays, {"m": m, "n": n, **sizes})


def random_recursive(m: int, n: int, seed: int = 0) -> Weights:
    """Those of a Recursive KalmanNet."""
    sizes = {"in_mult": 4, "units": 2}
    arrays = random_arrays(recursive_kalmannet.layers(m, n, **sizes), seed)
    arrays |= {"scales.states": np.full(m, 2.0), "scales.observations": np.full(n, 3.0)}
    return Weights("gain", 1, arrays, {"m": m, "n": n, **sizes})


def calibrated(weights: Weights, Q: Any, R: Any, share: float = 1.0) -> Weights:
    """The same with a calibration."""
    calibration = Calibration(np.array(Q, float), np.array(R, float), share)
    arrays = {**weights.arrays, **calibration.arrays()}
    return Weights(weights.name, weights.version + 1, arrays, weights.hyper)


def random_arrays(layers: dict[str, tuple[int, int]], seed: int) -> dict[str, Any]:
    """Those of dense layers and GRUs with so many inputs and outputs, by torch's names."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, Any] = {}
    for name, (n_in, n_out) in layers.items():
        if "GRU" in name or name == "cell":
            shapes = {"weight_ih": (3 * n_out, n_in), "weight_hh": (3 * n_out, n_out),
                      "bias_ih": (3 * n_out,), "bias_hh": (3 * n_out,)}  # fmt: skip
        else:
            shapes = {"weight": (n_out, n_in), "bias": (n_out,)}
        for part, shape in shapes.items():
            values = rng.uniform(-1.0, 1.0, shape) / np.sqrt(n_in)
            arrays[f"{name}.{part}"] = (0.7 * values).astype(np.float32)
    return arrays


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
    made = []
    for number in range(passes):
        seen = m if number or sees == "smoothed" else n
        made.append((random_gain(m, seen, seed=seed + number), random_gain(m, m, seed=seed + 9)))
    return _passes(made, m, n, sees)


def constant_passes(
    gains: list[tuple[np.ndarray, np.ndarray]], n: int, sees: str = "observations"
) -> Weights:
    """An RTSNet with these gains there and back in each pass, whatever it sees."""
    made = [(constant_gain(there), constant_gain(back)) for there, back in gains]
    return _passes(made, len(gains[0][1]), n, sees)


def _passes(made: list[tuple[Weights, Weights]], m: int, n: int, sees: str) -> Weights:
    arrays = {}
    for number, networks in enumerate(made, 1):
        for way, network in zip(("there", "back"), networks, strict=True):
            rows = network.hyper["n"]
            arrays[f"{number}.{way}"] = rtsnet.joined(network.arrays, m, rows, 5, 40)
    hyper = {"passes": len(made), "sees": sees, "m": m, "n": n, "in_mult": 5, "out_mult": 40}
    return Weights("rtsnet", 1, arrays, hyper)
