"""KalmanNet in numba against the same in torch, float64, which is written from the equations."""

import numpy as np
import pytest
from gain_networks import constant_gain
from needs import package
from numba.core import config
from tracking import FROZEN_LORENZ, SPHERICAL, drawn

from blocks.kernels import kalmannet, kalmannet_filter, state_space
from blocks.kernels.kalman import Track

RTOL = 5e-6  # of the largest observation, after 40 steps; weights are float32
MODELS = {
    "lorenz": FROZEN_LORENZ, "spherical": SPHERICAL,
    "position": {"motion": "constant_velocity", "observation": "position"},
}  # fmt: skip


def observed(model, tracks, time, missing):
    """Observations and intervals; among others a step and a track without any."""
    _, seen, intervals = drawn(model, tracks, time, 5, missing, jitter=0.2)
    if missing:
        seen[:, 7] = np.nan
        seen[0, 10:15] = np.nan
    return seen, intervals


def in_torch(network, model, seen, intervals):
    torch = package("torch", "train")
    from kalmannet_in_torch import Recursion

    recursion = Recursion(network.double(), model)
    starts = torch.from_numpy(np.tile(model.initial, (len(seen), 1)))
    with torch.inference_mode():
        return recursion.run(recursion.start(starts), torch.from_numpy(seen), intervals)[0].numpy()


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("architecture", "features", "scaled"),
    [
        (2, (1, 2, 3, 4), False), (2, (1, 2, 3, 4), True), (2, (2, 4), False), (1, (2, 4), False),
        (1, (1, 3, 4), False),
    ],
)  # fmt: skip
def test_estimates_are_those_of_torch(architecture, features, scaled, model, missing):
    torch = package("torch", "train")
    from blocks.models.kalmannet import network_of

    if config.DISABLE_JIT and architecture == 1:
        pytest.skip("takes minutes without compilation; unset NUMBA_DISABLE_JIT")
    built = state_space.build(**MODELS[model])
    torch.manual_seed(4)
    sizes = built.size, built.rows
    scales = tuple(np.random.default_rng(6).uniform(0.5, 2.0, sum(sizes))) if scaled else ()
    module = network_of(architecture, m=sizes[0], n=sizes[1], features=features, scales=scales)
    ours = kalmannet.network_of(module.hyper, module.arrays())
    filters = kalmannet_filter.Filters(ours, built)
    time = 12 if config.DISABLE_JIT else 40
    many = 3 if config.DISABLE_JIT else 101
    for tracks, together in ((1, False), (3, True), (many, True)):
        seen, intervals = observed(built, tracks, time, missing)
        out = Track.empty(seen.shape[:2], built.size, built.rows)
        done = filters.run(seen, intervals, filters.start(tracks), out, together=together)
        assert (done == time).all()
        expected = in_torch(module, built, seen, intervals)
        module.float()
        assert np.abs(out.estimates - expected).max() < RTOL * np.nanmax(np.abs(seen))


def test_covariance_and_likelihood_are_those_of_the_equations():
    # slow and plain: K R H (H'H)^-1 and R^-1 (I - H K) over the rows that came, symmetrised
    model = state_space.build(
        "random_walk", dimensions=2, observation_matrix=((1.0, 0.0), (0.5, 1.0), (0.2, -1.0)),
        observation_covariance=((1.0, 0.2, 0.0), (0.2, 2.0, 0.1), (0.0, 0.1, 1.5)),
    )  # fmt: skip
    gain = np.array([[0.3, 0.1, 0.02], [0.05, 0.3, -0.2]])
    weights = constant_gain(gain)
    filters = kalmannet_filter.Filters(
        kalmannet.network_of(weights.hyper, weights.arrays), model
    )  # fmt: skip
    seen = np.random.default_rng(6).standard_normal((1, 4, 3))
    seen[0, 1, 0], seen[0, 2, :2], seen[0, 3] = np.nan, np.nan, np.nan
    out = Track.empty((1, 4), 2, 3)
    filters.run(seen, np.ones((1, 4)), filters.start(1), out, together=False)
    H, R = model.seen_matrix(), model.R
    for t, rows in enumerate(([0, 1, 2], [1, 2])):
        Hp, Rp, Kp, e = H[rows], R[np.ix_(rows, rows)], gain[:, rows], out.innovations[0, t, rows]
        P = Kp @ Rp @ Hp @ np.linalg.inv(Hp.T @ Hp)
        inverse = np.linalg.inv(Rp) @ (np.eye(len(rows)) - Hp @ Kp)
        inverse = 0.5 * (inverse + inverse.T)
        np.testing.assert_allclose(out.covariances[0, t], 0.5 * (P + P.T), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(out.nis[0, t], e @ inverse @ e, rtol=1e-5)
        np.testing.assert_allclose(out.det[0, t], 1.0 / np.linalg.det(inverse), rtol=1e-5)
    assert np.isnan(out.covariances[0, 2:]).all()  # one row does not determine two numbers
    assert np.isfinite(out.nis[0, 2])
    assert (out.nis[0, 3], out.det[0, 3]) == (0.0, 1.0)
