"""RTSNet in torch, written from the equations: what its kernels and gradients are compared with."""

from __future__ import annotations

import torch
from kalmannet_in_torch import Recursion, predicted_of
from torch.nn.functional import normalize


def smoothed(network, model, seen, intervals, starts):
    """States (rows, time, m), smoothed by one pass.

    network    a PassNetwork
    seen       (rows, time, n) tensor, NaN where nothing came
    intervals  (rows, time) array
    starts     (rows, m) tensor
    """
    there = Recursion(network.there, model)
    updated, _ = there.run(there.start(starts), seen, intervals)
    steps = updated.shape[1]
    hidden = network.back.start(len(seen))
    states = {steps - 1: updated[:, -1]}
    for t in range(steps - 2, -1, -1):
        predicted, *_ = predicted_of(updated[:, t].contiguous(), intervals[:, t + 1].copy(), model)
        innovation = states[t + 1] - predicted
        update = after = torch.zeros_like(innovation)
        if t + 2 < steps:
            update, after = states[t + 1] - updated[:, t + 1], states[t + 2] - states[t + 1]
        parts = innovation, update, after, updated[:, t + 1] - predicted
        features = torch.cat([normalize(part) for part in parts], 1)
        gain, hidden = network.back(features, hidden)
        states[t] = updated[:, t] + (gain @ innovation[:, :, None])[:, :, 0]
    return torch.stack([states[t] for t in range(steps)], 1)
