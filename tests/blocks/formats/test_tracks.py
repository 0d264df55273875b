import gzip
import json

import numpy as np
import pytest

from blocks.formats import tracks
from pipeline.errors import ParameterError


def row(second, latitude, longitude=8.0, icao="4b1234", **more):
    return {
        "icao24": icao, "timestamp": 1_500_000_000_000 + 1000 * second, "latitude": latitude,
        "longitude": longitude, "groundspeed": 400, "track": None, **more,
    }  # fmt: skip


@pytest.fixture
def read(tmp_path):
    """A function that writes JSON into a file and reads it as tracks."""

    def made(found, zipped=False):
        path = tmp_path / ("tracks.json.gz" if zipped else "tracks.json")
        raw = found if isinstance(found, bytes) else json.dumps(found).encode()
        path.write_bytes(gzip.compress(raw) if zipped else raw)
        return tracks.read(path)

    return made


@pytest.mark.parametrize("zipped", [False, True])
def test_rows_are_parted_by_aircraft_and_stand_in_the_order_of_time(read, zipped):
    rows = [row(20, 47.2), row(0, 47.0), row(5, 46.0, icao="00000a"), row(10, 47.1, track=270)]
    low, high = read(rows, zipped)
    assert (low.address, high.address) == (10, 0x4B1234)
    assert (high.time - 1.5e9).tolist() == [0, 10, 20]
    assert high.latitude.tolist() == [47.0, 47.1, 47.2]
    assert high.ground_speed.tolist() == [400] * 3
    np.testing.assert_array_equal(high.track, [np.nan, 270, np.nan])


def test_what_is_no_news_is_left_out(read):
    rows = [
        row(0, 47.0), row(10, 47.0), row(20, None), row(30, float("nan")), row(40, 47.1),
        row(40, 47.2), row(50, 47.3, longitude=None),
    ]  # fmt: skip
    (one,) = read(rows)
    assert (one.time - 1.5e9).tolist() == [0, 40]
    assert one.latitude.tolist() == [47.0, 47.1]


def test_the_time_of_a_position_goes_before_that_of_its_row(read):
    (one,) = read([row(3, 47.0, last_position=1_500_000_001_250)])
    assert one.time.tolist() == [1.5e9 + 1.25]
    assert read([row(3, 47.0, last_position=1_500_000_001_250), row(4, 48.0, last_position=None)])[
        0
    ].time.tolist() == [1.5e9 + 1.25]


def test_columns_and_traces_of_readsb_are_read_alike(read):
    rows = [row(0, 47.0), row(10, 47.5)]
    columns = {key: {str(n): one[key] for n, one in enumerate(rows)} for key in rows[0]}
    lists = {key: [one[key] for one in rows] for key in rows[0]}
    trace = {
        "icao": "4b1234", "timestamp": 1.5e9,
        "trace": [[0.0, 47.0, 8.0, "ground", 400, None], [10.0, 47.5, 8.0, 1200, 400, None, 1]],
    }  # fmt: skip
    (expected,) = read(rows)
    for other in (columns, lists, trace):
        (one,) = read(other)
        assert one.address == expected.address
        for mine, due in zip(one[1:], expected[1:], strict=True):
            np.testing.assert_array_equal(mine, due)


def test_pauses_part_tracks(read):
    (one,) = read([row(second, 47.0 + second / 1000) for second in (0, 10, 20, 100, 110, 300)])
    assert [(p.time - 1.5e9).tolist() for p in one.pieces(60.0, 1)] == [
        [0, 10, 20], [100, 110], [300],
    ]  # fmt: skip
    assert [len(p.time) for p in one.pieces(60.0, 2)] == [3, 2]
    assert [len(p.time) for p in one.pieces(80.0, 1)] == [5, 1]


def test_shares_are_spread_evenly_over_addresses():
    shares = np.array([tracks.share(address) for address in range(0x4B0000, 0x4B0000 + 4000)])
    for low, high in ((0.0, 0.6), (0.6, 0.8), (0.8, 1.0)):
        part = np.mean((shares >= low) & (shares < high))
        assert part == pytest.approx(high - low, abs=0.032)  # 4 standard deviations


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not JSON", "cannot read .*Expecting value"),
        (b"\x1f\x8b\x08broken", "cannot read"),
        (b"\xff\xfe\x00", "cannot read"),
        (b"[" * 100_000, "cannot read"),
        ([], "holds no position of any aircraft"),
        ([{"icao24": "4b1234"}], r"no file of tracks \(no 'timestamp'\); expected JSON rows"),
        ([row(0, None)], "holds no position"),
        ([row(0, 91.0)], "holds no position"),
        ([1, 2], "no file of tracks"),
        ({"a": 1}, "no file of tracks"),
        ({"a": [1], "b": [1, 2]}, "no file of tracks"),
        ([row(0, 1.0, icao="xyz")], "no file of tracks"),
        ({"trace": [[0.0, 1.0]], "icao": "4b1234", "timestamp": 1.0}, "no file of tracks"),
        ({"trace": 3, "icao": "4b1234", "timestamp": 1.0}, "no file of tracks"),
        (3, "no file of tracks"),
    ],
)
def test_what_is_no_file_of_tracks_is_refused(read, content, said):
    with pytest.raises(ParameterError, match=said):
        read(content)


def test_a_folder_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(ParameterError, match="is a folder; expected a file of tracks"):
        tracks.read(tmp_path)
    with pytest.raises(ParameterError, match=r"cannot read .*No such file"):
        tracks.read(tmp_path / "none.json")
