import numpy as np
import pytest
import references

from blocks.kernels import smoother, state_space
from blocks.kernels.smoother import Passed

RNG = np.random.default_rng(4)


def simulated(model, steps, holes=True):
    states, observations = (
        RNG.standard_normal((steps, model.size)), RNG.standard_normal((steps, model.rows)),
    )  # fmt: skip
    model.simulate(states, observations, np.full(steps, model.step_s), model.initial[None].copy())
    if holes:
        observations[3:5] = np.nan
        observations[8, 0] = np.nan
    return states, observations


@pytest.mark.parametrize("variance", [0.0, 2.0])
@pytest.mark.parametrize(("name", "dimensions"), [("constant_velocity", 2), ("canonical", 3)])
def test_it_gives_the_states_of_the_joint_distribution(name, dimensions, variance):
    model = state_space.build(name, "position", dimensions=dimensions, initial_variance=variance)
    _, observations = simulated(model, 25)
    found = smoother.smooth(
        model, observations, np.ones(25), model.initial, model.initial_covariance
    )
    F, Q, H = model.matrices(np.ones(1))
    means, covariances = references.normal_posterior(
        observations, F[0], Q[0], H, model.R, model.initial, model.initial_covariance
    )
    np.testing.assert_allclose(found[0], means, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found[1], covariances, rtol=1e-6, atol=1e-8)


def test_without_process_noise_it_gives_the_joint_distribution_too():
    model = state_space.build("constant_velocity", process_noise=0.0, initial_variance=1.0)
    _, observations = simulated(model, 20)
    found = smoother.smooth(
        model, observations, np.ones(20), model.initial, model.initial_covariance
    )
    F, Q, H = model.matrices(np.ones(1))
    means, covariances = references.normal_posterior(
        observations, F[0], Q[0], H, model.R, model.initial, model.initial_covariance
    )
    np.testing.assert_allclose(found[0], means, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found[1], covariances, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", ["canonical", "coordinated_turn", "pendulum"])
def test_smoothing_is_never_less_certain_than_filtering(name):
    model = state_space.build(
        name, "identity", step_s=0.1, process_noise=0.05, initial_variance=0.1
    )
    _, observations = simulated(model, 60)
    mean, covariance = model.initial.copy(), model.initial_covariance.copy()
    passed = Passed.empty(60, model.size)
    assert smoother.forward(model, observations, np.full(60, 0.1), mean, covariance, passed) == 60
    smoothed, spread = smoother.backward(passed)
    np.testing.assert_array_equal(smoothed[-1], passed.means[-1])
    gained = np.linalg.eigvalsh(passed.covariances - spread)
    assert gained.min() > -1e-12
    assert np.linalg.eigvalsh(spread).min() > 0.0
    assert (spread == spread.swapaxes(1, 2)).all()


def test_iterations_end_at_the_most_likely_trajectory():
    model = state_space.build(
        "sinusoidal", "quadratic", process_noise=0.05, observation_noise=0.05,
        initial_state=(0.3, -0.2), initial_variance=0.1,
    )  # fmt: skip
    _, observations = simulated(model, 30, holes=False)
    start = model.initial, model.initial_covariance

    def slope(trajectory):
        """Gradient of the log of the joint density at a trajectory (time + 1, n)."""
        own = model.parameters

        def log_p(flat):
            x = flat.reshape(31, 2)
            a, b, phi, delta = own[2:]
            moved = x[1:] - a * np.sin(b * x[:-1] + phi) - delta
            a, b, c = model.observe_parameters
            seen = observations - a * (b * x[1:] + c) ** 2
            first = x[0] - model.initial
            return -0.5 * (
                (moved**2).sum() / 0.05 + (seen**2).sum() / 0.05 + (first**2).sum() / 0.1
            )

        return references.derivative(lambda flat: np.array([log_p(flat)]), trajectory.ravel())

    found = smoother.smooth(model, observations, np.ones(30), *start, iterations=1)[0]
    better = smoother.smooth(model, observations, np.ones(30), *start, iterations=60)[0]
    free = [slice(2, 62)]  # all but the state before the first observation

    def size(states):
        whole = np.concatenate([model.initial[None], states])
        return np.abs(slope(whole)[0][free[0]][2:]).max()  # whose neighbours are all in `states`

    assert size(better) < 1e-3 * size(found)


def test_a_covariance_that_breaks_is_reported_by_its_step():
    model = state_space.build("canonical", "identity")
    wrong = np.array([[1.0, 3.0], [3.0, 1.0]])
    assert smoother.smooth(model, np.zeros((4, 2)), np.ones(4), np.zeros(2), wrong - 9.0) == 0
