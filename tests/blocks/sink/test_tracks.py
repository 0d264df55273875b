import json
import math
from itertools import pairwise

import numpy as np
import pytest

from blocks.kernels import mode_s_encoding as sent
from blocks.kernels.aircraft import Status
from blocks.sink.tracks import Tracks
from pipeline import Flow, run
from pipeline.errors import ParameterError, RunError
from pipeline.frame import FrameInfo, StreamInfo

A, B = 0x4D2023, 0x406B90
EPOCH = 1_500_000_000
STARTED, UPDATED, REFUSED, RESTARTED, COASTING, ENDED = Status


def rows(*told):
    """Rows as tracker.aircraft writes them: (address, time, status, latitude, longitude)."""
    n = len(told)
    address, time, status, latitude, longitude = np.array(told, float).reshape(n, 5).T
    taken = status == UPDATED
    judged = taken | (status == REFUSED) | (status == RESTARTED)
    nis = np.full((n, 4), np.nan)
    nis[judged, 0] = 1.5
    innovation = np.full((n, 6), np.nan)
    innovation[judged, :2] = 3.0, 4.0
    return {
        "track_address": address.astype(np.uint32), "track_time": time,
        "track_status": status.astype(np.uint8), "track_latitude": latitude,
        "track_longitude": longitude, "track_altitude": np.where(time > 2.0, np.nan, 1000.0),
        "track_velocity": np.stack(
            [np.zeros(n), np.full(n, 1852.0 / 36.0), np.where(time > 2.0, np.nan, 0.3048)], axis=1
        ),
        "track_covariance": np.tile(np.diag([4.0, 9.0, np.nan, 1.0, 1.0, np.nan]), (n, 1, 1)),
        "track_turn_rate": np.full(n, -1.5), "track_turning": np.full(n, 0.25),
        "track_innovation": innovation, "track_nis": nis,
        "track_log_likelihood": np.where(np.isnan(nis), np.nan, -6.0),
        "track_refused": (~np.isnan(nis) & ~taken[:, None]).astype(np.uint8),
        "track_reckoned": np.where(judged[:, None], [[6.0, 8.0]], np.nan),
    }  # fmt: skip


def sink_of(*frames, continuous=True, **values):
    sink = Tracks(**values)
    sink.start()
    sink.open("main", StreamInfo(epoch_utc_ns=EPOCH * 10**9, continuous=continuous))
    for frame in frames:
        sink.process(**frame, info=FrameInfo())
    return sink


FLIGHT = rows(
    (A, 0, STARTED, 50.0, 8.0), (A, 1, UPDATED, 50.1, 8.0), (B, 1, STARTED, 10.0, 20.0),
    (A, 2, REFUSED, 50.2, 8.0), (A, 3, UPDATED, 50.3, 8.0), (A, 4, RESTARTED, 60.0, 9.0),
    (A, 5, UPDATED, 60.1, 9.0), (B, 11, COASTING, 10.1, 20.0), (B, 61, ENDED, 10.6, 20.0),
)  # fmt: skip


def test_results_are_those_of_a_list_made_by_hand():
    found = sink_of(FLIGHT).report(None)
    counts = {k: v for k, v in found.items() if isinstance(v, int)}
    assert counts == {
        "tracks": 2, "reports": 7, "updates": 3, "refused": 2, "restarted": 1, "coasted": 1,
        "ended": 1,
    }  # fmt: skip
    assert found["nis_position"] == pytest.approx(1.5)
    low, high = found["nis_position_band"]
    assert low < 2.0 < high
    assert "nis_velocity" not in found
    assert found["log_likelihood"] == pytest.approx(-6.0)
    assert found["prediction_rms_m"] == pytest.approx(5.0)
    assert found["reckoning_rms_m"] == pytest.approx(10.0)
    assert found["prediction_median_m"] == pytest.approx(5.0, rel=0.004)
    assert found["reckoning_median_m"] == pytest.approx(10.0, rel=0.004)
    assert sink_of().report(None)["tracks"] == 0


def test_lines_of_json_say_what_the_rows_say(tmp_path):
    path = tmp_path / "lines"
    sink = sink_of(FLIGHT, path=str(path))
    # whole lines are there while the run still goes on
    lines = [json.loads(line) for line in path.read_bytes().decode().split("\n")[:-1]]
    sink.finish()
    assert len(lines) == 9
    assert lines[1] == {
        "time": EPOCH + 1, "stream": "main", "address": "4D2023", "status": "updated",
        "latitude": 50.1, "longitude": 8.0, "ground_speed": 100.0, "track": 0.0, "turn_rate": 1.5,
        "altitude": 1000.0, "vertical_rate": 60.0, "turning": 0.25,
        "position_covariance": [4.0, 0.0, 9.0], "prediction_error": [3.0, 4.0],
    }  # fmt: skip
    assert lines[7]["status"] == "coasting"
    assert "altitude" not in lines[7]
    assert "prediction_error" not in lines[7]


def expect_valid(found):
    """RFC 7946, as far as collections of lines go."""
    assert found["type"] == "FeatureCollection"
    for feature in found["features"]:
        assert feature["type"] == "Feature"
        assert isinstance(feature["properties"], dict)
        assert feature["geometry"]["type"] == "LineString"
        line = feature["geometry"]["coordinates"]
        assert len(line) >= 2
        for place in line:
            assert len(place) == 2
            assert all(isinstance(value, int | float) and math.isfinite(value) for value in place)
            assert abs(place[0]) <= 180.0
            assert abs(place[1]) <= 90.0
        for one, two in pairwise(line):
            assert abs(one[0] - two[0]) <= 180.0  # 3.1.9: none crosses the date line
        assert len(feature["properties"]["times"]) == len(line)
        assert len(feature["properties"]["altitudes_ft"]) == len(line)


def geojson(path):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    found = json.loads(path.read_text(), parse_constant=refuse)
    expect_valid(found)
    return found["features"]


def test_geojson_has_a_line_for_each_piece_of_a_track(tmp_path):
    path = tmp_path / "map.geojson"
    sink_of(FLIGHT, geojson=str(path)).finish()
    features = geojson(path)
    assert [f["properties"]["address"] for f in features] == ["4D2023", "4D2023"]
    assert features[0]["geometry"]["coordinates"] == [[8.0, 50.0], [8.0, 50.1], [8.0, 50.3]]
    assert features[0]["properties"]["times"] == [EPOCH, EPOCH + 1, EPOCH + 3]
    assert features[0]["properties"]["altitudes_ft"] == [1000, 1000, None]
    assert features[1]["geometry"]["coordinates"] == [[9.0, 60.0], [9.0, 60.1]]
    assert [p.name for p in tmp_path.iterdir()] == ["map.geojson"]
    other = tmp_path / "other"
    sink_of(FLIGHT, geojson=str(other), step_s=2.0).finish()
    assert [f["properties"]["times"] for f in geojson(other)] == [[EPOCH, EPOCH + 3]]
    sink_of(geojson=str(other), overwrite=True).finish()
    assert geojson(other) == []


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_geojson_is_cut_at_the_date_line(tmp_path, side):
    path = tmp_path / "map"
    flight = rows(*(
        (A, t, UPDATED if t else STARTED, 10.0 + t, side * ((179.0 + 0.4 * t + 180) % 360 - 180))
        for t in range(6)
    ))  # fmt: skip
    sink_of(flight, geojson=str(path)).finish()
    one, two = geojson(path)
    assert one["geometry"]["coordinates"][-1] == pytest.approx([side * 180.0, 12.5])
    assert two["geometry"]["coordinates"][0] == pytest.approx([-side * 180.0, 12.5])
    assert one["properties"]["times"][-1] == two["properties"]["times"][0] == EPOCH + 2.5
    assert len(one["geometry"]["coordinates"]) + len(two["geometry"]["coordinates"]) == 8


def test_messages_become_tracks_on_a_map(tmp_path):
    # an aircraft flies 200 kt west over the date line, and tells a position every half second
    lines = []
    for number in range(240):
        time = number / 2.0 + 0.1
        longitude = 200.0 * time / 3600.0 / 60.0 / math.cos(math.radians(-18.0))
        content = (
            sent.ground_velocity(-200.0, 0.0, 0.0) if number % 4 == 3 else
            sent.airborne_position(-18.0, -179.97 - longitude, 9000.0, number % 2)
        )  # fmt: skip
        lines.append(f"{EPOCH + time},{sent.extended_squitter(A, content).tobytes().hex()}\n")
    (tmp_path / "messages.csv").write_text("".join(lines))
    flow = Flow.load("modes_messages")
    flow.set("messages.path", str(tmp_path / "messages.csv"))
    flow.set("tracks.geojson", str(tmp_path / "map"))
    flow.set("tracks.path", str(tmp_path / "lines"))
    found = run(flow)["results"]["tracks"]
    assert (found["tracks"], found["refused"], found["ended"]) == (1, 0, 0)
    assert found["prediction_rms_m"] < 5.0  # positions are rounded to as much
    one, two = geojson(tmp_path / "map")
    assert one["geometry"]["coordinates"][-1][0] == -180.0
    assert two["geometry"]["coordinates"][-1] == pytest.approx([179.9, -18.0], abs=0.2)
    assert len((tmp_path / "lines").read_text().splitlines()) == found["reports"]


def test_a_stream_that_is_not_tracked_is_named_with_the_reason():
    found = sink_of(rows(), continuous=False).report(None)
    assert found["not_tracked"].startswith("stream main: not continuous")
    assert "not_tracked" not in sink_of(FLIGHT).report(None)


def test_a_picture_is_left_where_there_are_tracks(tmp_path):
    found = sink_of(FLIGHT).report(tmp_path)
    assert (tmp_path / found["picture"]).read_bytes().startswith(b"\x89PNG")
    assert "picture" not in sink_of().report(tmp_path)


@pytest.mark.parametrize("name", ["path", "geojson"])
def test_a_file_in_the_way_is_not_replaced_unasked(tmp_path, name):
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(ParameterError, match="exists; give another path, or set overwrite"):
        Tracks(**{name: str(path)})
    sink_of(FLIGHT, **{name: str(path)}, overwrite=True).finish()
    assert path.read_text() != "mine"
    with pytest.raises(ParameterError, match="is a folder"):
        Tracks(**{name: str(tmp_path)})
    with pytest.raises(ParameterError, match="no file can be made in the folder"):
        Tracks(**{name: str(tmp_path / "none" / "file")})
    with pytest.raises(ParameterError, match="give two files"):
        Tracks(path=str(tmp_path / "a"), geojson=str(tmp_path / "a"))


def test_a_file_that_cannot_be_written_ends_the_run(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    sink = Tracks(geojson=str(folder / "map"))
    sink.start()
    folder.rmdir()
    with pytest.raises(RunError, match="cannot write"):
        sink.finish()
