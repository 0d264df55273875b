"""Fits an encoder of images to the numbers that it should tell, and to how far it is off.

The means are fitted by their squared error, the variances by the likelihood of those errors, which
teaches the means nothing (Seitzer et al., "On the Pitfalls of Heteroscedastic Uncertainty
Estimation", ICLR 2022, is why). What is best on held-out images is kept.
"""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from blocks.training.trajectories import Progress, silent

Array = np.ndarray[Any, Any]

AT_ONCE = 500  # held-out images whose activations are there at once
SPREAD = 0.1  # weight of the likelihood beside the squared error


class Schedule(NamedTuple):
    """How to train.

    steps     of Adam
    batch     images at once
    rate      learning rate, which falls to a hundredth
    every     steps between looks at the held-out images
    """

    steps: int = 4000
    batch: int = 128
    rate: float = 2e-3
    every: int = 250


class Images(NamedTuple):
    """What there is to learn from.

    images   (count, side, side) float32
    numbers  (count, n)          what each tells; angles [rad]
    extra    (count, k)          what the encoder sees beside the image; None: nothing
    """

    images: Array
    numbers: Array
    extra: Array | None = None


def parts_of(numbers: Array, angles: Array) -> Array:
    """The numbers with cosine and sine in the place of each angle, (count, n + angles)."""
    columns = []
    for values, is_angle in zip(numbers.T, angles, strict=True):
        columns += [np.cos(values), np.sin(values)] if is_angle else [values]
    return np.stack(columns, 1)


def set_scales(module: Any, lesson: Images) -> None:
    """Let the network work in units of what its numbers vary by; cosine and sine are units."""
    parts = parts_of(lesson.numbers, np.array(module.hyper["angles"]))
    linear, at = [], 0
    for is_angle in module.hyper["angles"]:
        linear += [] if is_angle else [at]
        at += 2 if is_angle else 1
    for name, values, which in (
        ("", parts, linear), ("extra_", lesson.extra, slice(None))
    ):  # fmt: skip
        if values is None:
            continue
        centre, scale = getattr(module, f"{name}centre"), getattr(module, f"{name}scale")
        centre[which] = torch.from_numpy(values.mean(0)).to(centre)[which]
        scale[which] = torch.from_numpy(np.maximum(values.std(0), 1e-6)).to(scale)[which]


def loss_of(module: Any, features: Tensor, parts: Tensor, extra: Tensor | None) -> Tensor:
    """Squared error of the means plus how unlikely it is by the variances, in units of `scale`.

    parts  (rows, n + angles)  of `parts_of`, in the module's units
    """
    means, log_vars = module.head(features, extra)
    squared = (means - parts).square()
    joined, at = [], 0  # of an angle the mean of both
    for is_angle in module.hyper["angles"]:
        width = 2 if is_angle else 1
        joined.append(squared[:, at : at + width].mean(1))
        at += width
    errors = torch.stack(joined, 1)
    likely = 0.5 * (log_vars + errors.detach() * (-log_vars).exp())
    loss: Tensor = errors.mean() + SPREAD * likely.mean()
    return loss


def fit(
    module: Any, lesson: Images, held_out: Images, schedule: Schedule, seed: int,
    progress: Progress = silent, *, is_fresh: bool = True,
) -> float:  # fmt: skip
    """Fit a network; it ends with its best weights, of which the held-out loss is returned.

    module    an ImageEncoder (blocks/models/image_encoder.py)
    is_fresh  whether it has learned nothing yet; else it goes on

    Raises ValueError where nothing finite was found.
    """
    s, rng = schedule, np.random.default_rng(seed)
    if is_fresh:
        set_scales(module, lesson)
        module.forget()
    targets = [_targets(module, part) for part in (lesson, held_out)]
    adam = torch.optim.Adam(module.parameters(), lr=s.rate)
    best, kept = math.inf, copy.deepcopy(module.state_dict())
    order = np.empty(0, np.int64)
    for step in range(s.steps):
        for group in adam.param_groups:
            group["lr"] = s.rate * 0.01 ** (step / s.steps)
        if order.size < s.batch:
            order = np.concatenate([order, rng.permutation(len(lesson.images))])
        which, order = order[: s.batch], order[s.batch :]
        adam.zero_grad(set_to_none=True)
        loss = _loss(module, lesson, targets[0], which)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        adam.step()
        if (step + 1) % s.every == 0 or step + 1 == s.steps:
            with torch.no_grad():
                count = len(held_out.images)
                parts = [np.arange(at, min(at + AT_ONCE, count)) for at in range(0, count, AT_ONCE)]
                found = sum(
                    _loss(module, held_out, targets[1], part).item() * part.size for part in parts
                ) / max(count, 1)  # fmt: skip
            if found < best:
                best, kept = found, copy.deepcopy(module.state_dict())
            progress(step + 1, s.steps, f"loss held out {best:.4g}, fitted {loss.item():.4g}")
    module.load_state_dict(kept)
    if not best < math.inf:
        raise ValueError("no weights were found with which the held-out loss is finite")
    return best


def _targets(module: Any, lesson: Images) -> Tensor:
    parts = parts_of(lesson.numbers, np.array(module.hyper["angles"]))
    targets: Tensor = (torch.from_numpy(parts).float() - module.centre) / module.scale
    return targets


def _loss(module: Any, lesson: Images, targets: Tensor, which: Array) -> Tensor:
    features = module.features(torch.from_numpy(lesson.images[which]))
    extra = None
    if lesson.extra is not None:
        extra = torch.from_numpy(lesson.extra[which]).float()
    return loss_of(module, features, targets[torch.from_numpy(which)], extra)
