"""One block serving one stream: hands over fields, checks what comes back, holds what waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from pipeline.block import Block, Context, Reframe, make, writes_of
from pipeline.errors import FieldError, KalvitError
from pipeline.frame import Array, Frame, FrameInfo, Kind
from pipeline.signature import FieldType, bind, check_array

HOLD_LIMIT = 256 << 20  # bytes of frames that a block may leave unanswered

Fields = dict[str, Array]


@dataclass(frozen=True)
class Port:
    """How a block is joined to the frames that pass it.

    reads   pairs (argument of process, field of the frame); absent optional ones left out
    writes  pairs (field of the frame, its settled type), in the order of the block's result
    given   settled types of the fields that its input frames carry
    """

    name: str
    reads: tuple[tuple[str, str], ...]
    writes: tuple[tuple[str, FieldType], ...]
    given: Mapping[str, FieldType]


class Instance:
    """A started block with the frames it has not answered yet."""

    def __init__(self, block: Block, port: Port, hold_limit: int = HOLD_LIMIT) -> None:
        self.block = block
        self.port = port
        signature = block.signature()
        self.delayed = signature.delayed
        self._wants_info = signature.wants_info
        self._call = _caller(block, port)
        self.store = _storer(port, signature.result)
        #: Processes one frame of a block that answers at once, adding to the fields.
        self.step = _stepper(self._call, self.store, self._wants_info)
        self._held: deque[Frame] = deque()
        self._held_bytes = 0
        self._hold_limit = hold_limit
        block.start()

    def call(self, frame: Frame) -> Any:
        """What `process` returns for this frame, unchecked: for blocks that add no fields."""
        return self._call(frame.fields, _info(frame) if self._wants_info else None)

    def answer(self, frame: Frame) -> list[Frame]:
        """Process one frame of a block that may answer later; returns the frames completed."""
        self._held.append(frame)
        self._held_bytes += frame.nbytes
        answers = self._complete(self.call(frame))
        if self._held_bytes > self._hold_limit:
            raise FieldError(
                f"{self.port.name} holds back {len(self._held)} frames of "
                f"{self._held_bytes >> 20} MiB in all, but may hold {self._hold_limit >> 20} MiB; "
                "shorten its decision delay or the frames"
            )
        return answers

    def finish(self) -> list[Frame]:
        """Answer the frames still held; afterwards none is."""
        rest = self.block.finish()
        if not self.delayed and not isinstance(rest, list):
            return []  # of a sink
        answers = self._complete(rest)
        if self._held:
            raise FieldError(
                f"{self.port.name} finished with {len(self._held)} frames unanswered; finish() "
                "must return one result for each"
            )
        return answers

    def restart(self) -> None:
        """Forget the past, as after a gap."""
        self.block.start()

    @property
    def held(self) -> list[int]:
        """Numbers of the frames that are still unanswered."""
        return [frame.seq for frame in self._held]

    def _complete(self, results: Any) -> list[Frame]:
        answers = []
        if results.__class__ is not list:
            name = getattr(self.block.signature().result, "__name__", "")
            raise FieldError(
                f"{self.port.name} returned a {type(results).__name__}, not a list of {name}"
            )
        for result in results:
            if not self._held:
                raise FieldError(f"{self.port.name} answered more frames than it was given")
            frame = self._held.popleft()
            self._held_bytes -= frame.nbytes
            fields = dict(frame.fields)
            self.store(fields, result)
            answers.append(frame._replace(fields=fields))
        return answers


def _info(frame: Frame) -> FrameInfo:
    return FrameInfo(frame.stream, frame.seq, frame.sample, frame.born_ns, frame.marks)


def _caller(block: Block, port: Port) -> Callable[[Mapping[str, Array], FrameInfo | None], Any]:
    """A function of (fields, info) that calls `process` with as little ado as possible."""
    process: Callable[..., Any] = block.process  # type: ignore[attr-defined]
    names = [field for _, field in port.reads]
    arguments = [argument for argument, _ in port.reads]
    declared = list(block.signature().reads)
    if block.signature().wants_info or arguments != declared[: len(arguments)]:
        # by keyword: the info, or an absent optional field in the middle
        pairs = tuple(port.reads)

        def by_keyword(fields: Mapping[str, Array], info: FrameInfo | None) -> Any:
            arguments: dict[str, Any] = {argument: fields[field] for argument, field in pairs}
            if info is not None:
                arguments["info"] = info
            return process(**arguments)

        return by_keyword
    if not names:
        return lambda fields, info: process()
    if len(names) == 1:
        (name,) = names
        return lambda fields, info: process(fields[name])
    get = itemgetter(*names)
    return lambda fields, info: process(*get(fields))


def _stepper(
    call: Callable[[Mapping[str, Array], FrameInfo | None], Any],
    store: Callable[[Fields, Any], None],
    wants_info: bool,
) -> Callable[[Frame, Fields], None]:
    if wants_info:
        return lambda frame, fields: store(fields, call(fields, _info(frame)))
    return lambda frame, fields: store(fields, call(fields, None))


# Bits of ndarray.flags.num; reading them at once costs half of reading two flags by name.
_C_CONTIGUOUS, _WRITEABLE = 0x1, 0x400
_READY = _C_CONTIGUOUS | _WRITEABLE
ndarray = np.ndarray


def _storer(port: Port, result_type: type[Any] | None) -> Callable[[Fields, Any], None]:
    """A function of (fields, result) that checks the result and adds it to the fields."""
    if not port.writes:
        return lambda fields, result: None if result is None else _not_none(port.name, result)
    where = port.name
    checks = [_Check(port, place) for place in range(len(port.writes))]

    def store(fields: Fields, result: Any) -> None:
        if result.__class__ is not result_type:
            expected = getattr(result_type, "__name__", "None")
            raise FieldError(f"{where}: process returned {type(result).__name__}, not {expected}")
        for check, value in zip(checks, result):  # noqa: B905 (both are as long as the type)
            fields[check.name] = check(fields, value)

    if len(checks) > 1:
        return store
    # the common case without a loop; whatever is unusual goes the long way
    (check,) = checks
    name, dtype, twin, ndim = check.name, check.dtype, check.twin, check.ndim
    if twin is None and check.tied:
        return store

    def store_one(fields: Fields, result: Any) -> None:
        if result.__class__ is result_type:
            (value,) = result
            if (
                value.__class__ is ndarray
                and value.dtype is dtype
                and value.flags.num & _READY == _C_CONTIGUOUS
                and (value.ndim == ndim if twin is None else value.shape == fields[twin].shape)
            ):
                fields[name] = value
                return
        store(fields, result)

    return store_one


def _not_none(where: str, result: Any) -> None:
    raise FieldError(f"{where}: process returned {type(result).__name__}, not None")


class _Check:
    """What one written field must be.

    twin   a field of the frame with the very same dims, so that one comparison does
    tied   a dim has a fixed size, or the length of a dim of another field
    """

    __slots__ = ("_links", "_where", "dtype", "name", "ndim", "tied", "twin", "wanted")

    def __init__(self, port: Port, place: int) -> None:
        self.name, self.wanted = port.writes[place]
        self._where = port.name
        self.dtype = np.dtype(self.wanted.dtypes[0])
        before = [*port.given.items(), *port.writes[:place]]
        self.twin = next((name for name, kind in before if kind.dims == self.wanted.dims), None)
        lengths: dict[str, tuple[str, int]] = {}  # dim -> (field, axis) that fixes its length
        for name, kind in [*before, port.writes[place]]:
            for axis, dim in enumerate(kind.dims):
                lengths.setdefault(dim, (name, axis))
        self._links = [
            (axis, *lengths[dim])
            for axis, dim in enumerate(self.wanted.dims)
            if not dim.isdigit() and lengths[dim] != (self.name, axis)
        ]
        self.ndim = len(self.wanted.dims)
        self.tied = bool(self._links) or any(dim.isdigit() for dim in self.wanted.dims)

    def __call__(self, fields: Fields, value: Any) -> Array:
        """The value, contiguous and read-only; FieldError where it is not what was declared."""
        if value.__class__ is not ndarray or value.dtype != self.dtype:
            check_array(self._where, self.name, value, self.wanted)
            value = np.asarray(value, self.dtype)  # of another class, or big-endian
        if self.twin is not None:
            if value.shape != fields[self.twin].shape:
                self._dims(fields, value)
        elif self.tied or value.ndim != self.ndim:
            self._dims(fields, value)
        if value.flags.num & _READY != _C_CONTIGUOUS:
            if not value.flags.c_contiguous:
                value = value.copy(order="C")
            value.flags.writeable = False
        checked: Array = value
        return checked

    def _dims(self, fields: Fields, value: Array) -> None:
        check_array(self._where, self.name, value, self.wanted)
        for axis, other, other_axis in self._links:
            there = value if other == self.name else fields[other]
            if value.shape[axis] != there.shape[other_axis]:
                raise FieldError(
                    f"{self._where}: {self.name!r} has shape {value.shape}, but {other!r} has "
                    f"{there.shape}; dim {self.wanted.dims[axis]!r} must agree"
                )


def drive(
    block: Block,
    frames: Iterable[Mapping[str, Array]],
    *,
    context: Context | None = None,
    sample: int = 0,
    time: str = "time",
) -> list[Fields]:
    """Run a block over the frames of one stream, as a flow would, without any runtime.

    Returns for each input frame the fields that the block added, late answers included.

    sample   index of the first sample on the stream's clock
    time     dim that counts the clock
    """
    frames = [dict(frame) for frame in frames]
    if context is not None:
        block.context = context
    if not frames:
        return []
    port, clock = _port_for(block, frames[0], time)
    instance = Instance(block, port)
    answers: list[Frame] = []
    for seq, fields in enumerate(frames):
        frame = Frame(Kind.DATA, block.context.stream, seq, sample, 0, fields, {})
        if clock is not None:
            name, axes = clock
            sample += int(np.prod([fields[name].shape[axis] for axis in axes]))
        if instance.delayed:
            answers += instance.answer(frame)
        else:
            whole = dict(fields)
            instance.step(frame, whole)
            answers.append(frame._replace(fields=whole))
    answers += instance.finish()
    added = [name for name, _ in port.writes]
    return [{name: answer.fields[name] for name in added} for answer in answers]


def _port_for(
    block: Block, fields: Mapping[str, Array], time: str
) -> tuple[Port, tuple[str, list[int]] | None]:
    """A port for frames such as this one, and the field and axes that count its clock."""
    if isinstance(block, Reframe):
        raise KalvitError(f"{block.name} cuts frames anew; call its process instead")
    signature = block.signature()
    given: dict[str, FieldType] = {}
    clock = None
    for name, spec in signature.reads.items():
        if name not in fields:
            if spec.optional:
                continue
            raise KalvitError(f"{block.name} reads {name!r}, but the frame has {sorted(fields)}")
        if not isinstance(fields[name], np.ndarray):
            check_array(block.name, name, fields[name], spec.type)
        dims = spec.type.dims
        open_dims = [dim for dim in dims if dim.startswith("*")]
        if open_dims:
            extra = fields[name].ndim - (len(dims) - 1)
            inner = (open_dims[0][1:],) * extra
            at = dims.index(open_dims[0])
            dims = dims[:at] + inner + dims[at + 1 :]
        elif "..." in dims:
            dims = tuple(f"axis{axis}" for axis in range(fields[name].ndim))
        given[name] = FieldType((fields[name].dtype.name,), dims)
        if clock is None and time in dims:
            clock = (name, [axis for axis, dim in enumerate(dims) if dim in (time, "word")])
    groups = bind((signature.reads[name], kind) for name, kind in given.items())
    written = writes_of(block, given, groups)
    writes = tuple((name, spec.type) for name, spec in written.items())
    return Port(block.name, tuple((name, name) for name in given), writes, given), clock


__all__ = ["Fields", "Instance", "Port", "drive", "make"]
