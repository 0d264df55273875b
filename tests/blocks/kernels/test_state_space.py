import dataclasses
import types

import numpy as np
import pytest
import references
from needs import compiled

from blocks.kernels import state_space
from blocks.kernels.indirect import address_of
from blocks.kernels.motions import MOTIONS, Motion, step_noise
from blocks.kernels.observations import OBSERVATIONS
from blocks.kernels.state_space import build

RNG = np.random.default_rng(9)


def moved(model, state, interval):
    """The state after an interval, without noise."""
    parameters = model.parameters.copy()
    quiet = build(
        "random_walk", "identity", dimensions=model.size, process_noise=0.0
    )  # only its noise is used
    states, observations = np.zeros((1, model.size)), np.zeros((1, model.rows))
    state_space._simulate(
        model.advance, quiet.noise, np.array([0.0, 1.0, *parameters[2:]]), model.observe,
        model.observe_parameters, np.zeros((model.rows, model.rows)), model.angles,
        np.array([interval]), 1, np.array(state)[None], np.empty(model.size),
        np.empty(model.rows), np.empty((2, model.size, model.size)), states, observations,
    )  # fmt: skip
    return states[0], observations[0]


def linearised(model, state, interval):
    """The state after an interval, its Jacobian and Q."""
    F, Q = np.empty((2, 1, model.size, model.size))
    out = np.empty(model.size)
    state_space._discretise(
        model.linearise, model.noise, model.parameters, np.array([interval]), np.array(state), out,
        F, Q,
    )  # fmt: skip
    return out, F[0], Q[0]


def seen(model, state):
    """What is seen of a state, and its Jacobian."""
    out, H = np.empty(model.rows), np.empty((model.rows, model.size))
    state_space._observe_at(
        model.observe_linearised, model.observe_parameters, np.array(state), out, H
    )
    return out, H


CASES = [(name, d) for name, motion in MOTIONS.items() for d in (1, 2, 3)
         if motion.dimensions[0] <= d <= motion.dimensions[1]]  # fmt: skip


@pytest.mark.parametrize(("name", "dimensions"), CASES)
def test_jacobians_of_motions_are_their_derivatives(name, dimensions):
    own = {"true_jacobian": 1.0} if name == "lorenz_taylor" else {}
    model = build(name, "identity", dimensions=dimensions, motion_parameters=own)
    for interval in (0.0, 0.02, 0.3):
        state = RNG.standard_normal(model.size)
        out, jacobian, _ = linearised(model, state, interval)
        np.testing.assert_allclose(out, moved(model, state, interval)[0], rtol=1e-13, atol=1e-13)
        expected = references.derivative(lambda x, t=interval: moved(model, x, t)[0], state)
        np.testing.assert_allclose(jacobian, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_jacobians_of_observations_are_their_derivatives(name):
    model = build("constant_velocity", name, dimensions=3)
    for _ in range(5):
        state = RNG.standard_normal(model.size)
        out, jacobian = seen(model, state)
        expected = references.derivative(lambda x: seen(model, x)[0], state)
        np.testing.assert_allclose(jacobian, expected, rtol=1e-6, atol=1e-7)
        if name not in ("position", "velocity"):  # which depend on what moves
            still = build("random_walk", name, dimensions=6, process_noise=0.0)
            np.testing.assert_allclose(moved(still, state, 1.0)[1], out, rtol=1e-13)


def test_the_papers_jacobian_is_the_frozen_matrix():
    # Figures of the reference at x = (5, 7, 20): zeros in the last column, where the derivative
    # has -0.0096 and -0.104, and 0.013 where it has 0.114
    frozen, true = (
        linearised(
            build("lorenz_taylor", "identity", step_s=0.02,
                  motion_parameters={"true_jacobian": flag}),
            [5.0, 7.0, 20.0], 0.02,
        )[1]
        for flag in (0.0, 1.0)
    )  # fmt: skip
    np.testing.assert_allclose(frozen[:2, 2], 0.0, atol=1e-15)
    np.testing.assert_allclose(true[:2, 2], [-0.0096, -0.104], rtol=0.02)
    np.testing.assert_allclose([frozen[2, 1], true[2, 1]], [0.013, 0.114], rtol=0.04)


@compiled
def test_runge_kutta_follows_the_attractor_where_the_frozen_matrix_does_not():
    # mean squared one-step errors of the reference, measured in float32: -76.8 dB and -17.4 dB
    # against the frozen matrix in steps of 10 us, which is what the papers take as truth
    fine = build("lorenz_taylor", "identity", step_s=0.02, process_noise=0.0)
    states = np.zeros((1500, 3))
    fine.simulate(states, np.zeros((1500, 3)), np.full(1500, 0.02), np.ones((1, 3)), substeps=2000)
    errors = {}
    for name in ("lorenz_rk4", "lorenz_taylor"):
        model = build(name, "identity")
        after = np.array([linearised(model, state, 0.02)[0] for state in states[100:-1]])
        errors[name] = 10.0 * np.log10(((after - states[101:]) ** 2).mean())
    assert errors["lorenz_rk4"] < -76.8
    assert errors["lorenz_taylor"] == pytest.approx(-17.4, abs=2.0)


@pytest.mark.parametrize("name", ["constant_velocity", "constant_acceleration", "random_walk"])
def test_two_steps_add_up_to_one_long_step(name):
    model = build(name, "identity", dimensions=2)
    state = RNG.standard_normal(model.size)
    half, F_first, Q_first = linearised(model, state, 0.7)
    whole, F_second, Q_second = linearised(model, half, 1.1)
    direct, F, Q = linearised(model, state, 1.8)
    if name != "random_walk":
        np.testing.assert_allclose(F_second @ F_first, F, rtol=1e-12)
    np.testing.assert_allclose(whole, direct, rtol=1e-12)
    np.testing.assert_allclose(F_second @ Q_first @ F_second.T + Q_second, Q, rtol=1e-12)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_turn_goes_around_a_circle_and_comes_back(dimensions):
    model = build("coordinated_turn", "identity", dimensions=dimensions)
    state = np.zeros(model.size)
    state[:2], state[dimensions] = (3.0, 4.0), 2.0
    state[-1] = 0.5
    quarter = moved(model, state, np.pi)[0]  # a quarter of a circle of radius 2 / 0.5
    np.testing.assert_allclose(quarter[:2], [7.0, 8.0], atol=1e-12)
    np.testing.assert_allclose(moved(model, state, 4.0 * np.pi)[0], state, atol=1e-12)


def test_a_turn_is_smooth_where_its_rate_passes_zero():
    model = build("coordinated_turn", "identity")
    states = [[1.0, 2.0, 3.0, 4.0, rate] for rate in (-1.001e-4, -0.999e-4, 0.999e-4, 1.001e-4)]
    for before, after in (states[:2], states[2:]):
        one, two = linearised(model, before, 1.0), linearised(model, after, 1.0)
        np.testing.assert_allclose(one[0][:4], two[0][:4], atol=1e-5)
        np.testing.assert_allclose(one[1], two[1], atol=1e-5)


def test_simulated_noise_has_the_covariances_of_the_model():
    model = build(
        "constant_velocity", "position", dimensions=1, process_noise=2.0, observation_noise=3.0
    )
    count = 40_000
    states, observations = RNG.standard_normal((count, 2)), RNG.standard_normal((count, 1))
    model.simulate(states, observations, np.full(count, 0.5), np.zeros((count, 2)))
    _, _, Q = linearised(model, [0.0, 0.0], 0.5)
    np.testing.assert_allclose(np.cov(states.T), Q, rtol=0.03)
    assert np.var(observations - states[:, :1]) == pytest.approx(3.0, rel=0.03)


def test_simulated_bearings_stay_on_the_circle():
    model = build("random_walk", "range_bearing", observation_noise=(0.1, 4.0))
    states, observations = np.zeros((2000, 2)), RNG.standard_normal((2000, 2))
    model.simulate(states, observations, np.ones(2000), np.array([[-1.0, 0.0]]))
    assert np.abs(observations[:, 1]).max() <= np.pi
    assert observations[:, 1].min() < -3.0 < 3.0 < observations[:, 1].max()


def test_matrices_given_stand_in_for_the_named_ones():
    F, Q = ((1.0, 0.5), (0.0, 0.8)), ((0.2, 0.1), (0.1, 0.3))
    H, R = ((1.0, 2.0),), ((0.7,),)
    model = build(
        transition=F, process_covariance=Q, observation_matrix=H, observation_covariance=R,
        step_s=2.0, initial_state=(1.0, 2.0), initial_variance=(3.0, 4.0),
    )  # fmt: skip
    assert model.linear
    got = model.matrices(np.array([2.0, 1.0]))
    np.testing.assert_array_equal(got[0], [F, F])
    np.testing.assert_allclose(got[1], [Q, 0.5 * np.array(Q)])
    np.testing.assert_array_equal(got[2], H)
    np.testing.assert_array_equal(model.R, R)
    np.testing.assert_array_equal(model.initial_covariance, np.diag([3.0, 4.0]))


def test_rotations_turn_what_moves_and_what_is_seen():
    turned = build("canonical", "identity", motion_parameters={"rotation_deg": 90.0})
    F = turned.matrices(np.ones(1))[0][0]
    np.testing.assert_allclose(F, [[0.0, -1.0], [1.0, 1.0]], atol=1e-15)
    seeing = build("lorenz_rk4", "identity", observation_parameters={"rotation_deg": 1.0})
    H = seen(seeing, np.zeros(3))[1]
    np.testing.assert_allclose(H @ H.T, np.eye(3), atol=1e-15)
    assert np.trace(H) == pytest.approx(1.0 + 2.0 * np.cos(np.radians(np.sqrt(3.0))), abs=1e-5)


def halved(state, interval, parameters, out):
    for i in range(state.size):
        out[i] = state[i] * np.exp(-parameters[2] * interval)


def halved_linearise(state, interval, parameters, out, jacobian):
    jacobian[:, :] = 0.0
    for i in range(state.size):
        jacobian[i, i] = np.exp(-parameters[2] * interval)
        out[i] = state[i] * jacobian[i, i]


def test_a_user_adds_a_motion_without_touching_a_kernel(monkeypatch):
    monkeypatch.setitem(
        MOTIONS, "decay",
        Motion(
            doc="decay", size=lambda dimensions: dimensions, advance=halved,
            linearise=halved_linearise, noise=step_noise, parameters={"rate": 1.0},
        ),
    )  # fmt: skip
    model = build("decay", "identity", motion_parameters={"rate": np.log(2.0)})
    np.testing.assert_allclose(moved(model, [4.0, 8.0], 2.0)[0], [1.0, 2.0])


@compiled
def test_a_function_typed_in_at_a_prompt_works_too():
    # it has no file beside which its machine code could be kept
    code = halved.__code__.replace(co_filename="<prompt>")
    typed_in = types.FunctionType(code, globals(), "typed_in")
    model = build("random_walk", "identity")
    address = address_of(typed_in, "advance")
    own = dataclasses.replace(model, advance=address, parameters=np.array([1.0, 1.0, np.log(2.0)]))
    states = np.zeros((1, 2))
    own.simulate(states, np.zeros((1, 2)), np.ones(1), np.array([[8.0, 2.0]]))
    np.testing.assert_allclose(states, [[4.0, 1.0]])


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"motion": "lorenz_rk"}, "motion = 'lorenz_rk' is no model; did you mean 'lorenz_rk4'"),
        ({"observation": "xyz"}, "expected one of identity, position"),
        ({"process_noise": -1.0}, "process_noise has -1, but must have finite numbers of at l"),
        ({"process_noise": np.nan}, "process_noise has nan"),
        ({"step_s": 0.0}, "step_s = 0 s, but must be finite and above 0"),
        ({"observation_noise": (1.0, -2.0)}, "observation_noise has -2"),
        ({"initial_state": (1.0, np.inf, 0.0, 0.0)}, "initial_state has inf"),
        ({"initial_variance": -1.0}, "initial_variance has -1"),
        ({"transition": ((1.0, np.nan), (0.0, 1.0))}, "transition has nan"),
        ({"observation_covariance": ((1.0, np.nan), (np.nan, 1.0))}, "observation_covariance has"),
        (
            {"motion": "pendulum", "motion_parameters": {"length": np.nan}},
            r"motion_parameters\['length'\] has nan",
        ),
        ({"dimensions": 4}, "dimensions = 4, but constant_velocity has 1 to 3"),
        ({"motion_parameters": {"g": 1.0}}, "motion_parameters has 'g', but those of constant_v"),
        ({"observation_noise": (1.0, 1.0, 1.0)}, "observation_noise has 3 items, but there are 2"),
        ({"initial_state": (1.0, 2.0)}, "initial_state has 2 items, but there are 4 numbers"),
        ({"transition": ((1.0, 2.0),)}, "transition has shape"),
        ({"transition": ((1.0, 2.0), (1.0,))}, "rows of"),
        ({"process_covariance": ((1.0,),)}, "process_covariance has 1 rows, but 4"),
        ({"observation_covariance": ((1.0, 2.0), (2.0, 1.0))}, "negative eigenvalue"),
        ({"observation_covariance": ((1.0, 0.2), (0.1, 1.0))}, "not symmetric"),
        ({"observation_matrix": ((1.0, 2.0),)}, "observation_matrix has 2 columns, but the state"),
        ({"motion": "random_walk", "dimensions": 1, "observation": "range_bearing"}, "at least 2"),
        ({"motion": "random_walk", "observation": "velocity"}, "has no velocities"),
        (
            {"motion": "sinusoidal", "observation": "identity", "dimensions": 4,
             "observation_parameters": {"rotation_deg": 1.0}},
            "needs 2 or 3 rows",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(given, text):
    with pytest.raises(ValueError, match=text):
        build(**given)
