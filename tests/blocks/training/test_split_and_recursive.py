"""Split- and Recursive KalmanNet: gradients against autograd, kernels against torch."""

import numpy as np
import pytest
from needs import package
from numba.core import config

torch = package("torch", "train")

from blocks.kernels import recursive_kalmannet, split_kalmannet, state_space  # noqa: E402
from blocks.kernels.kalman import Track  # noqa: E402
from blocks.kernels.kalmannet_filter import Filters  # noqa: E402
from blocks.models.recursive_kalmannet import RecursiveNetwork  # noqa: E402
from blocks.models.split_kalmannet import SplitNetwork  # noqa: E402
from blocks.training.kalmannet import Recursion  # noqa: E402
from blocks.training.recursive_kalmannet import Carried, Likely  # noqa: E402
from blocks.training.split_kalmannet import Split  # noqa: E402
from blocks.training.trajectories import Trajectories  # noqa: E402

MODELS = {
    "spherical": {
        "motion": "lorenz_rk4", "observation": "spherical", "step_s": 0.02, "process_noise": 0.01,
        "observation_noise": (1.0, 0.01, 0.01), "initial_state": (5.0, 7.0, 20.0),
        "initial_variance": 0.5,
    },
    "position": {"motion": "constant_velocity", "observation": "position", "dimensions": 1},
}  # fmt: skip
STATES, SEEN = (0.5, 0.7, 2.0), (1.5, 0.4, 0.3)


def drawn(model, count, length, seed, missing):
    rng = np.random.default_rng(seed)
    states = rng.standard_normal((count * length, model.size))
    seen = rng.standard_normal((count * length, model.rows))
    intervals = model.step_s * rng.uniform(0.8, 1.2, count * length)
    model.simulate(states, seen, intervals, np.tile(model.initial, (count, 1)))
    seen = seen.reshape(count, length, -1)
    if missing:
        seen[rng.random(seen.shape) < missing] = np.nan
        seen[: count // 2, length // 2] = np.nan
    return Trajectories(states.reshape(count, length, -1), seen, intervals.reshape(count, length))


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
    _, seen, intervals = drawn(model, 4, 8, 3, missing)
    starts = np.tile(model.initial, (4, 1))
    recursion = Recursion(network, model)
    means, _ = recursion.run(
        recursion.start(torch.from_numpy(starts)), torch.from_numpy(seen), intervals
    )
    weights = torch.randn_like(means)
    (weights * means).sum().backward()
    expected = {name: p.grad.clone() for name, p in network.named_parameters()}
    network.zero_grad(set_to_none=True)
    unrolled = Split(network, model)
    found, _ = unrolled.forward(unrolled.start(starts), seen, intervals)
    unrolled.backward(weights.numpy())
    np.testing.assert_allclose(found, means.detach().numpy(), rtol=1e-9, atol=1e-9)
    agree(network, expected)


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("model", MODELS)
def test_gradients_of_the_likelihood_are_those_of_autograd(model, missing):
    torch.manual_seed(3)
    model = state_space.build(**MODELS[model])
    network = recursive_of(model).double()
    part = drawn(model, 4, 8, 3, missing)
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
    loss.backward()
    expected = {name: p.grad.clone() for name, p in network.named_parameters()}
    network.zero_grad(set_to_none=True)
    likely = Likely(network, model)
    found, _ = likely.teach(likely.start(starts), part)
    np.testing.assert_allclose(found, loss.item(), rtol=1e-9)
    agree(network, expected)


def agree(network, expected):
    for name, p in network.named_parameters():
        wanted = expected[name].numpy()
        tolerance = 1e-9 * np.abs(wanted).max() + 1e-12
        np.testing.assert_allclose(p.grad.numpy(), wanted, rtol=1e-7, atol=tolerance, err_msg=name)


def test_split_kalmannet_learns_with_one_network_at_a_time_unless_told_otherwise():
    model = state_space.build(**MODELS["position"])
    network = split_of(model)
    part = drawn(model, 4, 8, 3, 0.0)
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
    _, seen, intervals = drawn(model, 7, 8 if config.DISABLE_JIT else 40, 5, missing)
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
