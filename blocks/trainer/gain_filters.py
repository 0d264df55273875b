"""What fits of trackers whose gain a network tells have in common: to learn, then to calibrate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from blocks.kernels.kalmannet_filter import Filters, Network
from blocks.kernels.state_space import StateSpace
from blocks.trainer.trajectories import trajectories
from blocks.training.calibration import calibrated, filtered
from blocks.training.trajectories import Learner, Schedule, train
from pipeline.frame import Array
from pipeline.train import Learnt, Lessons

Kernel = Callable[[Mapping[str, Any], Mapping[str, Array]], Network]


def learned(
    learner: Learner, model: StateSpace, kernel: Kernel, lessons: Lessons, schedule: Schedule,
    told: Mapping[str, Any],
) -> Learnt:  # fmt: skip
    """Train the learner's network, then calibrate the covariances on what was held out.

    kernel   makes of hyper and arrays the network that serves
    told     options, for the card
    """
    held_out = trajectories(lessons.held_out, model.step_s)
    found = train(
        learner, model, trajectories(lessons.training, model.step_s), held_out, schedule,
        lessons.seed, lessons.progress,
    )  # fmt: skip
    module = learner.network
    arrays = module.arrays()
    network = kernel(module.hyper, arrays)
    arrays |= calibrated(network, model, held_out).arrays()
    off = filtered(Filters(network, model), held_out, spread=False).estimates - held_out.states
    scores = {"mse_db": 10.0 * float(np.log10(np.square(off).mean()))}
    return Learnt(module.hyper, arrays, {"steps": found.steps, **told}, scores)
