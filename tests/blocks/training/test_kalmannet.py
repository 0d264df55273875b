"""How KalmanNet learns: its gradients against autograd, and what it learns against the best."""

import numpy as np
import pytest
from needs import compiled, package
from tracking import FROZEN_LORENZ, SPHERICAL, assert_gradients, drawn, gradients

torch = package("torch", "train")

from kalmannet_in_torch import Recursion, predicted_of  # noqa: E402

from blocks.kernels import kalman, state_space  # noqa: E402
from blocks.kernels.kalman import Track  # noqa: E402
from blocks.models.kalmannet import network_of  # noqa: E402
from blocks.training.kalmannet import Predicting, Unrolled  # noqa: E402
from blocks.training.trajectories import Schedule, Trajectories, judged, train  # noqa: E402

LORENZ = {**FROZEN_LORENZ, "motion_parameters": {"true_jacobian": 1.0}}
LINEAR = {
    "motion": "canonical", "observation": "identity", "process_noise": 0.01,
    "observation_noise": 0.01,
}  # fmt: skip


def simulated(*given):
    return Trajectories(*drawn(*given))


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("values", [LORENZ, SPHERICAL], ids=["lorenz", "spherical"])
@pytest.mark.parametrize(
    ("architecture", "features", "scales"),
    [(2, (1, 2, 3, 4), ()), (1, (2, 4), ()), (2, (1, 2, 3, 4), (0.5, 2.0, 3.0, 0.1, 1.0, 0.3))],
    ids=["2", "1", "scales"],
)
def test_gradients_are_those_of_autograd(architecture, features, scales, values, missing):
    torch.manual_seed(2)
    model = state_space.build(**values)
    network = network_of(architecture, m=3, n=3, features=features, scales=scales).double()
    _, seen, intervals = simulated(model, 4, 9, 3)
    rng = np.random.default_rng(4)
    seen[rng.random(seen.shape) < missing] = np.nan
    if missing:
        seen[:2, 3], seen[3, 0] = np.nan, np.nan
    starts = model.initial + 0.3 * rng.standard_normal((4, 3))
    recursion = Recursion(network, model)
    means, _ = recursion.run(
        recursion.start(torch.from_numpy(starts)), torch.from_numpy(seen), intervals
    )
    weights = torch.randn_like(means)
    expected = gradients(network, (weights * means).sum())
    unrolled = Unrolled(network, model)
    found, _ = unrolled.forward(unrolled.start(starts), seen, intervals)
    unrolled.backward(weights.numpy())
    np.testing.assert_allclose(found, means.detach().numpy(), rtol=1e-9, atol=1e-9)
    assert_gradients(network, expected)


@pytest.mark.parametrize("values", [LORENZ, SPHERICAL], ids=["lorenz", "spherical"])
def test_gradients_of_what_is_predicted_are_those_of_autograd(values):
    torch.manual_seed(2)
    model = state_space.build(**values)
    network = network_of(2, m=3, n=3).double()
    _, seen, intervals = simulated(model, 4, 9, 3)
    seen[:2, 3], seen[3, 0, 1] = np.nan, np.nan
    starts = model.initial + 0.3 * np.random.default_rng(4).standard_normal((4, 3))
    variances = np.array([1.0, 2.0, 0.5])
    recursion = Recursion(network, model)
    track = recursion.start(torch.from_numpy(starts))
    total, came = 0.0, 0
    for t in range(9):
        _, foretold, _, _ = predicted_of(track.mean, intervals[:, t], model)
        off = torch.from_numpy(seen[:, t]) - foretold
        if values is SPHERICAL:
            off = off - 2.0 * np.pi * (off / (2.0 * np.pi)).round() * torch.tensor([0.0, 1.0, 1.0])
        there = ~off.isnan()
        total = total + (torch.where(there, off, 0.0) ** 2 / torch.from_numpy(variances)).sum()
        came += int(there.sum())
        track = recursion.step(track, torch.from_numpy(seen[:, t]), intervals[:, t])
    expected = gradients(network, total / came)
    learner = Predicting(network, model, variances)
    part = Trajectories(np.zeros((4, 9, 3)), seen, intervals)
    error, _ = learner.teach(learner.start(starts), part)
    assert error == pytest.approx((total / came).item())
    assert_gradients(network, expected)


def test_a_stretch_that_goes_on_is_the_whole():
    model = state_space.build(**LORENZ)
    unrolled = Unrolled(network_of(2, m=3, n=3), model)
    _, seen, intervals = simulated(model, 3, 20, 5)
    begin = unrolled.start(np.tile(model.initial, (3, 1)))
    whole, _ = unrolled.forward(begin, seen, intervals)
    first, track = unrolled.forward(begin, seen[:, :12], intervals[:, :12])
    second, _ = unrolled.forward(track, seen[:, 12:], intervals[:, 12:])
    np.testing.assert_array_equal(np.concatenate((first, second), 1), whole)


@compiled
def test_on_a_linear_system_it_comes_near_the_kalman_filter_far_beyond_what_it_was_trained_on():
    # trained on 20 steps; ten times the training ends 0.01 dB behind (bench/KALMANNET.md)
    model = state_space.build(**LINEAR)
    training, held_out, test = (
        simulated(model, *sizes) for sizes in ((300, 21, 1), (50, 30, 2), (100, 200, 3))
    )
    torch.manual_seed(0)
    network = network_of(2, m=2, n=2)
    schedule = Schedule(steps=60, piece=20, batch=32, long_steps=5, truncate=0, rate=3e-3, every=30)
    found = train(Unrolled(network, model), model, training, held_out, schedule, seed=0)
    assert found.steps == 65
    error = judged(Unrolled(network, model), test, np.zeros((100, 2)))
    best = 0.0
    F, Q, H = model.matrices(np.ones(1))
    for states, seen in zip(test.states, test.observations, strict=True):
        out = Track.empty((200,), 2, 2)
        kalman.linear(seen.copy(), F, Q, H, model.R, np.zeros(2), np.zeros((2, 2)), out)
        best += np.square(out.estimates - states).mean() / 100
    behind = 10.0 * np.log10(error / best)
    assert 0.0 < behind < 0.5


def test_what_is_kept_is_best_on_trajectories_that_were_held_out():
    model = state_space.build(**LINEAR)
    training, held_out = simulated(model, 20, 21, 1), simulated(model, 10, 30, 2)
    network = network_of(2, m=2, n=2)
    schedule = Schedule(steps=20, piece=10, long_steps=0, rate=0.3, every=1, patience=5)
    found = train(Unrolled(network, model), model, training, held_out, schedule)
    again = judged(Unrolled(network, model), held_out, np.zeros((10, 2)))
    assert again == found.loss
    assert found.steps < 20  # a rate that is far too high leads nowhere, and it ends early


def test_trajectories_that_are_too_short_are_refused():
    model = state_space.build(**LINEAR)
    data = simulated(model, 2, 20, 1)
    with pytest.raises(ValueError, match="20 steps are too short for pieces of 60"):
        train(Unrolled(network_of(2, m=2, n=2), model), model, data, data)
