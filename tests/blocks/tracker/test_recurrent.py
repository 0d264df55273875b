"""Recurrent networks that track, as a block: gaps, angles, swaps, what it refuses."""

import numpy as np
import pytest
from recurrent_networks import random_network
from tracking import LORENZ, RADAR, served, simulated

from blocks.kernels.recurrent_filter import SEES
from blocks.tracker.recurrent import Recurrent
from pipeline.errors import RunError, WeightsError
from pipeline.weights import Weights


def with_output(weights, value):
    """The same, but for what it tells, which is always this."""
    arrays = {name: np.array(array) for name, array in weights.arrays.items()}
    arrays["L3.weight"][:] = 0.0
    arrays["L3.bias"][:] = value
    arrays["output_shift"][:], arrays["output_scale"][:] = 1.0, 2.0
    return Weights("recurrent", 2, arrays, weights.hyper)


@pytest.mark.parametrize("sees", SEES)
def test_the_vanilla_network_tells_states_and_the_others_what_the_model_lacks(sees):
    seen = simulated(**LORENZ, length=5)["observations"]
    found = served(Recurrent, with_output(random_network(3, 3, sees), 0.5), **LORENZ).process(seen)
    told = 1.0 + 2.0 * 0.5
    if sees == "observations":
        np.testing.assert_allclose(found.estimates, np.full((5, 3), told))
    else:  # innovations are of the identity: they say what was predicted
        np.testing.assert_allclose(found.estimates, seen - found.innovations + told)
    assert np.isnan(found.covariances).all()
    assert np.isnan(found.log_likelihood).all()


@pytest.mark.parametrize("sees", SEES)
def test_a_step_without_observations_predicts_and_the_network_waits(sees):
    seen = simulated(**LORENZ, length=30)["observations"]
    block = served(Recurrent, random_network(3, 3, sees), **LORENZ)
    block.process(seen[:20])
    before = block.state()
    found = block.process(np.full((2, 3), np.nan))
    quiet = Recurrent(**LORENZ, process_noise=0.0)._build()
    states = np.zeros((2, 3))
    quiet.simulate(states, np.zeros((2, 3)), np.full(2, 0.02), before["mean"][:1].copy())
    np.testing.assert_allclose(found.estimates, states)
    assert np.isnan(found.innovations).all()
    np.testing.assert_array_equal(block.state()["hidden"], before["hidden"])


def test_a_row_that_is_missing_counts_as_seen_where_it_was_predicted():
    values = {"motion": "random_walk", "dimensions": 2, "observation": "identity"}
    whole, holed = (served(Recurrent, random_network(2, 2), **values) for _ in range(2))
    seen = np.array([[1.0, 0.0]])  # the second number is predicted where it began, at 0
    one, two = whole.process(seen), holed.process(np.array([[1.0, np.nan]]))
    np.testing.assert_array_equal(two.estimates, one.estimates)
    assert np.isnan(two.innovations[0, 1])


def test_a_bearing_is_compared_around_the_circle():
    seen = simulated(**RADAR, length=20)["observations"]
    found, turned = (
        served(Recurrent, random_network(5, 2), **RADAR).process(seen + np.array([0.0, turn]))
        for turn in (0.0, 2.0 * np.pi)
    )
    np.testing.assert_allclose(turned.estimates, found.estimates, rtol=1e-6)
    assert np.abs(turned.innovations[:, 1]).max() <= np.pi


def test_weights_that_come_in_mid_stream_go_on_where_the_others_were():
    seen = simulated(**LORENZ, length=60)["observations"]
    first = random_network(3, 3)
    block = served(Recurrent, first, **LORENZ)
    block.process(seen[:30])
    kept = block.state()
    block.take(first)  # the same again changes nothing
    for name, array in block.state().items():
        np.testing.assert_array_equal(array, kept[name])
    block.take(random_network(3, 3, "predictions", seed=2))  # another kind, whose GRU is as large
    swapped = block.process(seen[30:])
    stayed = served(Recurrent, first, **LORENZ).process(seen)
    assert (swapped.estimates != stayed.estimates[30:]).any()
    np.testing.assert_array_equal(swapped.innovations[0], stayed.innovations[30])


def test_weights_that_do_not_fit_are_refused_and_the_old_ones_serve():
    seen = simulated(**LORENZ, length=10)["observations"]
    block, other = (served(Recurrent, random_network(3, 3), **LORENZ) for _ in range(2))
    good = random_network(3, 3)
    huge = {name: np.full_like(array, 3e38) for name, array in good.arrays.items()}
    for weights, said in (
        (random_network(2, 2), "network for 2 states and 2 observations, but the model has 3 and"),
        (Weights("r", 2, good.arrays, {**good.hyper, "units": 7}), "is .*, but .* is due"),
        (Weights("r", 2, good.arrays, {**good.hyper, "sees": "all"}), "but there are observations"),
        (Weights("r", 2, {}, good.hyper), "lack 'L1.weight'"),
        (Weights("r", 2, {**good.arrays, "input_scale": np.zeros(6)}, good.hyper), "above 0"),
        (Weights("r", 2, huge, good.hyper), "not finite"),
    ):
        with pytest.raises(WeightsError, match=said):
            block.take(weights)
    np.testing.assert_array_equal(block.process(seen).estimates, other.process(seen).estimates)


def test_a_track_that_is_lost_stops_with_its_place():
    block = served(Recurrent, with_output(random_network(3, 3), 1e30), **LORENZ)
    with pytest.raises(RunError, match=r"at observation \d+ a number is not finite"):
        block.process(np.full((50, 3), 100.0))
