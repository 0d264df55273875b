import errno
import io
import json
import os
import resource
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest
import sigmf

from blocks.sink import recording
from blocks.sink.recording import Recording
from blocks.source import recording as source
from pipeline.block import Context, Gap
from pipeline.errors import ParameterError, RunError
from pipeline.frame import FrameInfo, StreamInfo
from pipeline.instance import drive

ROOT = Path(__file__).parents[3]
RADIO = StreamInfo(rate_hz=2e6, epoch_utc_ns=1_763_640_000_123_456_789, centre_hz=1090e6)


def make(path, info=RADIO, streams=("main",), **options):
    block = Recording(path=str(path), **options)
    block.context = Context(name="tape", stream="")
    block.start()
    for stream in streams:
        block.open(stream, info)
    return block


def record(path, frames, info=RADIO, **options):
    """Record frames that follow one another."""
    block = make(path, info, **options)
    sample = 0
    for frame in frames:
        block.process(frame, FrameInfo(sample=sample))
        sample += frame.size
    block.finish()
    return block


def play(path, **options):
    block = source.Recording(path=str(path), **options)
    block.start()
    items = []
    while (item := block.process()) is not None:
        items.append(item if isinstance(item, Gap) else item.samples)
    block.close()
    return items


def metadata(path):
    return json.loads(Path(f"{path}.sigmf-meta").read_text())


def checked_by_sigmf(path):
    """The recording as the sigmf library sees it: valid, hash right, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        file = sigmf.sigmffile.fromfile(f"{path}.sigmf-meta")
        file.validate()
    return file


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def noise(dtype, *shape):
    rng = np.random.default_rng(5)
    if dtype == "int8":
        return rng.integers(-128, 128, shape, np.int8)
    samples = rng.standard_normal((*shape, 2)).astype(np.float32)
    return samples.view(np.complex64)[..., 0] if dtype == "complex64" else samples[..., 0]


@pytest.mark.parametrize("dtype", ["float32", "complex64", "int8"])
def test_the_sigmf_library_accepts_a_recording_and_reads_its_samples(tmp_path, dtype):
    samples = noise(dtype, 1000)
    record(tmp_path / "a", np.split(samples, [1, 10, 500]))
    assert names(tmp_path) == ["a.sigmf-data", "a.sigmf-meta"]
    file = checked_by_sigmf(tmp_path / "a")
    stored = {"float32": "rf32_le", "complex64": "cf32_le", "int8": "ri8"}[dtype]
    assert file.get_global_field("core:datatype") == stored
    assert file.sample_count == 1000
    expected = samples / np.float32(128) if dtype == "int8" else samples
    np.testing.assert_array_equal(file.read_samples(), expected, strict=True)


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize("length", [1, 333, 4096])
def test_a_recording_plays_back_the_same_bits(tmp_path, dtype, length):
    samples = np.concatenate([noise(dtype, 2000), np.array([np.nan, np.inf, -0.0, 1e-45], dtype)])
    record(tmp_path / "a", np.split(samples, [7, 1000]))
    again = np.concatenate(play(tmp_path / "a", length=length, verify=True))
    assert again.dtype == samples.dtype
    assert again.tobytes() == samples.tobytes()


def test_symbols_play_back_with_the_same_values(tmp_path):
    symbols = noise("int8", 300)
    record(tmp_path / "a", [symbols])
    (again,) = play(tmp_path / "a", scaled=False)
    np.testing.assert_array_equal(again, symbols)


def test_words_are_recorded_one_after_the_other(tmp_path):
    words = noise("float32", 6, 50)
    record(tmp_path / "a", [words[:4], words[4:]])
    (again,) = play(tmp_path / "a")
    assert again.tobytes() == words.tobytes()
    assert len(metadata(tmp_path / "a")["captures"]) == 1


def test_what_is_known_of_the_stream_is_recorded_and_played_back(tmp_path):
    record(tmp_path / "a", [noise("complex64", 10)])
    played = source.Recording(path=str(tmp_path / "a")).describe()
    assert played == StreamInfo(
        rate_hz=RADIO.rate_hz, epoch_utc_ns=RADIO.epoch_utc_ns, centre_hz=RADIO.centre_hz,
        format="sigmf cf32_le", continuous=True, replayable=True,
    )  # fmt: skip
    (capture,) = metadata(tmp_path / "a")["captures"]
    expected = str(np.datetime64(RADIO.epoch_utc_ns, "ns")) + "Z"
    assert capture["core:datetime"] == expected
    assert "tape" in metadata(tmp_path / "a")["global"]["core:description"]


def test_what_is_unknown_of_the_stream_is_left_out(tmp_path):
    record(tmp_path / "a", [noise("float32", 10)], StreamInfo())
    checked_by_sigmf(tmp_path / "a")
    assert "core:sample_rate" not in metadata(tmp_path / "a")["global"]
    assert metadata(tmp_path / "a")["captures"] == [{"core:sample_start": 0}]


def test_a_snipped_stream_stays_snipped(tmp_path):
    record(tmp_path / "a", [noise("float32", 10)], StreamInfo(continuous=False))
    checked_by_sigmf(tmp_path / "a")
    assert not source.Recording(path=str(tmp_path / "a")).describe().continuous


def test_a_gap_begins_a_capture_and_plays_back_as_a_gap(tmp_path):
    samples = noise("complex64", 100)
    block = make(tmp_path / "a")
    block.process(samples[:30], FrameInfo(sample=0))
    block.process(samples[30:50], FrameInfo(sample=30))
    block.process(samples[50:90], FrameInfo(sample=2_000_050))  # one second is missing
    block.process(samples[90:], FrameInfo(sample=2_000_095))
    assert block.report(None)["gaps"] == 2
    block.finish()
    items = play(tmp_path / "a", length=20)
    shapes = [("gap", i.samples) if isinstance(i, Gap) else i.size for i in items]
    assert shapes == [20, 20, 10, ("gap", 2_000_000), 20, 20, ("gap", 5), 10]
    again = np.concatenate([item for item in items if not isinstance(item, Gap)])
    assert again.tobytes() == samples.tobytes()
    file = checked_by_sigmf(tmp_path / "a")
    assert [c["core:sample_start"] for c in file.get_captures()] == [0, 50, 90]
    assert [c.get("core:global_index", 0) for c in file.get_captures()] == [0, 2_000_050, 2_000_095]
    times = [np.datetime64(c["core:datetime"][:-1], "ns").astype(int) for c in file.get_captures()]
    assert times[1] - times[0] == 1_000_025_000  # 2,000,050 samples at 2 MHz
    assert all(c["core:frequency"] == 1090e6 for c in file.get_captures())


def test_a_stream_that_begins_late_keeps_its_time(tmp_path):
    block = make(tmp_path / "a")
    block.process(noise("float32", 10), FrameInfo(sample=2_000_000))
    block.finish()
    assert play(tmp_path / "a")[0].size == 10
    played = source.Recording(path=str(tmp_path / "a")).describe()
    assert played.epoch_utc_ns == RADIO.epoch_utc_ns + 1_000_000_000
    assert block.report(None)["gaps"] == 0


def test_each_stream_has_its_own_pair(tmp_path):
    block = make(tmp_path / "a", streams=("main", "rx2", "../b c"))
    for number in range(3):
        for count, stream in enumerate(("main", "rx2", "../b c")):
            samples = np.full(5, number + 10 * count, np.float32)
            block.process(samples, FrameInfo(stream=stream, sample=5 * number))
    block.finish()
    assert names(tmp_path) == [
        "a...%2Fb%20c.sigmf-data", "a...%2Fb%20c.sigmf-meta", "a.rx2.sigmf-data",
        "a.rx2.sigmf-meta", "a.sigmf-data", "a.sigmf-meta",
    ]  # fmt: skip
    (second,) = play(tmp_path / "a.rx2")
    assert second.tolist() == [10] * 5 + [11] * 5 + [12] * 5


def test_the_report_counts_what_was_recorded(tmp_path):
    block = make(tmp_path / "a")
    block.process(noise("complex64", 500), FrameInfo())
    partial = str(tmp_path / "a.sigmf-data.partial")
    expected = {"samples": 500, "bytes": 4000, "seconds": 250e-6, "gaps": 0}
    assert block.report(None) == {"paths": [partial], **expected}
    block.finish()
    assert block.report(None) == {"paths": [str(tmp_path / "a.sigmf-data")], **expected}
    json.dumps(block.report(tmp_path))


def test_a_stream_without_samples_leaves_no_file(tmp_path):
    block = make(tmp_path / "a")
    block.process(noise("float32", 0), FrameInfo())
    block.finish()
    assert names(tmp_path) == []
    assert block.report(None)["paths"] == []


def test_nothing_bears_the_final_name_before_the_end(tmp_path):
    block = make(tmp_path / "a")
    block.process(noise("float32", 10), FrameInfo())
    assert names(tmp_path) == ["a.sigmf-data.partial"]
    block.finish()
    block.finish()
    assert names(tmp_path) == ["a.sigmf-data", "a.sigmf-meta"]


def test_starting_over_drops_what_was_not_finished(tmp_path):
    block = make(tmp_path / "a")
    block.process(noise("float32", 10), FrameInfo())
    block.start()
    assert names(tmp_path) == []
    block.process(np.ones(3, np.float32), FrameInfo())
    block.finish()
    assert play(tmp_path / "a")[0].tolist() == [1, 1, 1]


def test_a_block_records_without_a_runtime(tmp_path):
    drive(Recording(path=str(tmp_path / "a")), [{"samples": noise("int8", 9)}] * 3)
    assert checked_by_sigmf(tmp_path / "a").sample_count == 27


def test_the_name_may_have_dots_and_an_ending(tmp_path):
    record(tmp_path / "v1.2.sigmf-meta", [noise("float32", 4)])
    assert names(tmp_path) == ["v1.2.sigmf-data", "v1.2.sigmf-meta"]


def test_a_lost_end_is_found_without_reading_the_samples(tmp_path):
    record(tmp_path / "a", [noise("float32", 100)])
    os.truncate(tmp_path / "a.sigmf-data", 396)
    with pytest.raises(ParameterError, match=r"cut short: .* samples up to 100, but it holds 99"):
        source.Recording(path=str(tmp_path / "a"))


# what may stand in the way


def test_an_existing_recording_is_kept_unless_told_otherwise(tmp_path):
    record(tmp_path / "a", [noise("float32", 4)])
    with pytest.raises(ParameterError, match=r"^sink\.recording: .*a\.sigmf-data exists; record"):
        Recording(path=str(tmp_path / "a"))
    record(tmp_path / "a", [np.ones(2, np.float32)], overwrite=True)
    assert play(tmp_path / "a")[0].tolist() == [1, 1]
    checked_by_sigmf(tmp_path / "a")


def test_an_interrupted_overwrite_keeps_the_old_recording(tmp_path):
    record(tmp_path / "a", [np.zeros(4, np.float32)])
    block = make(tmp_path / "a", overwrite=True)
    block.process(np.ones(2, np.float32), FrameInfo())
    assert play(tmp_path / "a")[0].tolist() == [0, 0, 0, 0]


def test_a_recording_that_was_cut_off_is_kept_unless_told_otherwise(tmp_path):
    (tmp_path / "a.sigmf-data.partial").write_bytes(bytes(8))
    with pytest.raises(ParameterError, match=r"partial exists: a recording was cut off"):
        Recording(path=str(tmp_path / "a"))
    record(tmp_path / "a", [np.ones(1, np.float32)], overwrite=True)
    assert names(tmp_path) == ["a.sigmf-data", "a.sigmf-meta"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_two_recordings_cannot_share_a_name(tmp_path, overwrite):
    first = make(tmp_path / "a", overwrite=overwrite)
    second = make(tmp_path / "a", overwrite=overwrite)
    first.process(np.ones(4, np.float32), FrameInfo())
    with pytest.raises(RunError, match=r"another recording is being made|or is being made"):
        second.process(np.zeros(2, np.float32), FrameInfo())
    second.finish()
    first.finish()
    assert play(tmp_path / "a")[0].tolist() == [1, 1, 1, 1]


def test_a_pair_that_appears_during_the_run_is_not_replaced(tmp_path):
    block = make(tmp_path / "a")
    (tmp_path / "a.sigmf-meta").write_text("{}")
    with pytest.raises(RunError, match=r"a\.sigmf-meta exists"):
        block.process(np.ones(4, np.float32), FrameInfo())


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("absent/a", r"there is no folder .*absent; make it first"),
        ("file/a", r"there is no folder .*file"),
        ("folder", r"folder\.sigmf-data is a folder"),
        ("a.sigmf", r"a\.sigmf'; expected a name without ending"),
        ("a/", r"a/'; expected a name without ending"),
        ("a\0b", r"a\\x00b'; expected a name"),
        ("a" * 300, r"cannot record to .*: File name too long"),
    ],
)
def test_a_place_where_nothing_can_be_recorded_is_refused(tmp_path, path, text):
    (tmp_path / "file").touch()
    (tmp_path / "folder.sigmf-data").mkdir()
    with pytest.raises(ParameterError, match=rf"^sink\.recording: .*{text}"):
        Recording(path=f"{tmp_path}/{path}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere; run the tests as a user")
def test_a_folder_without_permission_is_refused(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(ParameterError, match=r"files cannot be made in the folder .*locked"):
        Recording(path=str(tmp_path / "locked" / "a"))


def test_an_empty_path_is_refused():
    with pytest.raises(ParameterError, match="path has 0 characters"):
        Recording(path="")


def test_what_sigmf_cannot_say_is_refused(tmp_path):
    block = make(tmp_path / "a")
    block.process(noise("float32", 10), FrameInfo(sample=0))
    with pytest.raises(RunError, match="begins at sample 5, but the stream was recorded up to 10"):
        block.process(noise("float32", 10), FrameInfo(sample=5))
    with pytest.raises(RunError, match=r"sample rate changes from 2000000\.0 Hz to 1000\.0 Hz"):
        block.open("main", StreamInfo(rate_hz=1000.0))
    block.open("main", RADIO)
    block.finish()
    with pytest.raises(RunError, match="is closed; nothing more can be recorded"):
        block.process(noise("float32", 10), FrameInfo(sample=10))
    assert len(metadata(tmp_path / "a")["captures"]) == 1


def test_a_stream_described_anew_begins_a_capture(tmp_path):
    block = make(tmp_path / "a")
    block.process(noise("float32", 10), FrameInfo(sample=0))
    block.open("main", StreamInfo(rate_hz=2e6, centre_hz=978e6))
    block.process(noise("float32", 10), FrameInfo(sample=10))
    block.finish()
    captures = checked_by_sigmf(tmp_path / "a").get_captures()
    assert [c["core:frequency"] for c in captures] == [1090e6, 978e6]


# a disk that fills up


def test_a_full_disk_is_named_and_the_samples_so_far_are_kept(tmp_path):
    block = make(tmp_path / "a")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    samples = noise("complex64", 1000)
    block.process(samples[:400], FrameInfo(sample=0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (5003, limits[1]))
    try:
        with pytest.raises(
            RunError,
            match=r"cannot write .*a\.sigmf-data\.partial: File too large"
            r"; the 400 samples \(complex64\) recorded so far are kept there",
        ):
            block.process(samples[400:], FrameInfo(sample=400))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    block.finish()
    assert names(tmp_path) == ["a.sigmf-data.partial"]
    (kept,) = play(tmp_path / "a.sigmf-data.partial", format="cf32")
    assert kept.tobytes() == samples[:400].tobytes()
    assert block.report(None)["samples"] == 400


class Disk(io.FileIO):
    """A file on a disk with room for a few bytes, that takes a few at a time."""

    room = 0
    most = 1 << 20
    raises: BaseException = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(self, view):
        if not Disk.room:
            raise Disk.raises
        count = super().write(view[: min(Disk.room, Disk.most)])
        Disk.room -= count
        return count


@pytest.fixture
def disk(monkeypatch):
    monkeypatch.setattr(recording.io, "FileIO", Disk)
    monkeypatch.setattr(Disk, "room", 1 << 20)
    return Disk


@pytest.mark.parametrize("room", [*range(0, 41, 5), 79])
def test_space_that_ends_anywhere_leaves_whole_frames(tmp_path, disk, room):
    disk.room = room
    block = make(tmp_path / "a")
    frames = [np.full(5, number, np.float32) for number in range(4)]
    whole = room // 20
    for number in range(whole):
        block.process(frames[number], FrameInfo(sample=5 * number))
    with pytest.raises(RunError, match="No space left on device"):
        block.process(frames[whole], FrameInfo(sample=5 * whole))
    block.finish()
    kept = (tmp_path / "a.sigmf-data.partial").read_bytes()
    assert kept == np.concatenate(frames)[: whole * 5].tobytes()
    assert names(tmp_path) == ["a.sigmf-data.partial"]


def test_writes_that_come_up_short_are_continued(tmp_path, disk, monkeypatch):
    monkeypatch.setattr(disk, "most", 3)
    samples = noise("complex64", 50)
    record(tmp_path / "a", [samples[:20], samples[20:]])
    assert play(tmp_path / "a", verify=True)[0].tobytes() == samples.tobytes()


def test_an_interrupted_write_leaves_the_frames_before_it(tmp_path, disk, monkeypatch):
    block = make(tmp_path / "a")
    samples = noise("float32", 20)
    block.process(samples[:10], FrameInfo(sample=0))
    disk.room = 7
    monkeypatch.setattr(disk, "raises", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        block.process(samples[10:], FrameInfo(sample=10))
    block.finish()
    checked_by_sigmf(tmp_path / "a")
    assert play(tmp_path / "a", verify=True)[0].tobytes() == samples[:10].tobytes()


def test_a_disk_without_room_for_the_metadata_keeps_the_samples(tmp_path, monkeypatch):
    block = make(tmp_path / "a")
    block.process(np.ones(4, np.float32), FrameInfo())

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(recording.Path, "write_text", full)
    with pytest.raises(RunError, match=r"cannot finish .*: No space left.*4 samples .*partial"):
        block.finish()
    assert names(tmp_path) == ["a.sigmf-data.partial"]
    (kept,) = play(tmp_path / "a.sigmf-data.partial", format="f32")
    assert kept.tolist() == [1, 1, 1, 1]


KILLED = """
    import os, signal, sys
    import numpy as np
    from blocks.sink.recording import Recording
    from pipeline.frame import FrameInfo

    block = Recording(path=sys.argv[1])
    block.start()
    for frame in range(3):
        block.process(np.full(100, frame, np.float32), FrameInfo(sample=100 * frame))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_recording_keeps_its_samples_under_another_name(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "a")]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -9
    assert names(tmp_path) == ["a.sigmf-data.partial"]
    (kept,) = play(tmp_path / "a.sigmf-data.partial", format="f32")
    assert kept.tolist() == [0] * 100 + [1] * 100 + [2] * 100
