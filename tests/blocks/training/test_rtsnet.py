"""How RTSNet learns: its gradients against autograd, and what it learns against the best."""

import numpy as np
import pytest
from needs import compiled, package
from tracking import FROZEN_LORENZ, SPHERICAL, assert_gradients, drawn, gradients

torch = package("torch", "train")

from rtsnet_in_torch import smoothed  # noqa: E402

from blocks.kernels import smoother, state_space  # noqa: E402
from blocks.kernels.rtsnet import Passes  # noqa: E402
from blocks.models.rtsnet import PassNetwork  # noqa: E402
from blocks.training.rtsnet import UnrolledPass, train_passes  # noqa: E402
from blocks.training.trajectories import Schedule, Trajectories  # noqa: E402

LORENZ = {**FROZEN_LORENZ, "motion_parameters": {"true_jacobian": 1.0}}


@pytest.mark.parametrize("values", [LORENZ, SPHERICAL], ids=["lorenz", "spherical"])
def test_gradients_are_those_of_autograd(values):
    torch.manual_seed(2)
    rng = np.random.default_rng(3)
    model = state_space.build(**values)
    network = PassNetwork(3, 3).double()
    states, seen, intervals = drawn(model, 4, 9, 3, missing=0.2)
    starts = model.initial + 0.3 * rng.standard_normal((4, 3))
    means = smoothed(network, model, torch.from_numpy(seen), intervals, torch.from_numpy(starts))
    loss = (means - torch.from_numpy(states)).square().mean()
    expected = gradients(network, loss)
    learner = UnrolledPass(network, model)
    found, _ = learner.teach(learner.start(starts), Trajectories(states, seen, intervals))
    assert found == pytest.approx(loss.item(), rel=1e-9)
    assert_gradients(network, expected)


@compiled
def test_on_a_linear_system_it_comes_near_the_kalman_smoother():
    # trained on 30 steps, tested on 200; the gains that it begins at are not far off, either
    model = state_space.build("canonical", "identity", process_noise=0.01, observation_noise=0.01)

    torch.manual_seed(0)
    schedule = Schedule(steps=16, piece=30, batch=32, long_steps=0, rate=3e-3, every=8)
    data = [Trajectories(*drawn(model, *sizes)) for sizes in ((200, 31, 1), (50, 60, 2))]
    *_, found = train_passes(PassNetwork, model, *data, 2, schedule)
    test = Trajectories(*drawn(model, 100, 200, 3))
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
