"""A run that is told to stop processes what is under way, however long that takes."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from running import Running

from pipeline import catalogue
from pipeline.block import Block
from pipeline.flow import Flow
from pipeline.supervisor import Patience

BLOCKS = Path(__file__).parents[1] / "fault_blocks.py"


@pytest.fixture
def place(monkeypatch):
    """A folder of one's own, and the blocks known for one test."""
    folder = Path(tempfile.mkdtemp(prefix="kalvit"))  # short: paths of sockets are
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.delenv("KALVIT_RUNS", raising=False)
    monkeypatch.setattr(catalogue, "_files", {})
    monkeypatch.setattr(Block, "registry", dict(Block.registry))
    catalogue.load_file(BLOCKS)
    yield folder
    shutil.rmtree(folder)


def test_a_stop_waits_while_frames_move(place):
    """A backlog of two seconds in the edge, and half a second of patience."""
    flow = Flow("slow")
    flow.add("source", "source.fault", frames=2000, bytes=16)
    flow.add("count", "sink.fault", pause=1e-3)
    flow.connect("source -> count")
    flow.assign("end", ["count"])
    patience = Patience(stop=0.5)
    outcome = Running(flow, [BLOCKS], until=1, watched="count", patience=patience).stop()
    assert (outcome.code, outcome.errors) == (0, [])
    assert outcome.summary["results"]["count"]["frames"] == outcome.summary["frames"] > 1000
