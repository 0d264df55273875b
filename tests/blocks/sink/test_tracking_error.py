import numpy as np
import pytest

from blocks.sink.over_time import decibel
from blocks.sink.tracking_error import TrackingError
from pipeline.errors import ConnectError, FieldError
from pipeline.frame import FrameInfo
from pipeline.signature import FieldType

RNG = np.random.default_rng(7)
WORDS = RNG.standard_normal((30, 40, 4))
OFF = WORDS + RNG.standard_normal((30, 40, 4)) * np.linspace(0.1, 3.0, 30)[:, None, None]


def sink(**values):
    made = TrackingError(**values)
    made.start()
    return made


def test_errors_are_those_of_the_definition():
    error = sink(positions=2)
    error.process(WORDS, OFF)
    found = error.report(None)
    squared = (OFF - WORDS) ** 2
    by_word = 10.0 * np.log10(squared.mean(axis=(1, 2)))
    assert found["mse_db"] == pytest.approx(10.0 * np.log10(squared.mean()))
    assert found["rmse"] == pytest.approx(np.sqrt(squared[..., :2].sum(axis=-1).mean()))
    assert found["worst_mse_db"] == pytest.approx(by_word.max())
    assert found["median_mse_db"] == pytest.approx(np.sort(by_word)[14], abs=0.006)
    assert found["trajectories"] == 30
    assert found["steps"] == 1200


def test_pieces_of_a_stream_are_trajectories():
    truth, found = WORDS.reshape(-1, 4), OFF.reshape(-1, 4)
    error = sink(trajectory=40)
    for first in range(0, 1200, 70):
        error.process(truth[first : first + 70], found[first : first + 70])
    whole = sink()
    whole.process(WORDS, OFF)
    for name in ("mse_db", "median_mse_db", "worst_mse_db", "trajectories"):
        assert error.report(None)[name] == pytest.approx(whole.report(None)[name])


def test_streams_are_trajectories_where_nothing_else_is():
    error = sink()
    for name, offset in (("a", 1.0), ("b", 10.0), ("c", 100.0)):
        error.process(WORDS[0], WORDS[0] + offset, info=FrameInfo(stream=name))
    found = error.report(None)
    assert found["trajectories"] == 3
    assert found["median_mse_db"] == pytest.approx(20.0)
    assert found["worst_mse_db"] == pytest.approx(40.0)


def test_skipped_steps_count_for_nothing():
    truth, found = WORDS[0], OFF[0].copy()
    found[:10] = 1e6
    for cut in ([40], [4, 3, 33]):
        error = sink(skip=10)
        first = 0
        for length in cut:
            part = slice(first, first + length)
            error.process(truth[part], found[part])
            first += length
        expected = 10.0 * np.log10(((OFF[0] - WORDS[0])[10:] ** 2).mean())
        assert error.report(None)["mse_db"] == pytest.approx(expected)


def test_estimates_of_another_length_are_compared_in_what_they_share():
    error = sink(components=2)
    error.process(WORDS, OFF[..., :3])
    expected = 10.0 * np.log10(((OFF - WORDS)[..., :2] ** 2).mean())
    assert error.report(None)["mse_db"] == pytest.approx(expected)
    with pytest.raises(FieldError, match="'states' have 4 numbers and 'estimates' 3; set compo"):
        sink().process(WORDS, OFF[..., :3])
    with pytest.raises(FieldError, match="components = 5"):
        sink(components=5).process(WORDS, OFF)


def test_innovations_and_nis_come_together():
    reads = {"states": FieldType.of("float64", "time state"),
             "estimates": FieldType.of("float64", "time estimate"),
             "nis": FieldType.of("float64", "time")}  # fmt: skip
    with pytest.raises(ConnectError, match="read together"):
        TrackingError().narrow(reads)


def test_a_perfect_track_has_a_finite_error():
    assert decibel(0.0) == -400.0
    error = sink()
    error.process(WORDS, WORDS)
    assert error.report(None)["mse_db"] == -400.0


@pytest.mark.parametrize("words", [False, True])
def test_a_track_that_is_no_number_is_not_a_perfect_one(words):
    broken = OFF.copy()
    broken[3, 7] = np.nan
    error = sink()
    for track, truth in [(broken, WORDS)] if words else zip(broken, WORDS, strict=True):
        error.process(truth, track)
    found = error.report(None)
    assert np.isnan(found["mse_db"])
    assert not found["worst_mse_db"] < 400.0


LIKELY = RNG.standard_normal((30, 40))
SEEN = np.where(RNG.random((30, 40, 2)) < 0.3, np.nan, 0.0)  # one step in eleven without any


def test_the_log_likelihood_is_the_mean_over_the_observations_that_came():
    came = ~np.isnan(SEEN).all(axis=2)
    assert 60 < (~came).sum() < 160
    nis = np.zeros((30, 40))
    error = sink()
    error.process(WORDS, OFF, None, SEEN, nis, LIKELY)
    assert error.report(None)["log_likelihood"] == pytest.approx(LIKELY[came].mean(), rel=1e-12)
    error = sink(skip=5)
    error.process(WORDS, OFF, log_likelihood=LIKELY)  # no innovations: all count
    assert error.report(None)["log_likelihood"] == pytest.approx(LIKELY[:, 5:].mean(), rel=1e-12)
    error = sink(skip=50)
    for word in range(30):
        error.process(WORDS[word], OFF[word], None, SEEN[word], nis[word], LIKELY[word])
    expected = LIKELY.ravel()[50:][came.ravel()[50:]].mean()
    assert error.report(None)["log_likelihood"] == pytest.approx(expected, rel=1e-12)


def test_without_a_log_likelihood_none_is_reported():
    error = sink()
    error.process(WORDS, OFF)
    assert "log_likelihood" not in error.report(None)


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("spread", [False, True])
def test_the_picture_is_drawn_for_any_state(tmp_path, size, spread):
    error = sink()
    covariances = np.tile(np.eye(size), (30, 40, 1, 1)) if spread else None
    error.process(WORDS[..., :size], OFF[..., :size], covariances)
    assert error.report(tmp_path)["picture"] == "block.png"
    assert (tmp_path / "block.png").stat().st_size > 5000


def test_a_run_without_frames_reports_nothing_and_draws_nothing(tmp_path):
    assert sink().report(tmp_path) == {"steps": 0}
    assert list(tmp_path.iterdir()) == []


def test_errors_of_angles_are_around_the_circle():
    truth = np.column_stack([np.linspace(0.0, 40.0, 50), np.zeros(50)])
    off = truth + np.array([0.1, 0.2])
    turned = off.copy()
    turned[::3, 0] -= 4.0 * np.pi
    turned[1::3, 0] = np.arctan2(np.sin(off[1::3, 0]), np.cos(off[1::3, 0]))
    error = sink(angles=(0,))
    error.process(truth, turned)
    assert error.report(None)["mse_db"] == pytest.approx(10.0 * np.log10((0.01 + 0.04) / 2.0))


def test_an_angle_that_is_not_compared_is_refused():
    with pytest.raises(FieldError, match=r"angles = \(1,\), but 1 numbers are compared"):
        sink(components=1, angles=(1,)).process(WORDS, OFF)


def test_errors_over_time_stand_where_they_were_made_whatever_the_cut(tmp_path):
    truth = np.zeros((9000, 2))  # more than there are bins
    found = np.repeat([0.1, 1.0, 10.0], 3000)[:, None] * np.ones(2)
    for cut in (9000, 77):
        error = sink()
        for first in range(0, 9000, cut):
            part = slice(first, first + cut)
            error.process(truth[part], found[part], unlearned=2.0 * found[part])
        edges, levels = error._streams["main"].over_time["estimates"].levels(50)
        centres = 0.5 * (edges[1:] + edges[:-1])
        far = np.abs(centres[:, None] - [3000, 6000]).min(1) > np.diff(edges)[0]
        expected = np.select([centres < 3000, centres < 6000], [-20.0, 0.0], 20.0)
        kept = far & (centres < 9000)
        np.testing.assert_allclose(levels[: kept.size][kept], expected[kept], atol=1e-9)
        report = error.report(tmp_path)
        assert report["unlearned_mse_db"] == pytest.approx(report["mse_db"] + 20 * np.log10(2.0))
    assert (tmp_path / "block.png").stat().st_size > 5000


def test_changes_of_the_marked_version_are_told_with_their_step():
    error = sink(marked="tracker")
    for number, version in enumerate((1, 1, 2, 2, 1)):
        marks = {"tracker.version": version, "other.version": number}
        error.process(WORDS[0], OFF[0], info=FrameInfo(marks=marks))
    assert error.report(None)["version_changes"] == [
        [80, "main", "tracker", 2], [160, "main", "tracker", 1],
    ]  # fmt: skip
