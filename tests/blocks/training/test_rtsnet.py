"""How RTSNet learns: its gradients against autograd, and what it learns against the best."""

import numpy as np
import pytest
from needs import compiled, package

torch = package("torch", "train")

from rtsnet_in_torch import smoothed  # noqa: E402

from blocks.kernels import smoother, state_space  # noqa: E402
from blocks.kernels.rtsnet import Passes  # noqa: E402
from blocks.models.rtsnet import PassNetwork  # noqa: E402
from blocks.training.rtsnet import UnrolledPass, train_passes  # noqa: E402
from blocks.training.trajectories import Schedule, Trajectories  # noqa: E402

LORENZ = {
    "motion": "lorenz_taylor", "observation": "identity", "step_s": 0.02, "process_noise": 0.01,
    "motion_parameters": {"true_jacobian": 1.0},
}  # fmt: skip
SPHERICAL = {
    "motion": "lorenz_rk4", "observation": "spherical", "step_s": 0.02, "process_noise": 0.01,
    "observation_noise": (1.0, 0.01, 0.01), "initial_state": (5.0, 7.0, 20.0),
}  # fmt: skip


@pytest.mark.parametrize("values", [LORENZ, SPHERICAL], ids=["lorenz", "spherical"])
def test_gradients_are_those_of_autograd(values):
    torch.manual_seed(2)
    rng = np.random.default_rng(3)
    model = state_space.build(**values)
    network = PassNetwork(3, 3).double()
    states, seen = rng.standard_normal((2, 4 * 9, 3))
    intervals = np.full(4 * 9, 0.02)
    model.simulate(states, seen, intervals, np.tile(model.initial, (4, 1)))
    states, seen, intervals = (
        states.reshape(4, 9, 3),
        seen.reshape(4, 9, 3),
        intervals.reshape(4, 9),
    )
    seen[rng.random(seen.shape) < 0.2] = np.nan
    starts = model.initial + 0.3 * rng.standard_normal((4, 3))
    means = smoothed(network, model, torch.from_numpy(seen), intervals, torch.from_numpy(starts))
    loss = (means - torch.from_numpy(states)).square().mean()
    loss.backward()
    expected = {name: p.grad.clone() for name, p in network.named_parameters()}
    network.zero_grad(set_to_none=True)
    learner = UnrolledPass(network, model)
    found, _ = learner.teach(learner.start(starts), Trajectories(states, seen, intervals))
    assert found == pytest.approx(loss.item(), rel=1e-9)
    for name, p in network.named_parameters():
        scale = float(expected[name].abs().max())
        np.testing.assert_allclose(
            p.grad.numpy(), expected[name].numpy(), rtol=1e-7, atol=1e-9 * scale + 1e-12,
            err_msg=name,
        )  # fmt: skip


@compiled
def test_on_a_linear_system_it_comes_near_the_kalman_smoother():
    # trained on 30 steps, tested on 200; the gains that it begins at are not far off, either
    model = state_space.build("canonical", "identity", process_noise=0.01, observation_noise=0.01)

    def simulated(count, length, seed):
        rng = np.random.default_rng(seed)
        states, seen = rng.standard_normal((2, count * length, 2))
        intervals = np.ones((count, length))
        model.simulate(states, seen, intervals.ravel(), np.zeros((count, 2)))
        shape = count, length, 2
        return Trajectories(states.reshape(shape), seen.reshape(shape), intervals)

    torch.manual_seed(0)
    schedule = Schedule(steps=16, piece=30, batch=32, long_steps=0, rate=3e-3, every=8)
    data = simulated(200, 31, 1), simulated(50, 60, 2)
    *_, found = train_passes(PassNetwork, model, *data, 2, schedule)
    test = simulated(100, 200, 3)
    wanted = [
        smoother.smooth(model, seen, times, model.initial, model.initial_covariance)[0]
        for seen, times in zip(test.observations, test.intervals, strict=True)
    ]
    best = np.square(wanted - test.states).mean()
    states, behind = test.observations, []
    for one in Passes.of(found.hyper, found.arrays, model).passes:
        states = one.smooth(states, test.intervals)
        behind.append(10.0 * np.log10(np.square(states - test.states).mean() / best))
    assert all(0.0 < one < 0.1 for one in behind)
