"""dump1090-mutability, as Debian has it, fed by our sinks: it shows the same aircraft."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections import Counter
from contextlib import contextmanager
from difflib import SequenceMatcher
from pathlib import Path

import pytest

from pipeline.flow import Flow
from pipeline.local import run

DUMP1090 = shutil.which("dump1090-mutability")
RECORDING = Path(__file__).parents[3] / "shared" / "data" / "modes" / "modes1.bin"

pytestmark = [
    pytest.mark.skipif(
        DUMP1090 is None,
        reason="dump1090-mutability is not installed; `make test-peers` does it on Debian",
    ),
    pytest.mark.skipif(not RECORDING.exists(), reason="the shared recordings are not here"),
]

KINDS = 1  # fields of a line
ADDRESS, CALLSIGN, ALTITUDE, SPEED, TRACK, LATITUDE, LONGITUDE = 4, 10, 11, 12, 13, 14, 15
CLIMB, SQUAWK, ALERT, EMERGENCY, IDENTIFIED, ON_GROUND = 16, 17, 18, 19, 20, 21


def free_port():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        return holder.getsockname()[1]


def reached(port):
    """A connection to a port that opens soon."""
    deadline = time.monotonic() + 20.0
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 5)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@contextmanager
def dump1090():
    """Ports of a dump1090 that takes messages: AVR and Beast in; and its BaseStation output."""
    avr, beast, sbs = free_port(), free_port(), free_port()
    process = subprocess.Popen(
        [
            DUMP1090, "--net-only", "--net-bind-address", "127.0.0.1", "--net-ri-port", str(avr),
            "--net-bi-port", str(beast), "--net-sbs-port", str(sbs), "--net-ro-port", "0",
            "--net-bo-port", "0", "--net-http-port", "0", "--quiet",
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with reached(sbs) as out:
            yield avr, beast, out
    finally:
        process.terminate()
        process.wait(10)


def told_by(out, count):
    """The fields of `count` lines, or of those that come until it is silent for a while.

    The peer sends an empty line now and then, to see whether its reader is still there.
    """
    out.settimeout(2.0)
    text = b""
    while text.count(b"MSG") < count or text[-1:] != b"\n":
        try:
            part = out.recv(1 << 16)
        except TimeoutError:
            break
        if not part:
            break
        text += part
    return [line.split(",") for line in text.decode().splitlines() if line]


def decode(sink, folder, **values):
    """Decode the recording into a sink, and into lines of our own; returns the summary, lines."""
    flow = Flow("feed")
    flow.add(
        "tape", "source.recording", path=str(RECORDING), format="cu8", rate_hz=2e6,
        continuous=False,
    )  # fmt: skip
    flow.add("magnitude", "frontend.magnitude")
    flow.add("detector", "detector.modes")
    flow.add("decoder", "decoder.modes")
    flow.add("feed", sink, **values)
    flow.add("lines", "sink.sbs", path=str(folder / "lines"))
    flow.connect("tape -> magnitude -> detector -> decoder -> feed")
    flow.connect("decoder -> lines")
    found = run(flow)
    ours = [line.split(",") for line in (folder / "lines").read_text().splitlines()]
    return found["results"]["feed"], ours


def pairs_of(ours, theirs):
    """Lines that both have, in order: some of ours may be missing there, but for few."""
    keys = [[(line[KINDS], line[ADDRESS], line[ALTITUDE]) for line in told] for told in
            (ours, theirs)]  # fmt: skip
    blocks = SequenceMatcher(None, *keys, autojunk=False).get_matching_blocks()
    return [(ours[a + k], theirs[b + k]) for a, b, size in blocks for k in range(size)]


@pytest.mark.parametrize(
    ("sink", "port", "values"),
    [("sink.avr", 0, {}), ("sink.avr", 0, {"timed": True}), ("sink.beast", 1, {})],
    ids=["avr", "timed avr", "beast"],
)
def test_it_shows_the_aircraft_and_positions_that_we_decode(tmp_path, sink, port, values):
    with dump1090() as (*ports, out):
        server = f"127.0.0.1:{ports[port]}"
        fed, ours = decode(sink, tmp_path, connect=server, linger_s=5.0, **values)
        theirs = told_by(out, len(ours))
    assert fed["sent"] == fed["messages"] >= 350
    assert fed["lost"] == 0
    # an interrogator code that we doubt and it does not believe may be the difference
    assert len(ours) - 10 <= len(theirs) <= len(ours)
    assert {line[ADDRESS] for line in theirs} == {line[ADDRESS] for line in ours} == {"4D2023"}
    pairs = pairs_of(ours, theirs)
    assert len(pairs) == len(theirs)
    compared: Counter[int] = Counter()
    for our, their in pairs:
        for field in (CALLSIGN, ALTITUDE, SQUAWK, ALERT, EMERGENCY, IDENTIFIED, ON_GROUND):
            if their[field]:
                assert our[field] == their[field], (field, our, their)
                compared[field] += 1
        for field in (SPEED, TRACK, CLIMB):  # it rounds down
            if their[field]:
                assert 0 <= float(our[field]) - float(their[field]) <= 1, (field, our, their)
                compared[field] += 1
        for field in (LATITUDE, LONGITUDE):
            if their[field] and our[field]:
                assert float(our[field]) == pytest.approx(float(their[field]), abs=2e-5)
                compared[field] += 1
    assert compared[LATITUDE] >= 80
    assert min(compared[field] for field in (CALLSIGN, SQUAWK, SPEED, TRACK, CLIMB)) >= 5
    assert compared[ALTITUDE] >= 100
