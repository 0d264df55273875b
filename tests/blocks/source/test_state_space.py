import numpy as np
import pytest

from blocks.source.state_space import StateSpace
from pipeline.errors import ParameterError


def frames(**values):
    source = StateSpace(**values)
    source.start()
    found = []
    while (frame := source.process()) is not None:
        found.append(frame)
    return found


def test_states_follow_the_motion_and_observations_the_states():
    frame = frames(frames=1, length=20_000, process_noise=0.5, observation_noise=(4.0, 9.0))[0]
    moved = frame.states[1:, :2] - frame.states[:-1, :2] - frame.states[:-1, 2:]
    # the position gains q / 3 beside what the velocity foretells
    np.testing.assert_allclose(np.var(moved, axis=0), 0.5 / 3.0, rtol=0.05)
    noise = frame.observations - frame.states[:, :2]
    np.testing.assert_allclose(np.var(noise, axis=0), [4.0, 9.0], rtol=0.05)
    np.testing.assert_array_equal(frame.interval_s, 1.0)


def test_words_start_anew_and_a_stream_goes_on():
    words = frames(frames=1, words=2000, length=3, initial_state=(5.0, 0.0, 0.0, 0.0),
                   initial_variance=(2.0, 0.0, 0.0, 0.0), process_noise=0.0)[0]  # fmt: skip
    starts = words.states[:, 0, 0]
    assert starts.mean() == pytest.approx(5.0, abs=0.15)
    assert starts.var() == pytest.approx(2.0, rel=0.15)
    np.testing.assert_array_equal(words.states[:, 0], words.states[:, 2])
    one, two = frames(frames=2, length=50, process_noise=0.0, initial_variance=1.0)
    step = one.states[-1, :2] - one.states[-2, :2]
    np.testing.assert_allclose(two.states[0, :2], one.states[-1, :2] + step)


def test_fine_steps_end_where_one_long_step_of_a_linear_motion_does():
    values = {"frames": 1, "length": 30, "motion": "constant_acceleration", "process_noise": 0.1}
    one, many = frames(**values)[0], frames(**values, substeps=7)[0]
    np.testing.assert_allclose(one.states, many.states, rtol=1e-9)


def test_times_are_spread_but_never_run_back():
    frame = frames(frames=1, words=3, length=5000, step_s=2.0, jitter=0.9)[0]
    assert frame.interval_s.min() > 0.0
    late = frame.interval_s.cumsum(axis=1) - 2.0 * np.arange(1, 5001)
    assert late.min() == pytest.approx(-0.9, abs=0.01)
    assert late.max() == pytest.approx(0.9, abs=0.01)


def test_observations_are_missing_as_often_as_told():
    frame = frames(frames=1, length=10_000, missing=0.2)[0]
    gone = np.isnan(frame.observations)
    assert (gone[:, 0] == gone[:, 1]).all()
    assert gone[:, 0].mean() == pytest.approx(0.2, abs=0.02)
    assert np.isfinite(frame.states).all()


def test_the_decimated_attractor_stays_on_the_attractor():
    frame = frames(frames=1, motion="lorenz_taylor", observation="identity", step_s=0.02,
                   substeps=200, process_noise=0.0, length=3000)[0]  # fmt: skip
    assert np.abs(frame.states[:, :2]).max() < 30.0
    assert 0.0 < frame.states[:, 2].min() < frame.states[:, 2].max() < 50.0
    # long-run mean of z on the attractor, 23.55 (Sparrow, 1982, and any simulation)
    assert frame.states[:, 2].mean() == pytest.approx(23.5, abs=1.0)


def test_a_model_that_does_not_fit_is_refused():
    with pytest.raises(ParameterError, match=r"source\.state_space: motion = 'lorenz' is no model"):
        StateSpace(motion="lorenz")


def test_noise_and_motion_change_at_their_step_and_nothing_else_does():
    values = {"motion": "lorenz_rk4", "observation": "identity", "step_s": 0.02, "frames": 1,
              "length": 6000, "process_noise": 0.0}  # fmt: skip
    same = frames(**values)[0]
    changes = [{"at": 2000, "observation_noise": 10.0}, {"at": 4000, "rho": 20.0}]
    changed = frames(**values, changes=changes)[0]
    np.testing.assert_array_equal(changed.states[:4000], same.states[:4000])
    np.testing.assert_array_equal(changed.observations[:2000], same.observations[:2000])
    noise = changed.observations - changed.states
    assert np.var(noise[:2000]) == pytest.approx(1.0, rel=0.06)
    assert np.var(noise[2000:]) == pytest.approx(10.0, rel=0.06)  # the second leaves it
    # with rho = 20 the attractor is no longer chaotic: it ends in a point with z = rho - 1
    np.testing.assert_allclose(changed.states[-1, 2], 19.0, atol=0.1)
    assert np.ptp(same.states[-1000:, 2]) > 10.0


def test_in_words_changes_come_in_each_trajectory():
    frame = frames(frames=2, words=50, length=40, changes=[{"at": 30, "observation_noise": 100.0}])
    for found in frame:
        noise = found.observations - found.states[..., :2]
        assert np.var(noise[:, :30]) == pytest.approx(1.0, rel=0.1)
        assert np.var(noise[:, 30:]) == pytest.approx(100.0, rel=0.2)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ([{"observation_noise": 2.0}], r"changes\[0\] has at = 0, but it must be a whole number"),
        ([{"at": 5.0}, {"at": 5.0}], r"changes\[1\] has at = 5, but .* above 5"),
        ([{"at": 2.5}], r"at = 2.5"),
        ([{"at": 5.0, "rho": 20.0}], r"changes\[0\].*motion_parameters has 'rho'"),
        ([{"at": 5.0, "observation_noise": -1.0}], r"changes\[0\].*observation_noise"),
    ],
)
def test_changes_that_mean_nothing_are_refused(changes, match):
    with pytest.raises(ParameterError, match=match):
        StateSpace(changes=changes)
