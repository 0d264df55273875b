import json
import math

import numpy as np
import pytest
from needs import recording

from blocks.formats import tracks
from blocks.source.tracks import PARTS, Tracks
from pipeline.errors import ParameterError

DEGREE_M = 111_132.0  # of latitude, within 0.6 %


@pytest.fixture
def path(tmp_path):
    """A file of 40 aircraft that fly north, 30 reports each, with a pause after the 18th."""
    rows = []
    for number in range(40):
        for step in range(30):
            second = 10 * step + (500 if step >= 18 else 0)
            rows.append({
                "icao24": f"{0x4B0000 + number:06x}", "timestamp": 1000 * second,
                "latitude": 40.0 + number / 10 + 0.02 * step, "longitude": 8.0,
            })  # fmt: skip
    file = tmp_path / "tracks.json"
    file.write_text(json.dumps(rows))
    return str(file)


def play(source):
    source.start()
    frames = []
    while (frame := source.process()) is not None:
        frames.append(frame)
    return [np.concatenate(parts) for parts in zip(*frames, strict=True)]


def test_words_are_tracks_between_pauses_in_metres_from_their_first_report(path):
    seen, intervals = play(Tracks(path=path, length=20, least=10, words=7))
    assert seen.shape == (80, 20, 2)
    assert (~np.isnan(seen[:, :, 0])).sum(axis=1).tolist() == [18, 12] * 40
    assert not seen[:, 0].any()
    np.testing.assert_allclose(seen[0, :18, 0], 0.0, atol=1e-6)
    np.testing.assert_allclose(seen[0, :18, 1], 0.02 * DEGREE_M * np.arange(18), rtol=6e-3)
    assert intervals[0].tolist() == [0.0] + [10.0] * 17 + [0.0] * 2


def test_long_tracks_are_cut_and_short_ones_left_out(path):
    seen, _ = play(Tracks(path=path, length=10, least=8, words=3))
    assert len(seen) == 40 * 3  # 10 and 8 of the first 18, 10 of the other 12
    assert not np.isnan(seen[:, :8]).any()


def test_every_aircraft_is_in_one_part(path):
    words = {part: Tracks(path=path, part=part, least=1)._tracks for part in PARTS}
    addresses = {part: {one.address for one in words[part]} for part in PARTS}
    parts = [addresses[part] for part in ("training", "validation", "test")]
    assert set.union(*parts) == addresses["all"]
    assert sum(map(len, parts)) == 40
    for one in words["test"]:
        assert tracks.share(one.address) >= 0.8


def test_where_nothing_is_left_it_says_why(path):
    with pytest.raises(ParameterError, match="no track of 31 reports without a pause of 60 s"):
        Tracks(path=path, least=31)


def test_frames_are_counted(path):
    source = Tracks(path=path, least=10, words=30, frames=2)
    source.start()
    assert source.frames_left() == 2
    assert len(source.process().observations) == 30
    assert source.frames_left() == 1
    source = Tracks(path=path, least=10, words=30)
    source.start()
    assert [len(source.process().observations) for _ in range(3)] == [30, 30, 20]
    assert source.frames_left() == 0
    assert source.process() is None


def test_real_tracks_keep_to_the_speed_that_they_tell():
    path = recording("tracks/switzerland.json.gz")
    source = Tracks(path=str(path), part="test", words=10_000)
    source.start()
    seen, intervals = source.process()
    told = source._tracks
    assert 200 < len(told) < 300
    assert np.median(intervals[:, 1][intervals[:, 1] > 0]) == 10.0
    ratios = []
    for word, places, times in zip(told, seen, intervals, strict=True):
        count = len(word.time)
        speed = np.hypot(*np.diff(places[:count], axis=0).T) / times[1:count]
        ratios.append(np.median(speed) / (np.nanmedian(word.ground_speed) * 1852 / 3600))
    # told is the speed over ground at height; places are on the ellipsoid, up to 0.2 % shorter
    assert math.isclose(np.median(ratios), 1.0, abs_tol=0.005)
