"""Trains tracker.neural_augmented_smoother offline, for `kalvit train`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from blocks.kernels.neural_augmented import SHARE, STARTS, STEPS, NeuralSmoother
from blocks.kernels.neural_augmented import GraphNetwork as Kernel
from blocks.kernels.state_space import StateSpace
from blocks.models.neural_augmented import GraphNetwork
from blocks.trainer.trajectories import scheduled, trajectories
from blocks.training.neural_augmented import Smoothing, measure, share_of
from blocks.training.trajectories import Schedule, Trajectories, train
from pipeline.frame import Array
from pipeline.models import Models
from pipeline.train import Learnt, Lessons

USUAL = Schedule(
    steps=2000, piece=100, batch=8, long_steps=0, rate=1e-2, decay=0.0, patience=8
)  # fmt: skip


@scheduled(USUAL)
def fit(
    block: Any, lessons: Lessons, schedule: Schedule, *, iterations: int = 4, width: int = 32,
    wide: int = 64, step: str = "newton", start: str = "smoother", step_size: float = 0.005,
    sees_states: bool = True, calibrate: str = "",
) -> Learnt:  # fmt: skip
    """Fit the graph network of a tracker.neural_augmented_smoother to the states to be found.

    iterations   of messages and corrections
    width, wide  numbers of a node, and of the messages to it
    step         newton, gradient or network, as blocks/kernels/neural_augmented.py says
    start        smoother, or observations
    step_size    of gradient steps
    sees_states  whether corrections may depend on where a state is
    calibrate    weights, NAME or NAME@VERSION, of which only the covariances are scaled

    The rest are those of blocks/training/trajectories.py: Schedule.
    """
    for what, name, known in (("step", step, STEPS), ("start", start, STARTS)):
        if name not in known:
            raise ValueError(f"{what} = {name!r}, but there are {', '.join(known)}")
    model = block._build()
    held_out = trajectories(lessons.held_out, model.step_s)
    if calibrate:
        weights = Models().load(calibrate)
        told = {"network": calibrate, "steps": 0, "long_steps": 0}
        return _calibrated(weights.hyper, dict(weights.arrays), model, held_out, told)
    training = trajectories(lessons.training, model.step_s)
    network = GraphNetwork(
        model.size, model.rows, width, wide, iterations, step, start, step_size
    )  # fmt: skip
    unit = measure(network, model, training, sees_states)
    found = train(
        Smoothing(network, model, unit), model, training, held_out, schedule, lessons.seed,
        lessons.progress,
    )  # fmt: skip
    told = {"steps": found.steps, "process_noise": block.process_noise}
    return _calibrated(network.hyper, network.arrays(), model, held_out, told)


def _calibrated(
    hyper: Mapping[str, Any], arrays: dict[str, Array], model: StateSpace, held_out: Trajectories,
    told: Mapping[str, Any],
) -> Learnt:  # fmt: skip
    """With the covariances scaled to the errors held out, where there are any."""
    arrays.pop(SHARE, None)
    made = NeuralSmoother(Kernel.of(hyper, arrays), model)
    share, error = share_of(made, held_out)
    if np.isfinite(share):  # NaN of networks that tell no covariances
        arrays[SHARE] = np.array(share)
    return Learnt(hyper, arrays, told, {"mse_db": 10.0 * float(np.log10(error))})
