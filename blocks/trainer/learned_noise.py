"""Trains tracker.learned_noise offline, for `kalvit train`."""

from __future__ import annotations

from typing import Any

import numpy as np

from blocks.kernels.learned_noise import noise_of
from blocks.models.learned_noise import NoiseNetwork
from blocks.trainer.trajectories import scheduled, trajectories
from blocks.training.calibration import calibrated_noise
from blocks.training.learned_noise import Unrolled, begin_near, regress
from blocks.training.trajectories import Schedule, train
from pipeline.train import Learnt, Lessons

USUAL = Schedule(steps=300, long_steps=200, rate=3e-2, decay=0.0, every=50, patience=10)


@scheduled(USUAL)
def fit(
    block: Any, lessons: Lessons, schedule: Schedule, *, loss: str = "joint", units: int = 0,
    drift: int = -1, tilt: bool = False, keep_observation: bool = False,
) -> Learnt:  # fmt: skip
    """Fit the noise of a tracker.learned_noise, from that of its model or that measured on.

    loss              mse of the states, likelihood of them, mixed, or joint with observations
    units             of the network that tells factors step by step; 0: constant noise
    drift             hidden units of what is added to predictions; 0: affine; -1: nothing
    tilt              whether what is seen is corrected, too
    keep_observation  whether the observation noise stays as the block has it

    The rest are those of blocks/training/trajectories.py: Schedule.
    """
    model = block._build()
    network = NoiseNetwork(model.size, model.rows, units, drift, tilt).double()
    training, held_out = (
        trajectories(records, model.step_s) for records in (lessons.training, lessons.held_out)
    )
    regress(network, model, training)
    network.observation_root.requires_grad_(not keep_observation)
    learner = Unrolled(network, model, loss)
    begin_near(learner, model, training, held_out)
    found = train(learner, model, training, held_out, schedule, lessons.seed, lessons.progress)
    arrays = network.arrays()
    calibration = calibrated_noise(noise_of(network.hyper, arrays), model, held_out)
    if calibration is not None:
        arrays |= calibration.arrays()
    told = {
        "steps": found.steps, "loss": loss, "units": units, "drift": drift, "tilt": tilt,
        "keep_observation": keep_observation,
    }  # fmt: skip
    score = {"mse_db": 10.0 * float(np.log10(found.loss))} if loss == "mse" else {loss: found.loss}
    return Learnt(network.hyper, arrays, told, score)
