"""Gain networks of KalmanNet that a context modulates: other weights for other noise, at once.

After Ni, Revach, Shlezinger, "Adaptive KalmanNet: Data-Driven Kalman Filter with Fast Adaptation",
ICASSP 2024: a small network, the hypernetwork, is told the noise and gives a scale and a shift for
each output of every dense layer of the gain network (those of its GRUs stay). Here both are folded
into the weights of the layers, so that what comes out is a gain network like any other.

The context is how much louder the noise of the observations is than the model says, in dB; that of
the motion stays, so it is the ratio of the two as well.

    inner   tanh    context / SCALE_DB             -> hidden
    outer   linear  inner                          -> scales less 1 of all layers, then shifts

blocks/models/modulation.py has the same as torch modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from blocks.kernels.kalmannet import layers, single_layers

Array = np.ndarray[Any, Any]

SCALE_DB = 10.0
PREFIX = "modulation."  # of the names of the hypernetwork's arrays


def dense_layers(hyper: Mapping[str, Any]) -> dict[str, int]:
    """Outputs of each dense layer of a gain network, by name."""
    sizes = {key: int(hyper[key]) for key in ("m", "n", "in_mult", "out_mult") if key in hyper}
    if hyper["architecture"] == 1:
        found = single_layers(**sizes, **{k: int(hyper[k]) for k in ("units",) if k in hyper})
    else:
        found = layers(**sizes)
    return {name: size for name, (_, size) in found.items() if not name.startswith("GRU")}


def modulated(
    hyper: Mapping[str, Any], arrays: Mapping[str, Array], noise_db: float
) -> tuple[dict[str, Any], dict[str, Array]]:
    """The gain network for noise that is so much louder than the model says: hyper, arrays.

    hyper   of the gain network, with `range_db` that the hypernetwork was trained over; beyond it
            the nearest end holds
    arrays  float32, those of the gain network and of the hypernetwork

    Raises KeyError or ValueError where they are no hypernetwork with its gain network.
    """
    low, high = hyper["range_db"]
    inner = np.tanh(
        arrays[f"{PREFIX}inner.weight"][:, 0] * (np.clip(noise_db, low, high) / SCALE_DB)
        + arrays[f"{PREFIX}inner.bias"]
    )
    outer = arrays[f"{PREFIX}outer.weight"] @ inner + arrays[f"{PREFIX}outer.bias"]
    found = {name: array for name, array in arrays.items() if not name.startswith(PREFIX)}
    scales, shifts = np.split(outer.astype(np.float32), 2)
    at = 0
    for name, size in dense_layers(hyper).items():
        scale, shift = 1.0 + scales[at : at + size], shifts[at : at + size]
        found[f"{name}.weight"] = scale[:, None] * arrays[f"{name}.weight"]
        found[f"{name}.bias"] = scale * arrays[f"{name}.bias"] + shift
        at += size
    if at != len(scales):
        raise ValueError(f"the hypernetwork tells {len(scales)} scales, but {at} are due")
    return {key: value for key, value in hyper.items() if key != "range_db"}, found
