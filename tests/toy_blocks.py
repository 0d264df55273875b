"""Small blocks for tests of flows: `register` puts them into the registry for one test."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import numpy as np
import pytest
from jaxtyping import Complex64, Float32, Int8

from pipeline.block import Block, Field, FieldType, Reframe, Sink, Source, Trainer, param
from pipeline.errors import ParameterError
from pipeline.frame import Array
from pipeline.weights import Weights

SENT = Field("what was sent", truth=True)
SAMPLES = Field("what is received", unit="V")


class Start(NamedTuple):
    sent: Annotated[Int8[Array, "*word time"], SENT]
    samples: Annotated[Float32[Array, "*word time"] | Complex64[Array, "*word time"], SAMPLES]


class ToySource(Source, name="source.toy"):
    """Zeros, as samples and as symbols.

    More text.
    """

    dtype: Literal["float32", "complex64"] = param(default="float32", doc="of the samples")
    words: bool = param(default=False, doc="whether there are words")
    length: int = param(default=4, at_least=1, unit="samples", doc="samples per frame")
    label: str = param(default="", doc="any text")

    def narrow(self, reads):
        dims = "word time" if self.words else "time"
        return {
            "sent": FieldType.of("int8", dims),
            "samples": FieldType.of(self.dtype, dims),
        }

    def process(self) -> Start | None:
        return Start(np.zeros(self.length, np.int8), np.zeros(self.length, self.dtype))


class Coded(NamedTuple):
    coded: Annotated[Int8[Array, "*word time"], SENT]


class ToyEncoder(Block, name="encoder.toy"):
    def process(self, sent: Int8[Array, "*word time"]) -> Coded:
        return Coded(sent.copy())


class Received(NamedTuple):
    received: Annotated[Float32[Array, "*word time"], SAMPLES]


class ToyChannel(Block, name="channel.toy"):
    noise: float = param(default=0.0, at_least=0.0, unit="V^2", doc="noise variance")

    def process(self, sent: Int8[Array, "*word time"]) -> Received:
        return Received(sent.astype(np.float32))


class Scaled(NamedTuple):
    scaled: Annotated[Float32[Array, "*word time"] | Complex64[Array, "*word time"], SAMPLES]


class ToyFrontend(Block, name="frontend.toy"):
    """Samples times a gain."""

    gain: float = param(default=1.0, doc="factor")
    taps: tuple[float, ...] = param(default=(1.0,), items_at_least=1, doc="anything")

    def check(self):
        if self.gain == 13.0:
            raise ParameterError("gain must not be 13")

    def narrow(self, reads):
        return {"scaled": reads["samples"]}

    def process(
        self, samples: Float32[Array, "*word time"] | Complex64[Array, "*word time"]
    ) -> Scaled:
        return Scaled(samples * np.float32(self.gain))


class Cut(NamedTuple):
    samples: Annotated[Float32[Array, "time"], SAMPLES]


class ToyReframe(Reframe, name="frontend.recut"):
    def process(self, samples: Float32[Array, "time"]) -> list[Cut]:
        return [Cut(samples.copy())]


class Decided(NamedTuple):
    symbols: Int8[Array, "*word time"]


class ToyDetector(Block, name="detector.toy"):
    """Signs of the samples."""

    def process(self, samples: Float32[Array, "*word time"]) -> Decided:
        return Decided(np.sign(samples).astype(np.int8))


class WordsDetector(Block, name="detector.words"):
    def process(self, samples: Float32[Array, "word time"]) -> Decided:
        return Decided(np.sign(samples).astype(np.int8))


class Peek(Block, name="detector.peek"):
    """Reads truth where it may, and extra fields where there are any."""

    def process(
        self,
        samples: Float32[Array, "*word time"],
        sent: Int8[Array, "*word time"] | None = None,
        scaled: Float32[Array, "*word time"] | None = None,
    ) -> Decided:
        return Decided(np.sign(samples).astype(np.int8))


class Cheat(Block, name="detector.cheat"):
    def process(self, sent: Int8[Array, "*word time"]) -> Decided:
        return Decided(sent.copy())


class Learned(Block, name="detector.learned"):
    def process(self, samples: Float32[Array, "*word time"]) -> Decided:
        return Decided(np.sign(samples).astype(np.int8))

    def take(self, weights):
        pass


class Pair(NamedTuple):
    first: Int8[Array, "*word time"]
    second: Int8[Array, "*word time"]


class ToyDecoder(Block, name="decoder.pair"):
    def process(self, symbols: Int8[Array, "*word time"]) -> Pair:
        return Pair(symbols.copy(), symbols.copy())


class Loose(NamedTuple):
    scaled: Float32[Array, "*other time"]


class LooseBlock(Block, name="frontend.loose"):
    def process(self, samples: Float32[Array, "*word time"]) -> Loose:
        return Loose(samples.copy())


class Deep(NamedTuple):
    deep: Float32[Array, "a b c d e"]


class DeepBlock(Block, name="frontend.deep"):
    def process(self, samples: Float32[Array, "*word time"]) -> Deep:
        return Deep(np.zeros((1, 1, 1, 1, 1), np.float32))


class ReservedBlock(Block, name="frontend.reserved"):
    reads: int = param(default=1, doc="a bad name")

    def process(self, samples: Float32[Array, "..."]) -> None:
        return None


class FileBlock(Block, name="frontend.file"):
    path: str = param(doc="a file")

    def check(self):
        open(self.path).close()

    def process(self, samples: Float32[Array, "..."]) -> None:
        return None


class ReadingSource(Source, name="source.reading"):
    def process(self, samples: Float32[Array, "time"]) -> Cut | None:
        return None


class WritingSink(Sink, name="sink.writing"):
    def process(self, samples: Float32[Array, "time"]) -> Cut:
        return Cut(samples)


class ToySink(Sink, name="sink.toy"):
    def process(self, symbols: Int8[Array, "..."], sent: Int8[Array, "..."]) -> None:
        return None


class AnySink(Sink, name="sink.any"):
    """Takes what there is."""

    def process(
        self,
        symbols: Int8[Array, "..."] | None = None,
        sent: Int8[Array, "..."] | None = None,
    ) -> None:
        return None


class ToyTrainer(Trainer, name="trainer.toy"):
    def process(
        self, samples: Float32[Array, "*word time"], symbols: Int8[Array, "*word time"]
    ) -> Weights | None:
        return None


CLASSES = {
    cls.name: cls
    for cls in list(globals().values())
    if isinstance(cls, type) and issubclass(cls, Block) and cls.__module__ == __name__
}
for _name in CLASSES:
    del Block.registry[_name]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the toy blocks known for one test."""
    for name, cls in CLASSES.items():
        monkeypatch.setitem(Block.registry, name, cls)
