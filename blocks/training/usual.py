"""What is usual of a filter that knows the noise: where networks that tell a gain may begin."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from blocks.kernels.state_space import StateSpace
from blocks.training.calibration import measured
from blocks.training.kalmannet import jacobians
from blocks.training.trajectories import Trajectories

Array = np.ndarray[Any, Any]

FOLLOWED = 100  # trajectories, and steps of each, that tell it


class Usual(NamedTuple):
    """What is usual of a filter that knows the noise.

    states, observations  (m,), (n,)  how large its errors and innovations are
    gain                  (m, n)      its mean gain
    factor                (m, m)      lower root of the mean covariance of the noise it lets in
    predicted             (m, m)      its mean covariance of predicted states
    inverse               (n, n)      its mean inverse of the covariance of innovations
    """

    states: Array
    observations: Array
    gain: Array
    factor: Array
    predicted: Array
    inverse: Array


def usual(model: StateSpace, known: Trajectories) -> Usual:
    """That of the noise that is measured; its covariances are followed along the true states."""
    m, n = model.size, model.rows
    Q, R = measured(model, known)
    Q = Q + 1e-9 * np.eye(m) * np.trace(Q) + 1e-12 * np.eye(m)
    count = min(len(known.states), FOLLOWED)
    P = np.tile(model.initial_covariance, (count, 1, 1))
    steps = min(known.states.shape[1] - 1, FOLLOWED)
    spread, seen, gain, noise = np.zeros(m), np.zeros(n), np.zeros((m, n)), np.zeros((m, m))
    predicted, inverse = np.zeros((m, m)), np.zeros((n, n))
    for t in range(steps):
        F, H = jacobians(model, known.states[:count, t], known.intervals[:count, t + 1])
        P = F @ P @ F.swapaxes(1, 2) + Q
        predicted += P.mean(0) / steps
        S = H @ P @ H.swapaxes(1, 2) + R
        inverse += np.linalg.inv(S).mean(0) / steps
        K = np.linalg.solve(S, H @ P).swapaxes(1, 2)
        A = np.eye(m) - K @ H
        P = A @ P
        spread += P.diagonal(axis1=1, axis2=2).mean(0) / steps
        seen += S.diagonal(axis1=1, axis2=2).mean(0) / steps
        gain += K.mean(0) / steps
        added: Array = A @ Q @ A.swapaxes(1, 2) + K @ R @ K.swapaxes(1, 2)
        noise += added.mean(0) / steps
    root = np.linalg.cholesky(noise)
    return Usual(np.sqrt(spread), np.sqrt(seen), gain, root, predicted, inverse)
