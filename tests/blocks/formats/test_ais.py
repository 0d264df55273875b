import pytest

from blocks.formats import ais, nmea

pyais = pytest.importorskip("pyais", reason="needs pyais: pip install 'kalvit[dev]'")

POSITION = {"lat": -33.85678, "lon": 151.21533}
MOVING = {"speed": 12.3, "course": 211.1, "heading": 209, "second": 7}
SIZE = {"to_bow": 120, "to_stern": 31, "to_port": 12, "to_starboard": 20}
PLACE = (-33.85678, 151.21533)

CASES = [
    *[
        (
            ais.position_report(211_234_560, *PLACE, kind=kind, status=5, **MOVING),
            {"msg_type": kind, "mmsi": 211_234_560, "status": 5, **POSITION, **MOVING},
        )
        for kind in (1, 2, 3)
    ],
    (
        ais.base_station(
            2_111_240, *PLACE, year=2026, month=11, day=21, hour=13, minute=5, second=9
        ),
        {"msg_type": 4, "mmsi": 2_111_240, "year": 2026, "month": 11, "day": 21, "hour": 13,
         "minute": 5, "second": 9, **POSITION},
    ),
    (
        ais.voyage(
            211_234_560, imo=9_074_729, callsign="DGAB12", name="M/V \"EXAMPLE\" #1", ship_type=70,
            size=(120, 31, 12, 20), draught=7.3, destination="KIEL [DE]",
        ),
        {"msg_type": 5, "imo": 9_074_729, "callsign": "DGAB12", "shipname": "M/V \"EXAMPLE\" #1",
         "ship_type": 70, "draught": 7.3, "destination": "KIEL [DE]", **SIZE},
    ),
    (
        ais.class_b_report(211_234_561, *PLACE, **MOVING),
        {"msg_type": 18, "mmsi": 211_234_561, "cs": True, **POSITION, **MOVING},
    ),
    (
        ais.class_b_name(211_234_561, "A YACHT"),
        {"msg_type": 24, "partno": 0, "mmsi": 211_234_561, "shipname": "A YACHT"},
    ),
    (
        ais.class_b_static(211_234_561, ship_type=36, callsign="DK1234", size=(120, 31, 12, 20)),
        {"msg_type": 24, "partno": 1, "ship_type": 36, "callsign": "DK1234", **SIZE},
    ),
]  # fmt: skip
NAMES = ["1", "2", "3", "4", "5", "18", "24A", "24B"]


@pytest.mark.parametrize(("message", "expected"), CASES, ids=NAMES)
def test_pyais_reads_what_was_put_in(message, expected):
    lines = [line.encode() for line in nmea.sentences(message)]
    said = pyais.decode(*lines).asdict()
    assert {name: said[name] for name in expected} == {
        name: pytest.approx(value, abs=2e-6) if isinstance(value, float) else value
        for name, value in expected.items()
    }


@pytest.mark.parametrize(("message", "expected"), CASES, ids=NAMES)
def test_pyais_writes_the_same_sentences(message, expected):
    said = pyais.decode(*[line.encode() for line in nmea.sentences(message)])
    theirs = "".join(line.split(",")[5] for line in pyais.encode_dict(said.asdict()))
    ours, _ = nmea.armoured(message)
    if expected.get("partno") == 0:  # 160 bits by M.1371-5; pyais sends the spare ones of part B
        theirs, ours = theirs[:26], ours[:26]
    assert theirs == ours


def test_what_is_not_told_is_not_available():
    said = pyais.decode(nmea.sentences(ais.position_report(211_000_000))[0].encode()).asdict()
    assert (said["lat"], said["lon"], said["speed"], said["course"]) == (91.0, 181.0, 102.3, 360.0)
    assert (said["heading"], said["second"], said["turn"]) == (511, 60, -128)


@pytest.mark.parametrize(("message", "expected"), CASES, ids=NAMES)
def test_the_type_is_told_without_decoding(message, expected):
    assert ais.message_type(message) == expected["msg_type"]
    assert ais.message_type(b"") == 0
