import json

import numpy as np
import pytest

from blocks.decoder.mode_s import Modes
from blocks.kernels import mode_s_encoding as sent
from blocks.sink.modes_messages import ModesMessages
from pipeline.block import Context, make
from pipeline.errors import ParameterError
from pipeline.frame import FrameInfo, StreamInfo

A, B = 0x4D2023, 0x406B90


def decoded(messages):
    """What decoder.modes makes of messages one second apart, as the sink reads it."""
    bits = np.zeros((len(messages), 112), np.uint8)
    for row, message in zip(bits, messages, strict=True):
        row[: 8 * message.size] = np.unpackbits(message)
    sizes = np.array([8 * message.size for message in messages], np.int16)
    block = make(Modes, {}, Context())
    block.start()
    times = np.arange(len(messages), dtype=float)
    found = block.process(bits, sizes, times, times)
    return {name: getattr(found, name) for name in ModesMessages.signature().reads}


def flight(address=A):
    positions = [sent.airborne_position(50.0, 8.0, 3000.0, n % 2) for n in range(6)]
    return [sent.extended_squitter(address, content) for content in positions]


def sink_of(frame, **values):
    sink = ModesMessages(**values)
    sink.start()
    sink.open("main", StreamInfo(epoch_utc_ns=1_500_000_000_000_000_000))
    sink.process(**frame, info=FrameInfo())
    return sink


def test_counts_are_those_of_a_list_made_by_hand():
    unknown = sent.altitude_reply(0x123456, 0.0)
    wrong = flight()[0] ^ np.eye(14, dtype=np.uint8)[5]
    identity = sent.extended_squitter(B, sent.callsign("KLM1023"))
    messages = [*flight(), unknown, wrong, identity, sent.altitude_reply(A, 3000.0), unknown]
    messages.append(sent._message(1 << 27, 56, 0))
    assert sink_of(decoded(messages)).report(None) == {
        "messages": 8, "strict_messages": 8, "aircraft": 2, "positions": 3, "df4": 1, "df17": 7,
        "rejected_format": 1, "rejected_parity": 1, "rejected_unknown": 2, "rejected_overlap": 0,
        "position_alone": 2, "position_zones": 0, "position_first": 1, "position_implausible": 0,
    }  # fmt: skip


def test_interrogator_codes_count_from_their_first_message_once_they_are_believed():
    clean = sent.all_call_reply(A)
    for codes, strict in (((60, 60), 1), ((60, 60, 60), 4), ((60, 9, 60, 60, 9, 60), 5)):
        coded = [sent.all_call_reply(A, interrogator=code) for code in codes]
        found = sink_of(decoded([clean, *coded])).report(None)
        assert (found["messages"], found["strict_messages"]) == (1 + len(codes), strict)


def test_lines_of_json_say_what_the_messages_say(tmp_path):
    messages = [*flight(), sent.extended_squitter(A, sent.callsign("KLM1023"))]
    messages.append(sent.identity_reply(A, 112, status=1))
    sink = sink_of(decoded(messages), path=str(tmp_path / "lines"))
    sink.finish()
    lines = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    assert [line["time"] for line in lines] == [1_500_000_000 + n for n in range(8)]
    assert [line["message"] for line in lines] == [m.tobytes().hex().upper() for m in messages]
    assert lines[0] == {
        "time": 1_500_000_000, "stream": "main", "address": "4D2023", "format": 17, "strict": True,
        "message": messages[0].tobytes().hex().upper(), "type_code": 11, "on_ground": False,
        "altitude": 3000, "containment": 185.2,
    }  # fmt: skip
    assert lines[5]["latitude"] == pytest.approx(50.0, abs=5e-5)
    assert lines[5]["longitude"] == pytest.approx(8.0, abs=5e-5)
    assert lines[6]["callsign"] == "KLM1023"
    assert (lines[7]["squawk"], lines[7]["on_ground"]) == ("0112", True)


def test_a_picture_is_left_where_there_are_positions(tmp_path):
    found = sink_of(decoded(flight())).report(tmp_path)
    assert (tmp_path / found["picture"]).read_bytes().startswith(b"\x89PNG")
    assert "picture" not in sink_of(decoded(flight()[:2])).report(tmp_path)


def test_a_file_in_the_way_is_not_replaced_unasked(tmp_path):
    path = tmp_path / "lines"
    path.write_text("mine")
    with pytest.raises(ParameterError, match="exists; give another path, or set overwrite"):
        ModesMessages(path=str(path))
    sink_of(decoded(flight()), path=str(path), overwrite=True).finish()
    assert len(path.read_text().splitlines()) == 6
    with pytest.raises(ParameterError, match="is a folder"):
        ModesMessages(path=str(tmp_path))
    with pytest.raises(ParameterError, match="no file can be made in the folder"):
        ModesMessages(path=str(tmp_path / "none" / "lines"))
