"""The neural-augmented smoother against smoothers whose answers are known, and against torch."""

from itertools import product

import numpy as np
import pytest
import references
from graph_networks import constant_graph, random_graph
from needs import compiled, package
from numba.core import config

from blocks.kernels import smoother, state_space
from blocks.kernels.neural_augmented import GraphNetwork, NeuralSmoother

STEPS = 30
TURN = {
    "motion": "coordinated_turn", "observation": "range_bearing", "observation_noise": (1.0, 1e-4),
    "initial_state": (-400.0, 100.0, 12.0, -4.0, 0.02), "initial_variance": 1.0,
}  # fmt: skip
LORENZ = {
    "motion": "lorenz_taylor", "observation": "identity", "step_s": 0.02, "process_noise": 0.05,
    "initial_variance": 2.0,
}  # fmt: skip
POSITION = {"motion": "constant_velocity", "observation": "position", "initial_variance": 1.0}


def simulated(model, steps=STEPS, missing=0.2, seed=4):
    rng = np.random.default_rng(seed)
    states = rng.standard_normal((steps, model.size))
    seen, intervals = rng.standard_normal((steps, model.rows)), np.full(steps, model.step_s)
    model.simulate(states, seen, intervals, model.initial[None].copy())
    seen[rng.random(seen.shape) < missing] = np.nan
    return seen, intervals


def run(weights, model, seen, intervals, keep=None):
    made = NeuralSmoother(GraphNetwork.of(weights.hyper, weights.arrays), model)
    return made.run(seen, intervals, model.initial, model.initial_covariance, keep)


@pytest.mark.parametrize("variance", [0.0, 2.0])
@pytest.mark.parametrize("start", ["smoother", "observations"])
def test_where_nothing_is_corrected_a_linear_model_gives_the_joint_distribution(start, variance):
    model = state_space.build("canonical", "identity", process_noise=0.1, initial_variance=variance)
    seen, intervals = simulated(model)
    found = run(constant_graph(np.zeros(5), 2, start=start, iterations=1), model, seen, intervals)
    F, Q, H = model.matrices(np.ones(1))
    means, covariances = references.normal_posterior(
        seen, F[0], Q[0], H, model.R, model.initial, model.initial_covariance
    )
    np.testing.assert_allclose(found.states, means, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found.covariances, covariances, rtol=1e-6, atol=1e-8)


def test_a_correction_that_tells_how_far_the_model_is_off_makes_up_for_it():
    # x = F x + 0.3, seen 0.5 too high: less what that adds up to, all is as the model says
    model = state_space.build("canonical", "identity", process_noise=0.1, initial_variance=1.0)
    seen, intervals = simulated(model)
    F, Q, H = model.matrices(np.ones(1))
    added, sums = np.zeros(2), []
    for _ in range(STEPS):
        added = F[0] @ added + 0.3
        sums.append(added)
    told = np.array([0.3, 0.3, -0.5, -0.5, np.log(2.0)])
    found = run(constant_graph(told, 2), model, seen + np.array(sums) + 0.5, intervals)
    means, covariances = references.normal_posterior(
        seen, F[0], 2.0 * Q[0], H, model.R, model.initial, model.initial_covariance
    )
    np.testing.assert_allclose(found.states, means + sums, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.covariances, covariances, rtol=1e-6, atol=1e-8)


def test_newton_steps_without_corrections_are_those_of_the_iterated_smoother():
    model = state_space.build(**TURN)
    seen, intervals = simulated(model)
    found = run(constant_graph(np.zeros(8), 2, iterations=3), model, seen, intervals)
    start = model.initial, model.initial_covariance
    expected, spread = smoother.smooth(model, seen, intervals, *start, iterations=4)
    np.testing.assert_allclose(found.states, expected, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(found.covariances, spread, rtol=1e-9, atol=1e-12)


@compiled
def test_small_steps_along_the_gradient_end_where_the_joint_distribution_is_highest():
    # Algorithm 6, from observations pulled back
    model = state_space.build("canonical", "identity", process_noise=0.5)
    seen, intervals = simulated(model, 8)
    weights = constant_graph(
        np.zeros(2), 2, "gradient", start="observations", iterations=3000, rate=0.05
    )
    F, Q, H = model.matrices(np.ones(1))
    means, _ = references.normal_posterior(
        seen, F[0], Q[0], H, model.R, model.initial, model.initial_covariance
    )
    found = run(weights, model, seen, intervals)
    np.testing.assert_allclose(found.states, means, atol=1e-6)
    assert np.isnan(found.covariances).all()


def test_the_filter_is_told_where_a_record_is_to_go_on():
    # of a linear model without corrections, smoothing the rest from there is smoothing all
    model = state_space.build("canonical", "identity", process_noise=0.1, initial_variance=1.0)
    seen, intervals = simulated(model)
    weights = constant_graph(np.zeros(5), 2)
    whole = run(weights, model, seen, intervals, keep=12)
    made = NeuralSmoother(GraphNetwork.of(weights.hyper, weights.arrays), model)
    rest = made.run(seen[12:], intervals[12:], whole.mean, whole.covariance)
    np.testing.assert_allclose(rest.states, whole.states[12:], rtol=1e-9, atol=1e-9)


# range and bearing pulled back are no start to compare rounding from: TURN has the smoother's only
@pytest.mark.parametrize(
    ("step", "start", "values"),
    [
        *product(("newton", "gradient"), ("smoother",), (LORENZ, TURN, POSITION)),
        *product(("newton", "network"), ("observations",), (LORENZ, POSITION)),
    ],
)
def test_states_are_those_of_torch(step, start, values):
    torch = package("torch", "train")
    from blocks.models.neural_augmented import GraphNetwork as Module
    from blocks.training.neural_augmented import Smoothing
    from blocks.training.trajectories import Trajectories

    model = state_space.build(**values)
    n, m = model.size, model.rows
    weights = random_graph(n, m, step, start=start, rate=1e-4, width=17, wide=20)
    module = Module(**weights.hyper)
    module.load(weights.arrays)
    module.double()
    seen, intervals = simulated(model, 10 if config.DISABLE_JIT else 110)
    found = run(weights, model, seen, intervals)
    none = np.zeros((1, len(seen), n))
    learner = Smoothing(module, model)
    with torch.no_grad():
        estimates, _ = learner.estimates(
            learner.start(model.initial[None]), Trajectories(none, seen[None], intervals[None])
        )
    assert len(estimates) == weights.hyper["iterations"]
    expected = estimates[-1][0].numpy()
    np.testing.assert_allclose(found.states, expected, atol=2e-5 * np.abs(expected).max())


def test_the_network_alone_knows_no_motion():
    weights = random_graph(3, 3, "network", start="observations")
    found = []
    for motion in ("lorenz_rk4", "random_walk"):
        model = state_space.build(
            motion, "identity", dimensions=3, step_s=0.02, initial_state=(1.0,)
        )
        seen, intervals = simulated(state_space.build(**LORENZ))
        found.append(run(weights, model, seen, intervals).states)
    np.testing.assert_array_equal(*found)


def test_what_is_missing_counts_as_seen_where_the_first_estimate_has_it():
    # pulled back, that is the centre; the network alone has no other way to tell
    model = state_space.build("random_walk", "identity", dimensions=2)
    weights = random_graph(2, 2, "network", start="observations")
    arrays = {**weights.arrays, "state_centre": np.array([0.5, -1.0], np.float32)}
    made = NeuralSmoother(GraphNetwork.of(weights.hyper, arrays), model)
    seen, intervals = simulated(model)
    filled = np.where(np.isnan(seen), [0.5, -1.0], seen)
    assert (filled != seen).any()
    start = model.initial, model.initial_covariance
    np.testing.assert_array_equal(
        *(made.run(one, intervals, *start).states for one in (seen, filled))
    )


def test_what_does_not_fit_is_refused():
    weights = random_graph(3, 3)
    for hyper, arrays, said in (
        ({"step": "leap"}, {}, "step = 'leap', but there are newton, gradient, network"),
        ({"start": "nowhere"}, {}, "start = 'nowhere', but there are smoother, observations"),
        ({"iterations": 4}, {}, "log_scale has shape"),
        ({"iterations": 0}, {}, "iterations are to be at least 1"),
        ({}, {"inner.weight": np.zeros((2, 2), np.float32)}, "inner.weight has shape"),
    ):
        with pytest.raises(ValueError, match=said):
            GraphNetwork.of({**weights.hyper, **hyper}, {**weights.arrays, **arrays})
    network = GraphNetwork.of(weights.hyper, weights.arrays)
    with pytest.raises(ValueError, match="network for 3 states and 3 observations, but the model"):
        NeuralSmoother(network, state_space.build(**POSITION))
