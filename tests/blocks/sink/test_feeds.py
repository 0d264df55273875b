"""sink.avr, sink.beast and sink.sbs: what they write of given messages, and where it goes."""

import socket

import numpy as np
import pytest

from blocks.decoder.mode_s import Modes
from blocks.kernels import mode_s_encoding as sent
from blocks.network import address
from blocks.sink.avr import Avr
from blocks.sink.beast import Beast
from blocks.sink.sbs import Sbs
from blocks.source.modes_messages import ModesMessages
from pipeline.block import Context, make
from pipeline.errors import ParameterError
from pipeline.frame import StreamInfo

A = 0x4D2023
EPOCH = StreamInfo(epoch_utc_ns=1_500_000_000_999_999_999)  # 2017-07-14 02:40:00
POSITIONS = [sent.airborne_position(50.0, -8.0, 3000.0, n % 2) for n in range(4)]
MESSAGES = [
    *(sent.extended_squitter(A, content) for content in POSITIONS),
    sent.extended_squitter(A, sent.ground_velocity(-100.0, 200.0, 640.0)),
    sent.extended_squitter(A, sent.callsign("KLM1023")),
    sent.all_call_reply(A),
    sent.altitude_reply(A, 3000.0),
    sent.identity_reply(A, 7700, status=4),
]


def decoded(sink, messages=MESSAGES):
    """What decoder.modes makes of messages 1.25 s apart, as the sink reads it."""
    bits = np.zeros((len(messages), 112), np.uint8)
    for row, message in zip(bits, messages, strict=True):
        row[: 8 * message.size] = np.unpackbits(message)
    sizes = np.array([8 * message.size for message in messages], np.int16)
    block = make(Modes, {}, Context())
    block.start()
    times = 1.25 * np.arange(len(messages))
    found = block.process(bits, sizes, times, times)
    return {name: getattr(found, name) for name in sink.signature().reads if hasattr(found, name)}


def written(sink, path, frame, info=EPOCH, **values):
    """What the sink writes into a file."""
    block = sink(path=str(path), overwrite=True, **values)
    block.start()
    block.open("main", info)
    block.process(**frame)
    block.finish()
    return path.read_bytes()


def hexed(message):
    return message.tobytes().hex().upper()


def test_avr_is_a_line_of_digits_for_each_message(tmp_path):
    lines = written(Avr, tmp_path / "lines", decoded(Avr)).decode().splitlines()
    assert lines == [f"*{hexed(message)};" for message in MESSAGES]


def test_timed_avr_tells_twelfths_of_microseconds_and_is_read_back(tmp_path):
    path = tmp_path / "lines"
    lines = written(Avr, path, decoded(Avr), timed=True).decode().splitlines()
    assert lines[2] == f"@{30_000_000:012X}{hexed(MESSAGES[2])};"  # 2.5 s
    source = ModesMessages(path=str(path))
    source.start()
    found = source.process()
    np.testing.assert_allclose(found.candidate_time, 1.25 * np.arange(len(MESSAGES)))
    assert (found.candidate_bits == [8 * message.size for message in MESSAGES]).all()


def test_the_clock_of_12_mhz_begins_again_after_48_bits(tmp_path):
    frame = decoded(Avr, MESSAGES[:1]) | {"message_time": np.array([2**48 / 12e6 + 1.0])}
    assert written(Avr, tmp_path / "lines", frame, timed=True)[1:13] == b"%012X" % 12_000_000


def unescaped(content):
    """Kind, time, level and message of each frame of Beast."""
    frames, at = [], 0
    while at < len(content):
        assert content[at] == 0x1A
        kind = chr(content[at + 1])
        at += 2
        taken = []
        while len(taken) < 7 + {"2": 7, "3": 14}[kind]:
            taken.append(content[at])
            if content[at] == 0x1A:
                at += 1
                assert content[at] == 0x1A
            at += 1
        frames.append((kind, int.from_bytes(taken[:6], "big"), taken[6], bytes(taken[7:])))
    return frames


def test_beast_gives_kind_time_level_and_message(tmp_path):
    # an escape in the message (its address), in the time and in the level
    messages = [sent.all_call_reply(0x1A1A05), *MESSAGES]
    frame = decoded(Beast, messages)
    frame["message_time"] = frame["message_time"] + 0x1A1A1A / 12e6
    levels = np.full(len(messages), 26 / 255, np.float32)
    levels[1:4] = 0.0001, 0.5, 2.0
    frames = unescaped(written(Beast, tmp_path / "made", frame | {"candidate_level": levels}))
    assert [message for *_, message in frames] == [message.tobytes() for message in messages]
    assert [kind for kind, *_ in frames] == ["2" if m.size == 7 else "3" for m in messages]
    assert [at for _, at, *_ in frames] == [
        0x1A1A1A + 15_000_000 * number for number in range(len(messages))
    ]
    assert [level for *_, level, _ in frames][:5] == [26, 1, 128, 255, 26]
    without = unescaped(written(Beast, tmp_path / "made", frame))
    assert {level for *_, level, _ in without} == {0}


def test_levels_are_those_of_the_candidates_that_became_messages(tmp_path):
    wrong = MESSAGES[0] ^ np.eye(14, dtype=np.uint8)[5]
    frame = decoded(Beast, [wrong, MESSAGES[0], wrong, MESSAGES[1]])
    levels = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    frames = unescaped(written(Beast, tmp_path / "made", frame | {"candidate_level": levels}))
    assert [level for *_, level, _ in frames] == [51, 102]


def test_sbs_lines_say_what_the_messages_say(tmp_path):
    content = written(Sbs, tmp_path / "lines", decoded(Sbs)).decode()
    lines = content.split("\r\n")
    assert lines.pop() == ""
    times = ["02:40:00.999", "02:40:02.249", "02:40:03.499", "02:40:04.749", "02:40:05.999",
             "02:40:07.249", "02:40:08.499", "02:40:09.749", "02:40:10.999"]  # fmt: skip
    place = "50.00000,-8.00000"
    told = [
        (3, ",3000,,,,,,,0,,0,0"),
        (3, ",3000,,,,,,,0,,0,0"),
        (3, ",3000,,,,,,,0,,0,0"),
        (3, f",3000,,,{place},,,0,,0,0"),
        (4, ",,224,333,,,640,,,,,0"),
        (1, "KLM1023 ,,,,,,,,,,,0"),
        (8, ",,,,,,,,,,,0"),
        (5, ",3000,,,,,,,0,,0,0"),
        (6, ",,,,,,,7700,-1,-1,-1,"),
    ]
    for line, time, (kind, rest) in zip(lines, times, told, strict=True):
        day = f"2017/07/14,{time}"
        assert line.startswith(f"MSG,{kind},1,1,4D2023,1,{day},{day},"), line
        assert line.count(",") == 21
        found = line.split(",")[10:]
        for number, (one, other) in enumerate(zip(found, rest.split(","), strict=True)):
            if number in (4, 5) and other:
                assert float(one) == pytest.approx(float(other), abs=3e-5)
            else:
                assert one == other, (line, rest)


def test_without_an_epoch_the_stream_began_in_1970(tmp_path):
    line = written(Sbs, tmp_path / "lines", decoded(Sbs), StreamInfo()).decode().splitlines()[1]
    assert line.split(",")[6:10] == ["1970/01/01", "00:00:01.250"] * 2


def test_a_feed_goes_to_readers_to_a_server_and_into_a_file_at_once(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        there = f"127.0.0.1:{server.getsockname()[1]}"
        block = Avr(listen=":0", connect=there, path=str(tmp_path / "lines"))
        block.start()
        reader = socket.create_connection(address("", block.report(None)["address"]), 10)
        called, _ = server.accept()
        while block.report(None)["readers"] < 2:
            pass
        block.process(**decoded(Avr))
        block.finish()
        expected = (tmp_path / "lines").read_bytes()
        for end in (reader, called):
            with end, end.makefile("rb") as file:
                assert file.read() == expected
    found = block.report(None)
    count, size = len(MESSAGES), len(expected)
    assert found.pop("address").startswith("127.0.0.1:")
    assert found == {
        "messages": count, "path": str(tmp_path / "lines"), "bytes_written": size,
        "sent": 2 * count, "bytes": 2 * size, "lost": 0, "connections": 2, "readers": 2,
        "slow_readers": 0, "refused_readers": 0,
    }  # fmt: skip


def test_a_feed_without_a_place_is_refused(tmp_path):
    with pytest.raises(ParameterError, match=r'sink.avr: nowhere to send to: give listen = "127'):
        Avr()
    with pytest.raises(ParameterError, match=r"sink.sbs: connect = ':0'; .* a port of 1"):
        Sbs(connect=":0")
    (tmp_path / "mine").touch()
    with pytest.raises(ParameterError, match=r"sink.beast: .*mine exists; give another path"):
        Beast(path=str(tmp_path / "mine"))
