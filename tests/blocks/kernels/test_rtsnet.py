"""RTSNet in numba against torch, float64, and against the smoother whose gains it is given."""

import numpy as np
import pytest
from gain_networks import constant_passes
from needs import package
from numba.core import config
from tracking import FROZEN_LORENZ, SPHERICAL, drawn

from blocks.kernels import constant_gain, rtsnet, smoother, state_space

RTOL = 5e-6  # of the largest observation; weights are float32
MODELS = {
    "lorenz": FROZEN_LORENZ, "spherical": SPHERICAL,
    "position": {"motion": "constant_velocity", "observation": "position"},
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_smoothed_states_are_those_of_torch(name):
    torch = package("torch", "train")
    from rtsnet_in_torch import smoothed

    from blocks.models.rtsnet import PassNetwork

    model = state_space.build(**MODELS[name])
    time = 8 if config.DISABLE_JIT else 30
    _, seen, intervals = drawn(model, 7, time, 5, jitter=0.2)
    seen[np.random.default_rng(6).random(seen.shape) < 0.1] = np.nan
    seen[:, 5] = np.nan
    torch.manual_seed(4)
    module = PassNetwork(model.size, model.rows)
    arrays = {
        f"1.{way}": rtsnet.joined(net.arrays(), net.m, net.n, 5, 40)
        for way, net in (("there", module.there), ("back", module.back))
    }
    hyper = {
        "passes": 1, "sees": "observations", "m": model.size, "n": model.rows, "in_mult": 5,
        "out_mult": 40,
    }  # fmt: skip
    one = rtsnet.Passes.of(hyper, arrays, model).passes[0]
    starts = torch.from_numpy(np.tile(model.initial, (7, 1)))
    with torch.inference_mode():
        expected = smoothed(module.double(), model, torch.from_numpy(seen), intervals, starts)
    largest = np.nanmax(np.abs(seen))
    np.testing.assert_allclose(
        one.smooth(seen, intervals), expected.numpy(), rtol=0, atol=RTOL * largest
    )
    updated = one.filter(seen[:1], intervals[:1], one.there.start(1), together=False)
    alone = one.back.run(updated, intervals[:1], together=False)
    np.testing.assert_allclose(alone[0], expected[0].numpy(), rtol=0, atol=RTOL * largest)


def test_with_the_gains_of_a_settled_smoother_it_is_that_smoother():
    model = state_space.build("canonical", "identity", process_noise=0.3)
    _, seen, _ = drawn(model, 1, 120, 5, jitter=0.2)
    intervals = np.ones((1, 120))
    F, Q, H = model.matrices(np.ones(1))
    _, P, K = constant_gain.steady_state(F[0], Q[0], H, model.R)
    back = P @ F[0].T @ np.linalg.inv(F[0] @ P @ F[0].T + Q[0])
    weights = constant_passes([(K, back)], 2)
    one = rtsnet.Passes.of(weights.hyper, weights.arrays, model).passes[0]
    found = one.smooth(seen, intervals)[0]
    wanted, _ = smoother.smooth(
        model, seen[0], intervals[0], model.initial, model.initial_covariance
    )
    np.testing.assert_allclose(found[40:80], wanted[40:80], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[-1], wanted[-1], rtol=1e-5, atol=1e-5)


def test_numbers_of_networks_that_were_joined_are_parted_again():
    weights = constant_passes([(np.eye(2), np.eye(2))], 2)
    parts = rtsnet.parted(weights.arrays["1.back"], 2, 2, 5, 40)
    np.testing.assert_array_equal(rtsnet.joined(parts, 2, 2, 5, 40), weights.arrays["1.back"])
    with pytest.raises(ValueError, match=r"\(5208,\) numbers of a network, but .* are due"):
        rtsnet.parted(weights.arrays["1.back"], 3, 2, 5, 40)
