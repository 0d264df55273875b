"""Kalman filters of other packages, and in plain NumPy; all return updated means.

observations (time, m) or (track, time, m); every filter predicts before its first observation.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.peers import Work, versioned


def numpy_loop(
    observations: Any, F: Any, Q: Any, H: Any, R: Any, mean: Any, covariance: Any
) -> Work:
    """The textbook's equations, step by step; no check for missing data."""

    def run() -> Any:
        x, P, means = mean, covariance, np.empty((len(observations), len(mean)))
        identity = np.eye(len(mean))
        for i, y in enumerate(observations):
            x = F @ x
            P = F @ P @ F.T + Q
            S = H @ P @ H.T + R
            K = P @ H.T @ np.linalg.inv(S)
            x = x + K @ (y - H @ x)
            P = (identity - K @ H) @ P
            means[i] = x
        return means

    return Work(run, versioned("numpy"))


def numpy_tracks(
    observations: Any, F: Any, Q: Any, H: Any, R: Any, mean: Any, covariance: Any
) -> Work:
    """The same for all tracks at once, by stacks of matrices."""
    tracks, time, _ = observations.shape

    def run() -> Any:
        x = np.tile(mean[:, None], (tracks, 1, 1))
        P = np.tile(covariance, (tracks, 1, 1))
        means, identity = np.empty((tracks, time, len(mean))), np.eye(len(mean))
        for i in range(time):
            x = F @ x
            P = F @ P @ F.T + Q
            K = P @ H.T @ np.linalg.inv(H @ P @ H.T + R)
            x = x + K @ (observations[:, i, :, None] - H @ x)
            P = (identity - K @ H) @ P
            means[:, i] = x[..., 0]
        return means

    return Work(run, versioned("numpy"))


def filterpy(observations: Any, F: Any, Q: Any, H: Any, R: Any, mean: Any, covariance: Any) -> Work:
    """filterpy, predict and update (Joseph form)."""
    from filterpy.kalman import KalmanFilter

    n, m = len(mean), len(H)

    def run() -> Any:
        peer = KalmanFilter(dim_x=n, dim_z=m)
        peer.F, peer.Q, peer.H, peer.R = F, Q, H, R
        peer.x, peer.P = mean.copy(), covariance.copy()
        means = np.empty((len(observations), n))
        for i, y in enumerate(observations):
            peer.predict()
            peer.update(y)
            means[i] = peer.x
        return means

    return Work(run, versioned("filterpy"))


def opencv(observations: Any, F: Any, Q: Any, H: Any, R: Any, mean: Any, covariance: Any) -> Work:
    """OpenCV in float64."""
    import cv2

    cv2.setNumThreads(1)
    n, m = len(mean), len(H)
    columns = np.ascontiguousarray(observations[..., None])

    def run() -> Any:
        peer = cv2.KalmanFilter(n, m, 0, cv2.CV_64F)
        peer.transitionMatrix, peer.processNoiseCov = F, Q
        peer.measurementMatrix, peer.measurementNoiseCov = H, R
        peer.statePost, peer.errorCovPost = mean[:, None].copy(), covariance.copy()
        means = np.empty((len(observations), n))
        for i, y in enumerate(columns):
            peer.predict()
            means[i] = peer.correct(y)[:, 0]
        return means

    return Work(run, f"OpenCV {cv2.__version__}")


def stone_soup(
    observations: Any, F: Any, Q: Any, H: Any, R: Any, mean: Any, covariance: Any
) -> Work:
    """Stone Soup, predictor and updater."""
    from datetime import datetime, timedelta

    from stonesoup.models.measurement.linear import LinearGaussian
    from stonesoup.models.transition.linear import LinearGaussianTimeInvariantTransitionModel
    from stonesoup.predictor.kalman import KalmanPredictor
    from stonesoup.types.detection import Detection
    from stonesoup.types.hypothesis import SingleHypothesis
    from stonesoup.types.state import GaussianState
    from stonesoup.updater.kalman import KalmanUpdater

    class Positions(LinearGaussian):
        def matrix(self, **_: Any) -> Any:
            return H

    n, m = len(mean), len(H)
    moves = LinearGaussianTimeInvariantTransitionModel(transition_matrix=F, covariance_matrix=Q)
    sees = Positions(ndim_state=n, mapping=tuple(range(m)), noise_covar=R)
    predictor, updater = KalmanPredictor(moves), KalmanUpdater(sees)
    begin = datetime(2026, 1, 1)
    detections = [
        Detection(y[:, None], timestamp=begin + timedelta(seconds=i + 1), measurement_model=sees)
        for i, y in enumerate(observations)
    ]

    def run() -> Any:
        state: Any = GaussianState(mean[:, None], covariance, timestamp=begin)
        means = np.empty((len(observations), n))
        for i, detection in enumerate(detections):
            predicted = predictor.predict(state, timestamp=detection.timestamp)
            state = updater.update(SingleHypothesis(predicted, detection))
            means[i] = state.state_vector[:, 0]
        return means

    return Work(run, versioned("stonesoup"))


def torch_kf(observations: Any, F: Any, Q: Any, H: Any, R: Any, mean: Any, covariance: Any) -> Work:
    """torch-kf in float64, one track or all at once."""
    import torch
    from torch_kf import GaussianState, KalmanFilter

    torch.set_num_threads(1)
    peer = KalmanFilter(*(torch.tensor(A) for A in (F, H, Q, R)))
    many = observations.ndim == 3
    seen = np.moveaxis(observations, 1, 0) if many else observations[:, None]
    measures = torch.tensor(np.ascontiguousarray(seen))[..., None]  # (time, track, m, 1)
    tracks = measures.shape[1]
    x = torch.tensor(mean)[:, None].repeat(tracks, 1, 1)
    P = torch.tensor(covariance).repeat(tracks, 1, 1)

    def run() -> Any:
        with torch.inference_mode():
            state = peer.filter(
                GaussianState(x.clone(), P.clone()), measures, update_first=False, return_all=True
            )
        means = state.mean[..., 0].numpy().swapaxes(0, 1)
        return means if many else means[0]

    return Work(run, versioned("torch-kf"))


def simdkalman(
    observations: Any, F: Any, Q: Any, H: Any, R: Any, mean: Any, covariance: Any
) -> Work:
    """simdkalman, one track or all at once; it starts from the first prediction."""
    import simdkalman as package

    peer = package.KalmanFilter(F, Q, H, R)
    many = observations.ndim == 3
    seen = observations if many else observations[None]
    start = {"initial_value": F @ mean, "initial_covariance": F @ covariance @ F.T + Q}

    def run() -> Any:
        found = peer.compute(
            seen, 0, smoothed=False, filtered=True, observations=False, **start
        ).filtered.states.mean
        return found if many else found[0]

    return Work(run, versioned("simdkalman"))


def dynamax(observations: Any, F: Any, Q: Any, H: Any, R: Any, mean: Any, covariance: Any) -> Work:
    """dynamax in float64, jit, and vmap over tracks; it starts from the first prediction."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp
    from dynamax.linear_gaussian_ssm import inference, lgssm_filter

    parameters = inference.make_lgssm_params(
        *(jnp.array(A) for A in (F @ mean, F @ covariance @ F.T + Q, F, Q, H, R))
    )

    def one(track: Any) -> Any:
        found = lgssm_filter(parameters, track)
        return found.filtered_means, found.filtered_covariances

    function = jax.jit(jax.vmap(one) if observations.ndim == 3 else one)
    given = jnp.array(observations)
    return Work(lambda: np.asarray(jax.block_until_ready(function(given))[0]), versioned("dynamax"))


# --- Lorenz ---------------------------------------------------------------------------------------


def _flow(state: Any) -> Any:
    """Time derivative of the Lorenz system; state (..., 3)."""
    x, y, z = np.moveaxis(state, -1, 0)
    return np.stack([10.0 * (y - x), x * (28.0 - z) - y, x * y - 8.0 / 3.0 * z], axis=-1)


def _slope(state: Any) -> Any:
    """Its Jacobian."""
    x, y, z = state
    return np.array([[-10.0, 10.0, 0.0], [28.0 - z, -1.0, -x], [y, x, -8.0 / 3.0]])


def runge_kutta(state: Any, step: float) -> Any:
    """One step of order 4."""
    a = _flow(state)
    b = _flow(state + 0.5 * step * a)
    c = _flow(state + 0.5 * step * b)
    d = _flow(state + step * c)
    return state + step / 6.0 * (a + 2.0 * b + 2.0 * c + d)


def _runge_kutta_linearised(state: Any, step: float) -> tuple[Any, Any]:
    identity, a = np.eye(3), _flow(state)
    da = _slope(state)
    second = state + 0.5 * step * a
    b, db = _flow(second), _slope(second) @ (identity + 0.5 * step * da)
    third = state + 0.5 * step * b
    c, dc = _flow(third), _slope(third) @ (identity + 0.5 * step * db)
    fourth = state + step * c
    d, dd = _flow(fourth), _slope(fourth) @ (identity + step * dc)
    moved = state + step / 6.0 * (a + 2.0 * b + 2.0 * c + d)
    return moved, identity + step / 6.0 * (da + 2.0 * db + 2.0 * dc + dd)


def _frozen_taylor(state: Any, step: float) -> tuple[Any, Any]:
    """exp(A(x) step) to five terms, with A frozen, which also stands for the Jacobian."""
    _, y, z = state
    A = step * np.array([[-10.0, 10.0, 0.0], [28.0 - z, -1.0, 0.0], [y, 0.0, -8.0 / 3.0]])
    F = term = np.eye(3)
    for k in range(1, 6):
        term = term @ A / k
        F = F + term
    return F @ state, F


def numpy_extended(
    observations: Any, Q: Any, R: Any, mean: Any, covariance: Any, step: Any, taylor: Any
) -> Work:
    """The extended Kalman filter on the Lorenz system, seen whole, step by step."""
    linearise, step = (_frozen_taylor if taylor else _runge_kutta_linearised), float(step)

    def run() -> Any:
        x, P, means = mean, covariance, np.empty((len(observations), 3))
        identity, H = np.eye(3), np.eye(3)
        for i, y in enumerate(observations):
            x, F = linearise(x, step)
            P = F @ P @ F.T + Q
            K = P @ H.T @ np.linalg.inv(H @ P @ H.T + R)
            x = x + K @ (y - H @ x)
            P = (identity - K @ H) @ P
            means[i] = x
        return means

    return Work(run, versioned("numpy"))


def particles(
    observations: Any, Q: Any, R: Any, mean: Any, covariance: Any, step: Any, count: Any
) -> Work:
    """The bootstrap filter of `particles` on the Lorenz system; weighted means as it collects."""
    from particles import SMC, collectors, distributions, state_space_models

    step = float(step)

    class Lorenz(state_space_models.StateSpaceModel):  # type: ignore[misc]
        def PX0(self) -> Any:  # noqa: N802
            start = runge_kutta(mean, step)  # the first prediction, as its spread is small
            return distributions.MvNormal(loc=start, cov=covariance + Q)

        def PX(self, t: Any, xp: Any) -> Any:  # noqa: N802
            return distributions.MvNormal(loc=runge_kutta(xp, step), cov=Q)

        def PY(self, t: Any, xp: Any, x: Any) -> Any:  # noqa: N802
            return distributions.MvNormal(loc=x, cov=R)

    def run() -> Any:
        model = state_space_models.Bootstrap(ssm=Lorenz(), data=observations)
        smc = SMC(
            fk=model, N=int(count), resampling="systematic", ESSrmin=0.5,
            collect=[collectors.Moments()],
        )  # fmt: skip
        smc.run()
        return np.array([moments["mean"] for moments in smc.summaries.moments])

    return Work(run, versioned("particles"))
