"""The neural-augmented smoother as a block: windows, swaps, what it refuses, how it trains."""

import numpy as np
import pytest
from graph_networks import constant_graph, random_graph
from needs import compiled, package
from tracking import served, simulated

from blocks.tracker.neural_augmented import NeuralAugmentedSmoother
from blocks.tracker.smoother import Smoother
from pipeline.errors import RunError, WeightsError
from pipeline.flow import Flow
from pipeline.train import Training
from pipeline.weights import Weights

LINEAR = {
    "motion": "canonical", "observation": "identity", "process_noise": 0.1, "initial_variance": 1.0
}  # fmt: skip
LORENZ = {
    "motion": "lorenz_rk4", "observation": "identity", "step_s": 0.02, "process_noise": 1e-3,
    "initial_variance": 1.0,
}  # fmt: skip


def joined(results):
    return tuple(np.concatenate(parts) for parts in zip(*results, strict=True))


@pytest.mark.parametrize("words", [0, 3])
def test_without_corrections_a_linear_model_is_smoothed_as_tracker_smoother_does(words):
    seen = simulated(**LINEAR, length=70, words=words)["observations"]
    seen[..., 5, :], seen[..., 20:24, 1] = np.nan, np.nan
    expected = Smoother(**LINEAR, lag=15)
    expected.start()
    block = served(NeuralAugmentedSmoother, constant_graph(np.zeros(5), 2), **LINEAR, lag=15)
    found, wanted = (joined([*b.process(seen), *b.finish()]) for b in (block, expected))
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_covariances_are_scaled_as_weights_say_and_nothing_else_is():
    seen = simulated(**LORENZ, length=40)["observations"]
    weights = random_graph(3, 3, seed=1)
    arrays = {**weights.arrays, "calibration.share": np.array(2.0)}
    blocks = (
        served(NeuralAugmentedSmoother, given, **LORENZ, lag=10)
        for given in (weights, Weights("graph", 2, arrays, weights.hyper))
    )
    plain, scaled = (joined([*block.process(seen), *block.finish()]) for block in blocks)
    np.testing.assert_array_equal(scaled[0], plain[0])
    np.testing.assert_array_equal(scaled[1], 2.0 * plain[1])
    arrays["calibration.share"] = np.array(-1.0)
    with pytest.raises(WeightsError, match=r"calibration.share = -1.0, but must be above 0"):
        served(NeuralAugmentedSmoother, Weights("graph", 2, arrays, weights.hyper), **LORENZ)


def test_a_window_is_smoothed_by_the_weights_that_are_there_when_it_is_full():
    seen = simulated(**LORENZ, length=60)["observations"]
    first, second = random_graph(3, 3, seed=1), random_graph(3, 3, seed=2)
    block, other = (served(NeuralAugmentedSmoother, first, **LORENZ, lag=10) for _ in range(2))
    stayed = joined([*other.process(seen), *other.finish()])[0]
    block.process(seen[:19])
    kept = block.state()
    block.take(second)
    for name, array in block.state().items():
        np.testing.assert_array_equal(array, kept[name])
    swapped = joined([*block.process(seen[19:]), *block.finish()])[0]
    assert (swapped[:10] != stayed[:10]).any()
    block, late = (served(NeuralAugmentedSmoother, first, **LORENZ, lag=10) for _ in range(2))
    found = [*block.process(seen[:20])]
    block.take(first)  # the same again changes nothing
    np.testing.assert_array_equal(
        joined([*found, *block.process(seen[20:]), *block.finish()])[0], stayed
    )
    found = [*late.process(seen[:20])]
    late.take(second)
    after = joined([*found, *late.process(seen[20:]), *late.finish()])[0]
    np.testing.assert_array_equal(after[:10], stayed[:10])
    assert (after[10:] != stayed[10:]).any()


def test_what_does_not_fit_is_refused_and_the_old_weights_serve():
    seen = simulated(**LORENZ, words=1, length=10)["observations"]
    block, other = (served(NeuralAugmentedSmoother, random_graph(3, 3), **LORENZ) for _ in range(2))
    good = random_graph(3, 3)
    wild = {**good.arrays, "outer.bias": np.full_like(good.arrays["outer.bias"], 3e38)}
    for weights, said in (
        (random_graph(2, 2), "network for 2 states and 2 observations, but the model has 3 and 3"),
        (Weights("graph", 2, good.arrays, {"n": 3}), "lack 'm'"),
        (Weights("graph", 2, {}, good.hyper), "no array seen.weight"),
        (Weights("graph", 2, wild, good.hyper), "not finite"),
    ):
        with pytest.raises(WeightsError, match=said):
            block.take(weights)
    found, wanted = (one.process(seen)[0].estimates for one in (block, other))
    np.testing.assert_array_equal(found, wanted)


def test_a_record_that_is_lost_stops_with_its_place():
    block = served(NeuralAugmentedSmoother, random_graph(3, 3), **LORENZ)
    with np.errstate(all="ignore"), pytest.raises(RunError, match=r"at observation \d+ a covarian"):
        block.process(np.full((1, 5, 3), 1e200))


@compiled
def test_training_makes_up_for_a_model_that_is_wrong():
    # the motion is turned by 10 degrees, which neither smoother nor network is told
    package("torch", "train")
    right = {**LINEAR, "motion_parameters": {"rotation_deg": 10.0}}
    turned = {**right, "words": 10, "length": 60}
    flow = Flow("turned")
    flow.add("source", "source.state_space", **turned)
    flow.add("tracker", "tracker.neural_augmented_smoother", **LINEAR)
    flow.add("error", "sink.tracking_error")
    flow.connect("source -> tracker -> error")
    options = {"steps": 100, "piece": 40, "batch": 8, "every": 50, "width": 8, "wide": 16,
               "iterations": 2}  # fmt: skip
    training = Training(flow, "tracker", symbols=2400, held_out=1200, options=options).run()
    assert training.training["steps"] == 100
    fields = simulated(**{**turned, "words": 100, "initial_variance": 1.0})
    errors = []
    for block in (
        served(NeuralAugmentedSmoother, training.weights, **LINEAR),
        Smoother(**LINEAR),
        Smoother(**right),
    ):
        if isinstance(block, Smoother):
            block.start()
        off = block.process(fields["observations"])[0].estimates - fields["states"]
        errors.append(np.square(off).mean())
    learned, told_wrong, told_right = errors
    assert told_right < learned < told_right + 0.5 * (told_wrong - told_right)
