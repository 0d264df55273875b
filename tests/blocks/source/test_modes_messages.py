import numpy as np
import pytest

from blocks.source.modes_messages import ModesMessages
from pipeline.errors import ParameterError, RunError

LONG, SHORT = "8D406B9058B975870B738754F480", "5D4D20237A55A6"


@pytest.fixture
def file(tmp_path):
    """A function that makes a file and the source that reads it."""

    def made(text, **values):
        path = tmp_path / "messages.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return ModesMessages(path=str(path), **values)

    return made


def play(source):
    source.start()
    frames = []
    while (frame := source.process()) is not None:
        frames.append(frame)
    source.close()
    return frames


def joined(source):
    return [np.concatenate(parts) for parts in zip(*play(source), strict=True)]


def of_hex(text):
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))
    return np.pad(bits, (0, 112 - bits.size))


def test_csv_lines_have_the_times_of_the_file(file):
    source = file(f'1457996400.25,"{LONG}","406B90",11\n\n1457996401,{SHORT.lower()}\r\n')
    bits, sizes, samples, times = joined(source)
    np.testing.assert_array_equal(bits, [of_hex(LONG), of_hex(SHORT)])
    assert sizes.tolist() == [112, 56]
    assert samples.tolist() == [0, 1]
    assert times.tolist() == [0, 0.75]
    info = source.describe()
    assert info.epoch_utc_ns == 1457996400_250_000_000
    assert info.continuous
    assert info.rate_hz == 0


def test_timed_lines_count_a_clock_of_12_mhz(file):
    source = file(f"@000000000001{LONG};\n@000000B71B01{SHORT};\n")
    bits, _, _, times = joined(source)
    np.testing.assert_array_equal(bits, [of_hex(LONG), of_hex(SHORT)])
    assert times.tolist() == pytest.approx([0, 1])
    assert source.describe().epoch_utc_ns == 0


@pytest.mark.parametrize("line", ["*{};", "{}", "*{}", "{};"])
def test_lines_without_time_are_not_continuous(file, line):
    source = file("\n".join(line.format(message) for message in (LONG, SHORT)))
    bits, _, _, times = joined(source)
    np.testing.assert_array_equal(bits, [of_hex(LONG), of_hex(SHORT)])
    assert times.tolist() == [0, 0]
    assert not source.describe().continuous


def test_frames_have_so_many_messages_and_the_last_the_rest(file):
    source = file(f"{LONG}\n" * 10, length=4)
    assert [len(frame.candidates) for frame in play(source)] == [4, 4, 2]


def test_a_state_leads_to_the_same_place_in_the_file(file):
    source = file("".join(f"{n},{LONG}\n\n" for n in range(10)), length=3)
    source.start()
    source.process()
    state = source.state()
    source.start()
    source.restore(state)
    frame = source.process()
    source.close()
    assert frame.candidate_time.tolist() == [3, 4, 5]
    assert frame.candidate_sample.tolist() == [3, 4, 5]


@pytest.mark.parametrize(
    "line",
    ["hello", f"*{LONG[:-1]};", f"*{LONG}00;", f"@{LONG};", "@0123;", f"yesterday,{LONG}",
     f"nan,{LONG}", f"-1,{LONG}", "1457996400,", "1457996400,12XY", f",{LONG}", "time,message",
     "\x00\x01\x02", "é" * 14],
)  # fmt: skip
def test_a_file_of_something_else_is_refused(file, line):
    with pytest.raises(ParameterError, match=r"begins with '.*expected a unix time, a comma and"):
        file(line + "\n")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([f"1,{LONG}", "", f"*{LONG};"], "line 3 of .* expected a unix time, a comma and a mess"),
        ([f"*{LONG};", f"@000000000001{LONG};"], r"line 2 of .* expected a message, alone or"),
        ([f"@000000000001{LONG};", "@00000000"], r"line 2 of .* is '@00000000'; expected @, 12"),
        ([LONG, LONG[:13]], "line 2 of .* is '8D406B9058B97'; .*14 or 28 hexadecimal digits"),
    ],
)
def test_a_line_unlike_the_first_is_named(file, lines, expected):
    with pytest.raises(RunError, match=expected):
        play(file("\n".join(lines)))


def test_a_binary_file_is_refused_and_not_read_whole(file):
    with pytest.raises(ParameterError, match=r"begins with '.{60}\.\.\.'; expected"):
        file(b"x" * 100_000)


def test_a_file_that_is_not_there_empty_or_a_folder_is_refused(tmp_path, file):
    with pytest.raises(ParameterError, match=r"cannot read .*nothing: No such file"):
        ModesMessages(path=str(tmp_path / "nothing"))
    with pytest.raises(ParameterError, match="is a folder; expected a file of messages"):
        ModesMessages(path=str(tmp_path))
    with pytest.raises(ParameterError, match="is empty"):
        file("\n\n")


def test_a_file_that_went_away_is_a_run_error(file, tmp_path):
    source = file(LONG)
    (tmp_path / "messages.txt").unlink()
    with pytest.raises(RunError, match=r"source.modes_messages: cannot read .*No such file"):
        source.start()
