"""Samples and tags go to GNU Radio and come from it, bit for bit, by all three patterns."""

import json
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from zmq_sides import free_address, raw_tag

from blocks.formats import pmt
from blocks.sink.zeromq_stream import ZeromqStream as Sink
from blocks.source.zeromq_stream import ZeromqStream as Source
from pipeline.block import Context, Gap, Silence
from pipeline.frame import FrameInfo, StreamInfo

SIDE = Path(__file__).with_name("gnuradio_side.py")
DEBIAN = shutil.which("python3", path="/usr/bin")  # the Python that Debian's packages are for
KEY, PERIOD, ITEMS, MARKED = "kalvit", 10_000, 20_000, [7, 5007, 9999]  # as there
RADIO = StreamInfo(rate_hz=2e6, centre_hz=1.09e9, epoch_utc_ns=1_700_000_000_250_000_000)
LENGTH = 700


def send(pattern, address, enough):
    """Send numbered items with a tag in each frame: as many as are taken, by pub until enough."""
    sink = Sink(
        address=address, pattern=pattern, pass_tags=True, when_full="wait", linger_s=1.0,
        key=KEY if pattern == "pub" else "",
    )  # fmt: skip
    sink.context = Context("air")
    sink.start()
    sink.open("main", RADIO)
    at = 0
    while not enough.is_set() if pattern == "pub" else at < ITEMS:
        stop = at + LENGTH if pattern == "pub" else min(at + LENGTH, ITEMS)
        items = np.arange(at, stop).astype(np.complex64)
        marked = np.frombuffer(raw_tag("mark", at + 3), np.uint8)
        sink.process(items, np.array([at + 3]), marked, FrameInfo(sample=at))
        at = stop
    sink.finish()


def take(pattern, address):
    """Twenty frames of numbered items, their tags, and what the stream is."""
    source = Source(
        address=address, pattern=pattern, pass_tags=True, length=LENGTH, frames=40,
        key=KEY if pattern == "sub" else "",
    )  # fmt: skip
    source.start()
    items, tags = [], []
    while (found := source.process()) is not None:
        assert not isinstance(found, Gap)
        if isinstance(found, Silence):
            continue
        at, raw = 0, found.tags.tobytes()
        for sample in found.tag_sample.tolist():
            key, at = pmt.loads(raw, at)
            value, at = pmt.loads(raw, at)
            setter, at = pmt.loads(raw, at)
            assert setter == "radio"
            tags.append((sample, key, value))
        items.append(found.samples)
    info = source.describe()
    source.close()
    return np.concatenate(items), tags, info


@pytest.fixture(scope="module")
def gnu_radio(tmp_path_factory):
    """What came from GNU Radio, by our pattern, and what it took, by its own."""
    asked = DEBIAN and subprocess.run(
        [DEBIAN, "-c", "from gnuradio import zeromq"], capture_output=True, timeout=60, check=False
    )
    if not asked or asked.returncode:
        pytest.skip("GNU Radio is not installed (Debian's package gnuradio)")
    folder = tmp_path_factory.mktemp("gnuradio")
    ends = {
        "sinks": {pattern: free_address() for pattern in ("push", "pub", "rep")},
        "sources": {pattern: free_address() for pattern in ("pull", "sub", "req")},
    }
    enough = threading.Event()
    came = {}
    threads = [
        threading.Thread(target=send, args=(ours, ends["sources"][theirs], enough), daemon=True)
        for ours, theirs in (("push", "pull"), ("pub", "sub"), ("rep", "req"))
    ] + [
        threading.Thread(
            target=lambda ours=ours, theirs=theirs: came.update(
                {ours: take(ours, ends["sinks"][theirs])}
            ),
            daemon=True,
        )
        for ours, theirs in (("pull", "push"), ("sub", "pub"), ("req", "rep"))
    ]
    for thread in threads:
        thread.start()
    command = [DEBIAN, str(SIDE), str(folder), json.dumps(ends)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    watchdog = threading.Timer(60.0, process.kill)
    watchdog.start()
    try:
        said = process.stdout.readline()
        enough.set()
        for thread in threads:
            thread.join(20.0)
    finally:
        watchdog.cancel()
        process.kill()
        _, errors = process.communicate()
    assert said == "done\n", errors[-2000:]
    assert not any(thread.is_alive() for thread in threads)
    taken = {pattern: np.load(folder / f"{pattern}.npy") for pattern in ends["sources"]}
    return came, taken, json.loads((folder / "tags.json").read_text())


@pytest.mark.parametrize("pattern", ["pull", "sub", "req"])
def test_samples_and_tags_come_from_gnu_radio(gnu_radio, pattern):
    samples, tags, info = gnu_radio[0][pattern]
    first = int(samples[0].real)  # of sub: where it came in
    expected = ((first + np.arange(40 * LENGTH)) % PERIOD).astype(np.complex64)
    assert samples.tobytes() == expected.tobytes()
    marks = [(sample, value) for sample, key, value in tags if key == "mark"]
    assert [value for _, value in marks] == [
        at % PERIOD for at in range(first, first + 40 * LENGTH) if at % PERIOD in MARKED
    ]
    assert all(samples[sample] == value for sample, value in marks)
    if pattern != "sub":
        assert first == 0
        assert (info.rate_hz, info.centre_hz) == (RADIO.rate_hz, RADIO.centre_hz)
        assert info.epoch_utc_ns == RADIO.epoch_utc_ns
        # GNU Radio repeats its tags with its items; the first ones are the description
        again = [(sample, key) for sample, key, _ in tags if key.startswith("rx_")]
        assert [sample for sample, key in again if key == "rx_freq"] == [PERIOD, 2 * PERIOD]
        assert len(again) == 6


@pytest.mark.parametrize("pattern", ["pull", "sub", "req"])
def test_gnu_radio_takes_samples_and_tags(gnu_radio, pattern):
    samples, tags = gnu_radio[1][pattern], gnu_radio[2][pattern]
    first = int(samples[0].real)
    expected = np.arange(first, first + ITEMS).astype(np.complex64)
    assert samples.tobytes() == expected.tobytes()
    marks = [(offset, value) for offset, key, value in tags if key == "mark"]
    assert len(marks) in (ITEMS // LENGTH, ITEMS // LENGTH + 1)
    assert all(samples[offset] == value for offset, value in marks)
    described = {key: (offset, value) for offset, key, value in tags if key != "mark"}
    if pattern != "sub":
        assert first == 0
        assert described == {
            "rx_rate": (0, 2e6), "rx_freq": (0, 1.09e9), "rx_time": (0, [1_700_000_000, 0.25]),
        }  # fmt: skip
