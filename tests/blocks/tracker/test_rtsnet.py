"""RTSNet as a block: words and windows, gaps, swaps, what it refuses."""

import numpy as np
import pytest
from gain_networks import constant_passes, random_passes
from tracking import LORENZ, served, simulated

from blocks.tracker.rtsnet import RTSNet
from blocks.tracker.smoother import Smoother
from pipeline.errors import RunError, WeightsError
from pipeline.weights import Weights

SEEN = {"sees": "smoothed"}


def estimates(block, *frames):
    """Of a stream that ends with these frames."""
    found = [one for seen in frames for one in block.process(seen)] + block.finish()
    return np.concatenate([one.estimates for one in found])


def test_a_stream_within_its_first_windows_is_smoothed_as_a_word_is():
    seen = simulated(**LORENZ, length=60)["observations"]
    weights = random_passes(3, 3, 2)
    whole = served(RTSNet, weights, **LORENZ).process(seen[None])[0].estimates[0]
    alone = estimates(served(RTSNet, weights, **LORENZ, lag=40), seen)
    np.testing.assert_allclose(alone, whole, rtol=1e-4)  # other sums
    # of a longer stream, the last window does not know more; the first, less
    short = estimates(served(RTSNet, weights, **LORENZ, lag=15), seen)
    assert np.abs(short[:15] - whole[:15]).max() > 1e-6


@pytest.mark.parametrize("words", [False, True])
def test_passes_that_change_nothing_leave_what_the_models_smoother_found(words):
    values = {**LORENZ, "process_noise": 0.1, "initial_variance": 1.0}
    fields = simulated(**values, length=70)
    seen = fields["observations"]
    seen[20:23] = np.nan
    weights = constant_passes([(np.eye(3), np.zeros((3, 3)))] * 2, 3, sees="smoothed")
    block, expected = served(RTSNet, weights, **values, lag=12), Smoother(**values, lag=12)
    expected.start()
    given = [seen[None]] if words else [seen[:30], seen[30:]]
    np.testing.assert_allclose(
        estimates(block, *given), estimates(expected, *given), rtol=1e-12, atol=1e-12
    )


def test_a_gap_is_bridged_by_the_model_where_nothing_comes_back():
    seen = simulated(**LORENZ, length=30)["observations"]
    seen[20:] = np.nan
    weights = constant_passes([(0.5 * np.eye(3), np.zeros((3, 3)))], 3)
    found = estimates(served(RTSNet, weights, **LORENZ), seen)
    quiet = RTSNet(**LORENZ, process_noise=0.0)._build()
    states = np.zeros((10, 3))
    quiet.simulate(states, np.zeros((10, 3)), np.full(10, 0.02), found[19:20].copy())
    np.testing.assert_allclose(found[20:], states)


def test_weights_that_come_in_mid_stream_go_on_where_the_others_were():
    seen = simulated(**LORENZ, length=60)["observations"]
    first = constant_passes([(0.5 * np.eye(3), np.zeros((3, 3)))], 3)
    second = constant_passes([(0.1 * np.eye(3), np.zeros((3, 3)))], 3)
    stayed = estimates(served(RTSNet, first, **LORENZ), seen)
    block = served(RTSNet, first, **LORENZ)
    block.process(seen[:30])
    block.take(first)  # the same again changes nothing
    found = estimates(block, seen[30:])
    np.testing.assert_array_equal(found, stayed)
    block = served(RTSNet, first, **LORENZ)
    block.process(seen[:30])
    block.take(second)
    found = estimates(block, seen[30:])
    np.testing.assert_array_equal(found[:30], stayed[:30])
    predicted = np.zeros((1, 3))
    quiet = RTSNet(**LORENZ, process_noise=0.0)._build()
    quiet.simulate(predicted, np.zeros((1, 3)), np.full(1, 0.02), stayed[29:30].copy())
    np.testing.assert_allclose(found[30], predicted[0] + 0.1 * (seen[30] - predicted[0]), rtol=1e-6)


def test_weights_that_do_not_fit_are_refused_and_the_old_ones_serve():
    seen = simulated(**LORENZ, length=10)["observations"]
    good = random_passes(3, 3, 1)
    block, other = (served(RTSNet, good, **LORENZ) for _ in range(2))
    huge = {name: np.full_like(array, 3e38) for name, array in good.arrays.items()}
    for weights, said in (
        (random_passes(2, 2, 1), "networks for 2 states and 2 observations, but the model has 3"),
        (random_passes(3, 3, 2), "passes = 2 and sees = observations, but tracker.rtsnet is at"),
        (random_passes(3, 3, 1, **SEEN), "sees = smoothed, but .* 1 and observations"),
        (Weights("net", 2, good.arrays, {**good.hyper, "in_mult": 4}), "numbers of a network, but"),
        (Weights("net", 2, good.arrays, {**good.hyper, "sees": "all"}), "sees 'observations' or"),
        (Weights("net", 2, good.arrays, {"m": 3, "n": 3}), "lack 'sees'"),
        (Weights("net", 2, {}, good.hyper), "lack '1.there'"),
        (Weights("net", 2, huge, good.hyper), "not finite"),
    ):
        with pytest.raises(WeightsError, match=said):
            block.take(weights)
    np.testing.assert_array_equal(estimates(block, seen), estimates(other, seen))


def test_a_track_that_is_lost_stops():
    weights = constant_passes([(np.full((3, 3), 1e30), np.zeros((3, 3)))], 3)
    wild = np.full((50, 3), 100.0)
    block = served(RTSNet, weights, **LORENZ)
    with pytest.raises(RunError, match="in the last windows a number is not finite"):
        estimates(block, wild)
    with pytest.raises(RunError, match="in word 0 a number is not finite"):
        served(RTSNet, weights, **LORENZ).process(wild[None])
    # also where only the first of two passes is lost: to the second, NaN would be a gap
    rest = constant_passes([(np.full((3, 3), 1e30), np.zeros((3, 3))), (np.eye(3), np.eye(3))], 3)
    with pytest.raises(RunError, match="in the last windows a number is not finite"):
        estimates(served(RTSNet, rest, **LORENZ), wild)
    with pytest.raises(RunError, match="in word 0 a number is not finite"):
        served(RTSNet, rest, **LORENZ).process(wild[None])
