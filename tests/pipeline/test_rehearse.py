"""The frame of zeros that blocks process before the first real one."""

from typing import Annotated, NamedTuple

import numpy as np
import pytest
from jaxtyping import Float32, Int8

from pipeline.block import Block, Field, Sink, Source
from pipeline.flow import Flow
from pipeline.frame import Array, StreamInfo
from pipeline.local import run
from pipeline.rehearse import rehearse

SEEN: list[tuple[str, tuple[int, ...], bool]] = []  # block, shape, whether only zeros

RATES: list[float] = []  # that instances of Counts were told


class Started(NamedTuple):
    samples: Annotated[Float32[Array, "word time"], Field("ones")]


class Ones(Source, name="source.ones"):
    def describe(self) -> StreamInfo:
        return StreamInfo(rate_hz=8.0)

    def start(self) -> None:
        self._left = 2

    def process(self) -> Started | None:
        self._left -= 1
        SEEN.append(("source", (), False))
        return Started(np.ones((3, 5), np.float32)) if self._left >= 0 else None


class Counted(NamedTuple):
    counts: Int8[Array, "word 2"]


class Counts(Block, name="frontend.counts"):
    """Counts its calls; refuses zeros if it is told so."""

    def start(self) -> None:
        self._calls = 0
        RATES.append(self.context.info.rate_hz)

    def process(self, samples: Float32[Array, "word time"]) -> list[Counted]:
        self._calls += 1
        SEEN.append(("counts", samples.shape, not samples.any()))
        assert not samples.flags.writeable
        if not samples.any():
            np.log(samples) / samples  # warnings are not heard
            raise ZeroDivisionError("by design")
        return [Counted(np.full((samples.shape[0], 2), self._calls, np.int8))]


class Last(Sink, name="sink.last"):
    def process(self, counts: Int8[Array, "word 2"]) -> None:
        SEEN.append(("sink", counts.shape, not counts.any()))
        self._last = counts

    def report(self, folder):
        return {"last": int(self._last.max())}


CLASSES = (Ones, Counts, Last)
for cls in CLASSES:
    del Block.registry[cls.name]


@pytest.fixture
def flow(monkeypatch):
    for cls in CLASSES:
        monkeypatch.setitem(Block.registry, cls.name, cls)
    SEEN.clear()
    RATES.clear()
    flow = Flow("toy")
    for name, cls in zip(("source", "counts", "sink"), CLASSES, strict=True):
        flow.add(name, cls.name)
    flow.connect("source -> counts -> sink")
    return flow


def test_blocks_see_one_frame_of_zeros_and_sources_and_sinks_none(flow):
    rehearse(flow.check(), "main")
    assert SEEN == [("counts", (1, 64), True)]


def test_blocks_rehearse_with_the_rate_that_their_source_tells_before_it_starts(flow):
    rehearse(flow.check(), "main")
    assert RATES == [8.0]


def test_only_the_blocks_of_the_worker_rehearse(flow):
    flow.assign("rx", ["counts"])
    rehearse(flow.check(), "main")
    assert SEEN == []


@pytest.mark.filterwarnings("error")
def test_a_rehearsal_that_fails_is_not_heard_of_and_leaves_no_trace(flow):
    assert run(flow)["results"]["sink"] == {"last": 2}
    assert [seen for seen in SEEN if seen[0] == "counts"] == [
        ("counts", (1, 64), True), ("counts", (3, 5), False), ("counts", (3, 5), False),
    ]  # fmt: skip
