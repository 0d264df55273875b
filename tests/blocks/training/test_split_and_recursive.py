"""Split- and Recursive KalmanNet: gradients against autograd, kernels against torch."""

import numpy as np
import pytest
from needs import package
from numba.core import config
from tracking import SPHERICAL, assert_gradients, drawn, gradients

torch = package("torch", "train")

from kalmannet_in_torch import Carried, Recursion  # noqa: E402

from blocks.kernels import recursive_kalmannet, split_kalmannet, state_space  # noqa: E402
from blocks.kernels.kalman import Track  # noqa: E402
from blocks.kernels.kalmannet_filter import Filters  # noqa: E402
from blocks.models.recursive_kalmannet import RecursiveNetwork  # noqa: E402
from blocks.models.split_kalmannet import SplitNetwork  # noqa: E402
from blocks.training.recursive_kalmannet import Likely  # noqa: E402
from blocks.training.split_kalmannet import Split  # noqa: E402
from blocks.training.trajectories import Trajectories  # noqa: E402

MODELS = {
    "spherical": {**SPHERICAL, "initial_variance": 0.5},
    "position": {"motion": "constant_velocity", "observation": "position", "dimensions": 1},
}  # fmt: skip
STATES, SEEN = (0.5, 0.7, 2.0), (1.5, 0.4, 0.3)


def trajectories(model, count, length, seed, missing):
    found = Trajectories(*drawn(model, count, length, seed, missing, jitter=0.2))
    if missing:
        found.observations[: count // 2, length // 2] = np.nan
    return found


def split_of(model):
    return SplitNetwork(model.size, model.rows, in_mult=4, units=1)


def recursive_of(model):
    scales = STATES[: model.size], SEEN[: model.rows]
    return RecursiveNetwork(model.size, model.rows, *scales, in_mult=4, units=2)


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("model", MODELS)
def test_gradients_of_split_kalmannet_are_those_of_autograd(model, missing):
    torch.manual_seed(3)
    model = state_space.build(**MODELS[model])
    network = split_of(model).double()
    _, seen, intervals = trajectories(model, 4, 8, 3, missing)
    starts = np.tile(model.initial, (4, 1))
    recursion = Recursion(network, model)
    means, _ = recursion.run(
        recursion.start(torch.from_numpy(starts)), torch.from_numpy(seen), intervals
    )
    weights = torch.randn_like(means)
    expected = gradients(network, (weights * means).sum())
    unrolled = Split(network, model)
    found, _ = unrolled.forward(unrolled.start(starts), seen, intervals)
    unrolled.backward(weights.numpy())
    np.testing.assert_allclose(found, means.detach().numpy(), rtol=1e-9, atol=1e-9)
    assert_gradients(network, expected)


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("model", MODELS)
def test_gradients_of_the_likelihood_are_those_of_autograd(model, missing):
    torch.manual_seed(3)
    model = state_space.build(**MODELS[model])
    network = recursive_of(model).double()
    part = trajectories(model, 4, 8, 3, missing)
    starts = np.tile(model.initial, (4, 1))
    carried = Carried(network, model)
    first = torch.from_numpy(np.tile(model.initial_covariance, (4, 1, 1)))
    means, covariances = carried.covariances(
        carried.start(torch.from_numpy(starts)), torch.from_numpy(part.observations),
        part.intervals, first,
    )  # fmt: skip
    normal = torch.distributions.MultivariateNormal(means, covariances)
    constant = 0.5 * np.log(2.0 * np.pi)
    loss = -normal.log_prob(torch.from_numpy(part.states)).mean() / model.size - constant
    expected = gradients(network, loss)
    likely = Likely(network, model)
    found, _ = likely.teach(likely.start(starts), part)
    np.testing.assert_allclose(found, loss.item(), rtol=1e-9)
    assert_gradients(network, expected)


def test_split_kalmannet_learns_with_one_network_at_a_time_unless_told_otherwise():
    model = state_space.build(**MODELS["position"])
    network = split_of(model)
    part = trajectories(model, 4, 8, 3, 0.0)
    for alternate, expected in ((True, [(False, True), (True, False)]), (False, [(True, True)])):
        learner = Split(network, model, alternate=alternate)
        for wanted in expected:
            network.zero_grad(set_to_none=True)
            learner.teach(learner.start(part.states[:, 0]), part)
            has = tuple(branch.L1.weight.grad is not None for branch in (network.P, network.S))
            assert has == wanted


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", ["split", "recursive"])
def test_kernels_agree_with_torch(kind, model, missing):
    torch.manual_seed(4)
    model = state_space.build(**MODELS[model])
    made, kernel = {
        "split": (split_of, split_kalmannet), "recursive": (recursive_of, recursive_kalmannet)
    }[kind]  # fmt: skip
    module = made(model)
    filters = Filters(kernel.network_of(module.hyper, module.arrays()), model)
    module.double()
    _, seen, intervals = trajectories(model, 7, 8 if config.DISABLE_JIT else 40, 5, missing)
    starts = torch.from_numpy(np.tile(model.initial, (7, 1)))
    with torch.inference_mode():
        if kind == "split":
            recursion = Recursion(module, model)
            means, _ = recursion.run(
                recursion.start(starts), torch.from_numpy(seen), intervals
            )  # fmt: skip
        else:
            recursion = Carried(module, model)
            first = torch.from_numpy(np.tile(model.initial_covariance, (7, 1, 1)))
            means, covariances = recursion.covariances(
                recursion.start(starts), torch.from_numpy(seen), intervals, first
            )  # fmt: skip
    for together in (True, False):
        out = Track.empty(seen.shape[:2], model.size, model.rows)
        filters.run(seen, intervals, filters.start(7), out, together=together)
        largest = np.nanmax(np.abs(seen))
        assert np.abs(out.estimates - means.numpy()).max() < 1e-5 * largest
        if kind == "recursive":
            np.testing.assert_allclose(
                out.covariances, covariances.numpy(), rtol=1e-3, atol=1e-5
            )  # fmt: skip
            assert np.isnan(out.nis[~np.isnan(seen).all(2)]).all()  # told by a calibration alone
