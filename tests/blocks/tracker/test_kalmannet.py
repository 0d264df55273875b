"""KalmanNet as a block: against filters whose gain is known, gaps, swaps, what it refuses."""

import numpy as np
import pytest
from gain_networks import constant_gain, random_gain
from tracking import LORENZ, RADAR, served, simulated

from blocks.kernels import constant_gain as steady
from blocks.sink.tracking_error import TrackingError
from blocks.tracker.kalman import Kalman
from blocks.tracker.kalmannet import KalmanNet
from pipeline.errors import RunError, WeightsError
from pipeline.instance import drive
from pipeline.weights import Weights

LINEAR = {"motion": "canonical", "observation": "identity", "observation_noise": (1.0, 2.0)}


def settled(values):
    """The gain at which the Kalman filter settles."""
    model = Kalman(**values)._build()
    F, Q, H = model.matrices(np.array([model.step_s]))
    return steady.steady_state(F[0], Q[0], H, model.R)[2]


@pytest.mark.parametrize("architecture", [1, 2])
@pytest.mark.parametrize("words", [0, 8])
@pytest.mark.parametrize(
    "values",
    [LINEAR, {"motion": "canonical", "observation": "canonical", "dimensions": 2}],
    ids=["identity", "canonical"],
)
def test_with_the_gain_of_a_settled_filter_all_is_as_the_filter_says(values, words, architecture):
    # the covariance and the likelihood, too, which here come from nothing but the gain and R
    fields = simulated(**values, words=words, length=60)
    given = fields["observations"], fields["interval_s"]
    block = served(KalmanNet, constant_gain(settled(values), architecture), **values)
    expected = Kalman(**values, form="steady")
    expected.start()
    found, wanted = block.process(*given), expected.process(*given)
    for name, array in wanted._asdict().items():
        tolerance = 3e-6 if name in ("estimates", "innovations") else 3e-5
        np.testing.assert_allclose(
            getattr(found, name), array, rtol=tolerance, atol=tolerance, err_msg=name
        )


def test_a_state_that_is_not_all_seen_has_a_likelihood_but_no_covariance():
    values = {"dimensions": 1, "motion": "constant_velocity", "observation": "position"}
    fields = simulated(**values, length=40)
    found = served(KalmanNet, constant_gain(settled(values)), **values).process(
        fields["observations"]
    )
    expected = Kalman(**values, form="steady")
    expected.start()
    wanted = expected.process(fields["observations"])
    assert np.isnan(found.covariances).all()
    np.testing.assert_allclose(found.nis, wanted.nis, rtol=1e-4)
    np.testing.assert_allclose(found.log_likelihood, wanted.log_likelihood, rtol=1e-4)


def test_where_the_noise_is_unknown_nothing_is_said_of_it_and_the_sink_leaves_it_out():
    fields = simulated(**LINEAR, length=50)
    block = served(KalmanNet, constant_gain(settled(LINEAR)), **LINEAR, covariance="none")
    found = block.process(fields["observations"])._asdict()
    assert all(np.isnan(found[name]).all() for name in ("covariances", "nis", "log_likelihood"))
    sink = TrackingError()
    drive(sink, [{**{"states": fields["states"]}, **found}])
    told = sink.report(None)
    assert np.isfinite(told["mse_db"])
    assert not {"nees", "nis", "log_likelihood"} & told.keys()


def test_a_gap_is_bridged_by_the_model_as_if_all_went_as_predicted():
    seen = simulated(**LORENZ, length=30)["observations"]
    block, other = (served(KalmanNet, random_gain(3, 3), **LORENZ) for _ in range(2))
    block.process(seen[:20])
    before = block.state()["mean"]
    found = block.process(np.full((2, 3), np.nan))
    quiet = KalmanNet(**LORENZ, process_noise=0.0)._build()
    states = np.zeros((2, 3))
    quiet.simulate(states, np.zeros((2, 3)), np.full(2, 0.02), before[:1].copy())
    np.testing.assert_allclose(found.estimates, states)
    assert np.isnan(found.innovations).all()
    assert np.isnan(found.covariances).all()
    np.testing.assert_array_equal(found.nis, 0.0)
    np.testing.assert_array_equal(found.log_likelihood, 0.0)
    other.process(np.concatenate([seen[:20], found.estimates]))
    for name, array in other.state().items():
        np.testing.assert_array_equal(block.state()[name], array, err_msg=name)
    np.testing.assert_array_equal(
        block.process(seen[22:]).estimates, other.process(seen[22:]).estimates
    )


def test_a_row_that_is_missing_counts_as_seen_where_it_was_predicted():
    values = {"motion": "random_walk", "dimensions": 2, "observation": "identity"}
    whole, holed = (served(KalmanNet, random_gain(2, 2), **values) for _ in range(2))
    seen = np.array([[1.0, 0.0], [0.5, 0.0]])  # the second number stays at 0, where it began
    holes = seen.copy()
    holes[0, 1] = np.nan
    one, two = whole.process(seen[:1]), holed.process(holes[:1])
    np.testing.assert_array_equal(two.estimates, one.estimates)
    assert np.isnan(two.innovations[0, 1])
    assert two.innovations[0, 0] == one.innovations[0, 0]


def test_a_bearing_is_compared_around_the_circle():
    # the same observation, told a turn apart
    block, other = (served(KalmanNet, random_gain(5, 2), **RADAR) for _ in range(2))
    seen = simulated(**RADAR, length=20)["observations"]
    turned = seen + np.array([0.0, 2.0 * np.pi])
    found, wanted = other.process(turned), block.process(seen)
    np.testing.assert_allclose(found.estimates, wanted.estimates, rtol=1e-6)
    assert np.abs(found.innovations[:, 1]).max() <= np.pi


def test_weights_that_come_in_mid_stream_go_on_where_the_others_were():
    seen = simulated(**LORENZ, length=60)["observations"]
    first, second = random_gain(3, 3, seed=1), random_gain(3, 3, seed=2)
    block = served(KalmanNet, first, **LORENZ)
    block.process(seen[:30])
    block.take(first)  # the same again changes nothing
    kept = block.state()
    block.take(second)
    for name, array in block.state().items():
        np.testing.assert_array_equal(array, kept[name])
    swapped = block.process(seen[30:])
    alone = served(KalmanNet, first, **LORENZ)
    stayed = alone.process(seen)
    assert (swapped.estimates != stayed.estimates[30:]).any()
    # the first prediction after the swap is the old filter's
    np.testing.assert_array_equal(swapped.innovations[0], stayed.innovations[30])


def test_weights_of_another_architecture_keep_the_states_and_begin_their_own_hidden_ones():
    seen = simulated(**LORENZ, length=40)["observations"]
    block = served(KalmanNet, random_gain(3, 3), **LORENZ)
    block.process(seen[:30])
    kept = block.state()
    block.take(random_gain(3, 3, architecture=1))
    after = block.state()
    for name in ("mean", "evolution", "update", "seen"):
        np.testing.assert_array_equal(after[name], kept[name])
    assert not after["hidden"].any()
    assert np.isfinite(block.process(seen[30:]).estimates).all()


def test_a_track_among_many_is_the_same_as_among_few():
    fields = simulated(**LORENZ, words=101, length=20)
    block = served(KalmanNet, random_gain(3, 3), **LORENZ)
    together = block.process(fields["observations"])
    for part in (slice(0, 1), slice(40, 43), slice(4, 31), slice(0, 100)):
        found = block.process(fields["observations"][part])
        np.testing.assert_array_equal(found.estimates, together.estimates[part])
        np.testing.assert_array_equal(found.innovations, together.innovations[part])
    alone = served(KalmanNet, random_gain(3, 3), **LORENZ).process(fields["observations"][7])
    np.testing.assert_allclose(alone.estimates, together.estimates[7], rtol=1e-4)  # other sums


def test_weights_that_do_not_fit_are_refused_and_the_old_ones_serve():
    seen = simulated(**LORENZ, length=10)["observations"]
    block, other = (served(KalmanNet, random_gain(3, 3), **LORENZ) for _ in range(2))
    wild = random_gain(3, 3)
    huge = {name: np.full_like(array, 3e38) for name, array in wild.arrays.items()}
    for weights, said in (
        (random_gain(2, 2), "network for 2 states and 2 observations, but the model has 3 and 3"),
        (Weights("gain", 2, wild.arrays, {**wild.hyper, "m": 4}), "but .* is due with 4 states"),
        (Weights("gain", 2, wild.arrays, {"m": 3, "n": 3}), "lack 'architecture'"),
        (Weights("gain", 2, wild.arrays, {**wild.hyper, "architecture": 3}), "there are 1 and 2"),
        (Weights("gain", 2, wild.arrays, {**wild.hyper, "scales": [1.0] * 5}), "must be 3 . 3"),
        (Weights("gain", 2, {}, wild.hyper), "no arrays of FC5"),
        (Weights("gain", 2, huge, wild.hyper), "not finite"),
    ):
        with pytest.raises(WeightsError, match=said):
            block.take(weights)
    np.testing.assert_array_equal(block.process(seen).estimates, other.process(seen).estimates)


def test_a_track_that_is_lost_stops_with_its_place():
    block = served(KalmanNet, constant_gain(np.full((3, 3), 1e30)), **LORENZ)
    with pytest.raises(RunError, match=r"at observation \d+ a number is not finite"):
        block.process(np.full((50, 3), 100.0))
