"""Learned noise as a block: against filters that are told the same noise, gaps, swaps, refusals."""

from dataclasses import replace

import numpy as np
import pytest
from learned_noises import constant_noise, random_noise

from blocks.kernels.calibration import Calibration
from blocks.source.state_space import StateSpace
from blocks.tracker.extended_kalman import ExtendedKalman
from blocks.tracker.kalman import Kalman
from blocks.tracker.learned_noise import LearnedNoise
from pipeline.errors import RunError, WeightsError
from pipeline.weights import Weights

Q = np.array([[0.5, 0.2, 0.0], [0.2, 0.3, -0.1], [0.0, -0.1, 0.4]])
R = np.array([[1.0, 0.3, 0.0], [0.3, 2.0, 0.0], [0.0, 0.0, 0.5]])
LORENZ = {
    "motion": "lorenz_rk4", "observation": "identity", "step_s": 0.02, "initial_variance": 1.0,
}  # fmt: skip
NONE = np.empty((0, 0))
RADAR = {
    "motion": "coordinated_turn", "observation": "range_bearing",
    "initial_state": (-4000.0, 1000.0, 120.0, -40.0, 0.02),
}  # fmt: skip


def simulated(**values):
    source = StateSpace(frames=1, **values)
    source.start()
    return source.process()._asdict()


def served(weights, **values):
    """A block that has these weights."""
    block = LearnedNoise(**values)
    block.start()
    block.take(weights)
    return block


def rows(matrix):
    return tuple(map(tuple, matrix))


@pytest.mark.parametrize("words", [0, 4])
def test_constant_noise_is_an_extended_filter_that_is_told_the_same(words):
    fields = simulated(**LORENZ, words=words, length=40, missing=0.2, jitter=0.4)
    given = fields["observations"], fields["interval_s"]
    found = served(constant_noise(Q, R), **LORENZ).process(*given)
    expected = ExtendedKalman(**LORENZ, process_covariance=rows(Q), observation_covariance=rows(R))
    expected.start()
    for name, array in expected.process(*given)._asdict().items():
        np.testing.assert_allclose(getattr(found, name), array, rtol=2e-5, atol=1e-5, err_msg=name)


def test_on_a_linear_model_it_is_the_kalman_filter():
    values = {"dimensions": 1, "motion": "constant_velocity", "observation": "position"}
    noise, seen = Q[:2, :2], np.array([[4.0]])
    fields = simulated(**values, length=50)
    found = served(constant_noise(noise, seen), **values).process(fields["observations"])
    expected = Kalman(**values, process_covariance=rows(noise), observation_noise=4.0)
    expected.start()
    wanted = expected.process(fields["observations"])
    np.testing.assert_allclose(found.estimates, wanted.estimates, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.covariances, wanted.covariances, rtol=1e-5)
    np.testing.assert_allclose(found.log_likelihood, wanted.log_likelihood, rtol=1e-5)


def test_covariances_that_are_told_stay_positive():
    seen = simulated(**LORENZ, length=300, missing=0.3)["observations"]
    seen[::40] += 5.0  # which the factors answer
    found = served(random_noise(3, 3), **LORENZ).process(seen)
    assert (np.linalg.eigvalsh(found.covariances) > 0.0).all()
    np.testing.assert_array_equal(found.covariances, found.covariances.swapaxes(1, 2))


def calibrated(weights, Q, share):
    """The same weights with a calibration."""
    return replace(weights, arrays={**weights.arrays, **Calibration(Q, NONE, share).arrays()})


def test_a_calibration_changes_what_is_told_of_errors_and_no_estimate():
    # of c = 4 and no more noise, all covariances are four times as large, and nis a quarter
    seen = simulated(**LORENZ, length=60, missing=0.3)["observations"]
    start = {**LORENZ, "initial_variance": 0.0}  # which no calibration scales
    weights = random_noise(3, 3, tilt=False)
    plain = served(weights, **start).process(seen)
    found = served(calibrated(weights, np.zeros((3, 3)), 4.0), **start).process(seen)
    for name in ("estimates", "innovations"):
        np.testing.assert_array_equal(getattr(found, name), getattr(plain, name))
    np.testing.assert_allclose(found.covariances, 4.0 * plain.covariances, rtol=1e-9)
    np.testing.assert_allclose(found.nis, plain.nis / 4.0, rtol=1e-9)
    there = (~np.isnan(found.innovations)).sum(1)
    wanted = plain.log_likelihood + 0.5 * (0.75 * plain.nis - there * np.log(4.0))
    np.testing.assert_allclose(found.log_likelihood, wanted, rtol=1e-9)


def test_of_a_gain_that_is_too_small_the_calibration_tells_the_true_error():
    # a filter that believes in a tenth of Q, told so, against the closed form of its own gain
    values = {"dimensions": 1, "motion": "constant_velocity", "observation": "position"}
    Q, R = np.array([[0.5, 0.2], [0.2, 0.3]]), np.array([[4.0]])
    weights = calibrated(constant_noise(0.1 * Q, R), 0.9 * Q, 1.0)
    out = served(weights, **values).process(np.zeros((40, 1)))
    F, H, P, E = np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[1.0, 0.0]]), *np.zeros((2, 2, 2))
    for t in range(40):
        P, E = F @ P @ F.T + 0.1 * Q, F @ E @ F.T + Q
        S = H @ E @ H.T + R
        K = P @ H.T / (H @ P @ H.T + R)
        A = np.eye(2) - K @ H
        P, E = A @ P @ A.T + K @ R @ K.T, A @ E @ A.T + K @ R @ K.T
        np.testing.assert_allclose(out.covariances[t], E, rtol=1e-5, atol=1e-8)
        said = -0.5 * (out.innovations[t] ** 2 / S[0, 0] + np.log(2.0 * np.pi * S[0, 0]))
        np.testing.assert_allclose(out.log_likelihood[t], said[0], rtol=1e-5)


def test_a_correction_of_what_is_seen_undoes_a_rotation():
    # with D = H - I all is as with the observation matrix H
    H = np.eye(3) + np.array([[0.0, 0.1, 0.0], [-0.1, 0.0, 0.05], [0.0, -0.05, 0.0]])
    made = random_noise(3, 3, units=0, drift=-1)
    arrays = {
        **made.arrays, "tilt_matrix": (H - np.eye(3)).astype(np.float32),
        "tilt_bias": np.zeros(3, np.float32),
    }  # fmt: skip
    bent = {**LORENZ, "observation_matrix": rows(H)}
    seen = simulated(**bent, length=40)["observations"]
    found = served(Weights("noise", 1, arrays, made.hyper), **LORENZ).process(seen)
    plain = {name: made.arrays[name] for name in ("process_root", "observation_root")}
    straight = Weights("noise", 1, plain, {**made.hyper, "tilt": False})
    expected = served(straight, **bent).process(seen)
    np.testing.assert_allclose(found.estimates, expected.estimates, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.covariances, expected.covariances, rtol=1e-5, atol=1e-8)


def test_a_gap_is_bridged_by_the_model_and_uncertainty_grows():
    seen = simulated(**LORENZ, length=20)["observations"]
    block = served(random_noise(3, 3, drift=-1), **LORENZ)
    before = block.process(seen)
    found = block.process(np.full((3, 3), np.nan))
    quiet = LearnedNoise(**LORENZ, process_noise=0.0)._build()
    states = np.zeros((3, 3))
    quiet.simulate(states, np.zeros((3, 3)), np.full(3, 0.02), before.estimates[-1:].copy())
    np.testing.assert_allclose(found.estimates, states)
    assert np.isnan(found.innovations).all()
    np.testing.assert_array_equal(found.nis, 0.0)
    assert np.trace(found.covariances[-1]) > np.trace(before.covariances[-1])


def test_a_bearing_is_compared_around_the_circle():
    block, other = (served(random_noise(5, 2, drift=-1, tilt=False), **RADAR) for _ in range(2))
    seen = simulated(**RADAR, length=20)["observations"]
    found = other.process(seen + np.array([0.0, 2.0 * np.pi]))
    np.testing.assert_allclose(found.estimates, block.process(seen).estimates, rtol=1e-6)


def test_weights_that_come_in_mid_stream_go_on_where_the_others_were():
    seen = simulated(**LORENZ, length=60)["observations"]
    first, second = random_noise(3, 3, drift=-1, tilt=False, seed=1), random_noise(3, 3, seed=2)
    block = served(first, **LORENZ)
    block.process(seen[:30])
    kept = block.state()
    for weights in (first, constant_noise(Q, R)):
        block.take(weights)
        for name in ("mean", "matrix"):
            np.testing.assert_array_equal(block.state()[name], kept[name])
    assert block.state()["hidden"].size == 0  # constant noise remembers nothing
    block.restore(kept)
    block.take(second)  # as many units: it remembers
    np.testing.assert_array_equal(block.state()["hidden"], kept["hidden"])
    swapped, stayed = block.process(seen[30:]), served(first, **LORENZ).process(seen)
    assert (swapped.estimates != stayed.estimates[30:]).any()


def test_weights_that_do_not_fit_are_refused_and_the_old_ones_serve():
    seen = simulated(**LORENZ, length=10)["observations"]
    block, other = (served(random_noise(3, 3), **LORENZ) for _ in range(2))
    good = random_noise(3, 3)
    huge = {**good.arrays, "process_root": np.full((3, 3), 1e4, np.float32)}
    flat = {**good.arrays, "drift_scale": np.zeros(3, np.float32)}
    for weights, said in (
        (random_noise(2, 2), "noise of 2 states and 2 observations, but the model has 3 and 3"),
        (Weights("noise", 2, good.arrays, {**good.hyper, "units": 4}), "cell.weight_ih has shape"),
        (Weights("noise", 2, good.arrays, {"m": 3, "n": 3}), "lack 'units'"),
        (Weights("noise", 2, {}, good.hyper), "lack 'process_root'"),
        (Weights("noise", 2, huge, good.hyper), "not finite"),
        (Weights("noise", 2, flat, good.hyper), "drift_scale must be above 0"),
        (calibrated(good, -np.eye(3), 1.0), "calibration.process is no covariance of 3 numbers"),
    ):
        with pytest.raises(WeightsError, match=said):
            block.take(weights)
    np.testing.assert_array_equal(block.process(seen).estimates, other.process(seen).estimates)


def test_without_weights_it_says_how_to_get_some():
    block = LearnedNoise(**LORENZ)
    block.start()
    with pytest.raises(WeightsError, match="no weights to track with; train some with `kalvit tr"):
        block.process(np.zeros((3, 3)))


def test_a_track_that_is_lost_stops_with_its_place():
    block = served(constant_noise(Q, R), **LORENZ)
    with pytest.raises(RunError, match=r"at observation \d+ the covariance .* train the noise"):
        block.process(np.full((50, 3), 1e200))
