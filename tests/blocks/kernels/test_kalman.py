import numpy as np
import pytest
import references
from filterpy.kalman import KalmanFilter
from numba.core import config
from scipy.linalg import solve_discrete_are

from blocks.kernels import constant_gain, extended_kalman, kalman, kalman_tracks, state_space
from blocks.kernels.kalman import SMALL, Track
from blocks.kernels.square_root import square_root
from blocks.kernels.unscented import unscented

RNG = np.random.default_rng(5)
SIZES = [(1, 1), (2, 2), (4, 2), (8, 3), (3, 8)]  # in registers, and on arrays


def system(n, m, seed=0):
    """F, Q, H, R of a random system."""
    rng = np.random.default_rng(seed)
    F = 0.9 * np.eye(n) + 0.2 * rng.standard_normal((n, n)) / np.sqrt(n)
    a, b = rng.standard_normal((n, n)), rng.standard_normal((m, m))
    return F, a @ a.T / n, rng.standard_normal((m, n)), b @ b.T / m + 0.2 * np.eye(m)


def with_holes(steps, m):
    """Observations, some of which are missing in part or whole."""
    observations = RNG.standard_normal((steps, m))
    observations[5:8] = np.nan
    observations[11:20, 0] = np.nan
    observations[15:25, -1] = np.nan
    return observations


def run(form, observations, F, Q, H, R, mean, covariance, dtype=None):
    """The filter in one of its forms; F and Q may be one for all steps."""
    n, m = len(mean), len(H)
    dtype = dtype or F.dtype
    F, Q = (A if A.ndim == 3 else A[None] for A in (F, Q))
    observations, F, Q, H, R, mean, covariance = (
        np.array(A, dtype, order="C") for A in (observations, F, Q, H, R, mean, covariance)
    )
    out = Track.empty((len(observations),), n, m, dtype)
    if form == "square_root":
        factor = np.linalg.cholesky(covariance)
        done = square_root(observations, F, Q, H, R, mean, factor, out)
    elif form.startswith("lanes"):
        many = Track.empty((3, len(observations)), n, m, dtype)
        done = kalman_tracks.linear_tracks(
            np.stack([observations[::-1], observations, observations]), F, Q, H, R,
            np.tile(mean, (3, 1)), np.tile(covariance, (3, 1, 1)), many,
            is_joseph=form == "lanes joseph",
        )[1]  # fmt: skip
        out = many.of(1)
    else:
        done = kalman.linear(
            observations, F, Q, H, R, mean, covariance, out, is_joseph=form == "joseph"
        )
    assert done == len(observations)
    return out


FORMS = ["joseph", "simple", "square_root", "lanes joseph", "lanes simple"]
FEWER = FORMS[:4]  # lanes take seconds to compile


@pytest.mark.parametrize(
    ("form", "n", "m"),
    [(form, *size) for form in FORMS for size in SIZES if "lanes" not in form or size > (2, 2)],
)
def test_every_form_is_the_textbook_filter_with_missing_rows_cut_out(form, n, m):
    given = system(n, m)
    observations = with_holes(40, m)
    out = run(form, observations, *given, np.ones(n), np.eye(n))
    means, covariances, nis, likely = references.kalman_filter(
        observations, *given, np.ones(n), np.eye(n)
    )
    np.testing.assert_allclose(out.estimates, means, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(out.covariances, covariances, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(out.nis, nis, rtol=1e-8, atol=1e-10)
    log_p = kalman.log_likelihood(out.innovations, out.nis, out.det)
    np.testing.assert_allclose(log_p, likely, rtol=1e-8, atol=1e-9)
    assert (np.isnan(out.innovations) == np.isnan(observations)).all()
    if form != "square_root":
        assert (out.covariances == out.covariances.swapaxes(1, 2)).all()


@pytest.mark.parametrize("form", FEWER)
def test_the_last_estimate_is_the_mean_of_the_joint_distribution(form):
    given = system(3, 2)
    observations = with_holes(30, 2)
    out = run(form, observations, *given, np.ones(3), 2.0 * np.eye(3))
    means, covariances = references.normal_posterior(
        observations, *given, np.ones(3), 2.0 * np.eye(3)
    )
    np.testing.assert_allclose(out.estimates[-1], means[-1], rtol=1e-8)
    np.testing.assert_allclose(out.covariances[-1], covariances[-1], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("n", [4, 8])
def test_filterpy_agrees_to_1e_9(n):
    F, Q, H, R = system(n, 2)
    observations = RNG.standard_normal((50, 2))
    peer = KalmanFilter(dim_x=n, dim_z=2)
    peer.F, peer.Q, peer.H, peer.R = F, Q, H, R
    peer.x, peer.P = np.ones(n), np.eye(n)
    means, covariances, _, _ = peer.batch_filter(observations)
    out = run("joseph", observations, F, Q, H, R, np.ones(n), np.eye(n))
    np.testing.assert_allclose(out.estimates, means, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(out.covariances, covariances, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", FEWER)
def test_intervals_that_vary_use_the_matrices_of_each_step(form):
    model = state_space.build("constant_velocity", "position", dimensions=1)
    F, Q, H = model.matrices(RNG.uniform(0.1, 3.0, 30))
    observations = with_holes(30, 1)
    out = run(form, observations, F, Q, H, model.R, np.zeros(2), np.eye(2))
    means, _, _, _ = references.kalman_filter(
        observations, F, Q, H, model.R, np.zeros(2), np.eye(2)
    )
    np.testing.assert_allclose(out.estimates, means, rtol=1e-9, atol=1e-10)


def test_one_observation_at_a_time_gives_what_the_whole_frame_gives():
    F, Q, H, R = system(4, 2)
    observations = with_holes(30, 2)
    whole = run("joseph", observations, F, Q, H, R, np.ones(4), np.eye(4))
    mean, covariance, one = np.ones(4), np.eye(4), Track.empty((1,), 4, 2)
    for i, y in enumerate(observations):
        kalman.linear(y[None], F[None], Q[None], H, R, mean, covariance, one)
        for array, expected in zip(one, whole, strict=True):
            np.testing.assert_array_equal(array[0], expected[i])


def test_a_track_in_lanes_does_not_depend_on_the_others():
    given = [A[None] if A.shape == (4, 4) else A for A in system(4, 2)]
    observations = RNG.standard_normal((11, 20, 2))
    outs = []
    for order in (slice(None), slice(None, None, -1), slice(10, None)):
        picked = np.ascontiguousarray(observations[order])
        out = Track.empty(picked.shape[:2], 4, 2)
        kalman_tracks.linear_tracks(
            picked, *given, np.zeros((len(picked), 4)), np.tile(np.eye(4), (len(picked), 1, 1)), out
        )
        outs.append(out)
    for first, second, third in zip(*outs, strict=True):
        np.testing.assert_array_equal(first[10], second[0])
        np.testing.assert_array_equal(first[10], third[0])


@pytest.mark.parametrize("n", [1, 4, 9])
def test_the_steady_state_solves_the_riccati_equation(n):
    F, Q, H, R = system(n, 2)
    predicted, updated, gain = constant_gain.steady_state(F, Q, H, R)
    expected = solve_discrete_are(F.T, H.T, Q, R)
    np.testing.assert_allclose(predicted, expected, rtol=1e-9, atol=1e-11)
    out = run("joseph", RNG.standard_normal((300, 2)), F, Q, H, R, np.zeros(n), np.eye(n))
    np.testing.assert_allclose(out.covariances[-1], updated, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(gain, updated @ H.T @ np.linalg.inv(R), rtol=1e-8, atol=1e-10)


def test_nothing_settles_where_what_grows_is_not_seen():
    F, H = np.diag([1.5, 0.5]), np.array([[0.0, 1.0]])
    with pytest.raises(ValueError, match="grows without end"):
        constant_gain.steady_state(F, np.eye(2), H, np.eye(1))


def test_a_constant_gain_ends_where_the_filter_does():
    F, Q, H, R = system(3, 2)
    predicted, updated, K = constant_gain.steady_state(F, Q, H, R)
    observations = RNG.standard_normal((200, 2))
    observations[50] = np.nan
    S_inverse = np.linalg.inv(H @ predicted @ H.T + R)
    estimates, innovations, nis = np.empty((200, 3)), np.empty((200, 2)), np.empty(200)
    constant_gain.constant_gain(
        observations, F, H, K, S_inverse, np.zeros(3), np.empty(3), estimates, innovations, nis
    )
    out = run("joseph", observations, F, Q, H, R, np.zeros(3), updated)
    # 149 steps after the hole, the gain of the filter has settled again to some 1e-8
    np.testing.assert_allclose(estimates[-1], out.estimates[-1], rtol=1e-6)
    np.testing.assert_allclose(nis[-1], out.nis[-1], rtol=1e-6)
    assert nis[50] == 0.0


def ill_conditioned(dtype, steps):
    """Two nearly parallel observations, one far more certain than the other."""
    model = state_space.build("constant_velocity", "position", process_noise=1e-3)
    F, Q, _ = model.matrices(np.array([1.0]))
    H = np.array([[1.0, 0.0, 0.0, 0.0], [1.0, 1e-4, 0.0, 0.0]])
    R = np.diag([1e-10, 1e-7])
    observations = RNG.standard_normal((steps, 2))
    return [np.ascontiguousarray(A, dtype) for A in (observations, F, Q, H, R)]


@pytest.mark.parametrize("form", ["joseph", "square_root"])
def test_covariances_stay_symmetric_and_positive_over_a_long_run(form):
    steps = 1000 if config.DISABLE_JIT else 30_000
    out = run(form, *ill_conditioned(np.float64, steps), np.zeros(4), 1e6 * np.eye(4))
    assert (out.covariances == out.covariances.swapaxes(1, 2)).all()
    values = np.linalg.eigvalsh(out.covariances)
    assert (values[:, 0] > -1e-15 * values[:, -1]).all()
    assert (out.covariances.diagonal(axis1=1, axis2=2) >= 0.0).all()


def test_the_square_root_form_survives_in_float32():
    observations, F, Q, H, R = ill_conditioned(np.float32, 3000)
    out = Track.empty((3000,), 4, 2, np.float32)
    factor = np.float32(1e3) * np.eye(4, dtype=np.float32)
    done = square_root(observations, F, Q, H, R, np.zeros(4, np.float32), factor, out)
    assert done == 3000
    assert factor.dtype == np.float32
    assert np.isfinite(out.estimates).all()
    assert (out.covariances.diagonal(axis1=1, axis2=2) >= 0.0).all()


def test_the_other_forms_stop_there_and_do_not_go_on_with_nonsense():
    observations, F, Q, H, R = ill_conditioned(np.float32, 3000)
    for is_joseph in (True, False):
        out = Track.empty((3000,), 4, 2, np.float32)
        covariance = np.float32(1e6) * np.eye(4, dtype=np.float32)
        mean = np.zeros(4, np.float32)
        assert kalman.linear(
            observations, F, Q, H, R, mean, covariance, out, is_joseph=is_joseph
        ) < 3000  # fmt: skip


@pytest.mark.parametrize(("form", "n", "m"), [*((form, 4, 2) for form in FEWER), ("joseph", 8, 3)])
def test_every_form_works_in_float32(form, n, m):
    given = system(n, m)
    observations = with_holes(40, m)
    out = run(form, observations, *given, np.ones(n), np.eye(n), np.float32)
    means, covariances, nis, _ = references.kalman_filter(
        observations, *given, np.ones(n), np.eye(n)
    )
    assert {array.dtype for array in out} == {np.dtype(np.float32)}
    np.testing.assert_allclose(out.estimates, means, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(out.covariances, covariances, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(out.nis, nis, rtol=2e-3, atol=1e-3)


def sparse(F, H, R):
    """The same system with zeros and ones in its matrices."""
    F, H, R = F.copy(), H.copy(), np.diag(R.diagonal())
    F[1:, 0], F[0, 0], H[:, -1], H[0, 0] = 0.0, 1.0, 0.0, 1.0
    return F, H, R


@pytest.mark.parametrize("form", ["joseph", "simple", "lanes joseph"])
def test_zeros_and_ones_that_are_not_multiplied_with_change_nothing(form):
    F, Q, H, R = system(4, 2)
    F, H, R = sparse(F, H, R)
    observations = with_holes(40, 2)
    out = run(form, observations, F, Q, H, R, np.ones(4), np.eye(4))
    means, covariances, nis, _ = references.kalman_filter(
        observations, F, Q, H, R, np.ones(4), np.eye(4)
    )
    np.testing.assert_allclose(out.estimates, means, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(out.covariances, covariances, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(out.nis, nis, rtol=1e-9, atol=1e-10)


def test_a_hole_in_one_track_of_the_lanes_does_not_touch_the_others():
    given = [A[None] if A.shape == (4, 4) else A for A in system(4, 2)]
    observations = RNG.standard_normal((8, 20, 2))
    holed = observations.copy()
    holed[3, 5:9, 0] = np.nan
    outs = []
    for seen in (observations, holed):
        out = Track.empty((8, 20), 4, 2)
        kalman_tracks.linear_tracks(
            seen, *given, np.zeros((8, 4)), np.tile(np.eye(4), (8, 1, 1)), out
        )
        outs.append(out)
    others = np.arange(8) != 3
    for whole, with_hole in zip(*outs, strict=True):
        np.testing.assert_array_equal(whole[others], with_hole[others])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"observations": np.zeros((9, 3))}, r"observations: float64 with shape \(9, 3\), but exp"),
        ({"observations": np.zeros((9, 2), np.float32)}, "observations: float32 with shape"),
        ({"F": np.zeros((1, 4, 3))}, r"F: .* expected float64 with shape \(1, 4, 4\)"),
        ({"F": np.zeros((5, 4, 4))}, r"F: .* expected float64 with shape \(9, 4, 4\)"),
        ({"Q": np.zeros((9, 4, 4))}, r"Q: .* expected float64 with shape \(1, 4, 4\)"),
        ({"R": np.zeros((3, 3))}, r"R: .* expected float64 with shape \(2, 2\)"),
        ({"covariance": np.zeros((3, 3))}, r"covariance: .* shape \(4, 4\)"),
        ({"out": Track.empty((8,), 4, 2)}, r"estimates: .* shape \(9, 4\)"),
        ({"mean": np.zeros(4, np.int64)}, "mean: int64 .* expected float64"),
        ({"H": np.zeros((2, 8))[:, ::2]}, "H has gaps"),
    ],
)
@pytest.mark.parametrize("form", [kalman.linear, square_root])
def test_arrays_that_do_not_fit_are_named(form, change, text):
    F, Q, H, R = system(4, 2)
    given = {
        "observations": np.zeros((9, 2)), "F": F[None], "Q": Q[None], "H": H, "R": R,
        "mean": np.zeros(4), "covariance": np.eye(4), "out": Track.empty((9,), 4, 2),
    }  # fmt: skip
    with pytest.raises(ValueError, match=text):
        form(*{**given, **change}.values())


@pytest.mark.parametrize("moves", [0, 1])
def test_a_frame_of_no_observations_is_no_error(moves):
    F, Q, H, R = system(4, 2)
    F, Q = np.repeat(F[None], moves, axis=0), np.repeat(Q[None], moves, axis=0)
    mean = np.ones(4)
    out = Track.empty((0,), 4, 2)
    assert kalman.linear(np.empty((0, 2)), F, Q, H, R, mean, np.eye(4), out) == 0
    assert (mean == 1.0).all()
    done = kalman_tracks.linear_tracks(
        np.empty((3, 0, 2)), F, Q, H, R, np.ones((3, 4)), np.tile(np.eye(4), (3, 1, 1)),
        Track.empty((3, 0), 4, 2),
    )  # fmt: skip
    assert done.tolist() == [0, 0, 0]


def test_the_square_root_form_names_what_is_no_covariance():
    F, Q, H, R = system(4, 2)
    rest = np.zeros(4), np.eye(4), Track.empty((9,), 4, 2)
    with pytest.raises(ValueError, match="process noise is not positive"):
        square_root(np.zeros((9, 2)), F[None], -Q[None], H, R, *rest)
    with pytest.raises(ValueError, match="observation noise is not positive"):
        square_root(np.zeros((9, 2)), F[None], Q[None], H, -R, *rest)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of plain Python
def test_what_is_not_finite_stops_a_filter_at_its_step():
    F, Q, H, R = system(4, 2)
    observations = np.zeros((9, 2))
    observations[4, 1] = np.inf
    out = Track.empty((9,), 4, 2)
    start = np.zeros(4), np.eye(4)
    assert kalman.linear(observations, F[None], Q[None], H, R, *start, out) == 4
    many = Track.empty((3, 9), 4, 2)
    seen = np.stack([np.zeros((9, 2)), observations, np.zeros((9, 2))])
    done = kalman_tracks.linear_tracks(
        seen, F[None], Q[None], H, R, np.zeros((3, 4)), np.tile(np.eye(4), (3, 1, 1)), many
    )
    assert done.tolist() == [9, 4, 9]
    for place in range(4):
        wrong = [F[None].copy(), Q[None].copy(), H.copy(), R.copy()]
        wrong[place][..., 0, 0] = np.nan
        start = np.zeros(4), np.eye(4)
        assert kalman.linear(np.zeros((9, 2)), *wrong, *start, out) == 0


@pytest.mark.parametrize("n", [2, SMALL + 1])
def test_a_filter_stops_where_the_innovation_has_no_covariance(n):
    F, _, H, _ = system(n, 1)
    out = Track.empty((9,), n, 1)
    nothing = np.zeros((n, n))
    done = kalman.linear(
        RNG.standard_normal((9, 1)), F[None], nothing[None], H, np.zeros((1, 1)), np.zeros(n),
        nothing.copy(), out,
    )  # fmt: skip
    assert done == 0


def test_covariances_may_be_left_out():
    F, Q, H, R = system(4, 2)
    out = Track.empty((9,), 4, 2)
    observations = RNG.standard_normal((9, 2))
    short = out._replace(covariances=np.empty((0, 4, 4)), estimates=np.empty((9, 4)))
    for track in (out, short):
        kalman.linear(observations, F[None], Q[None], H, R, np.zeros(4), np.eye(4), track)
    np.testing.assert_array_equal(short.estimates, out.estimates)


# --- Extended -------------------------------------------------------------------------------------


def extended(model, observations, intervals, mean, covariance, **keywords):
    out = Track.empty((len(observations),), model.size, model.rows)
    done = extended_kalman.extended(
        model, observations, intervals, np.array(mean, float), np.array(covariance, float), out,
        **keywords,
    )  # fmt: skip
    assert done == len(observations)
    return out


@pytest.mark.parametrize("dimensions", [1, 3])
@pytest.mark.parametrize("is_joseph", [True, False])
def test_on_a_linear_model_the_extended_filter_is_the_linear_one(dimensions, is_joseph):
    model = state_space.build("constant_acceleration", "position", dimensions=dimensions)
    observations, intervals = with_holes(30, dimensions), RNG.uniform(0.1, 1.0, 30)
    F, Q, H = model.matrices(intervals)
    start = np.zeros(model.size), np.eye(model.size)
    out = extended(model, observations, intervals, *start, is_joseph=is_joseph)
    means, covariances, nis, _ = references.kalman_filter(observations, F, Q, H, model.R, *start)
    np.testing.assert_allclose(out.estimates, means, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(out.covariances, covariances, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(out.nis, nis, rtol=1e-7, atol=1e-9)


def test_registers_and_arrays_give_the_same_extended_filter(monkeypatch):
    model = state_space.build(
        "coordinated_turn", "range_bearing", initial_state=(50.0, 20.0, -3.0, 1.0, 0.1)
    )
    observations = np.column_stack(
        [50.0 + RNG.standard_normal(30), 0.4 + 0.1 * RNG.standard_normal(30)]
    )
    observations[7, 1] = observations[9, 0] = np.nan
    outs = []
    for limit in (SMALL, 0):
        monkeypatch.setattr(extended_kalman, "SMALL", limit)
        outs.append(extended(model, observations, np.ones(30), model.initial, np.eye(5)))
    for registers, arrays in zip(*outs, strict=True):
        np.testing.assert_allclose(registers, arrays, rtol=1e-9, atol=1e-10)


def test_bearings_are_compared_around_the_circle():
    # a target that crosses the negative x axis, where the bearing jumps from pi to -pi
    model = state_space.build(
        "constant_velocity", "range_bearing", process_noise=1e-6, observation_noise=(1.0, 1e-4)
    )
    states = np.array([[-100.0, 10.0 - i, 0.0, -1.0] for i in range(1, 21)])
    observations = np.column_stack(
        [np.hypot(states[:, 0], states[:, 1]), np.arctan2(states[:, 1], states[:, 0])]
    )
    assert np.abs(np.diff(observations[:, 1])).max() > 6.0
    out = extended(model, observations, np.ones(20), (-100.0, 10.0, 0.0, -1.0), 0.01 * np.eye(4))
    assert np.abs(out.innovations[:, 1]).max() < 1e-3
    np.testing.assert_allclose(out.estimates, states, atol=0.05)


def test_a_state_that_is_not_finite_is_no_missing_observation():
    model = state_space.build("lorenz_rk4", "identity", step_s=0.02)
    out = Track.empty((3,), 3, 3)
    mean = np.array([np.nan, 0.0, 0.0])
    assert extended_kalman.extended(model, np.zeros((3, 3)), np.ones(3), mean, np.eye(3), out) == 0


@pytest.mark.parametrize("form", [extended_kalman.extended, unscented])
def test_filters_of_models_name_arrays_that_do_not_fit_too(form):
    model = state_space.build("lorenz_rk4", "identity", step_s=0.02)
    rest = np.zeros(3), np.eye(3), Track.empty((5,), 3, 3)
    with pytest.raises(ValueError, match=r"intervals: float64 with shape \(4,\), but expected"):
        form(model, np.zeros((5, 3)), np.ones(4), *rest)
    with pytest.raises(ValueError, match=r"observations: float32 with shape \(5, 3\)"):
        form(model, np.zeros((5, 3), np.float32), np.ones(5), *rest)
    with pytest.raises(ValueError, match=r"observations: .* expected float64 with shape \(5, 3\)"):
        form(model, np.zeros((5, 2)), np.ones(5), *rest)
