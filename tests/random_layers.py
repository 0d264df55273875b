"""Weights of recurrent detectors that learned nothing, made without torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.weights import Weights

GATES = {"lstm": 4, "gru": 3}


def random_layers(block: Any, seed: int = 0, scale: float = 0.7) -> Weights:
    """Weights that a detector.sbrnn or detector.lstm takes."""
    rng = np.random.default_rng(seed)
    rows, ways = GATES[block.cell] * block.units, 1 + block.both
    arrays = {}
    for layer in range(block.layers):
        size = block.n_in if layer == 0 else ways * block.units
        for way in ("", "_reverse")[:ways]:
            arrays[f"weight_ih_l{layer}{way}"] = rng.standard_normal((rows, size))
            arrays[f"weight_hh_l{layer}{way}"] = rng.standard_normal((rows, block.units))
            arrays[f"bias_ih_l{layer}{way}"] = rng.standard_normal(rows)
            arrays[f"bias_hh_l{layer}{way}"] = rng.standard_normal(rows)
    arrays["output_weight"] = rng.standard_normal((block.order, ways * block.units))
    arrays["output_bias"] = rng.standard_normal(block.order)
    float32 = {name: (scale * array).astype(np.float32) for name, array in arrays.items()}
    return Weights("net", 1, float32, block.hyper)
