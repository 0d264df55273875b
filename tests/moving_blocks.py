"""Small blocks for tests of runs: they remember, hold back, cut anew, learn and write down.

`register` puts them into the registry for one test; workers load this file as a user's own.
"""

from __future__ import annotations

import hashlib
import time
from typing import Annotated, NamedTuple

import numpy as np
import pytest
from jaxtyping import Float64, Int64

from pipeline.block import Block, Field, Gap, Learned, Reframe, Sink, Source, Trainer, param
from pipeline.errors import WeightsError
from pipeline.flow import Flow
from pipeline.frame import Array, FrameInfo, StreamInfo
from pipeline.weights import Weights

Numbers = Float64[Array, "time"]


class Made(NamedTuple):
    x: Annotated[Numbers, Field("numbers made of the seed and of their place")]
    place: Annotated[Int64[Array, "time"], Field("how many numbers came before", truth=True)]


class MakeNumbers(Source, name="source.numbers"):
    """Random numbers in frames of given lengths, with gaps, in one or several streams."""

    frames: int = param(default=8, at_least=0, doc="frames of the first stream")
    more: int = param(default=0, doc="frames that each further stream has more")
    lengths: tuple[int, ...] = param(default=(3,), items_at_least=1, doc="of the frames, in turn")
    gaps: tuple[int, ...] = param(default=(), doc="frames that follow a gap of 5 samples")
    keys: tuple[str, ...] = param(default=("main",), doc="of the streams")

    def streams(self):
        return self.keys

    def describe(self):
        return StreamInfo(rate_hz=100.0, format=self.context.stream)

    def start(self):
        self.closed = False
        self.made = self.sample = 0
        self.due = list(self.gaps)
        self.total = self.frames + self.more * self.keys.index(self.context.stream)
        self.noise = self.draws("numbers", lambda rng, n: rng.standard_normal(n))

    def process(self) -> Made | Gap | None:
        if self.made == self.total:
            return None
        if self.made in self.due:
            self.due.remove(self.made)
            self.sample += 5
            return Gap(5)
        length = self.lengths[self.made % len(self.lengths)]
        self.made += 1
        first, self.sample = self.sample, self.sample + length
        return Made(self.noise.take(first, length), np.arange(first, first + length))

    def frames_left(self):
        return self.total - self.made

    def close(self):
        assert not self.closed
        self.closed = True


class Summed(NamedTuple):
    y: Annotated[Numbers, Field("sum of all that came since the start")]


class Sum(Block, name="frontend.sum"):
    """Remembers: a gap, and only a gap, must make it start over."""

    factor: float = param(default=1.0, doc="of the sum")

    def start(self):
        self.sum = 0.0

    def process(self, x: Numbers) -> Summed:
        sums = self.sum + np.cumsum(x)
        self.sum = float(sums[-1]) if x.size else self.sum
        return Summed(sums * self.factor)


class Later(Block, name="detector.later"):
    """Sums likewise, but answers a frame only when `lag` more samples have come."""

    lag: int = param(default=4, at_least=0, unit="samples", doc="decision delay")

    def start(self):
        self.sum = 0.0
        self.waiting = []

    def process(self, x: Numbers) -> list[Summed]:
        self.waiting.append(Summed(self.sum + np.cumsum(x)))
        self.sum += float(x.sum())
        count = 0
        after = sum(frame.y.size for frame in self.waiting)
        for frame in self.waiting:
            after -= frame.y.size
            if after < self.lag:
                break
            count += 1
        ready, self.waiting = self.waiting[:count], self.waiting[count:]
        return ready

    def finish(self):
        ready, self.waiting = self.waiting, []
        return ready


class Cut(Reframe, name="frontend.recut"):
    """Cuts into frames of one length; the last before a gap or the end is shorter."""

    length: int = param(default=4, at_least=1, unit="samples", doc="of a frame")

    def start(self):
        self.rest = np.empty(0)

    def process(self, x: Numbers) -> list[Summed]:
        whole = np.concatenate([self.rest, x])
        stop = whole.size // self.length * self.length
        self.rest = whole[stop:]
        return [Summed(part.copy()) for part in whole[:stop].reshape(-1, self.length)]

    def finish(self):
        rest, self.rest = self.rest, np.empty(0)
        return [Summed(rest)] if rest.size else []


class Raises(Block, name="frontend.raises"):
    at: int = param(default=3, doc="seq at which it gives up")
    where: str = param(default="process", doc="the method that raises")

    def start(self):
        if self.where == "start":
            raise ValueError("no more")

    def process(self, x: Numbers, info: FrameInfo) -> Summed:
        if self.where == "process" and info.seq == self.at:
            raise ValueError("no more")
        return Summed(x.copy())

    def finish(self):
        if self.where == "finish":
            raise ValueError("no more")
        return []


class Two(Block, name="detector.two"):
    """Reads what nobody writes."""

    def process(self, x: Numbers, w: Numbers) -> Summed:
        return Summed(x + w)


class Peeks(Block, name="detector.peeks"):
    """Reads truth."""

    def process(self, place: Int64[Array, "time"]) -> Summed:
        return Summed(place * 1.0)


class Other(NamedTuple):
    other: Annotated[Numbers, Field("not what is asked for")]


class Mute(Block, name="detector.mute"):
    """Writes another field."""

    def process(self, x: Numbers) -> Other:
        return Other(x.copy())


class Whole(NamedTuple):
    y: Annotated[Int64[Array, "time"], Field("whole numbers")]


class Rounds(Block, name="detector.whole"):
    """Writes another dtype."""

    def process(self, x: Numbers) -> Whole:
        return Whole(x.astype(np.int64))


class Early(Block, name="detector.early"):
    """Fails on every frame."""

    def process(self, x: Numbers) -> Summed:
        raise KeyError("not yet")


class Extra(Block, name="detector.extra"):
    """Reads a field that others do without, and writes one more."""

    def process(self, x: Numbers, summed: Numbers) -> Both:
        return Both(x + summed, x - summed)


class Both(NamedTuple):
    y: Annotated[Numbers, Field("x plus the sums")]
    more: Annotated[Numbers, Field("x minus the sums")]


class Journal(Sink, name="sink.journal"):
    """Writes down every frame: stream, seq, sample, marks, and a digest of what it reads."""

    def start(self):
        self.log = []
        self.opened = []
        self.finished = 0

    def open(self, stream, info):
        self.opened.append([stream, info.rate_hz, info.format])

    def process(
        self,
        x: Numbers,
        y: Numbers | None = None,
        place: Int64[Array, "time"] | None = None,
        info: FrameInfo = FrameInfo(),
    ) -> None:
        digests = [
            "" if array is None else hashlib.sha256(array.tobytes()).hexdigest()[:8]
            for array in (x, y, place)
        ]
        marks = {name: info.marks[name] for name in sorted(info.marks)}
        self.log.append([info.stream, info.seq, info.sample, marks, x.size, *digests])

    def finish(self):
        self.finished += 1

    def report(self, folder):
        if not self.finished:  # a status must not cost the more the longer a run lasts
            return {"frames": len(self.log)}
        whole = sorted(self.log, key=lambda entry: entry[:2])
        return {"log": whole, "opened": sorted(self.opened), "finished": self.finished}


class Decided(NamedTuple):
    y: Annotated[Numbers, Field("x times the gain that was learned")]


class LearnedGain(Learned, name="detector.learned"):
    """Multiplies by a gain; 0 until weights come."""

    def start(self):
        self.gain = 0.0

    def take(self, weights):
        if weights.name != "gain":
            raise WeightsError(f"weights {weights.name!r} are no gain")
        if weights.arrays["gain"].shape != ():
            raise WeightsError(f"a gain of shape {weights.arrays['gain'].shape}")
        self.gain = float(weights.arrays["gain"])

    def process(self, x: Numbers) -> Decided:
        return Decided(x * self.gain)


class Counting(Trainer, name="trainer.counting"):
    """After the frame with seq n emits a gain of n as version n, or nothing."""

    every: int = param(default=1, at_least=1, doc="emits after frames whose seq it divides")
    wrong_name: tuple[int, ...] = param(default=(), doc="seqs after which the name is another")
    wrong_shape: tuple[int, ...] = param(default=(), doc="seqs after which the shape is another")
    wrong_result: int = param(default=0, doc="seq after which it returns no weights")
    hangs: int = param(default=0, doc="seq after which it never returns")

    def start(self):
        self.seqs = []

    def process(self, x: Numbers, info: FrameInfo) -> Weights | None:
        self.seqs.append(info.seq)
        while info.seq == self.hangs:
            time.sleep(1.0)
        if info.seq == self.wrong_result:
            return 5
        if info.seq % self.every:
            return None
        gain = np.zeros(2) if info.seq in self.wrong_shape else np.array(float(info.seq))
        name = "other" if info.seq in self.wrong_name else "gain"
        return Weights(name, info.seq, {"gain": gain}, parent=info.seq - 1, labels="pilots")

    def report(self, folder):
        return {"seqs": self.seqs}


CLASSES = {
    cls.name: cls
    for cls in list(globals().values())
    if isinstance(cls, type) and issubclass(cls, Block) and cls.__module__ == __name__
}


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make these blocks known for one test."""
    for name, cls in CLASSES.items():
        monkeypatch.setitem(Block.registry, name, cls)


if not __name__.startswith("moving_blocks_"):  # a worker loads the file under such a name
    for _name in CLASSES:
        del Block.registry[_name]


def chain(**source) -> Flow:
    """A flow of late answers, and of gaps and several streams if the source is told so."""
    flow = Flow("chain", seed=5)
    flow.add("numbers", "source.numbers", **{"frames": 20, "lengths": [3, 0, 7, 1], **source})
    flow.add("a", "frontend.sum", writes={"y": "summed"})
    flow.add("b", "detector.later", reads={"x": "summed"}, writes={"y": "decided"}, lag=5)
    flow.add("c", "frontend.sum", reads={"x": "decided"}, writes={"y": "last"}, factor=0.5)
    flow.add("end", "sink.journal", reads={"x": "x", "y": "last"})
    flow.connect("numbers -> a -> b -> c -> end")
    return flow
