"""filterpy and dynamax give the same filters and smoothers, to 1e-9."""

import functools

import numpy as np
import pytest
from needs import package

from blocks.kernels import extended_kalman, kalman, smoother, state_space
from blocks.kernels.kalman import Track

RNG = np.random.default_rng(9)
STEPS = 60
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture
def exact_dynamax(monkeypatch):
    """dynamax in float64, without the 1e-9 that it adds to the diagonal of what it divides by."""
    package("dynamax", "peers")
    import jax
    from dynamax.linear_gaussian_ssm import inference
    from dynamax.nonlinear_gaussian_ssm import inference_ekf

    for module in (inference, inference_ekf):
        plain = functools.partial(module.psd_solve, diagonal_boost=0.0)
        monkeypatch.setattr(module, "psd_solve", plain)
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def linear(dimensions=2):
    """A linear model and observations of it."""
    model = state_space.build(
        "constant_velocity", dimensions=dimensions, process_noise=0.3, initial_variance=2.0
    )
    return model, RNG.standard_normal((STEPS, model.rows))


def pendulum():
    """A pendulum of which both numbers are seen through a parabola."""
    model = state_space.build(
        "pendulum", "quadratic", step_s=0.05, process_noise=1e-3, observation_noise=0.1,
        initial_state=(1.5, 0.0), initial_variance=0.1, observation_parameters={"c": 0.5},
    )  # fmt: skip
    states, observations = RNG.standard_normal((2, STEPS, 2))
    model.simulate(states, observations, np.full(STEPS, 0.05), np.array([[1.6, 0.1]]))
    return model, observations


def filtered(model, observations):
    out = Track.empty((STEPS,), model.size, model.rows)
    start = model.initial.copy(), model.initial_covariance.copy()
    assert (
        extended_kalman.extended(model, observations, np.full(STEPS, model.step_s), *start, out)
        == STEPS
    )
    return out


def smoothed(model, observations):
    start = model.initial, model.initial_covariance
    return smoother.smooth(model, observations, np.full(STEPS, model.step_s), *start)


def matrices(model):
    F, Q, H = model.matrices(np.array([model.step_s]))
    return F[0], Q[0], H


def test_filterpy_filters_and_smooths_the_same():
    filterpy = package("filterpy.kalman")
    model, observations = linear()
    F, Q, H = matrices(model)
    peer = filterpy.KalmanFilter(dim_x=4, dim_z=2)
    peer.F, peer.Q, peer.H, peer.R = F, Q, H, model.R
    peer.x, peer.P = model.initial.copy(), model.initial_covariance.copy()
    means, covariances, _, _ = peer.batch_filter(observations)
    out = filtered(model, observations)
    np.testing.assert_allclose(out.estimates, means, **CLOSE)
    np.testing.assert_allclose(out.covariances, covariances, **CLOSE)
    means, covariances, _, _ = peer.rts_smoother(means, covariances)
    found = smoothed(model, observations)
    np.testing.assert_allclose(found[0], means, **CLOSE)
    np.testing.assert_allclose(found[1], covariances, **CLOSE)


def test_filterpy_extends_the_filter_in_the_same_way():
    filterpy = package("filterpy.kalman")
    model, observations = pendulum()
    peer = filterpy.ExtendedKalmanFilter(dim_x=2, dim_z=2)
    peer.Q, peer.R = 1e-3 * np.eye(2), model.R
    peer.x, peer.P = model.initial.copy(), model.initial_covariance.copy()
    gravity = 9.81

    def swing(x):
        return np.array([x[0] + 0.05 * x[1] - 0.5 * gravity * 0.05**2 * np.sin(x[0]),
                         x[1] - gravity * 0.05 * np.sin(x[0])])  # fmt: skip

    def slope(x):
        c = gravity * 0.05 * np.cos(x[0])
        return np.array([[1.0 - 0.025 * c, 0.05], [-c, 1.0]])

    out = filtered(model, observations)
    for i, y in enumerate(observations):
        peer.F = slope(peer.x)
        peer.P = peer.F @ peer.P @ peer.F.T + peer.Q
        peer.x = swing(peer.x)
        peer.update(y, lambda x: np.diag(2.0 * (x + 0.5)), lambda x: (x + 0.5) ** 2)
        np.testing.assert_allclose(out.estimates[i], peer.x, **CLOSE)
        np.testing.assert_allclose(out.covariances[i], peer.P, **CLOSE)


@pytest.mark.usefixtures("exact_dynamax")
def test_dynamax_filters_and_smooths_the_same():
    import jax.numpy as jnp
    from dynamax.linear_gaussian_ssm import lgssm_filter, lgssm_smoother
    from dynamax.linear_gaussian_ssm.inference import make_lgssm_params

    model, observations = linear()
    F, Q, H = matrices(model)
    # dynamax begins with the distribution of the first state, before its observation
    first = F @ model.initial, F @ model.initial_covariance @ F.T + Q
    params = make_lgssm_params(*first, F, Q, H, model.R)
    peer = lgssm_filter(params, jnp.asarray(observations))
    out = filtered(model, observations)
    np.testing.assert_allclose(out.estimates, peer.filtered_means, **CLOSE)
    np.testing.assert_allclose(out.covariances, peer.filtered_covariances, **CLOSE)
    log_p = kalman.log_likelihood(out.innovations, out.nis, out.det).sum()
    np.testing.assert_allclose(log_p, float(peer.marginal_loglik), **CLOSE)
    peer = lgssm_smoother(params, jnp.asarray(observations))
    found = smoothed(model, observations)
    np.testing.assert_allclose(found[0], peer.smoothed_means, **CLOSE)
    np.testing.assert_allclose(found[1], peer.smoothed_covariances, **CLOSE)


@pytest.mark.usefixtures("exact_dynamax")
def test_dynamax_extends_filter_and_smoother_in_the_same_way():
    import jax.numpy as jnp
    from dynamax.nonlinear_gaussian_ssm import ParamsNLGSSM
    from dynamax.nonlinear_gaussian_ssm.inference_ekf import (
        extended_kalman_filter,
        extended_kalman_smoother,
    )

    model, observations = pendulum()

    def swing(x):
        return jnp.array([x[0] + 0.05 * x[1] - 0.5 * 9.81 * 0.05**2 * jnp.sin(x[0]),
                          x[1] - 9.81 * 0.05 * jnp.sin(x[0])])  # fmt: skip

    # dynamax begins with the distribution of the first state: the motion into it is done by hand
    x = model.initial
    c = 9.81 * 0.05 * np.cos(x[0])
    F = np.array([[1.0 - 0.025 * c, 0.05], [-c, 1.0]])
    Q = 1e-3 * np.eye(2)
    params = ParamsNLGSSM(
        initial_mean=swing(x), initial_covariance=F @ model.initial_covariance @ F.T + Q,
        dynamics_function=swing, dynamics_covariance=Q,
        emission_function=lambda x: (x + 0.5) ** 2, emission_covariance=model.R,
    )  # fmt: skip
    peer = extended_kalman_filter(params, jnp.asarray(observations))
    out = filtered(model, observations)
    np.testing.assert_allclose(out.estimates, peer.filtered_means, **CLOSE)
    np.testing.assert_allclose(out.covariances, peer.filtered_covariances, **CLOSE)
    peer = extended_kalman_smoother(params, jnp.asarray(observations))
    found = smoothed(model, observations)
    np.testing.assert_allclose(found[0], peer.smoothed_means, **CLOSE)
    np.testing.assert_allclose(found[1], peer.smoothed_covariances, **CLOSE)
