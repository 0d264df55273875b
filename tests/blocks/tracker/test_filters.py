"""Trackers as blocks: the published tables, consistency, missing observations, bad input."""

import numpy as np
import pytest
import references
from tracking import simulated

from blocks.sink.tracking_error import TrackingError
from blocks.tracker.extended_kalman import ExtendedKalman
from blocks.tracker.filtering import Filter
from blocks.tracker.kalman import Kalman
from blocks.tracker.moving_horizon import MovingHorizon
from blocks.tracker.particle import Particle
from blocks.tracker.smoother import Smoother
from blocks.tracker.unscented_kalman import UnscentedKalman
from pipeline.errors import FieldError, ParameterError, RunError
from pipeline.instance import drive

RNG = np.random.default_rng(1)
LINEAR = {"motion": "canonical", "observation": "identity"}
LORENZ = {"motion": "lorenz_rk4", "observation": "identity", "step_s": 0.02}
RADAR = {
    "motion": "coordinated_turn", "observation": "range_bearing",
    "initial_state": (-4000.0, 1000.0, 120.0, -40.0, 0.02),
    "initial_variance": (1e4, 1e4, 100.0, 100.0, 1e-4), "process_noise": 0.5,
    "motion_parameters": {"turn_noise": 1e-6}, "observation_noise": (400.0, 1e-4),
}  # fmt: skip


def tracked(block, fields):
    names = [name for name in block.signature().reads if name in fields]
    return drive(block, [{name: fields[name] for name in names}])[0]


def report(fields, found, **values):
    sink = TrackingError(**values)
    everything = {**fields, **found}
    names = [name for name in sink.signature().reads if name in everything]
    drive(sink, [{name: everything[name] for name in names}])
    return sink.report(None)


def mse_db(fields, found):
    return report(fields, found)["mse_db"]


def canonical(size, seen="identity"):
    """F and H of the papers: ones in the first row, and H with ones on the other diagonal too."""
    F, H = np.eye(size), np.eye(size)[::-1].copy()
    F[0], H[0] = 1.0, 1.0
    return F, np.eye(size) if seen == "identity" else H


def decibel(value):
    return 10.0 * np.log10(value)


ONE_IN_1000 = 3.29  # standard deviations that a normal draw exceeds so rarely
PRINTED = 200  # trajectories behind each figure of the tables


def compare_with_table(values, steps, words, printed):
    """Filter and smoother against the errors that theory expects, and those against a table.

    The expected error has no sampling error: it is the mean trace of the covariances of the Riccati
    recursion, and of the joint distribution of the trajectory. The printed figures are themselves
    means over 200 trajectories, whose standard deviation is that of the trajectories seen here.
    """
    size = values["dimensions"]
    F, H = canonical(size, values["observation"])
    Q, R = values["process_noise"] * np.eye(size), values["observation_noise"] * np.eye(size)
    system = np.zeros((steps, size)), F, Q, H, R, np.zeros(size), np.zeros((size, size))
    expected = references.kalman_filter(*system)[1], references.normal_posterior(*system)[1]
    fields = simulated(**values, words=words, length=steps)
    means = []
    for block, spread, figure in zip((Kalman, Smoother), expected, printed, strict=True):
        found = tracked(block(**values), fields)
        for word in (0, words - 1):
            np.testing.assert_allclose(found["covariances"][word], spread, rtol=1e-5, atol=1e-12)
        exact = np.trace(spread, axis1=1, axis2=2).mean() / size
        errors = ((found["estimates"] - fields["states"]) ** 2).mean(axis=(1, 2))
        deviation = errors.std() / exact
        np.testing.assert_allclose(
            errors.mean() / exact, 1.0, atol=ONE_IN_1000 * deviation / np.sqrt(words)
        )
        interval = ONE_IN_1000 * decibel(np.e) * deviation / np.sqrt(PRINTED)
        assert decibel(exact) == pytest.approx(figure, abs=interval)
        means.append(errors)
    assert (means[1] < means[0]).mean() > 0.8  # a smoother is better in nearly all of them
    assert means[1].mean() < means[0].mean()
    return interval


@pytest.mark.parametrize(
    ("ratio_db", "noise_db", "filter_db", "smoother_db"),
    [
        (0, 10, 8.085, 6.215), (0, 0, -1.827, -3.710), (0, -10, -11.88, -13.78),
        (0, -20, -21.90, -23.75), (0, -30, -31.89, -33.75), (-20, 10, 2.756, -1.790),
        (-20, 0, -7.254, -11.85), (-20, -10, -17.34, -21.74), (-20, -20, -27.19, -31.62),
        (-20, -30, -37.32, -41.83),
    ],
)  # fmt: skip
def test_filter_and_smoother_give_the_table_of_the_papers(
    ratio_db, noise_db, filter_db, smoother_db
):
    # RTSNet, Ni et al., IEEE TSP 2024, table I: trajectories of 100 steps
    values = {
        **LINEAR, "dimensions": 2, "process_noise": 10.0 ** ((ratio_db + noise_db) / 10.0),
        "observation_noise": 10.0 ** (noise_db / 10.0),
    }  # fmt: skip
    interval = compare_with_table(values, 100, 1000, (filter_db, smoother_db))
    assert interval < (0.15 if ratio_db == 0 else 0.35)


@pytest.mark.parametrize(
    ("size", "filter_db", "smoother_db"),
    [(2, -7.79, -11.73), (5, -10.93, -12.35), (10, -11.06, -12.44), (20, -11.54, -12.76)],
)
def test_systems_of_every_size_give_the_table_of_the_papers(size, filter_db, smoother_db):
    # ibid., table II: 20 steps, q2 = -20 dB, r2 = 0 dB; only of size 2 is the whole state seen
    values = {
        "motion": "canonical", "observation": "identity" if size == 2 else "canonical",
        "dimensions": size, "process_noise": 0.01, "observation_noise": 1.0,
    }  # fmt: skip
    compare_with_table(values, 20, 500, (filter_db, smoother_db))


@pytest.mark.parametrize("block", [ExtendedKalman, UnscentedKalman, MovingHorizon])
def test_on_a_linear_system_all_filters_are_one(block):
    values = {**LINEAR, "initial_variance": 1.0}
    fields = simulated(**values, words=5, length=40, missing=0.2)
    expected, found = tracked(Kalman(**values), fields), tracked(block(**values), fields)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("form", ["simple", "square_root", "steady"])
def test_all_forms_of_the_filter_agree_once_settled(form):
    fields = simulated(**LINEAR, length=300)
    expected = tracked(Kalman(**LINEAR), fields)
    found = tracked(Kalman(**LINEAR, form=form), fields)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name][-100:], array[-100:], rtol=1e-8, atol=1e-9)


def inside(found, name):
    low, high = found[f"{name}_band"]
    return low <= found[name] <= high


@pytest.mark.parametrize(
    ("block", "values"),
    [
        (Kalman, {"dimensions": 2, "initial_variance": 1.0}), (ExtendedKalman, RADAR),
        (UnscentedKalman, RADAR), (MovingHorizon, RADAR),
    ],
)  # fmt: skip
def test_nees_and_nis_lie_in_their_bands_where_the_model_is_right(block, values):
    fields = simulated(**values, words=50, length=100, missing=0.05)
    found = report(fields, tracked(block(**values), fields))
    assert inside(found, "nis"), found
    assert inside(found, "nees"), found
    assert found["nees_band"][0] < len(values.get("initial_state", (0,) * 4))
    assert found["nees_band"][1] > len(values.get("initial_state", (0,) * 4))


@pytest.mark.parametrize("factor", [0.25, 4.0])
@pytest.mark.parametrize("wrong", ["process_noise", "observation_noise"])
def test_nees_and_nis_leave_their_bands_where_a_noise_is_wrong_by_4(wrong, factor):
    values = {"initial_variance": 1.0, "process_noise": 1.0, "observation_noise": 1.0}
    fields = simulated(**values, words=50, length=100)
    found = report(fields, tracked(Kalman(**{**values, wrong: factor}), fields))
    for name, dof in (("nis", 2.0), ("nees", 4.0)):
        assert not inside(found, name), found
        assert (found[name] < dof) == (factor > 1.0)


def attractor(words):
    """The decimated Lorenz attractor of KalmanNet, IV-D; each trajectory from another start."""
    return simulated(
        motion="lorenz_taylor", observation="identity", step_s=0.02, substeps=2000,
        process_noise=0.0, initial_variance=10.0, words=words, length=3000,
    )  # fmt: skip


def test_the_lorenz_experiment_ends_where_it_should():
    # reference: frozen A -6.3 dB; Runge-Kutta with true Jacobian about -18; smoother about -27
    fields = attractor(2)
    start = {"initial_variance": 10.0}
    frozen = ExtendedKalman(**{**LORENZ, "motion": "lorenz_taylor"}, **start, process_noise=0.15)
    assert mse_db(fields, tracked(frozen, fields)) == pytest.approx(-6.25, abs=0.35)
    values = {**LORENZ, **start, "process_noise": 1e-5}
    extended = mse_db(fields, tracked(ExtendedKalman(**values), fields))
    assert -20.5 < extended < -15.0
    assert -20.5 < mse_db(fields, tracked(UnscentedKalman(**values), fields)) < -15.0
    # what is linearised again with later observations need not fear a small process noise
    values["process_noise"] = 1e-6
    window = mse_db(fields, tracked(MovingHorizon(**values), fields))
    assert window < mse_db(fields, tracked(ExtendedKalman(**values), fields)) - 1.0
    assert window < extended - 0.3
    values["process_noise"] = 1e-5
    assert mse_db(fields, tracked(Smoother(**values), fields)) < extended - 5.0


def test_the_process_noise_of_the_extended_filter_is_a_matter_of_keeping_lock():
    # reference: best near 1e-5; below, some trajectories are lost; above, all are worse
    fields = attractor(8)
    found = {
        q: report(fields, tracked(ExtendedKalman(**LORENZ, initial_variance=10.0,
                                                 process_noise=q), fields))
        for q in 10.0 ** (np.arange(-21, -2) / 3.0)
    }  # fmt: skip
    best = min(found, key=lambda q: found[q]["mse_db"])
    assert 1e-6 < best < 1e-4
    assert -20.0 < found[best]["mse_db"] < -17.5
    lowest, highest = found[min(found)], found[max(found)]
    assert lowest["worst_mse_db"] > 0.0 > lowest["median_mse_db"]
    assert highest["worst_mse_db"] == pytest.approx(highest["median_mse_db"], abs=1.0)
    assert highest["mse_db"] > found[best]["mse_db"] + 8.0


def test_particles_beat_the_observations_of_the_attractor_by_far():
    fields = {name: array[:, :300] for name, array in attractor(1).items()}
    values = {**LORENZ, "initial_variance": 10.0, "process_noise": 1e-4}
    found = tracked(Particle(**values, particles=2000, shrink=0.98), fields)
    assert report(fields, found, skip=50)["mse_db"] < -10.0
    assert (found["effective_size"] > 1.0).all()


def test_a_radar_track_is_better_than_the_radar_on_both_sides_of_the_cut():
    fields = simulated(**RADAR, words=20, length=150)
    seen = fields["observations"]
    radar = np.stack(
        [seen[..., 0] * np.cos(seen[..., 1]), seen[..., 0] * np.sin(seen[..., 1])], axis=-1
    )
    own = np.sqrt(((radar - fields["states"][..., :2]) ** 2).sum(axis=-1).mean())
    assert (np.abs(np.diff(seen[..., 1], axis=1)) > 6.0).any()  # some pass behind the radar
    for block in (ExtendedKalman, UnscentedKalman):
        assert report(fields, tracked(block(**RADAR), fields), positions=2)["rmse"] < 0.8 * own


def test_a_track_goes_on_through_missing_observations():
    fields = simulated(length=100)
    holes = fields["observations"].copy()
    holes[40:50] = np.nan
    found = tracked(Kalman(), {**fields, "observations": holes})
    growing = np.trace(found["covariances"][39:51], axis1=1, axis2=2)
    assert (np.diff(growing)[:-1] > 0.0).all()
    assert growing[-1] < growing[-2]
    np.testing.assert_array_equal(found["nis"][40:50], 0.0)
    np.testing.assert_array_equal(found["log_likelihood"][40:50], 0.0)


def test_an_observation_that_is_missing_is_as_good_as_a_longer_interval():
    seen = RNG.standard_normal((6, 2))
    holes = np.insert(seen, [2, 4], np.nan, axis=0)
    intervals = np.array([1.0, 1.0, 2.0, 1.0, 2.0, 1.0])
    short = tracked(Kalman(), {"observations": seen, "interval_s": intervals})
    long = tracked(Kalman(), {"observations": holes})
    kept = ~np.isnan(holes[:, 0])
    np.testing.assert_allclose(short["estimates"], long["estimates"][kept], rtol=1e-12)


def test_the_log_likelihood_is_largest_where_the_noise_is_right():
    fields = simulated(words=20, length=100, process_noise=0.5)
    total = {
        q: tracked(Kalman(process_noise=q), fields)["log_likelihood"].sum()
        for q in (0.05, 0.2, 0.5, 1.25, 5.0)
    }
    assert max(total, key=total.get) == 0.5


@pytest.mark.parametrize("form", ["joseph", "square_root"])
def test_the_log_likelihood_of_a_settled_filter_is_that_of_the_steady_gain(form):
    fields = simulated(length=300)
    seen = fields["observations"].copy()
    seen[100], seen[200, 0] = np.nan, np.nan
    fields = {"observations": seen}
    full, steady = (
        tracked(Kalman(form=kind), fields)["log_likelihood"] for kind in (form, "steady")
    )
    np.testing.assert_allclose(steady[60:100], full[60:100], rtol=1e-9)
    assert steady[100] == full[100] == 0.0
    assert steady[200] == pytest.approx(full[200], rel=1e-6)  # x and y are independent


# --- float32 --------------------------------------------------------------------------------------

SINGLE = {"form": "square_root", "precision": "float32"}


def test_float32_agrees_with_float64_where_the_model_is_well_conditioned():
    fields = simulated(words=3, length=400, missing=0.1)
    single, double = tracked(Kalman(**SINGLE), fields), tracked(Kalman(), fields)
    assert any((single[name] != double[name]).any() for name in ("estimates", "covariances"))
    far = np.nanmax(np.abs(fields["observations"]))  # innovations are differences of such numbers
    for name, values in double.items():
        assert single[name].dtype == np.float64
        np.testing.assert_allclose(
            single[name], values, rtol=1e-4, atol=10.0 * far * np.finfo(np.float32).eps
        )


def test_float32_survives_an_observation_noise_that_is_nearly_singular():
    values = {
        "process_noise": 1e-3, "initial_variance": 1e6,
        "observation_matrix": [[1.0, 0.0, 0.0, 0.0], [1.0, 1e-4, 0.0, 0.0]],
        "observation_covariance": [[1e-10, 0.0], [0.0, 1e-7]],
    }  # fmt: skip
    seen = {"observations": np.random.default_rng(3).standard_normal((3000, 2))}
    single, double = (tracked(Kalman(form="square_root", **more, **values), seen)
                      for more in ({"precision": "float32"}, {}))  # fmt: skip
    assert np.isfinite(single["estimates"]).all()
    assert (np.diagonal(single["covariances"], axis1=1, axis2=2) >= 0.0).all()
    # what both rows see, they agree on
    np.testing.assert_allclose(
        single["estimates"][:, 0], double["estimates"][:, 0], atol=1e-3, rtol=0.0
    )


def test_float32_is_refused_where_it_would_not_survive():
    with pytest.raises(ParameterError, match=r"'float32' with form = 'joseph'.*square"):
        Kalman(precision="float32")


# --- Smoother -------------------------------------------------------------------------------------


def test_a_long_lag_gives_what_the_whole_record_gives():
    fields = simulated(length=200, missing=0.1)
    whole = tracked(Smoother(), {name: array[None] for name, array in fields.items()})
    late = tracked(Smoother(lag=40), fields)
    # 40 observations later nothing changes any more, to within rounding
    np.testing.assert_allclose(late["estimates"], whole["estimates"][0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(late["covariances"], whole["covariances"][0], rtol=1e-6)


def test_a_short_lag_lies_between_the_filter_and_the_whole_record():
    fields = simulated(words=1, length=4000)
    stream = {name: array[0] for name, array in fields.items()}
    error = [
        mse_db(stream, tracked(Kalman(), stream)),
        *(mse_db(stream, tracked(Smoother(lag=lag), stream)) for lag in (1, 3)),
        mse_db(fields, tracked(Smoother(), fields)),
    ]
    assert error == sorted(error, reverse=True)


def test_frames_are_answered_once_enough_observations_have_come():
    block = Smoother(lag=10)
    block.start()
    seen = RNG.standard_normal((45, 2))
    answered = [len(block.process(seen[i : i + 9])) for i in range(0, 45, 9)]
    # windows of 10 are decided when 20, 30 and 40 are in
    assert answered == [0, 0, 1, 1, 1]
    assert len(block.finish()) == 2


# --- Bad use --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "values", "text"),
    [
        (Kalman, LORENZ, "not linear; use tracker.extended_kalman"),
        (Kalman, {"motion": "canonica"}, "did you mean 'canonical'"),
        (Kalman, {"observation_noise": 0.0}, "observation_noise"),
        (Kalman, {"process_noise": -1.0}, "process_noise = -1.0, but it must be at least 0.0"),
        (UnscentedKalman, {"kappa": -4.0}, "kappa = -4.0, but must be above -4"),
        (Particle, {"particles": 1}, "particles = 1 particles, but it must be at least 2"),
        (
            Kalman,
            {"form": "steady", "transition": ((2.0, 0.0), (0.0, 0.5)),
             "observation_matrix": ((0.0, 1.0),)},
            "form = 'steady', but the covariance grows without end",
        ),
    ],
)  # fmt: skip
def test_parameters_that_do_not_fit_are_named(block, values, text):
    with pytest.raises(ParameterError, match=text):
        block(**values)


@pytest.mark.parametrize(
    "block",
    [Kalman, ExtendedKalman, UnscentedKalman, MovingHorizon, Particle, Smoother],
)
def test_observations_that_cannot_be_are_refused(block):
    tracker = block()
    tracker.start()
    with pytest.raises(FieldError, match=r"shape \(5, 3\); the model sees 2 rows"):
        tracker.process(np.zeros((5, 3)))
    wrong = np.zeros((5, 2))
    wrong[3, 1] = np.inf
    with pytest.raises(FieldError, match="'observations' holds infinity"):
        tracker.process(wrong)
    with pytest.raises(FieldError, match=r"'interval_s' holds -1.0 s"):
        tracker.process(np.zeros((5, 2)), np.array([1.0, 1.0, -1.0, 1.0, 1.0]))
    with pytest.raises(FieldError, match=r"'interval_s' holds inf s"):
        tracker.process(np.zeros((5, 2)), np.array([1.0, 1.0, np.inf, 1.0, 1.0]))
    with pytest.raises(FieldError, match=r"'interval_s' has shape \(4,\)"):
        tracker.process(np.zeros((5, 2)), np.ones(4))


def test_the_steady_gain_refuses_intervals_that_vary():
    tracker = Kalman(form="steady")
    tracker.start()
    with pytest.raises(ParameterError, match="needs the same interval"):
        tracker.process(np.zeros((3, 2)), np.array([1.0, 2.0, 1.0]))


@pytest.mark.parametrize("block", [ExtendedKalman, UnscentedKalman, MovingHorizon, Smoother])
def test_a_track_that_breaks_says_where(block):
    tracker = block(**{**LORENZ, "motion_parameters": {"rho": 1e300}})
    tracker.start()
    with pytest.raises(RunError, match="at observation 0 "):
        tracker.process(np.zeros((4, 3)))


def test_particles_that_explain_nothing_are_reported():
    tracker = Particle(observation_noise=1e-300)
    tracker.start()
    with pytest.raises(RunError, match="at observation 0 all weights vanish"):
        tracker.process(np.full((4, 2), 1e10))


def test_what_filters_share_is_no_filter_by_itself():
    with pytest.raises(TypeError, match=r"Can't instantiate abstract class Filter .*_filter"):
        Filter()


def test_variances_that_come_with_observations_stand_in_the_place_of_those_of_the_model():
    rng = np.random.default_rng(31)
    seen = rng.standard_normal((2, 15, 2)).cumsum(1)
    seen[0, 4, 1] = np.nan
    told = rng.uniform(0.5, 4.0, seen.shape)
    values = {"motion": "random_walk", "observation": "identity", "initial_variance": 1.0}
    block = ExtendedKalman(**values)
    block.start()
    found = block.process(seen, observation_variances=told)
    for word in range(2):
        mean, P = np.zeros(2), np.ones(2)  # rows that have nothing to do with each other
        for t in range(15):
            P = P + 1.0
            for k in np.flatnonzero(~np.isnan(seen[word, t])):
                gain = P[k] / (P[k] + told[word, t, k])
                mean[k] += gain * (seen[word, t, k] - mean[k])
                P[k] *= 1.0 - gain
            np.testing.assert_allclose(found.estimates[word, t], mean)
            np.testing.assert_allclose(found.covariances[word, t], np.diag(P), atol=1e-12)


def test_variances_that_are_none_are_refused():
    block = ExtendedKalman(motion="random_walk", observation="identity")
    block.start()
    seen = np.zeros((3, 2))
    for told, said in ((np.zeros((3, 2)), "holds 0 where"), (np.ones((2, 2)), r"has shape \(2, 2")):
        with pytest.raises(FieldError, match=f"'observation_variances' {said}"):
            block.process(seen, observation_variances=told)
