import importlib.util

import numpy as np
import pytest

from blocks.decoder.ais import Ais
from blocks.formats import ais
from pipeline.errors import ParameterError, RunError

pytest.importorskip("pyais", reason="needs pyais: pip install 'kalvit[dev]'")


def decode(*packets, **values):
    block = Ais(**{"rate_hz": 48e3, **values})
    block.start()
    contents = np.zeros((len(packets), 168), np.uint8)
    for row, packet in zip(contents, packets, strict=True):
        row[: len(packet)] = np.frombuffer(packet, np.uint8)
    lengths = np.array([len(packet) for packet in packets], np.int32)
    return block.process(contents, lengths, 4800.0 * np.arange(1.0, 1 + len(packets)))


def text(row):
    return row.tobytes().rstrip(b"\0").decode()


def test_fields_are_what_was_sent():
    moving = {"speed": 12.3, "course": 211.1, "heading": 209}
    found = decode(
        ais.position_report(211_000_001, 54.3, 10.1, kind=3, status=8, **moving),
        ais.class_b_report(211_000_002, -54.3, -10.1, **moving),
        ais.base_station(2_110_000, 54.0, 179.9),
        ais.voyage(211_000_001, name="MS EXAMPLE", callsign="DGAB", ship_type=71),
        ais.class_b_name(211_000_002, "A YACHT"),
        ais.class_b_static(211_000_002, callsign="DK12345", ship_type=36),
    )
    nan = np.nan
    assert found.message_type.tolist() == [3, 18, 4, 5, 24, 24]
    assert found.mmsi.tolist() == [
        211_000_001, 211_000_002, 2_110_000, 211_000_001, 211_000_002, 211_000_002,
    ]  # fmt: skip
    np.testing.assert_allclose(found.message_time, 0.1 * np.arange(1, 7))
    np.testing.assert_allclose(found.latitude, [54.3, -54.3, 54.0, nan, nan, nan], atol=1e-6)
    np.testing.assert_allclose(found.longitude, [10.1, -10.1, 179.9, nan, nan, nan], atol=1e-6)
    np.testing.assert_array_equal(found.ground_speed, [12.3, 12.3, nan, nan, nan, nan])
    np.testing.assert_array_equal(found.track, [211.1, 211.1, nan, nan, nan, nan])
    np.testing.assert_array_equal(found.heading, [209, 209, nan, nan, nan, nan])
    assert found.navigation_status.tolist() == [8, -1, -1, -1, -1, -1]
    assert found.ship_type.tolist() == [-1, -1, -1, 71, -1, 36]
    assert [text(row) for row in found.ship_name] == ["", "", "", "MS EXAMPLE", "A YACHT", ""]
    assert [text(row) for row in found.callsign] == ["", "", "", "DGAB", "", "DK12345"]


def test_what_is_not_available_is_no_number():
    found = decode(ais.position_report(211_000_001), ais.class_b_report(211_000_002))
    assert found.message_type.tolist() == [1, 18]
    for name in ("latitude", "longitude", "ground_speed", "track", "heading"):
        assert np.isnan(getattr(found, name)).all(), name


def test_long_range_messages_have_their_own_unknown_speed():
    def long_range(speed):  # M.1371-5, table 61: 96 bits
        bits = [(27, 6), (0, 2), (211_000_001, 30), (0, 1), (0, 1), (0, 4), (600, 18), (32400, 17),
                (speed, 6), (90, 9), (0, 1), (0, 1)]  # fmt: skip
        return ais._message(bits)

    found = decode(long_range(62), long_range(63))
    np.testing.assert_array_equal(found.ground_speed, [62.0, np.nan])
    np.testing.assert_allclose(found.latitude, 54.0)
    np.testing.assert_allclose(found.longitude, 1.0)
    np.testing.assert_array_equal(found.track, [90.0, 90.0])


def test_any_packet_gives_a_row_and_no_error():
    rng = np.random.default_rng(1)
    packets = [rng.bytes(int(rng.integers(1, 169))) for _ in range(3000)]
    packets += [bytes([kind << 2]) + rng.bytes(20) for kind in range(64)]
    found = decode(*packets)
    kinds = np.array([packet[0] >> 2 for packet in packets])
    assert ((found.message_type == kinds) | (found.message_type == 0)).all()
    assert not found.message_type[(kinds == 0) | (kinds > 27)].any()
    assert (found.mmsi[found.message_type == 0] == 0).all()
    np.testing.assert_array_equal(np.isfinite(found.latitude) & (found.message_type == 0), False)
    for name, most in (("latitude", 90.0), ("longitude", 180.0), ("track", 360.0)):
        assert np.nanmax(np.abs(getattr(found, name))) <= most


def test_it_says_what_it_needs(monkeypatch):
    block = Ais()
    block.start()
    with pytest.raises(RunError, match=r"decoder.ais: the sample rate of stream main is not known"):
        block.process(np.zeros((1, 20), np.uint8), np.full(1, 20, np.int32), np.zeros(1))
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pyais" else found(name)
    )
    with pytest.raises(
        ParameterError, match=r"needs the package pyais: pip install 'kalvit\[ais\]'"
    ):
        Ais()
