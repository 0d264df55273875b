"""A million steps with an R that is nearly singular."""

import numpy as np
import pytest
from numba.core import config

from blocks.kernels import kalman, square_root, state_space
from blocks.kernels.kalman import Track

STEPS = 2_000 if config.DISABLE_JIT else 1_000_000
PIECE = 1_000


@pytest.mark.parametrize(
    ("form", "dtype"),
    [("joseph", np.float64), ("square_root", np.float64), ("square_root", np.float32)],
)
def test_covariances_stay_symmetric_and_positive_over_a_million_steps(form, dtype):
    # two observations that are nearly parallel, one of them a thousand times more certain; now and
    # then one or both are missing, so that the covariance never settles
    model = state_space.build("constant_velocity", "position", process_noise=1e-3)
    F, Q, _ = model.matrices(np.array([1.0]))
    H = np.array([[1.0, 0.0, 0.0, 0.0], [1.0, 1e-4, 0.0, 0.0]])
    R = np.diag([1e-10, 1e-7])
    F, Q, H, R = (np.ascontiguousarray(A, dtype) for A in (F, Q, H, R))
    rng = np.random.default_rng(6)
    mean, matrix = np.zeros(4, dtype), 1e6 * np.eye(4, dtype=dtype)
    if form == "square_root":
        matrix = np.sqrt(matrix)
    out = Track.empty((PIECE,), 4, 2, dtype)
    for first in range(0, STEPS, PIECE):
        observations = rng.standard_normal((PIECE, 2)).astype(dtype)
        observations[rng.random((PIECE, 2)) < 0.1] = np.nan
        given = observations, F, Q, H, R, mean, matrix, out
        done = (kalman.linear if form == "joseph" else square_root.square_root)(*given)
        assert done == PIECE, first + done
        spread = out.covariances
        assert (spread == spread.swapaxes(1, 2)).all()
        assert np.isfinite(out.estimates).all()
        values = np.linalg.eigvalsh(spread[::100].astype(np.float64))
        # as far as the rounding of the largest lets one tell
        assert (values[:, 0] > -8.0 * np.finfo(dtype).eps * values[:, -1]).all(), first
        if form == "square_root":  # L regular: L L' is positive, whatever rounding makes of it
            assert (matrix.diagonal() > 0.0).all(), first
