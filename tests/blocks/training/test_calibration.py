"""Calibration: of filters whose gain is far from the best, the covariances still are right."""

import numpy as np
import pytest
from gain_networks import constant_gain, random_recursive
from learned_noises import constant_noise
from needs import compiled, package

package("torch", "train")

from blocks.kernels import (  # noqa: E402
    consistency,
    kalmannet,
    learned_noise,
    recursive_kalmannet,
    state_space,
)
from blocks.kernels.kalman import Track  # noqa: E402
from blocks.kernels.kalmannet_filter import Filters  # noqa: E402
from blocks.training.calibration import (  # noqa: E402
    calibrated,
    calibrated_noise,
    filtered,
    measured,
)
from blocks.training.trajectories import Trajectories  # noqa: E402

MODEL = state_space.build(
    "canonical", "identity", process_noise=0.5, observation_noise=(1.0, 2.0)
)  # fmt: skip


def drawn(count, length, seed, model=MODEL):
    rng = np.random.default_rng(seed)
    states, seen = (rng.standard_normal((count * length, model.size)) for _ in range(2))
    intervals = np.full(count * length, model.step_s)
    model.simulate(states, seen, intervals, np.tile(model.initial, (count, 1)))
    shape = (count, length, -1)
    return Trajectories(
        states.reshape(shape), seen.reshape(shape), intervals.reshape(count, length)
    )


def consistent(network, calibration, test):
    """NEES and NIS over their band of 95 %, on a scale where -1 ... 1 is inside."""
    out = filtered(Filters(network, MODEL, calibration), test, spread=True)
    sums = np.zeros(consistency.SUMS)
    for k in range(len(test.states)):
        sums[consistency.NEES_LAST] = np.nan
        consistency.add_errors(
            test.states[k], out.estimates[k], out.covariances[k], 0, 0, 0, sums, np.zeros(1),
            np.empty(0), np.empty((2, 2, 2)),
        )  # fmt: skip
    low, high = consistency.band(2, consistency.independent_steps(sums))
    return (sums[consistency.NEES] / sums[consistency.NEES_STEPS] - 2.0) / (0.5 * (high - low))


def test_noise_is_measured_where_states_are_known():
    Q, R = measured(MODEL, drawn(20, 500, 1))
    np.testing.assert_allclose(Q, 0.5 * np.eye(2), atol=4 * 0.5 * np.sqrt(2 / 10000))
    np.testing.assert_allclose(R, np.diag([1.0, 2.0]), atol=4 * 2.0 * np.sqrt(2 / 10000))
    known = drawn(20, 500, 1)
    known.observations[:, ::3, 0] = np.nan
    again = measured(MODEL, known)[1]
    np.testing.assert_allclose(again, R, atol=0.1)


@compiled
def test_a_gain_that_is_not_the_best_is_consistent_once_calibrated():
    network = kalmannet.network_of(*_parts(constant_gain(np.array([[0.9, 0.3], [0.1, 0.9]]))))
    known = drawn(30, 200, 2)
    known.observations[np.random.default_rng(3).random(known.observations.shape) < 0.05] = np.nan
    calibration = calibrated(network, MODEL, known)
    # the model is exact, so what is fitted is the true noise, as far as that can be known: Q stands
    # in the variance of 6000 innovations, which is 5.4 at most; three standard errors
    error = 3.0 * 5.4 * np.sqrt(2.0 / 6000)
    np.testing.assert_allclose(calibration.process, 0.5 * np.eye(2), atol=error)
    assert calibration.share == pytest.approx(1.0, abs=0.1)
    assert abs(consistent(network, calibration, drawn(40, 250, 4))) < 2.0  # both are samples


@compiled
def test_what_a_recursive_kalmannet_tells_is_scaled_to_the_errors():
    network = recursive_kalmannet.network_of(*_parts(random_recursive(2, 2)))
    known = drawn(20, 200, 2)
    before = Filters(network, MODEL)
    calibration = calibrated(network, MODEL, known)
    out, after = (
        filtered(filters, known, spread=True)
        for filters in (before, Filters(network, MODEL, calibration))
    )
    np.testing.assert_array_equal(out.estimates, after.estimates)
    off = after.estimates - known.states
    nees = np.einsum("kti,ktij,ktj->kt", off, np.linalg.inv(after.covariances), off)
    assert nees.mean() == pytest.approx(2.0, rel=1e-3)
    np.testing.assert_allclose(
        after.covariances[:, -1], calibration.share * out.covariances[:, -1], rtol=1e-3
    )


def noise_of(Q, R):
    return learned_noise.noise_of(*_parts(constant_noise(Q, R)))


def nees_of(noise, calibration, test):
    one, total = learned_noise.Filter(noise, MODEL, calibration), 0.0
    out = Track.empty(test.intervals.shape[1:], 2, 2)
    for states, seen, intervals in zip(*test, strict=True):
        begin = MODEL.initial.copy(), np.stack([MODEL.initial_covariance] * 2)
        one.run(seen, intervals, *begin, one.hidden(), out)
        off = out.estimates - states
        total += np.einsum("ti,tij,tj->t", off, np.linalg.inv(out.covariances), off).mean()
    return total / len(test.states)


@compiled
def test_learned_noise_is_calibrated_where_it_is_wrong_and_there_alone():
    known, test = drawn(30, 200, 2), drawn(40, 250, 4)
    right = noise_of(0.5 * np.eye(2), np.diag([1.0, 2.0]))
    assert calibrated_noise(right, MODEL, known) is None
    wrong = noise_of(0.05 * np.eye(2), np.diag([0.3, 2.0]))
    assert nees_of(wrong, None, test) > 4.0
    calibration = calibrated_noise(wrong, MODEL, known)
    # known on 6000 steps, tried on 10000: three standard errors of steps that are worth a half
    error = 3.0 * 2.0 * np.sqrt(1.0 / 3000 + 1.0 / 5000)
    assert nees_of(wrong, calibration, test) == pytest.approx(2.0, abs=error)


def test_trajectories_that_are_all_lost_cannot_be_calibrated_on():
    lorenz = state_space.build("lorenz_taylor", "identity", step_s=0.02, process_noise=0.0)
    weights = constant_gain(np.full((3, 3), 1e30))
    known = drawn(2, 20, 1, lorenz)
    with pytest.raises(ValueError, match="all held-out trajectories are lost"):
        calibrated(kalmannet.network_of(*_parts(weights)), lorenz, known)


def _parts(weights):
    return weights.hyper, weights.arrays
