import numpy as np
import pytest
import references

from blocks.kernels import kalman, state_space
from blocks.kernels.kalman import Track
from blocks.kernels.unscented import unscented

RNG = np.random.default_rng(6)


def run(model, observations, intervals, covariance, **keywords):
    out = Track.empty((len(observations),), model.size, model.rows)
    done = unscented(
        model, observations, intervals, model.initial.copy(), covariance.copy(), out, **keywords
    )
    return out, done


@pytest.mark.parametrize(
    "points",
    [{}, {"alpha": 1e-2, "beta": 2.0, "kappa": 0.0}, {"kappa": 0.0}, {"kappa": -1.0}],
    ids=str,
)
@pytest.mark.parametrize(("name", "dimensions"), [("constant_velocity", 2), ("canonical", 7)])
def test_on_a_linear_model_it_is_the_kalman_filter(name, dimensions, points):
    model = state_space.build(name, "position", dimensions=dimensions)
    m = model.rows
    observations, intervals = RNG.standard_normal((40, m)), RNG.uniform(0.1, 2.0, 40)
    observations[5:8] = observations[11:20, 0] = observations[15:25, -1] = np.nan
    start = np.eye(model.size)
    out, done = run(model, observations, intervals, start, **points)
    assert done == 40
    F, Q, H = model.matrices(intervals)
    means, covariances, nis, likely = references.kalman_filter(
        observations, F, Q, H, model.R, model.initial, start
    )
    scale = np.abs(means).max()
    np.testing.assert_allclose(out.estimates, means, rtol=1e-7, atol=1e-8 * scale)
    np.testing.assert_allclose(
        out.covariances, covariances, rtol=1e-6, atol=1e-8 * np.abs(covariances).max()
    )
    np.testing.assert_allclose(out.nis, nis, rtol=1e-6, atol=1e-8)
    log_p = kalman.log_likelihood(out.innovations, out.nis, out.det)
    np.testing.assert_allclose(log_p, likely, rtol=1e-6, atol=1e-7)


def test_a_start_that_is_known_exactly_is_no_obstacle():
    model = state_space.build("canonical", "identity")
    observations = RNG.standard_normal((20, 2))
    out, done = run(model, observations, np.ones(20), np.zeros((2, 2)))
    assert done == 20
    F, Q, H = model.matrices(np.ones(20))
    means = references.kalman_filter(
        observations, F, Q, H, model.R, model.initial, np.zeros((2, 2))
    )[0]
    np.testing.assert_allclose(out.estimates, means, rtol=1e-9, atol=1e-9)


def test_a_quadratic_observation_is_predicted_with_its_bias():
    # E x^2 = mean^2 + variance, which linearising at the mean misses
    model = state_space.build(
        "random_walk", "quadratic", dimensions=1, process_noise=1.0, initial_state=(2.0,),
        initial_variance=3.0,
    )  # fmt: skip
    out, _ = run(model, np.zeros((1, 1)), np.ones(1), model.initial_covariance)
    assert -out.innovations[0, 0] == pytest.approx(2.0**2 + 3.0 + 1.0)


def test_bearings_are_averaged_around_the_circle():
    model = state_space.build(
        "constant_velocity", "range_bearing", process_noise=1e-6, observation_noise=(1.0, 1e-4),
        initial_state=(-100.0, 10.0, 0.0, -1.0),
    )  # fmt: skip
    states = np.array([[-100.0, 10.0 - i, 0.0, -1.0] for i in range(1, 21)])
    observations = np.column_stack(
        [np.hypot(states[:, 0], states[:, 1]), np.arctan2(states[:, 1], states[:, 0])]
    )
    out, _ = run(model, observations, np.ones(20), 4.0 * np.eye(4))
    assert np.abs(out.innovations[:, 1]).max() < 0.01
    np.testing.assert_allclose(out.estimates, states, atol=0.2)


def test_it_stops_where_a_covariance_is_none():
    model = state_space.build("canonical", "identity")
    start = np.array([[1.0, 2.0], [2.0, 1.0]])
    assert run(model, np.zeros((3, 2)), np.ones(3), start)[1] == 0


def test_points_need_a_distance():
    model = state_space.build("canonical", "identity")
    with pytest.raises(ValueError, match=r"must be above 0: alpha = 1.0, n = 2, kappa = -2.0"):
        run(model, np.zeros((3, 2)), np.ones(3), np.eye(2), kappa=-2.0)
