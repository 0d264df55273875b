"""Fits a torch module that tells the classes of sequences, on sequences that all are there."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

Array = np.ndarray[Any, Any]

_CLIP = 1.0  # norm of a gradient: recurrent layers may make it explode (Pascanu et al., 2013)
_AT_ONCE = 1024  # sequences that are judged together


class Sequences(NamedTuple):
    """Sequences of equal length.

    inputs   (n, time, n_in) float32
    classes  (n, time) int64; -1: unknown, left out
    """

    inputs: Array
    classes: Array


def fit(
    module: nn.Module,
    training: Sequences,
    held_out: Sequences,
    *,
    seed: int = 0,
    epochs: int = 30,
    rate: float = 5e-3,
    batch: int = 64,
    patience: int = 10,
    progress: Callable[[int, int, float], None] = lambda epoch, epochs, loss: None,
) -> dict[str, float]:
    """Give the module the parameters of the epoch with the least held-out loss; its scores.

    Adam on the cross entropy, with a rate that falls to nothing along a cosine.

    module     (batch, time, n_in) -> log-probabilities (batch, time, classes)
    seed       of the order of the sequences
    rate       of Adam, at first
    batch      sequences of a step
    patience   epochs without a better one, after which it stops
    progress   called after each epoch with its number, their count and the held-out loss

    Scores: loss (mean over held-out classes [nat]), epochs (those that led to these parameters).
    ValueError where no epoch has a finite loss.
    """
    generator = torch.Generator().manual_seed(seed)
    inputs, classes = (torch.from_numpy(np.ascontiguousarray(a)) for a in training)
    optimiser = torch.optim.Adam(module.parameters(), lr=rate)
    steps = math.ceil(len(inputs) / batch) * epochs
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    best, least, found = {}, math.inf, 0
    for epoch in range(1, epochs + 1):
        order = torch.randperm(len(inputs), generator=generator)
        for first in range(0, len(order), batch):
            chosen = order[first : first + batch]
            optimiser.zero_grad()
            _loss(module, inputs[chosen], classes[chosen]).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(module.parameters(), _CLIP)
            optimiser.step()
            falling.step()
        loss = loss_of(module, held_out)
        progress(epoch, epochs, loss)
        if loss < least:
            best, least, found = copy.deepcopy(module.state_dict()), loss, epoch
        elif not math.isfinite(loss) or epoch - found >= patience:
            break
    if not found:
        raise ValueError("training gave no finite loss; give finite samples, or a lower rate")
    module.load_state_dict(best)
    return {"loss": least, "epochs": found}


def loss_of(module: nn.Module, sequences: Sequences) -> float:
    """Mean cross entropy [nat] over the classes that are known."""
    total = 0.0
    with torch.inference_mode():
        for first in range(0, len(sequences.inputs), _AT_ONCE):
            inputs, classes = (
                torch.from_numpy(np.ascontiguousarray(a[first : first + _AT_ONCE]))
                for a in sequences
            )
            total += _loss(module, inputs, classes, "sum").item()
    return total / max(int((sequences.classes >= 0).sum()), 1)


def _loss(module: nn.Module, inputs: Tensor, classes: Tensor, reduction: str = "mean") -> Tensor:
    return nn.functional.nll_loss(
        module(inputs).flatten(0, 1), classes.flatten(), ignore_index=-1, reduction=reduction
    )
