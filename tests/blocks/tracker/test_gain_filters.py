"""Trackers with a learned gain: covariances by their recursion, gaps, swaps, what they refuse."""

import numpy as np
import pytest
from gain_networks import (
    calibrated,
    constant_gain,
    random_gain,
    random_recursive,
    random_split,
)
from tracking import RADAR, served, simulated

from blocks.kernels import constant_gain as steady
from blocks.tracker.kalman import Kalman
from blocks.tracker.kalmannet import KalmanNet
from blocks.tracker.recursive_kalmannet import RecursiveKalmanNet
from blocks.tracker.split_kalmannet import SplitKalmanNet
from pipeline.errors import WeightsError
from pipeline.weights import Weights

POSITION = {
    "dimensions": 1, "motion": "constant_velocity", "observation": "position",
    "initial_variance": 1.0,
}  # fmt: skip
THREE_ROWS = {
    "motion": "random_walk", "dimensions": 2,
    "observation_matrix": ((1.0, 0.0), (0.5, 1.0), (0.2, -1.0)),
}  # fmt: skip
KINDS = {
    "kalmannet": (KalmanNet, random_gain),
    "split": (SplitKalmanNet, random_split),
    "recursive": (RecursiveKalmanNet, random_recursive),
}


def test_with_gain_and_noise_of_a_settled_filter_all_is_as_the_filter_says():
    # of a state that is not all seen, too, of which the gain alone tells no covariance
    model = Kalman(**POSITION)._build()
    F, Q, H = model.matrices(np.array([model.step_s]))
    gain = steady.steady_state(F[0], Q[0], H, model.R)[2]
    seen = simulated(**POSITION, length=60)["observations"]
    weights = calibrated(constant_gain(gain), Q[0], model.R)
    found = served(KalmanNet, weights, **POSITION).process(seen)
    expected = Kalman(**POSITION, form="steady")
    expected.start()
    wanted = expected.process(seen)
    late = slice(25, None)  # the recursion starts at the variance of the start
    for name in ("estimates", "covariances", "nis", "log_likelihood"):
        np.testing.assert_allclose(
            getattr(found, name)[late], getattr(wanted, name)[late], rtol=1e-4, atol=1e-5
        )


def test_covariances_are_those_of_josephs_form_over_the_rows_that_came():
    # slow and plain, from the equations of kernels/kalmannet_filter.py
    gain = np.array([[0.3, 0.1, 0.02], [0.05, 0.3, -0.2]])
    Q, R, c = np.array([[0.3, 0.1], [0.1, 0.5]]), np.diag([1.0, 2.0, 1.5]), 0.7
    R[0, 1] = R[1, 0] = 0.4
    seen = np.random.default_rng(6).standard_normal((5, 3))
    seen[1, 0], seen[2, :2], seen[3] = np.nan, np.nan, np.nan
    intervals = np.array([1.0, 0.5, 2.0, 1.0, 1.0])
    block = served(KalmanNet, calibrated(constant_gain(gain), Q, R, c), **THREE_ROWS)
    out = block.process(seen, intervals)
    H, P = np.array(THREE_ROWS["observation_matrix"]), np.zeros((2, 2))
    for t in range(5):
        came = ~np.isnan(seen[t])
        K, Hp, Rp = gain[:, came], H[came], R[np.ix_(came, came)]
        P = P + intervals[t] * Q
        S, e = Hp @ P @ Hp.T + Rp, out.innovations[t, came]
        nis = e @ np.linalg.solve(S, e)
        A = np.eye(2) - K @ Hp
        P = A @ P @ A.T + c * K @ Rp @ K.T
        np.testing.assert_allclose(out.covariances[t], P, rtol=1e-5)
        np.testing.assert_allclose(out.nis[t], nis, rtol=1e-5)
        logs = np.linalg.slogdet(2.0 * np.pi * S)[1]
        np.testing.assert_allclose(out.log_likelihood[t], -0.5 * (nis + logs), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_covariances_are_positive_whatever_the_gain(kind):
    model = KINDS[kind][0](**RADAR)._build()
    made = KINDS[kind][1](model.size, model.rows)
    seen = simulated(**RADAR, length=50)["observations"]
    seen[10:13], seen[20, 1] = np.nan, np.nan
    block = served(KINDS[kind][0], calibrated(made, 0.1 * np.eye(5), model.R, 2.0), **RADAR)
    found = block.process(seen)
    assert (np.linalg.eigvalsh(found.covariances) > 0.0).all()
    np.testing.assert_array_equal(found.covariances, found.covariances.swapaxes(1, 2))
    volumes = np.linalg.slogdet(found.covariances[9:13])[1]
    assert (np.diff(volumes) > 0.0).all()  # what is not seen gets less certain


@pytest.mark.parametrize("kind", ["split", "recursive"])
def test_a_bearing_is_compared_around_the_circle(kind):
    # the same observation, told a turn apart
    block, other = (served(KINDS[kind][0], KINDS[kind][1](5, 2), **RADAR) for _ in range(2))
    seen = simulated(**RADAR, length=20)["observations"]
    found, wanted = other.process(seen + np.array([0.0, 2.0 * np.pi])), block.process(seen)
    np.testing.assert_allclose(found.estimates, wanted.estimates, rtol=1e-6)
    assert np.abs(found.innovations[:, 1]).max() <= np.pi


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_come_in_mid_stream_go_on_from_mean_and_covariance(kind):
    make = KINDS[kind][1]
    first, second = (
        calibrated(make(5, 2, seed=seed), 0.1 * np.eye(5), np.eye(2)) for seed in (1, 2)
    )
    seen = simulated(**RADAR, length=40)["observations"]
    block, stayed = served(KINDS[kind][0], first, **RADAR), served(KINDS[kind][0], first, **RADAR)
    block.process(seen[:30])
    kept = block.state()
    block.take(second)
    for name, array in block.state().items():
        np.testing.assert_array_equal(array, kept[name])
    found, wanted = block.process(seen[30:]), stayed.process(seen)
    # the first prediction after the swap is the old filter's, and how likely it is
    np.testing.assert_array_equal(found.innovations[0], wanted.innovations[30])
    np.testing.assert_array_equal(found.nis[0], wanted.nis[30])
    assert (found.estimates != wanted.estimates[30:]).any()


def test_weights_without_a_calibration_tell_what_the_gain_tells():
    values = {"motion": "canonical", "observation": "identity"}
    weights = constant_gain(np.array([[0.6, 0.2], [0.2, 0.5]]))
    seen = simulated(**values, length=10)["observations"]
    found = served(KalmanNet, weights, **values).process(seen)
    np.testing.assert_allclose(
        found.covariances, np.tile([[0.6, 0.2], [0.2, 0.5]], (10, 1, 1)), rtol=1e-6
    )  # K R


def test_weights_that_do_not_fit_are_refused():
    values = {"motion": "random_walk", "dimensions": 2, "observation": "identity"}
    split, recursive = random_split(2, 2), random_recursive(2, 2)
    no_scales = {name: a for name, a in recursive.arrays.items() if name != "scales.states"}
    flat = {**recursive.arrays, "scales.states": np.zeros(2)}
    endless = {**recursive.hyper, "n": 10**30}
    for kind, weights, said in (
        ("split", random_split(3, 2), "network for 3 states and 2 observations"),
        ("split", recursive, "no arrays of P.L1"),
        ("split", calibrated(split, np.eye(3), np.eye(2)), "process is no covariance of 2 numb"),
        ("split", calibrated(split, np.eye(2), -np.eye(2)), "observation is no covariance"),
        ("split", calibrated(split, np.eye(2), np.eye(2), 0.0), "share = 0.0, but must be above"),
        ("recursive", Weights("gain", 1, no_scales, recursive.hyper), "lack 'scales.states'"),
        ("recursive", Weights("gain", 1, flat, recursive.hyper), "expected 2 numbers above 0"),
        ("recursive", Weights("gain", 1, recursive.arrays, endless), "int too"),
    ):
        with pytest.raises(WeightsError, match=said):
            served(KINDS[kind][0], weights, **values)
