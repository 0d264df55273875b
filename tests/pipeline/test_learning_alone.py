"""A worker that only learns may die: the flow goes on, loses nothing, and says so."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

import moving_blocks
import pytest
from running import Running

from pipeline.control import ask
from pipeline.flow import Flow
from pipeline.supervisor import Patience

pytestmark = pytest.mark.usefixtures("register")
register = moving_blocks.register

BLOCKS = Path(moving_blocks.__file__)


@pytest.fixture(autouse=True)
def place(monkeypatch):
    """A folder of one's own."""
    folder = Path(tempfile.mkdtemp(prefix="kalvit"))  # short: paths of sockets are
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.delenv("KALVIT_RUNS", raising=False)
    yield folder
    shutil.rmtree(folder)


def learning(delay: int | str = "live", frames: int = 1_000_000, **trainer) -> Flow:
    """Three workers: source and sink, receiver, trainer."""
    flow = Flow("learning", seed=4)
    flow.add("numbers", "source.numbers", frames=frames, rate=500.0)
    flow.add("learned", "detector.learned")
    flow.add("end", "sink.journal", reads={"x": "x", "y": "y"})
    flow.add("trainer", "trainer.counting", **trainer)
    flow.connect("numbers -> learned -> end")
    flow.tap("learned -> trainer")
    flow.feedback("trainer ~> learned", delay=delay)
    flow.assign("rx", ["learned"])
    flow.assign("learn", ["trainer"])
    return flow


def kill(running: Running) -> None:
    workers = ask(running.endpoint, {"verb": "status"})["workers"]
    os.kill(workers["learn"], signal.SIGKILL)


@pytest.mark.parametrize("ends", ["by itself", "when told"])
def test_a_killed_trainer_costs_no_frame(ends):
    frames = 700 if ends == "by itself" else 1_000_000
    running = Running(learning(frames=frames), [BLOCKS], until=100)
    kill(running)
    if ends == "by itself":
        outcome = running.end()
    else:
        running.wait_for(running.frames + 300)
        assert "worker learn was ended by SIGKILL" in running.status()["warnings"][0]
        outcome = running.stop()
    assert (outcome.code, outcome.errors) == (0, [])
    (warning,) = outcome.summary["warnings"]
    assert warning.startswith("worker learn was ended by SIGKILL; its output is in ")
    assert warning.endswith("; the flow goes on, and learn learns no more")
    assert warning in (outcome.folder / "log").read_text()
    log = outcome.summary["results"]["end"]["log"]
    assert [entry[1] for entry in log] == list(range(1, len(log) + 1))
    assert len(log) == outcome.summary["frames"] >= 300
    versions = [entry[3].get("learned.version", 0) for entry in log]
    assert versions == sorted(versions)
    last = versions[-1]
    assert 0 < last < len(log) - 200
    assert versions[-200:] == [last] * 200  # the newest weights serve on
    assert outcome.summary["edges"]["learned->end"]["lost"] == 0
    assert outcome.summary["models"]["learned"]["version"] == last


def test_a_trainer_that_raises_is_named_and_the_flow_goes_on():
    outcome = Running(learning(frames=400, wrong_result=50), [BLOCKS]).end()
    assert (outcome.code, outcome.errors) == (0, [])
    (warning,) = outcome.summary["warnings"]
    assert warning.startswith("trainer raised FieldError on main:50: process returned int")
    (kept,) = (outcome.folder / "errors").iterdir()
    assert "process returned int" in kept.read_text()
    assert len(outcome.summary["results"]["end"]["log"]) == 400


def test_a_trainer_that_hangs_does_not_hold_up_a_stop():
    running = Running(learning(hangs=50), [BLOCKS], until=200, patience=Patience(stop=0.5))
    outcome = running.stop()
    assert (outcome.code, outcome.errors) == (0, [])
    (warning,) = outcome.summary["warnings"]
    assert warning.startswith("worker learn did not stop and was killed; the flow goes on")
    log = outcome.summary["results"]["end"]["log"]
    assert [entry[1] for entry in log] == list(range(1, len(log) + 1))
    assert len(log) == outcome.summary["frames"]


def test_a_trainer_that_is_waited_for_ends_the_run_when_it_dies():
    running = Running(learning(delay=2), [BLOCKS], until=50)
    kill(running)
    outcome = running.end()
    assert outcome.code == 1
    assert "worker learn was ended by SIGKILL" in outcome.errors[0]
    assert outcome.summary["warnings"] == []


def test_a_flow_can_spare_only_a_worker_that_learns_from_taps():
    plan = learning().check()
    assert [plan.dispensable(worker) for worker in plan.workers] == [False, False, True]
    assert not learning(delay=2).check().dispensable("learn")
    beside = learning()
    beside.add("more", "sink.journal")
    beside.tap("learned -> more")
    beside.assign("learn", ["trainer", "more"])
    assert not beside.check().dispensable("learn")
    fed = learning()
    fed.edges = [edge for edge in fed.edges if edge.kind != "tap"]
    fed.connect("learned -> trainer")
    assert not fed.check().dispensable("learn")
