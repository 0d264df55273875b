import io
import itertools
import json
import os
import re
import struct
import subprocess
import sys
import tarfile
import textwrap
import threading
import wave
from pathlib import Path

import numpy as np
import pytest
import scipy.io.wavfile
import sigmf
from needs import recording

from blocks.source.recording import Recording
from pipeline.block import Gap
from pipeline.errors import ParameterError, RunError


def play(block):
    """What a source hands over until its end: arrays of samples and gaps."""
    block.start()
    items = rest(block)
    block.close()
    return items


def rest(block):
    items = []
    while (item := block.process()) is not None:
        items.append(item if isinstance(item, Gap) else item.samples)
    return items


def joined(block):
    return np.concatenate(play(block))


def same_bits(a, b):
    assert a.dtype == b.dtype
    assert a.tobytes() == b.tobytes()


@pytest.fixture
def ramp(tmp_path):
    """A file of 1000 real float samples 0, 1, 2 ..."""
    path = tmp_path / "ramp.f32"
    np.arange(1000, dtype="<f4").tofile(path)
    return path


# raw files


def test_every_byte_of_cu8_is_its_distance_from_127_and_a_half(tmp_path):
    path = tmp_path / "all.cu8"
    path.write_bytes(bytes(range(256)) + bytes(reversed(range(256))))
    samples = joined(Recording(path=str(path)))
    number = np.arange(256)
    flat = np.concatenate([number, number[::-1]]).reshape(-1, 2)
    expected = ((flat - 127.5) / 127.5).astype(np.float32).view(np.complex64)[:, 0]
    same_bits(samples, expected)
    assert samples[0] == complex(-1, (1 - 127.5) / 127.5)
    assert samples.real[127] == pytest.approx(1 - 1 / 127.5)
    assert np.abs(samples.real).max() == np.abs(samples.imag).max() == 1


@pytest.mark.parametrize(
    ("name", "code", "full", "lowest"),
    [("cs8", "b", 128, -128), ("cs16", "<h", 32768, -32768), ("s16", "<h", 32768, -32768)],
)
def test_signed_numbers_are_divided_by_their_full_scale(tmp_path, name, code, full, lowest):
    numbers = [lowest, -1, 0, 1, 77, full - 1]
    path = tmp_path / "samples.bin"
    path.write_bytes(b"".join(struct.pack(code, number) for number in numbers))
    samples = joined(Recording(path=str(path), format=name))
    assert samples.dtype == (np.complex64 if name.startswith("c") else np.float32)
    assert samples.view(np.float32).tolist() == [number / full for number in numbers]


def test_numbers_as_stored_on_request(tmp_path):
    path = tmp_path / "few.cu8"
    path.write_bytes(bytes([0, 255, 127, 128]))
    samples = joined(Recording(path=str(path), scaled=False))
    assert samples.tolist() == [-127.5 + 127.5j, -0.5 + 0.5j]


@pytest.mark.parametrize("name", ["f32", "cf32"])
def test_floats_pass_bit_for_bit_nan_and_infinity_included(tmp_path, name):
    words = np.array([0x7FC00001, 0xFF800000, 0x7F800000, 0x80000000, 1, 0x3F800000], "<u4")
    path = tmp_path / f"odd.{name}"
    words.tofile(path)
    samples = joined(Recording(path=str(path)))
    assert samples.dtype == (np.complex64 if name == "cf32" else np.float32)
    assert samples.tobytes() == words.tobytes()


@pytest.mark.parametrize("length", [1, 7, 999, 1000, 1001, 4096])
def test_the_samples_do_not_depend_on_the_cut_and_the_last_frame_is_delivered(ramp, length):
    frames = play(Recording(path=str(ramp), length=length))
    np.testing.assert_array_equal(np.concatenate(frames), np.arange(1000))
    assert [frame.size for frame in frames[:-1]] == [length] * (len(frames) - 1)
    assert frames[-1].size == 1000 - length * (len(frames) - 1)


def test_frames_bounds_the_number_of_frames(ramp):
    assert [f.size for f in play(Recording(path=str(ramp), length=300, frames=2))] == [300, 300]
    assert len(play(Recording(path=str(ramp), length=300, frames=9))) == 4


def test_a_loop_has_no_seam_within_its_frames(ramp):
    frames = play(Recording(path=str(ramp), length=700, frames=5, loop=True))
    np.testing.assert_array_equal(np.concatenate(frames), np.arange(3500) % 1000)
    assert [frame.size for frame in frames] == [700] * 5


def test_a_loop_may_be_shorter_than_a_frame(ramp):
    (frame,) = play(Recording(path=str(ramp), length=2500, frames=1, loop=True))
    np.testing.assert_array_equal(frame, np.arange(2500) % 1000)


@pytest.mark.parametrize("options", [{}, {"frames": 3}, {"length": 1000}])
def test_frames_left_counts_the_frames_that_come(ramp, options):
    block = Recording(**{"path": str(ramp), "length": 300, **options})
    block.start()
    left = [block.frames_left()]
    while block.process() is not None:
        left.append(block.frames_left())
    assert left == list(range(len(left) - 1, -1, -1))


def test_frames_left_of_a_loop_is_unknown_unless_bounded(ramp):
    block = Recording(path=str(ramp), loop=True)
    block.start()
    assert block.frames_left() is None
    block = Recording(path=str(ramp), loop=True, frames=4)
    block.start()
    block.process()
    assert block.frames_left() == 3


@pytest.mark.parametrize("loop", [False, True])
def test_a_fresh_source_goes_on_where_another_stopped(ramp, loop):
    options = {"path": str(ramp), "length": 64, "loop": loop, "frames": 40 if loop else 0}
    whole = play(Recording(**options))
    for stop in range(len(whole) + 1):
        first = Recording(**options)
        first.start()
        for _ in range(stop):
            first.process()
        second = Recording(**options)
        second.start()
        second.restore(first.state())
        assert second.frames_left() == len(whole) - stop
        after = rest(second)
        assert len(after) == len(whole) - stop
        for frame, expected in zip(after, whole[stop:], strict=True):
            same_bits(frame, expected)


def test_starting_over_begins_at_the_first_sample(ramp):
    block = Recording(path=str(ramp), length=100)
    block.start()
    block.process()
    np.testing.assert_array_equal(joined(block), np.arange(1000))


def test_a_frame_is_not_changed_by_the_next(ramp):
    block = Recording(path=str(ramp), length=10)
    block.start()
    first = block.process().samples
    kept = first.copy()
    block.process()
    np.testing.assert_array_equal(first, kept)


def test_the_stream_is_described_by_the_parameters_of_a_raw_file(ramp):
    info = Recording(path=str(ramp), rate_hz=48e3, centre_hz=1e9, continuous=False).describe()
    assert (info.rate_hz, info.centre_hz, info.format) == (48e3, 1e9, "f32")
    assert info.replayable
    assert not info.continuous
    assert Recording(path=str(ramp)).describe().rate_hz == 0


def test_dtype_is_settled_by_the_format(ramp):
    assert str(Recording(path=str(ramp)).narrow({})["samples"]) == "float32 with dims (time)"
    complex_ = Recording(path=str(ramp), format="cf32").narrow({})["samples"]
    assert str(complex_) == "complex64 with dims (time)"


def test_real_time_paces_the_frames_as_they_were_recorded(ramp):
    block = Recording(path=str(ramp), rate_hz=48e3, length=480, pace="real-time")
    block.start()
    assert block.rate == 100.0
    again = Recording(**block.values())
    again.start()
    assert again.values() == block.values()
    fast = Recording(path=str(ramp), rate_hz=48e3, rate=5.0)
    fast.start()
    assert fast.rate == 5.0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"pace": "real-time"}, r"real-time.*sample rate.*ramp\.f32 does not tell; give rate_hz"),
        (
            {"pace": "real-time", "rate_hz": 4096.0, "rate": 3.0},
            r"rate = 3\.0 frames/s, but .* makes it 1\.0",
        ),
        ({"format": "cs16", "path": "absent.cs16"}, r"cannot read absent\.cs16: No such file"),
        ({"path": "absent"}, r"cannot read absent: No such file"),
        ({"path": "no\0name.cu8"}, r"cannot read no.name\.cu8"),
        ({"path": "."}, r"\. is a folder"),
        ({"format": "mp3"}, r"format = 'mp3', but it must be one of 'auto', 'cu8'"),
        ({"length": 0}, r"length = 0 samples, but it must be at least 1"),
    ],
)
def test_a_mistake_is_named_before_anything_runs(ramp, options, text):
    with pytest.raises(ParameterError, match=rf"^source\.recording: .*{text}"):
        Recording(**{"path": str(ramp), **options})


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "none.cu8").touch()
    with pytest.raises(ParameterError, match=r"none\.cu8 is empty"):
        Recording(path=str(tmp_path / "none.cu8"))


@pytest.mark.parametrize(("name", "nbytes"), [("cu8", 2), ("cs16", 4), ("cf32", 8), ("f32", 4)])
def test_odd_bytes_at_the_end_are_refused(tmp_path, name, nbytes):
    path = tmp_path / f"odd.{name}"
    path.write_bytes(b"\0" * (10 * nbytes + 1))
    wanted = rf"{10 * nbytes + 1} bytes .* inside a sample: {name} has {nbytes} bytes per sample"
    with pytest.raises(ParameterError, match=wanted):
        Recording(path=str(path))


def test_a_name_that_tells_no_format_is_refused_with_the_formats(tmp_path):
    path = tmp_path / "modes1.bin"
    path.write_bytes(b"\0\0")
    with pytest.raises(ParameterError, match=r"modes1\.bin .* give format: one of cu8, .* sigmf"):
        Recording(path=str(path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything; run the tests as a user")
def test_a_file_without_permission_is_refused(ramp):
    ramp.chmod(0)
    with pytest.raises(ParameterError, match=r"cannot read .*ramp\.f32: Permission denied"):
        Recording(path=str(ramp))


def test_a_file_that_shrinks_is_an_error_that_says_so(ramp):
    block = Recording(path=str(ramp), length=2000)
    os.truncate(ramp, 3990)
    with pytest.raises(RunError, match="no longer holds the 1000 samples"):
        block.start()
    ramp.write_bytes(bytes(200_000))  # more than is read ahead
    block = Recording(path=str(ramp), length=100)
    block.start()
    block.process()
    os.truncate(ramp, 4000)
    with pytest.raises(RunError, match="no longer holds the 50000 samples"):
        rest(block)


# pipes


def feed(path, pieces):
    """Write pieces into a named pipe from another thread."""

    def write():
        with open(path, "wb", buffering=0) as pipe:
            for piece in pieces:
                pipe.write(piece)

    thread = threading.Thread(target=write)
    thread.start()
    return thread


@pytest.fixture
def pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def test_a_pipe_loses_nothing_however_it_is_filled(pipe):
    raw = np.random.default_rng(3).integers(0, 256, 20_002, dtype=np.uint8).tobytes()
    cuts = [0, 1, 2, 5, 5000, 5001, 13_333, 20_001, 20_002]
    writer = feed(pipe, [raw[a:b] for a, b in itertools.pairwise(cuts)])
    frames = play(Recording(path=str(pipe), format="cu8", length=1000))
    writer.join()
    assert [frame.size for frame in frames] == [1000] * 10 + [1]
    expected = (np.frombuffer(raw, np.uint8) - 127.5) / 127.5
    same_bits(np.concatenate(frames), expected.astype(np.float32).view(np.complex64))


@pytest.mark.parametrize("extra", [1, 3, 7])
def test_a_pipe_that_ends_inside_a_sample_delivers_the_whole_ones_and_says_so(pipe, extra):
    writer = feed(pipe, [bytes(8 * 25 + extra)])
    block = Recording(path=str(pipe), format="cf32", length=10)
    block.start()
    sizes = [block.process().samples.size for _ in range(3)]
    with pytest.raises(RunError, match=rf"inside a sample: after 25 samples {extra} bytes more"):
        block.process()
    assert block.process() is None
    writer.join()
    assert sizes == [10, 10, 5]


def test_a_pipe_may_be_empty(pipe):
    writer = feed(pipe, [])
    assert play(Recording(path=str(pipe), format="f32")) == []
    writer.join()


def test_a_pipe_knows_no_way_back(pipe):
    with pytest.raises(ParameterError, match="loop = true, but a pipe"):
        Recording(path=str(pipe), format="f32", loop=True)
    with pytest.raises(ParameterError, match="is a pipe, which carries raw samples; give format"):
        Recording(path=str(pipe), format="wav")
    with pytest.raises(ParameterError, match="standard input is a pipe"):
        Recording(path="-")
    block = Recording(path=str(pipe), format="f32", frames=3)
    writer = feed(pipe, [bytes(12)])
    block.start()
    assert not block.describe().replayable
    assert block.frames_left() == 3
    with pytest.raises(RunError, match="is a pipe; it cannot be read again"):
        block.restore(block.state())
    rest(block)
    writer.join()


STDIN = """
    import os, sys
    from blocks.source.recording import Recording

    block = Recording(path="-", format="s16", length=5, {options})
    block.start()
    while (item := block.process()) is not None:
        print([round(x * 32768) for x in item.samples.tolist()])
    block.close()
    print(list(os.read(0, 100)))
    try:
        block.start()
    except Exception as error:
        print(error)
"""


def from_stdin(samples, options=""):
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", textwrap.dedent(STDIN.format(options=options))]
    given = np.array(samples, "<i2").tobytes()
    done = subprocess.run(command, input=given, cwd=root, capture_output=True, check=True)
    return done.stdout.decode().splitlines()


def test_standard_input_is_read_to_its_end():
    lines = from_stdin(range(1, 13))
    assert lines[:3] == ["[1, 2, 3, 4, 5]", "[6, 7, 8, 9, 10]", "[11, 12]"]
    assert lines[3] == "[]"
    assert lines[4] == "source.recording: standard input cannot be read again"


def test_standard_input_is_not_read_ahead():
    lines = from_stdin(range(1, 13), "frames=2")
    assert lines[2] == "[11, 0, 12, 0]"


# WAV


def riff(*chunks, head=b"RIFF", size=None):
    body = b"WAVE" + b"".join(
        name + struct.pack("<I", len(data) if length is None else length) + data + b"\0" * pad
        for name, data, length, pad in chunks
    )
    return head + struct.pack("<I", len(body) if size is None else size) + body


def chunk(name, data, length=None):
    return name, data, length, len(data) % 2


def fmt(tag=1, channels=1, rate=48000, bits=16, extra=b""):
    block = channels * bits // 8
    return chunk(
        b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * block, block, bits) + extra
    )


EXTENSIBLE = struct.pack("<HHI", 22, 16, 3)
GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
NOISE = np.random.default_rng(11).integers(-(2**31), 2**31, (101, 2))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("dtype", "full"),
    [("u1", 128.0), ("<i2", 2.0**15), ("<i4", 2.0**31), ("<f4", 1.0), ("<f8", 1.0)],
)
def test_wav_files_of_scipy_are_read(tmp_path, dtype, full, channels):
    numbers = NOISE[:, :channels]
    if dtype[-2] == "f":
        numbers = (numbers / 2**31).astype(dtype)
    else:
        numbers = (numbers >> (32 - 8 * int(dtype[-1]))) + (128 if dtype == "u1" else 0)
        numbers = numbers.astype(dtype)
    path = tmp_path / "a.wav"
    scipy.io.wavfile.write(path, 22050, numbers if channels == 2 else numbers[:, 0])
    zero = 128.0 if dtype == "u1" else 0.0
    expected = ((numbers.astype(np.float64) - zero) / full).astype(np.float32)
    expected = expected.view(np.complex64)[:, 0] if channels == 2 else expected[:, 0]
    block = Recording(path=str(path), length=17)
    assert block.describe().rate_hz == 22050
    same_bits(joined(block), expected)


def test_24_bit_wav_files_are_read_like_scipy_reads_them(tmp_path):
    path = tmp_path / "a.WAV"
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 3, 96000, 0, "NONE", ""))
        extremes = np.array([-(2**23), -1, 0, 1, 2**23 - 1, 12345])
        numbers = np.concatenate([extremes, NOISE[:, 0] >> 8])[:106]
        file.writeframes(b"".join(int(n).to_bytes(3, "little", signed=True) for n in numbers))
    rate, left_aligned = scipy.io.wavfile.read(path)
    block = Recording(path=str(path))
    assert block.describe().rate_hz == rate == 96000
    assert block.describe().format == "wav s24"
    samples = joined(block)
    np.testing.assert_array_equal(
        samples.view(np.float32).reshape(-1, 2), left_aligned.astype(np.float64) / 2**31
    )
    assert samples[0] == -1 - 1j / 2**23
    counts = joined(Recording(path=str(path), scaled=False)).view(np.float32)
    np.testing.assert_array_equal(counts, numbers)


@pytest.mark.parametrize(("tag", "bits"), [(1, 16), (3, 32)])
def test_extensible_headers_tell_the_format_further_on(tmp_path, tag, bits):
    path = tmp_path / "a.wav"
    extra = EXTENSIBLE + struct.pack("<H", tag) + GUID_TAIL
    data = struct.pack("<hh", -16384, 8192) if tag == 1 else struct.pack("<ff", -0.5, 0.25)
    path.write_bytes(riff(fmt(0xFFFE, 1, 48000, bits, extra), chunk(b"data", data)))
    assert joined(Recording(path=str(path))).tolist() == [-0.5, 0.25]


def test_other_chunks_of_a_wav_file_are_passed_over(tmp_path):
    path = tmp_path / "a.wav"
    data = chunk(b"data", struct.pack("<hhh", 1, 2, 3))
    path.write_bytes(riff(chunk(b"LIST", b"odd"), fmt(), chunk(b"fact", b"abcd"), data, data))
    assert (joined(Recording(path=str(path))) * 32768).tolist() == [1, 2, 3]


def test_rf64_tells_the_length_of_the_samples_in_ds64(tmp_path):
    path = tmp_path / "a.wav"
    ds64 = chunk(b"ds64", struct.pack("<QQQI", 0, 4, 2, 0))
    data = chunk(b"data", struct.pack("<hhh", 1, 2, 3), 0xFFFFFFFF)
    path.write_bytes(riff(ds64, fmt(), data, head=b"RF64", size=0xFFFFFFFF))
    assert (joined(Recording(path=str(path))) * 32768).tolist() == [1, 2]


def test_a_wav_file_written_through_a_pipe_ends_where_it_ends(tmp_path):
    path = tmp_path / "a.wav"
    data = chunk(b"data", struct.pack("<hhh", 1, 2, 3), 0xFFFFFFFF)
    path.write_bytes(riff(fmt(), data, size=0xFFFFFFFF))
    assert (joined(Recording(path=str(path))) * 32768).tolist() == [1, 2, 3]


def test_two_channels_are_a_complex_signal_or_one_is_kept(tmp_path):
    path = tmp_path / "a.wav"
    scipy.io.wavfile.write(path, 8000, np.array([[0.5, 0.25], [-0.5, 1.0]], np.float32))
    assert joined(Recording(path=str(path))).tolist() == [0.5 + 0.25j, -0.5 + 1j]
    for channels, expected in [("first", [0.5, -0.5]), ("second", [0.25, 1.0])]:
        block = Recording(path=str(path), channels=channels, length=1)
        assert joined(block).tolist() == expected
        assert block.narrow({})["samples"].dtypes == ("float32",)


SIX = struct.pack("<hhh", 1, 2, 3)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            riff(fmt(), chunk(b"data", SIX, 10)),
            r"cut short: its header says 10 bytes of samples, but 6 bytes follow",
        ),
        (riff(fmt(), chunk(b"data", SIX[:5])), r"5 bytes of samples, which end inside a sample"),
        (riff(fmt(), chunk(b"data", b"")), r"holds no samples"),
        (riff(chunk(b"data", SIX), fmt()), r"samples precede their format"),
        (riff(fmt()), r"without samples \(no data chunk\)"),
        (riff(chunk(b"fmt ", b"abc"), chunk(b"data", SIX)), r"fmt chunk has 3 bytes"),
        (riff(fmt(tag=7, bits=8), chunk(b"data", SIX)), r"8 bits with format tag 7"),
        (riff(fmt(bits=12), chunk(b"data", SIX)), r"12 bits with format tag 1"),
        (riff(fmt(channels=3), chunk(b"data", SIX)), r"3 channels; expected 1 .* or 2"),
        (riff(fmt(channels=0), chunk(b"data", SIX)), r"0 channels"),
        (b"RIFF\0\0\0\0AVI ", r"no WAV file"),
        (b"R", r"no WAV file"),
        (riff(*[chunk(b"JUNK", b"")] * 2000), r"no data chunk"),
    ],
)
def test_a_wav_file_that_cannot_be_read_says_why(tmp_path, content, text):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(ParameterError, match=rf"^source\.recording: .*a\.wav .*{text}"):
        Recording(path=str(path))


def test_a_rate_that_contradicts_the_file_is_refused_with_both(tmp_path):
    path = tmp_path / "a.wav"
    scipy.io.wavfile.write(path, 8000, np.zeros(4, np.int16))
    assert Recording(path=str(path), rate_hz=8000).describe().rate_hz == 8000
    with pytest.raises(ParameterError, match=r"rate_hz = 48000\.0 Hz, but .*a\.wav says 8000\.0"):
        Recording(path=str(path), rate_hz=48000)
    assert Recording(path=str(path), centre_hz=145.9e6).describe().centre_hz == 145.9e6


# SigMF


def write_pair(base, raw, overall=None, captures=None, annotations=()):
    """A SigMF pair made by hand, so that it may be wrong."""
    metadata = {
        "global": {"core:datatype": "rf32_le", "core:version": "1.2.0", **(overall or {})},
        "captures": [{"core:sample_start": 0}] if captures is None else captures,
        "annotations": list(annotations),
    }
    Path(f"{base}.sigmf-data").write_bytes(raw)
    Path(f"{base}.sigmf-meta").write_text(json.dumps(metadata))
    return base


HUNDRED = np.arange(100, dtype="<f4").tobytes()


def written_by_sigmf(base, numbers, datatype, **overall):
    numbers.tofile(f"{base}.sigmf-data")
    overall = {f"core:{key}": value for key, value in overall.items()}
    file = sigmf.SigMFFile(
        data_file=f"{base}.sigmf-data",
        global_info={"core:datatype": datatype, "core:version": "1.2.0", **overall},
    )
    file.add_capture(0)
    file.tofile(f"{base}.sigmf-meta")
    return base


SIGNED = [f"{c}{n}{order}" for c in "cr" for n in ("i16", "i32", "f32", "f64") for order in
          ("_le", "_be")] + ["ci8", "ri8"]  # fmt: skip
UNSIGNED = ["cu8", "ru8", "cu16_le", "ru16_be", "ru32_le"]


def stored_dtype(datatype):
    kind, bits, order = re.fullmatch(r"[cr]([fiu])(\d+)(_[lb]e)?", datatype).groups()
    return np.dtype((">" if order == "_be" else "<") + kind + str(int(bits) // 8))


@pytest.mark.parametrize("datatype", SIGNED)
def test_recordings_of_the_sigmf_library_are_read_as_it_reads_them(tmp_path, datatype):
    dtype = stored_dtype(datatype)
    numbers = NOISE.reshape(-1)
    shift = 32 - 8 * dtype.itemsize
    numbers = numbers / 2**31 if dtype.kind == "f" else numbers >> shift
    base = written_by_sigmf(tmp_path / "a.b", numbers.astype(dtype), datatype, sample_rate=2.4e6)
    expected = sigmf.sigmffile.fromfile(f"{base}.sigmf-meta").read_samples()
    for path in (f"{base}.sigmf-meta", f"{base}.sigmf-data", f"{base}"):
        samples = joined(Recording(path=path, length=13))
        np.testing.assert_array_equal(samples, expected, strict=True)


@pytest.mark.parametrize("datatype", UNSIGNED)
def test_unsigned_numbers_are_zero_in_the_middle_of_their_range(tmp_path, datatype):
    dtype = stored_dtype(datatype)
    top = np.iinfo(dtype).max
    numbers = np.array([0, top, top // 2, top // 2 + 1, 7, top // 3], dtype)
    base = written_by_sigmf(tmp_path / "a", numbers, datatype)
    samples = joined(Recording(path=str(base)))
    middle = top / 2
    expected = ((numbers.astype(np.float64) - middle) / middle).astype(np.float32)
    np.testing.assert_allclose(samples.view(np.float32), expected, rtol=1e-7)
    assert samples.view(np.float32)[:2].tolist() == [-1, 1]
    assert samples.view(np.float32)[2] == -samples.view(np.float32)[3]


def test_the_same_bytes_are_the_same_samples_in_sigmf_and_raw(tmp_path):
    raw = np.random.default_rng(0).integers(0, 256, 500, np.uint8)
    base = written_by_sigmf(tmp_path / "a", raw, "cu8")
    bare = Recording(path=f"{base}.sigmf-data", format="cu8")
    same_bits(joined(Recording(path=str(base))), joined(bare))


def test_metadata_describe_the_stream(tmp_path):
    capture = {
        "core:sample_start": 10,
        "core:frequency": 1090e6,
        "core:datetime": "2026-11-20T12:00:00.123456789123Z",
    }
    base = write_pair(tmp_path / "a", HUNDRED, {"core:sample_rate": 1000}, [capture])
    info = Recording(path=str(base)).describe()
    assert (info.rate_hz, info.centre_hz, info.format) == (1000.0, 1090e6, "sigmf rf32_le")
    noon = np.datetime64("2026-11-20T12:00:00.123456789", "ns").astype(int)
    assert info.epoch_utc_ns == noon - 10_000_000  # sample 10 was at noon, at 1 kHz
    assert info.replayable
    assert info.continuous


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("1955-11-05T14:00:00.000Z", "1955-11-05T14:00:00"),
        ("1969-12-31t23:59:59.999999999z", "1969-12-31T23:59:59.999999999"),
        ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00"),
    ],
)
def test_the_time_of_the_first_sample_is_read_to_the_nanosecond(tmp_path, text, utc):
    capture = {"core:sample_start": 0, "core:datetime": text}
    base = write_pair(tmp_path / "a", HUNDRED, captures=[capture])
    expected = np.datetime64(utc, "ns").astype(int)
    assert Recording(path=str(base)).describe().epoch_utc_ns == expected


def test_parameters_may_add_to_metadata_but_not_contradict_them(tmp_path):
    capture = {"core:sample_start": 0, "core:frequency": 1090e6}
    base = write_pair(tmp_path / "a", HUNDRED, captures=[capture])
    assert Recording(path=str(base), rate_hz=2e6).describe().rate_hz == 2e6
    with pytest.raises(ParameterError, match=r"centre_hz = 978\d+\.0 Hz, but .*meta says 1090"):
        Recording(path=str(base), centre_hz=978e6)


def lost(*captures):
    return [
        {"core:sample_start": start, **({} if index is None else {"core:global_index": index})}
        for start, index in captures
    ]


def test_samples_that_metadata_call_lost_are_gaps_between_frames(tmp_path):
    captures = lost((0, 1000), (30, 1030), (50, 1057), (60, None), (75, 1090), (100, 1300))
    base = write_pair(tmp_path / "a", HUNDRED, captures=captures)
    block = Recording(path=str(base), length=20)
    items = play(block)
    shapes = [("gap", i.samples) if isinstance(i, Gap) else i.size for i in items]
    assert shapes == [20, 20, 10, ("gap", 7), 20, 5, ("gap", 8), 20, 5]
    samples = np.concatenate([item for item in items if not isinstance(item, Gap)])
    assert samples.tobytes() == HUNDRED
    block.start()
    assert block.frames_left() == 7


def test_a_loop_repeats_the_gaps(tmp_path):
    base = write_pair(tmp_path / "a", HUNDRED, captures=lost((0, 0), (50, 55)))
    items = play(Recording(path=str(base), length=40, loop=True, frames=6))
    shapes = [("gap", i.samples) if isinstance(i, Gap) else i.size for i in items]
    assert shapes == [40, 10, ("gap", 5), 40, 40, 20, ("gap", 5), 40]


def test_a_fresh_source_goes_on_before_and_after_a_gap(tmp_path):
    base = write_pair(tmp_path / "a", HUNDRED, captures=lost((0, 0), (50, 55), (61, 80)))
    whole = play(Recording(path=str(base), length=25))
    for stop in range(len(whole) + 1):
        first = Recording(path=str(base), length=25)
        first.start()
        for _ in range(stop):
            first.process()
        second = Recording(path=str(base), length=25)
        second.start()
        second.restore(first.state())
        assert [np.asarray(item).tolist() for item in rest(second)] == [
            np.asarray(item).tolist() for item in whole[stop:]
        ]


def test_a_data_file_may_have_another_name(tmp_path):
    write_pair(tmp_path / "a", HUNDRED, {"core:dataset": "samples.dat"})
    (tmp_path / "a.sigmf-data").rename(tmp_path / "samples.dat")
    assert joined(Recording(path=str(tmp_path / "a.sigmf-meta"))).tobytes() == HUNDRED


def test_indices_count_from_the_offset_of_the_recording(tmp_path):
    overall = {"core:offset": 500}
    captures = lost((500, None), (520, 530))
    annotation = {"core:sample_start": 500, "core:sample_count": 100}
    base = write_pair(tmp_path / "a", HUNDRED, overall, captures, [annotation])
    sizes = [np.size(item) for item in play(Recording(path=str(base), length=60))]
    assert sizes == [20, 1, 60, 20]


BROKEN = {
    "length": ({"raw": HUNDRED[:-2]}, r"398 bytes .* inside a sample: rf32_le has 4 bytes"),
    "empty": ({"raw": b""}, r"a\.sigmf-data holds no samples"),
    "annotation": (
        {"annotations": [{"core:sample_start": 90, "core:sample_count": 11}]},
        r"a\.sigmf-data was cut short: .* samples up to 101, but it holds 100",
    ),
    "capture": ({"captures": lost((0, None), (101, None))}, r"sample 101, but there are only 100"),
    "order": ({"captures": lost((10, None), (5, None))}, r"not in the order"),
    "before": ({"overall": {"core:offset": 5}}, r"begin at sample 0, before core:offset = 5"),
    "backwards": ({"captures": lost((0, 0), (50, 40))}, r"backwards at sample 50, from 50 to 40"),
    "datatype": ({"overall": {"core:datatype": "cf16_le"}}, r"'cf16_le'; expected c or r"),
    "no datatype": ({"overall": {"core:datatype": None}}, r"core:datatype = None"),
    "rate": ({"overall": {"core:sample_rate": "2M"}}, r"core:sample_rate = '2M'; expected a num"),
    "true": ({"overall": {"core:sample_rate": True}}, r"core:sample_rate = True"),
    "negative": ({"overall": {"core:sample_rate": -1}}, r"must be above 0"),
    "start": ({"captures": [{"core:sample_start": 1.5}]}, r"1\.5; expected a whole number"),
    "channels": ({"overall": {"core:num_channels": 2}}, r"core:num_channels = 2"),
    "headers": (
        {"captures": [{"core:sample_start": 0, "core:header_bytes": 4}]},
        r"bytes that are no samples \(core:header_bytes",
    ),
    "trailing": ({"overall": {"core:trailing_bytes": 4}}, r"core:trailing_bytes"),
    "retuned": (
        {"captures": [
            {"core:sample_start": 0, "core:frequency": 1e6},
            {"core:sample_start": 9, "core:frequency": 2e6},
        ]},
        r"retuned between 1000000\.0 Hz and 2000000\.0 Hz",
    ),
    "time": (
        {"captures": [{"core:sample_start": 0, "core:datetime": "yesterday"}]},
        r"core:datetime = 'yesterday'; expected a time like",
    ),
    "no such day": (
        {"captures": [{"core:sample_start": 0, "core:datetime": "2025-02-29T00:00:00Z"}]},
        r"2025-02-29",
    ),
    "extension": (
        {"overall": {"core:extensions": [{"name": "x", "version": "1", "optional": False}]}},
        r"without its extension 'x'",
    ),
    "dataset": ({"overall": {"core:dataset": "../secret"}}, r"'\.\./secret'; expected the name"),
    "absent": ({"overall": {"core:dataset": "absent"}}, r"absent, which cannot be read: No such"),
    "captures": ({"captures": {"a": 1}}, r"'captures' must be a list of objects"),
    "hash": ({"overall": {"core:sha512": 5}}, r"core:sha512 must be a text"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_sigmf_that_cannot_be_read_says_why(tmp_path, case):
    options, text = BROKEN[case]
    base = write_pair(tmp_path / "a", **{"raw": HUNDRED, **options})
    with pytest.raises(ParameterError, match=rf"^source\.recording: .*{text}") as caught:
        Recording(path=str(base))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"{", r"not JSON"),
        (b"\xff\xfe\x00", r"not JSON"),
        (b"[" * 100_000, r"not JSON"),
        (b"[]", r"no 'global' object"),
        (b'{"global": 3}', r"no 'global' object"),
        (b'{"global": {}}', r"has no core:datatype"),
    ],
)
def test_metadata_that_are_none_are_refused(tmp_path, text, said):
    write_pair(tmp_path / "a", HUNDRED)
    (tmp_path / "a.sigmf-meta").write_bytes(text)
    with pytest.raises(ParameterError, match=rf"a\.sigmf-meta .*{said}"):
        Recording(path=str(tmp_path / "a"))


def test_a_pair_with_one_file_missing_names_it(tmp_path):
    base = write_pair(tmp_path / "a", HUNDRED)
    (tmp_path / "a.sigmf-data").unlink()
    with pytest.raises(ParameterError, match=r"a\.sigmf-data, which cannot be read: No such file"):
        Recording(path=str(base))
    (tmp_path / "a.sigmf-meta").unlink()
    for path in (f"{base}.sigmf-meta", f"{base}.sigmf-data"):
        with pytest.raises(ParameterError, match=r"cannot read .*a\.sigmf-meta: No such file"):
            Recording(path=path)


def test_a_damaged_recording_is_found_where_verify_asks_for_it(tmp_path):
    base = written_by_sigmf(tmp_path / "a", np.arange(100, dtype="<f4"), "rf32_le")
    Recording(path=str(base), verify=True)
    with open(f"{base}.sigmf-data", "r+b") as file:
        file.seek(40)
        file.write(b"\x55")
    Recording(path=str(base))
    os.utime(f"{base}.sigmf-data", ns=(1, 1))
    with pytest.raises(
        ParameterError, match=r"damaged: its SHA-512 begins with \w{12}, but .*meta"
    ):
        Recording(path=str(base), verify=True)


def test_archives_of_the_sigmf_library_are_read_in_place(tmp_path):
    numbers = (NOISE.reshape(-1) >> 16).astype("<i2")
    base = written_by_sigmf(tmp_path / "a", numbers, "ci16_le", sample_rate=48000)
    sigmf.sigmffile.fromfile(f"{base}.sigmf-meta").archive(str(tmp_path / "b.sigmf"))
    block = Recording(path=str(tmp_path / "b.sigmf"), verify=True)
    assert block.describe().rate_hz == 48000
    same_bits(joined(block), joined(Recording(path=str(base))))


def archive(path, **members):
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name.replace("_", ".sigmf-"))
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_archives_that_are_no_recording_are_refused(tmp_path):
    path = tmp_path / "b.sigmf"
    path.write_bytes(b"no tar at all")
    with pytest.raises(ParameterError, match="is no SigMF archive"):
        Recording(path=str(path))
    archive(path, a_meta=b"{}", b_meta=b"{}")
    with pytest.raises(ParameterError, match="holds 2 recordings; expected one"):
        Recording(path=str(path))
    archive(path, a_meta=b"{}", b_data=b"")
    with pytest.raises(ParameterError, match=r"no \.sigmf-data file beside a\.sigmf-meta"):
        Recording(path=str(path))
    archive(path, a_meta=b'{"global": {"core:datatype": "ri8"}}', a_data=bytes(5000))
    os.truncate(path, 3000)
    with pytest.raises(ParameterError, match=r"cut short|no SigMF archive"):
        Recording(path=str(path))


# damage


def damaged(rng, content):
    """`content` with a few bytes changed, or cut short."""
    content = bytearray(content)
    for place in rng.integers(len(content), size=rng.integers(1, 5)):
        content[place] = rng.choice([0, 1, 2, 3, 8, 254, 255, rng.integers(256)])
    return bytes(content[: rng.integers(len(content))] if rng.random() < 0.2 else content)


def outcome(path):
    """What playing a file ends in, which must not be any other exception."""
    try:
        play(Recording(path=str(path), frames=10))
    except ParameterError:
        return "refused"
    return "played"


def test_any_damage_to_a_header_is_refused_or_played(tmp_path):
    rng = np.random.default_rng(8)
    wav = riff(fmt(), chunk(b"LIST", b"abcd"), chunk(b"data", bytes(40)))
    base = written_by_sigmf(tmp_path / "a", np.arange(25, dtype="<f4"), "rf32_le", offset=0)
    sigmf.sigmffile.fromfile(f"{base}.sigmf-meta").archive(str(tmp_path / "a.sigmf"))
    for name, content in [
        ("b.wav", wav),
        ("a.sigmf-meta", Path(f"{base}.sigmf-meta").read_bytes()),
        ("b.sigmf", (tmp_path / "a.sigmf").read_bytes()),
    ]:
        outcomes = set()
        for _ in range(400):
            (tmp_path / name).write_bytes(damaged(rng, content))
            outcomes.add(outcome(tmp_path / name))
        assert outcomes == {"refused", "played"}, name


# real recordings


def test_the_mode_s_capture_has_its_known_length_and_loudest_sample():
    path = recording("modes/modes1.bin")
    block = Recording(path=str(path), format="cu8", rate_hz=2e6, centre_hz=1090e6, length=10_000)
    frames = play(block)
    assert sum(frame.size for frame in frames) == 356_868
    assert frames[-1].size == 356_868 % 10_000
    raw = path.read_bytes()
    total = sum(raw[0::2]), sum(raw[1::2])  # exact sums of whole numbers
    mean = np.concatenate(frames).astype(np.complex128).mean() * 127.5
    assert mean.real == pytest.approx(total[0] / 356_868 - 127.5, abs=1e-6)
    assert mean.imag == pytest.approx(total[1] / 356_868 - 127.5, abs=1e-6)


def test_the_satellite_recording_has_its_known_length():
    path = recording("hdlc/koyo.wav")
    block = Recording(path=str(path), rate_hz=48e3)
    samples = joined(block)
    assert samples.dtype == np.float32
    assert samples.size / 48e3 == pytest.approx(21.1, abs=0.05)
    with wave.open(str(path)) as file:
        assert samples.size == file.getnframes()
        expected = np.frombuffer(file.readframes(samples.size), "<i2") / 32768
    np.testing.assert_array_equal(samples, expected)


def test_the_2_4_msps_capture_has_its_known_length():
    path = recording("modes/test_1641427457780.iq")
    samples = joined(Recording(path=str(path), format="cs16", rate_hz=2.4e6))
    assert samples.size == 131_072
    assert samples.size / 2.4e6 == pytest.approx(54.6e-3, abs=1e-4)
    parts = np.fromfile(path, "<i2").reshape(-1, 2) / 32768
    np.testing.assert_array_equal(samples, parts[:, 0] + 1j * parts[:, 1])
