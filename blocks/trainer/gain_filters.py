"""What fits of trackers whose gain a network tells have in common: to learn, then to calibrate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from blocks.kernels.kalmannet_filter import Filters, Network
from blocks.kernels.state_space import StateSpace
from blocks.trainer.trajectories import trajectories
from blocks.training.calibration import calibrated, filtered
from blocks.training.trajectories import Learner, Schedule, Trajectories, train
from pipeline.frame import Array
from pipeline.models import Models
from pipeline.train import Learnt, Lessons

Kernel = Callable[[Mapping[str, Any], Mapping[str, Array]], Network]


def learned(
    block: Any, lessons: Lessons, schedule: Schedule, kernel: Kernel,
    learner_of: Callable[[StateSpace, Trajectories], Learner], told: Mapping[str, Any],
    *, calibrate: str,
) -> Learnt:  # fmt: skip
    """Train a network, then calibrate its covariances on what was held out.

    kernel      makes of hyper and arrays the network that serves
    learner_of  makes of a model and what there is to learn from the learner of a fresh network
    told        options, for the card
    calibrate   weights whose network stays as it is; "": train another
    """
    model = block._build()
    held_out = trajectories(lessons.held_out, model.step_s)
    if calibrate:
        weights = Models().load(calibrate)
        hyper, arrays = weights.hyper, dict(weights.arrays)
        try:
            kernel(hyper, arrays)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"calibrate = {calibrate!r} are no weights of it: {error}") from None
        told = {"network": calibrate, "steps": 0, "long_steps": 0}
    else:
        known = trajectories(lessons.training, model.step_s)
        learner = learner_of(model, known)
        found = train(learner, model, known, held_out, schedule, lessons.seed, lessons.progress)
        hyper, arrays = learner.network.hyper, learner.network.arrays()
        told = {"steps": found.steps, **told}
    network = kernel(hyper, arrays)
    arrays |= calibrated(network, model, held_out).arrays()
    off = filtered(Filters(network, model), held_out, spread=False).estimates - held_out.states
    scores = {"mse_db": 10.0 * float(np.log10(np.square(off).mean()))}
    return Learnt(hyper, arrays, told, scores)
