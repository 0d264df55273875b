"""Trains tracker.latent_kalmannet offline, for `kalvit train`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from blocks.kernels.latent import ENCODER, GAIN
from blocks.models.image_encoder import ImageEncoder
from blocks.models.kalmannet import network_of
from blocks.trainer.trajectories import scheduled, stacked
from blocks.training import image_encoder
from blocks.training.latent_kalmannet import Shown, Turns
from blocks.training.trajectories import DEFAULT, Schedule
from pipeline.frame import Array
from pipeline.train import Learnt, Lessons


@scheduled(DEFAULT._replace(steps=400, piece=20, long_steps=100, truncate=50))
def fit(
    block: Any, lessons: Lessons, schedule: Schedule, *, rounds: int = 3, reads: int = 1500,
    reads_rate: float = 2e-3, doubt: float = 0.5, channels: Sequence[int] = (8, 16, 32),
    kernels: Sequence[int] = (5, 3, 3), hidden: Sequence[int] = (32,),
) -> Learnt:  # fmt: skip
    """Fit encoder and gain of a tracker.latent_kalmannet in turns.

    rounds      how often each has its turn
    reads       steps of Adam of the encoder in its first turn, a third of them in others
    reads_rate  its learning rate
    doubt       standard deviation of the priors that it sees in the first
    channels, kernels, hidden   of its layers

    The rest is the schedule of the gain in each turn: blocks/training/trajectories.py.
    """
    model = block._build()
    angles = model.angles.tolist()
    training, held_out = (
        Shown(*stacked(records, model.step_s, "images"))
        for records in (lessons.training, lessons.held_out)
    )
    encoder = ImageEncoder(
        side=training.images.shape[-1], angles=angles, channels=channels, kernels=kernels,
        hidden=hidden, extra=len(angles) + sum(angles),
    )  # fmt: skip
    gain = network_of(2, m=model.size, n=model.rows)
    turns = Turns(encoder, gain, model, training, held_out, doubt, lessons.seed)
    best = np.inf
    kept: dict[str, Array] = {}
    for turn in range(rounds):
        steps = reads if turn == 0 else reads // 3
        rate = reads_rate if turn == 0 else 0.3 * reads_rate
        turns.teach_encoder(
            image_encoder.Schedule(steps=steps, rate=rate), lessons.progress
        )  # fmt: skip
        error = turns.teach_gain(schedule, lessons.progress)
        if error < best:
            best = error
            kept = {f"{ENCODER}{name}": array for name, array in encoder.arrays().items()}
            kept |= {f"{GAIN}{name}": array for name, array in gain.arrays().items()}
    if not best < np.inf:
        raise ValueError("no weights were found with which all held-out trajectories are kept")
    told = {"rounds": rounds, "reads": reads, "reads_rate": reads_rate, "doubt": doubt}
    scores = {"mse_db": 10.0 * float(np.log10(best))}
    return Learnt({"encoder": encoder.hyper, "gain": gain.hyper}, kept, told, scores)
