"""Trains frontend.learned_features offline, for `kalvit train`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from blocks.kernels.image_encoder import encoder_of
from blocks.kernels.state_space import TWO_PI
from blocks.models.image_encoder import ImageEncoder
from blocks.training.image_encoder import Images, Schedule
from blocks.training.image_encoder import fit as fit_images
from pipeline.errors import ParameterError
from pipeline.frame import Array
from pipeline.train import Learnt, Lessons, Record


def fit(
    block: Any, lessons: Lessons, *, steps: int = 4000, batch: int = 128, rate: float = 2e-3,
    every: int = 250, channels: Sequence[int] = (8, 16, 32), kernels: Sequence[int] = (5, 3, 3),
    hidden: Sequence[int] = (32,),
) -> Learnt:  # fmt: skip
    """Fit the network of a frontend.learned_features to the states that its images show.

    channels, kernels  of the convolutions
    hidden             units of the dense layers after them

    The rest are those of blocks/training/image_encoder.py: Schedule. Scores are the mean squared
    error of each number on images that were held out, angles around the circle: what a tracker may
    be told as observation_noise.
    """
    torch.manual_seed(lessons.seed % (1 << 63))
    torch.set_num_threads(1)
    training, held_out = (images_of(block, r) for r in (lessons.training, lessons.held_out))
    angles = [n in block.angles for n in block.numbers]
    schedule = Schedule(steps, batch, rate, every)
    try:
        if min(steps, batch, every) < 1 or not rate > 0.0:
            raise ValueError(
                f"steps = {steps}, batch = {batch}, every = {every} and rate = {rate}, but the "
                "first three must be at least 1, and rate above 0"
            )
        module = ImageEncoder(
            side=training.images.shape[-1], angles=angles, channels=channels, kernels=kernels,
            hidden=hidden,
        )  # fmt: skip
        fit_images(module, training, held_out, schedule, lessons.seed, lessons.progress)
    except ValueError as error:
        raise ParameterError(f"{block.name}: {error}") from None
    arrays = module.arrays()
    means, variances = (np.empty(held_out.numbers.shape) for _ in range(2))
    encoder_of(module.hyper, arrays)(held_out.images, means, variances)
    off = means - held_out.numbers
    off[:, angles] -= TWO_PI * np.round(off[:, angles] / TWO_PI)
    errors = np.square(off).mean(0)
    scores = {f"variance_{n}": float(e) for n, e in zip(block.numbers, errors, strict=True)}
    scores["mse_db"] = 10.0 * float(np.log10(errors.mean()))
    told = {**schedule._asdict(), "channels": list(channels), "kernels": list(kernels)}
    return Learnt(module.hyper, arrays, {**told, "hidden": list(hidden)}, scores)


def images_of(block: Any, records: Sequence[Record]) -> Images:
    """All images of all records, and the numbers that they should tell."""
    images = [r["images"].reshape(-1, *r["images"].shape[-2:]) for r in records]
    states = [r["states"].reshape(-1, r["states"].shape[-1]) for r in records]
    if max(block.numbers) >= states[0].shape[1]:
        raise ParameterError(
            f"{block.name}: numbers = {block.numbers}, but states have {states[0].shape[1]} "
            "numbers, counted from 0"
        )
    seen: Array = np.concatenate(images)
    truth = np.concatenate(states)[:, list(block.numbers)]
    whole = np.isfinite(seen).all(axis=(1, 2))
    return Images(seen[whole], truth[whole])
