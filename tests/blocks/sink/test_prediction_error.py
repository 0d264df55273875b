import numpy as np
import pytest

from blocks.sink.prediction_error import PredictionError
from pipeline.frame import FrameInfo

OFF = (
    np.random.default_rng(7).standard_normal((30, 40, 2))
    * np.linspace(1.0, 300.0, 30)[:, None, None]
)
OFF[::7, 5, 1] = np.nan
OFF[3, 20:] = np.nan


def sink(**values):
    made = PredictionError(**values)
    made.start()
    return made


def test_errors_of_words_are_those_of_the_definition():
    error = sink(skip=3)
    error.process(OFF[:11])
    error.process(OFF[11:])
    found = error.report(None)
    away = np.hypot(*np.moveaxis(OFF[:, 3:], -1, 0))
    assert found["steps"] == np.isfinite(away).sum()
    assert found["prediction_rmse"] == pytest.approx(np.sqrt(np.nanmean(away**2)))
    assert found["prediction_median"] == pytest.approx(np.nanmedian(away), rel=0.006)
    assert found["prediction_p95"] == pytest.approx(np.nanquantile(away, 0.95), rel=0.01)
    assert found["worst_rmse"] == pytest.approx(np.sqrt(np.nanmean(away**2, axis=1)).max())
    assert found["trajectories"] == 30
    assert "log_likelihood" not in found


def test_streams_are_tracks_however_they_are_cut():
    likely = np.linspace(-9.0, -3.0, 40)
    whole, cut = sink(skip=8), sink(skip=8)
    for name, off in (("a", OFF[7]), ("b", OFF[20])):
        info = FrameInfo(stream=name)
        whole.process(off, log_likelihood=likely, info=info)
        for first in range(0, 40, 3):
            part = slice(first, first + 3)
            cut.process(off[part], log_likelihood=likely[part], info=info)
    found = whole.report(None)
    assert found == cut.report(None)
    away = np.hypot(*np.moveaxis(OFF[[7, 20], 8:], -1, 0))
    assert found["trajectories"] == 2
    assert found["worst_rmse"] == pytest.approx(np.sqrt(np.nanmean(away**2, axis=1)).max())
    assert found["log_likelihood"] == pytest.approx(likely[8:].mean())


def test_where_nothing_came_there_is_nothing_to_tell():
    error = sink()
    error.process(np.full((2, 5, 2), np.nan))
    assert error.report(None) == {"steps": 0}


def test_the_picture_shows_what_was_seen(tmp_path):
    error = sink()
    places = np.cumsum(OFF, axis=1)
    error.process(OFF, observations=places, estimates=np.nan_to_num(places))
    found = error.report(tmp_path)
    assert (tmp_path / found["picture"]).stat().st_size > 5000
