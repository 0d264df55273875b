import itertools

import numpy as np
import pytest
import references
from scipy.optimize import least_squares

from blocks.kernels import kalman, smoother, state_space
from blocks.kernels.kalman import Track
from blocks.kernels.smoother import Passed, Window

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


# --- Window that slides ---------------------------------------------------------------------------


def slid(model, observations, intervals, size, iterations, cuts=()):
    window = Window.begin(model, size)
    out = Track.empty((len(observations),), model.size, model.rows)
    for first, stop in itertools.pairwise((0, *cuts, len(observations))):
        part = Track(*(array[first:stop] for array in out))
        done = smoother.slide(
            model, observations[first:stop], intervals[first:stop], min(first, size - 1), window,
            iterations, part,
        )  # fmt: skip
        assert done == stop - first
    return out


@pytest.mark.parametrize(("size", "iterations"), [(1, 1), (5, 2), (100, 1)])
@pytest.mark.parametrize("variance", [0.0, 2.0])
def test_on_a_linear_model_a_window_gives_the_kalman_filter(size, iterations, variance):
    model = state_space.build("constant_velocity", initial_variance=variance)
    _, observations = simulated(model, 40)
    intervals = RNG.uniform(0.1, 2.0, 40)
    F, Q, H = model.matrices(intervals)
    means, covariances, nis, likely = references.kalman_filter(
        observations, F, Q, H, model.R, model.initial, model.initial_covariance
    )
    out = slid(model, observations, intervals, size, iterations)
    np.testing.assert_allclose(out.estimates, means, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(out.covariances, covariances, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(out.nis, nis, rtol=1e-8, atol=1e-10)
    log_p = kalman.log_likelihood(out.innovations, out.nis, out.det)
    np.testing.assert_allclose(log_p, likely, rtol=1e-8, atol=1e-9)


STEP, Q = 0.1, 0.05 * np.eye(3)


def lorenz(steps, seed):
    """A model with a wide start, and observations of it."""
    model = state_space.build(
        "lorenz_rk4", "spherical", step_s=STEP, process_noise=0.05,
        observation_noise=(0.5, 1e-3, 1e-3), initial_state=(4.0, 6.0, 20.0), initial_variance=2.0,
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    states, observations = rng.standard_normal((2, steps, 3))
    model.simulate(states, observations, np.full(steps, STEP), np.array([[3.0, 7.0, 21.0]]))
    return model, observations


def moved(x):
    """One Runge-Kutta step of the Lorenz equations."""

    def rate(x):
        return np.array([10.0 * (x[1] - x[0]), x[0] * (28.0 - x[2]) - x[1],
                         x[0] * x[1] - 8.0 / 3.0 * x[2]])  # fmt: skip

    k1 = rate(x)
    k2 = rate(x + STEP / 2.0 * k1)
    k3 = rate(x + STEP / 2.0 * k2)
    return x + STEP / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + rate(x + STEP * k3))


def seen(x):
    """Distance, angle from the third axis, azimuth."""
    r = np.linalg.norm(x)
    return np.array([r, np.arccos(x[2] / r), np.arctan2(x[1], x[0])])


def off(y, x):
    """Observation less what a state would give, angles around the circle."""
    e = y - seen(x)
    e[1:] = (e[1:] + np.pi) % (2.0 * np.pi) - np.pi
    return e


def most_likely(model, observations, mean, covariance, near):
    """Trajectory (time + 1, n) of the largest joint density, by a solver that knows no Kalman."""
    weigh_start = np.linalg.inv(np.linalg.cholesky(covariance))
    deviation = np.sqrt(model.R.diagonal())

    def residuals(flat):
        x = flat.reshape(-1, 3)
        parts = [weigh_start @ (x[0] - mean)]
        for before, after, y in zip(x[:-1], x[1:], observations, strict=True):
            parts += [(after - moved(before)) / np.sqrt(Q[0, 0]), off(y, after) / deviation]
        return np.concatenate(parts)

    found = least_squares(residuals, near.ravel(), xtol=1e-14, ftol=1e-14, gtol=1e-12)
    return found.x.reshape(-1, 3)


def test_a_window_as_long_as_the_record_ends_at_the_most_likely_trajectory():
    model, observations = lorenz(12, 1)
    window, intervals = Window.begin(model, 20), np.full(12, STEP)
    out = Track.empty((12,), 3, 3)
    assert smoother.slide(model, observations, intervals, 0, window, 30, out) == 12
    for stop in (1, 6, 12):
        expected = most_likely(
            model, observations[:stop], model.initial, model.initial_covariance,
            window.trajectory[: stop + 1],
        )  # fmt: skip
        np.testing.assert_allclose(out.estimates[stop - 1], expected[-1], rtol=1e-5)
    np.testing.assert_allclose(window.trajectory[:13], expected, rtol=1e-5)
    whole = smoother.smooth(
        model, observations, intervals, model.initial, model.initial_covariance, iterations=30
    )[0]
    np.testing.assert_allclose(whole, expected[1:], rtol=1e-5)
    near = np.concatenate([model.initial[None], out.estimates])
    whole = smoother.smooth(
        model, observations, intervals, model.initial, model.initial_covariance, 30, near
    )[0]
    np.testing.assert_allclose(whole, expected[1:], rtol=1e-5)


def test_a_short_window_weighs_what_is_older_by_a_filter_linearised_at_its_trajectory():
    model, observations = lorenz(8, 2)
    size, P = 3, model.initial_covariance
    out = slid(model, observations, np.full(8, STEP), size, 30)
    mean, near = model.initial, model.initial[None]
    for stop in range(1, 9):
        first = max(stop - size, 0)
        near = np.concatenate([near, moved(near[-1])[None]])
        near = most_likely(model, observations[first:stop], mean, P, near)
        np.testing.assert_allclose(out.estimates[stop - 1], near[-1], rtol=1e-5)
        if stop < size:
            continue
        F, H = references.derivative(moved, near[0]), references.derivative(seen, near[1])
        expected = moved(near[0]) + F @ (mean - near[0])
        P = F @ P @ F.T + Q
        K = P @ H.T @ np.linalg.inv(H @ P @ H.T + model.R)
        mean = expected + K @ (off(observations[first], near[1]) - H @ (expected - near[1]))
        P = (np.eye(3) - K @ H) @ P
        P, near = (P + P.T) / 2.0, near[1:]


def test_a_window_slides_over_a_cut_as_if_there_were_none():
    model, observations = lorenz(30, 3)
    intervals = np.full(30, STEP)
    whole = slid(model, observations, intervals, 7, 2)
    for array, expected in zip(
        slid(model, observations, intervals, 7, 2, cuts=(3, 4, 15)), whole, strict=True
    ):
        np.testing.assert_array_equal(array, expected)
