"""Trains encoder and gain of a tracker.latent_kalmannet in turns, each while the other stays.

Buchnik et al., "Latent-KalmanNet", arXiv 2304.07827, III-D. At first the encoder learns to read
images beside priors that are off by noise; then, round by round, the gain learns on what the
encoder reads, and the encoder on the priors that the tracker then has on the same trajectories. So
no gradient passes through both.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from blocks.kernels import kalmannet, latent
from blocks.kernels.image_encoder import encoder_of
from blocks.kernels.kalman import Track
from blocks.kernels.kalmannet_filter import Filters
from blocks.kernels.state_space import StateSpace
from blocks.training import image_encoder, trajectories
from blocks.training.image_encoder import Images, parts_of
from blocks.training.kalmannet import Unrolled
from blocks.training.trajectories import Progress, Trajectories

Array = np.ndarray[Any, Any]


class Shown(NamedTuple):
    """What there is to learn from.

    states     (trajectory, time, m)
    images     (trajectory, time, side, side) float32
    intervals  (trajectory, time)  [s]
    """

    states: Array
    images: Array
    intervals: Array


class Turns:
    """Both networks, and what they learn from.

    encoder, gain  an ImageEncoder and a GainNetwork, of blocks/models
    doubt          standard deviation of what is foretold, in the first turn
    """

    def __init__(
        self, encoder: Any, gain: Any, model: StateSpace, training: Shown,
        held_out: Shown, doubt: float, seed: int,
    ) -> None:  # fmt: skip
        self.encoder, self.gain, self.model = encoder, gain, model
        self.parts, self.seed = (training, held_out), seed
        self._truth = [latent.observed(model, part.states) for part in self.parts]
        rng = np.random.default_rng(seed)
        self._foretold = [seen + doubt * rng.standard_normal(seen.shape) for seen in self._truth]
        self._read: list[Array] = []
        self._turns = 0

    def teach_encoder(self, schedule: image_encoder.Schedule, progress: Progress) -> float:
        """Let the encoder learn beside what was foretold last; the loss on what is held out."""
        angles = self.model.angles
        lessons = []
        for part, seen, foretold in zip(self.parts, self._truth, self._foretold, strict=True):
            flat = (array.reshape(-1, self.model.rows) for array in (seen, foretold))
            numbers, prior = flat
            images = part.images.reshape(-1, *part.images.shape[2:])
            lessons.append(Images(images, numbers, parts_of(prior, angles)))
        loss = image_encoder.fit(
            self.encoder, lessons[0], lessons[1], schedule, self.seed + self._turns, progress,
            is_fresh=self._turns == 0,
        )  # fmt: skip
        self._turns += 1
        kernel = encoder_of(self.encoder.hyper, self.encoder.arrays())
        self._read = []
        for part, foretold in zip(self.parts, self._foretold, strict=True):
            found = kernel.look(part.images.reshape(-1, *part.images.shape[2:]))
            means, variances = np.empty((2, len(found), self.model.rows))
            kernel.tell(found, foretold.reshape(means.shape), means, variances)
            self._read.append(means.reshape(foretold.shape))
        return loss

    def teach_gain(self, schedule: trajectories.Schedule, progress: Progress) -> float:
        """Let the gain learn on what the encoder read, then track; the error held out."""
        lessons = [
            Trajectories(part.states, read, part.intervals)
            for part, read in zip(self.parts, self._read, strict=True)
        ]
        unrolled = Unrolled(self.gain, self.model)
        trajectories.train(
            unrolled, self.model, lessons[0], lessons[1], schedule, self.seed, progress
        )  # fmt: skip
        tracks = [self._track(part) for part in self.parts]
        self._foretold = [foretold for _, foretold in tracks]
        off = tracks[1][0] - self.parts[1].states
        for k in np.flatnonzero(self.model.angles):  # observed angles lead the state
            off[..., k] -= 2.0 * np.pi * np.round(off[..., k] / (2.0 * np.pi))
        return float(np.square(off).mean())

    def _track(self, part: Shown) -> tuple[Array, Array]:
        """Estimates, and what was foretold."""
        encoder = encoder_of(self.encoder.hyper, self.encoder.arrays())
        filters = Filters(kalmannet.network_of(self.gain.hyper, self.gain.arrays()), self.model)
        out = Track.empty(part.states.shape[:2], self.model.size, self.model.rows)
        _, _, foretold = latent.run(
            encoder, filters, part.images, part.intervals, filters.start(len(part.states)), out,
            together=True,
        )  # fmt: skip
        return out.estimates, foretold
