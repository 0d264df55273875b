"""Runs in worker processes, as a user starts them."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import moving_blocks
import pytest
import zmq
from splits import run_alone

from pipeline.flow import Flow
from pipeline.frame import Frame, Kind
from pipeline.supervisor import Outcome, Supervisor
from pipeline.transport.sockets import CurveKeys, connect, data_socket
from pipeline.wire import FRAME_CAP, Codec

pytestmark = pytest.mark.usefixtures("register")
register = moving_blocks.register

BLOCKS = Path(moving_blocks.__file__)


@pytest.fixture
def supervisor(monkeypatch):
    """Makes supervisors whose folders are removed afterwards."""
    place = Path(tempfile.mkdtemp(prefix="kalvit"))  # short: paths of sockets are
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    yield lambda flow: Supervisor(flow.check(), runs=place / "runs", block_files=[BLOCKS])
    assert list((place / "kalvit").iterdir()) == []  # neither sockets nor locks
    shutil.rmtree(place)


def chain(frames: int = 50, **source) -> Flow:
    flow = Flow("chain", seed=5)
    flow.add("numbers", "source.numbers", frames=frames, lengths=[3, 0, 70], **source)
    flow.add("a", "frontend.sum", writes={"y": "summed"})
    flow.add("b", "detector.later", reads={"x": "summed"}, writes={"y": "decided"}, lag=90)
    flow.add("end", "sink.journal", reads={"x": "x", "y": "decided"})
    return flow


def same(outcome: Outcome, flow: Flow) -> bool:
    """Whether a run gave what the same flow gives in one worker."""
    alone = run_alone(flow.check())["results"]
    return json.loads(json.dumps(outcome.summary["results"])) == json.loads(json.dumps(alone))


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def test_processes_give_what_one_worker_gives(supervisor):
    flow = chain(gaps=[9], keys=["left", "right"])
    flow.connect("numbers -> a -> b -> end")
    flow.assign("one", ["numbers", "b"])
    flow.assign("two", ["a"])
    outcome = supervisor(flow).run()
    assert (outcome.code, outcome.errors) == (0, [])
    assert same(outcome, flow)
    assert json.loads((outcome.folder / "summary.json").read_text())["frames"] == 100
    for edge in outcome.summary["edges"].values():
        assert (edge["lost"], edge["dropped"]) == (0, 0)


def test_edges_over_tcp_ignore_strangers_and_carry_the_same(supervisor):
    ports = free_ports(2)
    endpoints = [f"tcp://127.0.0.1:{port}" for port in ports]
    flow = chain(frames=300, rate=400.0)
    flow.connect("numbers -> a", via=endpoints[0])
    flow.connect("a -> b", via=endpoints[1])
    flow.connect("b -> end")
    flow.assign("one", ["a"])
    flow.assign("two", ["b"])
    boss = supervisor(flow)
    done = threading.Event()
    tried = []

    def disturb() -> None:
        context = zmq.Context()
        strangers = []
        for endpoint in endpoints:
            for keys in (None, CurveKeys.new()):
                strangers.append(data_socket(context, FRAME_CAP))
                connect(strangers[-1], endpoint, keys)
        frame = b"".join(Codec().encode(Frame(Kind.END, "main", 1, 0, 0, {}, {})))
        while not done.is_set():
            for port in ports:
                for words in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" + bytes(64), bytes(5000)):
                    try:
                        with socket.create_connection(("127.0.0.1", port), timeout=0.2) as raw:
                            raw.sendall(words)
                            tried.append(port)
                    except OSError:
                        time.sleep(0.01)  # not up yet, or not any more
            for stranger in strangers:
                with suppress(zmq.Again):  # it never gets a connection that carries anything
                    stranger.send(frame, zmq.NOBLOCK)
                    stranger.send(b"", zmq.NOBLOCK)
        context.destroy(linger=0)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        outcome = boss.run()
    finally:
        done.set()
        thread.join()
    assert (outcome.code, outcome.errors) == (0, [])
    assert set(tried) == set(ports)
    assert same(outcome, flow)
    for edge in outcome.summary["edges"].values():
        assert edge["lost"] == 0
        assert "refused" not in edge


@pytest.mark.parametrize("place", ["between", "learned"])
def test_a_circle_over_several_workers_that_cannot_go_on_ends_with_what_to_do(supervisor, place):
    flow = Flow("learning", seed=2)
    flow.add("numbers", "source.numbers", frames=50)
    flow.add("learned", "detector.learned")
    flow.add("between", "detector.later", writes={"y": "z"}, lag=7)
    flow.add("trainer", "trainer.counting")
    flow.connect("numbers -> learned -> between -> trainer")
    flow.feedback("trainer ~> learned", delay=1)
    flow.assign("rx", [place])
    flow.assign("learn", ["trainer"])
    began = time.monotonic()
    outcome = supervisor(flow).run()
    assert time.monotonic() - began < 60.0
    assert outcome.code == 2
    assert outcome.errors == [
        "learned: frame 2 waits for the weights after frame 1, which between holds back; set the "
        "delay of the feedback edge above 1, or shorten the decision delay between learned and "
        "its trainer"
    ]


def test_a_feedback_over_processes_keeps_its_delay(supervisor):
    flow = Flow("learning", seed=2)
    flow.add("numbers", "source.numbers", frames=40, lengths=[3])
    flow.add("learned", "detector.learned")
    flow.add("end", "sink.journal", reads={"x": "x", "y": "y"})
    flow.add("trainer", "trainer.counting", every=3)
    flow.connect("numbers -> learned -> end")
    flow.tap("learned -> trainer")
    flow.feedback("trainer ~> learned", delay=2)
    flow.assign("learn", ["trainer"])
    outcome = supervisor(flow).run()
    assert (outcome.code, outcome.errors) == (0, [])
    versions = [e[3].get("learned.version", 0) for e in outcome.summary["results"]["end"]["log"]]
    assert versions == [max((n - 2) // 3 * 3, 0) for n in range(1, 41)]
    assert outcome.summary["models"]["learned"]["version"] == 39
    assert same(outcome, flow)
