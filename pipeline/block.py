"""Blocks: plain numerical objects that a flow joins and that work without it.

A subclass declares its parameters and fills in `start`, `process` and, where it needs them,
`finish`, `state`, `restore`, `check` and `narrow`; it replaces nothing else.

>>> from typing import Annotated, NamedTuple
>>> import numpy as np
>>> from jaxtyping import Float32
>>> class Scaled(NamedTuple):
...     scaled: Annotated[Float32[Array, "time"], Field("samples times gain", unit="V")]
>>> class Gain(Block, name="frontend.gain"):
...     gain: float = param(default=1.0, doc="factor")
...     def process(self, samples: Float32[Array, "time"]) -> Scaled:
...         return Scaled(scaled=samples * np.float32(self.gain))
>>> Gain(gain=2.0).process(np.ones(3, np.float32)).scaled
array([2., 2., 2.], dtype=float32)
>>> Gain(gian=2.0)  # doctest: +ELLIPSIS
Traceback (most recent call last):
    ...
pipeline.errors.ParameterError: ...no parameter 'gian'; did you mean 'gain'? (it has: gain)
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, dataclass_transform

import numpy as np

from pipeline.draws import RandomStream
from pipeline.errors import ConnectError, ParameterError
from pipeline.frame import Array, FrameInfo, Gap, Scalar, Silence, StreamInfo
from pipeline.params import Declared, ParamSet, param
from pipeline.signature import (
    Field,
    FieldSpec,
    FieldType,
    Signature,
    hints_of,
    settle,
    signature_of,
)
from pipeline.weights import Weights

__all__ = [
    "Block", "Context", "Field", "FieldType", "FrameInfo", "Gap", "Learned", "Reframe", "Silence",
    "Sink", "Source", "Trainer", "param",
]  # fmt: skip

State = Mapping[str, Array | Scalar]


@dataclass(frozen=True, slots=True)
class Context:
    """Where an instance of a block stands: what its random numbers depend on."""

    name: str = "block"  # the block's name in its flow
    stream: str = "main"
    seed: int = 0
    info: StreamInfo = field(default_factory=StreamInfo)


@dataclass_transform(kw_only_default=True, field_specifiers=(param,))
class Block:
    """Takes the fields it reads and returns the fields it adds, one answer per frame.

    `process` returns a NamedTuple of arrays; a block with a decision delay returns a list of
    them, each completing its oldest unanswered frame, and `finish` returns the rest. Arguments
    with default None are handed over if something upstream writes them. An argument
    `info: FrameInfo` tells where the frame stands in its stream.
    """

    #: Name in the catalogue, such as "detector.viterbi".
    name: ClassVar[str] = ""
    #: Classes made so far by catalogue name, for blocks that come from a user's own file.
    registry: ClassVar[dict[str, type[Block]]] = {}
    _declared: ClassVar[dict[str, Declared]] = {}

    context: Context = Context()

    def __init_subclass__(cls, *, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = inspect.get_annotations(cls)
        inherited: dict[str, Declared] = {}
        for base in reversed(cls.__mro__[1:]):  # of several bases, all
            inherited |= vars(base).get("_declared", {})
        cls._declared = dict(inherited)
        for key, value in list(vars(cls).items()):
            if isinstance(value, Declared):
                if key not in own:
                    raise TypeError(f"{cls.__name__}: write the type of the parameter {key!r}")
                delattr(cls, key)
                if hasattr(cls, key):
                    raise TypeError(f"{cls.__name__}: {key!r} is no name for a parameter: all "
                                    "blocks have an attribute of this name")  # fmt: skip
                cls._declared[key] = value
            elif key in inherited:
                raise TypeError(f"{cls.__name__}: {key!r} is a parameter; declare it by param()")
        cls.name = name or cls.name
        if name:
            Block.registry[name] = cls

    def __init__(self, /, **values: Any) -> None:
        for key, value in self.params().validate(self.name, values).items():
            setattr(self, key, value)
        try:
            self.check()
        except ParameterError as error:
            raise ParameterError(f"{self.name}: {error}") from None

    def __repr__(self) -> str:
        values = ", ".join(f"{k}={v!r}" for k, v in self.values().items())
        return f"{type(self).__name__}({values})"

    if not TYPE_CHECKING:  # else every name would be known

        def __getattr__(self, name: str) -> Any:
            """Called for what is not there: what `start` makes, or a mistake."""
            starts = [vars(cls).get("start") for cls in type(self).__mro__]
            used = {n for s in starts if inspect.isfunction(s) for n in s.__code__.co_names}
            own = {n for n in (name, *used) if n.startswith("_") and not n.startswith("__")}
            if name in used or (name in own and used and not own & vars(self).keys()):
                raise AttributeError(
                    f"{self.name}: {name!r} is made by start(); call start() first, then process() "
                    "for each frame"
                )
            return object.__getattribute__(self, name)  # raises what it raised before

    @classmethod
    @cache
    def params(cls) -> ParamSet:
        """The declared parameters."""
        hints = hints_of(cls, cls.name or cls.__name__)
        declared = {key: (hints[key], info) for key, info in cls._declared.items()}
        return ParamSet(cls.__name__, declared)

    @classmethod
    @cache
    def signature(cls) -> Signature:
        """The fields that `process` reads and writes."""
        process: Callable[..., Any] | None = getattr(cls, "process", None)
        owner = cls.name or cls.__name__
        if process is None:
            raise ConnectError(f"{owner}: {cls.__name__} has no method `process`")
        return signature_of(process, owner)

    def values(self) -> dict[str, Any]:
        """Parameter values; `type(block)(**block.values())` makes an equal block."""
        return {key: getattr(self, key) for key in self.params().names}

    def draws(
        self, purpose: str, draw: Callable[[np.random.Generator, int], Array]
    ) -> RandomStream:
        """Random numbers of this block on its stream, addressed by absolute position."""
        where = self.context
        return RandomStream(draw, where.seed, where.name, where.stream, purpose)

    # What a subclass fills in, beside `process`:

    def check(self) -> None:
        """Raise ParameterError where parameters do not fit together, or a file is missing."""

    def narrow(self, reads: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        """The types of written fields that the signature leaves open, given what is read.

        Only for blocks whose dtypes or dims depend on parameters or on their input.
        """
        return {}

    def start(self) -> None:
        """Allocate state; called before the first frame, after a gap, and to start over."""

    def finish(self) -> Any:
        """Answer the frames that are still unanswered: a list as `process` returns it."""
        return []

    def state(self) -> State:
        """What the block remembers, as arrays and scalars."""
        return {}

    def restore(self, state: State) -> None:
        """Go on from what `state` of an equal block returned; called after `start`."""

    def take(self, weights: Weights) -> None:
        """Use new weights from the next frame on; WeightsError leaves the old ones serving."""
        raise TypeError(f"{self.name} takes no weights")

    @classmethod
    def takes_weights(cls) -> bool:
        """Whether this class fills in `take`."""
        return cls.take is not Block.take


class Learned(Block, ABC):
    """Decides with weights: at first those of `model`, then those that come.

    They come from a trainer over an edge, or by `kalvit swap`; either way to `take`.
    """

    #: "module:function" that `kalvit train` calls, as pipeline/train.py says; ":function" for one
    #: beside the block. No receiver imports it. "": nothing trains such blocks.
    trained_by: ClassVar[str] = ""
    #: The truth that it learns from: fields on its input that `process` may not read.
    learns_from: ClassVar[tuple[str, ...]] = ()

    model: str = param(
        default="", doc="weights to start with, NAME or NAME@VERSION of `kalvit models list`"
    )

    @abstractmethod
    def take(self, weights: Weights) -> None:
        """Use new weights from the next frame on; WeightsError leaves the old ones serving."""


class Source(Block):
    """Starts a stream: `process()` returns the fields of the next frame, a Gap, or None at the end.

    The runtime numbers the frames. `describe` says what the stream is; it is called after
    `start`. A source with several streams names them in `streams`; each has its own instance.
    One that waits for others returns Silence every so often, so that its flow can be stopped.
    """

    rate: float = param(
        default=0.0, at_least=0.0, unit="frames/s", doc="pace; 0: as fast as possible"
    )

    def describe(self) -> StreamInfo | None:
        """Description of the stream; None to be asked again when the first frame is there."""
        return StreamInfo()

    def streams(self) -> tuple[str, ...]:
        """Keys of the streams that this source emits."""
        return ("main",)

    def frames_left(self) -> int | None:
        """Frames that are still to come, where the source knows; for progress displays."""
        return None

    def close(self) -> None:
        """Release what `start` opened; called when the stream ends, for whatever reason."""


class Reframe(Block):
    """Changes how a stream is cut: `process` returns a list of new frames with a new numbering.

    The frames that it emits carry what it writes and nothing of its input.
    """

    def describe(self, info: StreamInfo) -> StreamInfo:
        """Description of the new stream, given the old one."""
        return info


class Sink(Block):
    """Ends a branch. One instance serves all streams; ask for `info` to tell them apart."""

    def open(self, stream: str, info: StreamInfo) -> None:
        """A stream begins, or is described anew; called before its first frame."""

    def report(self, folder: Path | None) -> Mapping[str, Any]:
        """Results so far: numbers, texts, lists of them. Called at the end and for live tables.

        folder    where to leave pictures and files; None: numbers only
        """
        return {}


class Trainer(Sink):
    """A sink whose `process` returns new Weights, or None where nothing changes.

    Weights travel over the feedback edges of the flow to the blocks that take them.
    """

    def notes(self) -> Sequence[Mapping[str, Any]]:
        """What it decided and why since it was last asked: JSON, for trainer.jsonl of the run."""
        return ()


def make(cls: type[Block], values: Mapping[str, Any], context: Context) -> Block:
    """A fresh instance for one stream, not yet started."""
    block = cls(**values)
    block.context = context
    return block


def writes_of(
    block: Block, reads: Mapping[str, FieldType], groups: Mapping[str, tuple[str, ...]]
) -> dict[str, FieldSpec]:
    """The fields that this block writes, with settled types, given those it reads."""
    narrowed = block.narrow(reads)
    return {
        name: replace(spec, type=narrowed.get(name) or settle(spec, groups))
        for name, spec in block.signature().writes.items()
    }
