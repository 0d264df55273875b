"""Blocks as plain objects: made, shown, described and joined without any runtime."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
import pytest
from jaxtyping import Complex64, Float32

from pipeline.block import (
    Block,
    Context,
    Field,
    FieldType,
    Reframe,
    Sink,
    Source,
    Trainer,
    make,
    param,
    writes_of,
)
from pipeline.errors import ConnectError, ParameterError
from pipeline.frame import Array, StreamInfo
from pipeline.signature import bind
from pipeline.weights import Weights


class Scaled(NamedTuple):
    scaled: Annotated[Float32[Array, "*word time"] | Complex64[Array, "*word time"], Field("x")]


class Gain(Block, name="frontend.test_gain"):
    gain: float = param(default=2.0, doc="factor")

    def narrow(self, reads):
        return {"scaled": reads["samples"]}

    def process(
        self, samples: Float32[Array, "*word time"] | Complex64[Array, "*word time"]
    ) -> Scaled:
        return Scaled(samples * np.float32(self.gain))


class Louder(Gain):
    """Inherits everything."""


class Learned(Gain):
    def take(self, weights):
        self.gain = float(weights.arrays["gain"])


MADE = Block.registry.pop("frontend.test_gain")


def test_a_block_works_in_a_notebook():
    np.testing.assert_array_equal(Gain(gain=3).process(np.ones(2, np.float32)).scaled, [3.0, 3.0])


class Counting(Gain):
    def start(self):
        self._count = 0

    def process(self, samples: Float32[Array, "time"]) -> Scaled:
        self._count += 1
        return Scaled(samples + np.float32(self._count))

    @property
    def broken(self):
        return self._nothing


def test_a_block_that_has_not_started_says_so():
    block = Counting()
    expected = r"^frontend\.test_gain: '_count' is made by start\(\); call start\(\) first"
    with pytest.raises(AttributeError, match=expected):
        block.process(np.ones(2, np.float32))
    assert not hasattr(block, "_count")
    block.start()
    np.testing.assert_array_equal(block.process(np.ones(2, np.float32)).scaled, [2.0, 2.0])


def test_another_missing_attribute_is_named_as_python_does():
    block = Counting()
    block.start()
    for read in (lambda: block._cuont, lambda: Gain()._count, lambda: Counting().__len__):
        with pytest.raises(AttributeError, match="object has no attribute '_"):
            read()
    with pytest.raises(AttributeError, match="object has no attribute '_nothing'"):
        _ = block.broken


def test_a_class_enters_the_registry_under_its_name_and_its_subclasses_do_not():
    assert MADE is Gain
    assert Louder.name == "frontend.test_gain"
    assert "frontend.test_gain" not in Block.registry


def test_a_block_shows_itself_as_it_could_be_written():
    assert repr(Louder(gain=0.5)) == "Louder(gain=0.5)"


def test_signatures_are_read_once_and_belong_to_their_class():
    class Plain(Gain):
        def process(self, samples: Float32[Array, "time"]) -> None: ...

    assert Gain.signature() is Gain.signature()
    assert list(Gain.signature().writes) == ["scaled"]
    assert list(Plain.signature().writes) == []
    assert Gain.params() is not Plain.params()


def test_what_is_left_open_is_settled_by_the_block():
    for kind in (FieldType.of("complex64", "word time"), FieldType.of("float32", "time")):
        block = Gain()
        groups = bind([(block.signature().reads["samples"], kind)])
        assert writes_of(block, {"samples": kind}, groups)["scaled"].type == kind


def test_only_a_block_that_fills_in_take_takes_weights():
    assert Learned.takes_weights()
    assert not Gain.takes_weights()
    learned = Learned()
    learned.take(Weights("gain", 1, {"gain": np.array(5.0)}))
    assert learned.gain == 5.0
    with pytest.raises(TypeError, match=r"frontend.test_gain takes no weights"):
        Gain().take(Weights("gain", 1, {}))


def test_an_instance_knows_where_it_stands_and_others_do_not():
    context = Context("front", "left", 7, StreamInfo(rate_hz=8e3))
    block = make(Gain, {"gain": 1}, context)
    assert block.context is context
    assert block.gain == 1.0
    assert Gain().context == Context()
    with pytest.raises(ParameterError, match="no parameter 'gian'"):
        make(Gain, {"gian": 1}, context)


def test_bases_have_answers_for_what_a_block_leaves_out():
    assert (Gain().finish(), Gain().state(), Gain().check()) == ([], {}, None)
    source = Source()
    assert (source.rate, source.streams(), source.frames_left()) == (0.0, ("main",), None)
    assert source.describe() == StreamInfo()
    info = StreamInfo(rate_hz=2.0)
    assert Reframe().describe(info) is info
    assert Sink().report(None) == {}
    assert issubclass(Trainer, Sink)


def test_a_signature_that_cannot_be_names_the_block():
    class Wrong(Block):
        def process(self, samples: float) -> None: ...

    Wrong.name = "frontend.wrong"
    with pytest.raises(ConnectError, match=r"^frontend.wrong: field 'samples' is annotated float"):
        Wrong.signature()
