"""The wire codec: round trips, and what it refuses, by which check."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any
from zlib import crc32

import fuzz_wire
import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline import wire
from pipeline.errors import FieldError, FrameError
from pipeline.frame import DTYPES, Frame, Kind, StreamInfo, as_field
from pipeline.limits import FRAME_CAP
from pipeline.weights import Weights
from pipeline.wire import CHECKS, PART_LIMIT, PROTOCOL, Codec

NAMES = st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True)
INT64 = st.integers(-(2**63), 2**63 - 1)
SCALARS = st.one_of(st.booleans(), INT64, st.floats(), st.text(max_size=40))
FIELDS = st.sampled_from(DTYPES).flatmap(
    lambda name: hnp.arrays(name, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)
PRINTABLE = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=16)
FRAMES = st.builds(
    Frame,
    st.sampled_from(Kind),
    PRINTABLE,
    st.integers(0, 2**64 - 1),
    INT64,
    INT64,
    st.dictionaries(NAMES, FIELDS, max_size=5),
    st.dictionaries(NAMES, SCALARS, max_size=5),
)


def frame(**changes: Any) -> Frame:
    fields = {"samples": np.arange(6, dtype=np.float32).reshape(2, 3)}
    return Frame(Kind.DATA, "main", 7, 21, 10**12, fields, {"gain": 2.0})._replace(**changes)


def one_part(*frames: Frame) -> bytes:
    codec = Codec()
    return b"".join(b"".join(codec.encode(each)) for each in frames)


def several_parts(large: Frame) -> list[bytes]:
    head, *arrays = Codec().encode(large)
    return [bytes(head), *(np.asarray(array).tobytes() for array in arrays)]


def described(
    description: Any,
    buffers: bytes = b"",
    *,
    kind: int = 1,
    flags: int = 0,
    size: int | None = None,
) -> bytes:
    """A part written by hand, with a right CRC whatever it says."""
    text = description if isinstance(description, bytes) else msgpack.packb(description)
    head = struct.pack(
        "<4sHBBQqqIQ", b"KLVT", PROTOCOL, kind, flags, 0, 0, 0, len(text),
        len(buffers) if size is None else size,
    )  # fmt: skip
    crc = struct.pack("<I", crc32(head, crc32(text)))
    return head + crc + text + bytes(-len(text) % 16) + buffers


def refusal(part: bytes, *parts: bytes, cap: int = FRAME_CAP) -> tuple[str, str]:
    with pytest.raises(FrameError) as caught:
        Codec(cap).decode(part, parts)
    assert caught.value.check in CHECKS
    return caught.value.check, str(caught.value)


# Round trips


@given(FRAMES)
def test_any_frame_comes_back_equal_to_the_bit(sent: Frame) -> None:
    (came,) = Codec().decode(one_part(sent))
    assert fuzz_wire.same(sent, came)


@given(st.lists(FRAMES, min_size=2, max_size=6))
@settings(max_examples=50)
def test_frames_that_share_a_message_come_back_in_order(sent: list[Frame]) -> None:
    came = Codec().decode(one_part(*sent))
    assert len(came) == len(sent)
    assert all(fuzz_wire.same(one, other) for one, other in zip(sent, came, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (17,), (0, 3), (2, 0, 3), (2, 3, 4, 5)])
def test_every_dtype_and_shape_comes_back_aligned_and_read_only(
    dtype: str, shape: tuple[int, ...]
) -> None:
    array = np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)
    # bytes of other length before it, so that its place is not a multiple of its size by chance
    fields = {"before": np.ones(3, np.int8), "field": array, "after": np.ones(5, np.int16)}
    (came,) = Codec().decode(one_part(frame(fields=fields)))
    got = came.fields["field"]
    assert got.dtype == dtype
    assert got.shape == shape
    assert got.flags.c_contiguous
    assert got.flags.aligned
    assert not got.flags.writeable
    np.testing.assert_array_equal(got, array)


def test_nan_payload_survives() -> None:
    bits = np.array([0x7FF8_0000_0000_0123, 0xFFF0_0000_0000_0001], np.uint64)
    (came,) = Codec().decode(one_part(frame(fields={"samples": bits.view(np.float64)})))
    np.testing.assert_array_equal(came.fields["samples"].view(np.uint64), bits)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12.0).reshape(3, 4).T,
        np.arange(12.0)[::-2],
        np.arange(12, dtype=">i4"),
        np.arange(6, dtype=">c16").reshape(2, 3)[:, 1:],
    ],
    ids=["transposed", "strided", "big-endian", "big-endian and strided"],
)
def test_odd_memory_layouts_keep_their_values(array: np.ndarray[Any, Any]) -> None:
    (came,) = Codec().decode(one_part(frame(fields={"samples": as_field(array)})))
    np.testing.assert_array_equal(came.fields["samples"], array)


def test_start_frame_describes_its_stream() -> None:
    info = StreamInfo(rate_hz=2.4e6, epoch_utc_ns=1_700_000_000_000_000_000, format="cu8")
    start = Frame(Kind.START, "main", 0, 0, 0, {}, info.to_marks())
    (came,) = Codec().decode(one_part(start))
    assert StreamInfo.from_marks(came.marks) == info


def test_weights_survive_the_wire() -> None:
    arrays = {f"net.{k}.weight": np.full((8, 8), float(k)) for k in range(4)}
    weights = Weights("state_likelihood", 3, arrays, {"n_states": 16}, parent=2, labels="pilots")
    (came,) = Codec().decode(one_part(weights.to_frame("trainer", 3, 0)))
    assert Weights.from_frame(came).digest == weights.digest


def test_marks_that_compare_equal_keep_their_types() -> None:
    codec = Codec()
    values = [True, 1, 1.0, False, 0, 0.0, -0.0]
    parts = [b"".join(codec.encode(frame(marks={"gain": value}))) for value in values]
    came = [Codec().decode(part)[0].marks["gain"] for part in parts]
    assert [repr(value) for value in came] == [repr(value) for value in values]


def test_numbers_at_their_limits_survive() -> None:
    sent = frame(seq=2**64 - 1, sample=-(2**63), born_ns=2**63 - 1, marks={"count": -(2**63)})
    (came,) = Codec().decode(one_part(sent))
    assert fuzz_wire.same(sent, came)


def test_a_frame_may_have_no_fields() -> None:
    sent = frame(kind=Kind.END, fields={}, marks={"frames": 3})
    assert Codec().decode(one_part(sent)) == [sent]


# Layout in the message


def test_buffers_and_frames_start_at_multiples_of_16() -> None:
    sent = frame(fields={"a": np.ones(3, np.int8), "b": np.ones(7, np.int16), "c": np.ones(2)})
    part = one_part(sent, sent)
    assert len(part) % 32 == 0
    base = np.frombuffer(part, np.uint8).__array_interface__["data"][0]
    for came in Codec().decode(part):
        for array in came.fields.values():
            assert (array.__array_interface__["data"][0] - base) % 16 == 0


def test_decoded_arrays_are_views_of_the_message() -> None:
    part = one_part(frame(fields={"samples": np.arange(4, dtype=np.int8), "sent": np.ones(3)}))
    (came,) = Codec().decode(part)
    whole = np.frombuffer(part, np.uint8)
    assert all(np.shares_memory(array, whole) for array in came.fields.values())


@pytest.mark.parametrize("extra", [0, 1])
def test_a_frame_above_64_kib_has_its_buffers_in_parts_of_their_own(extra: int) -> None:
    sent = frame(fields={"samples": np.zeros(PART_LIMIT + extra, np.int8)})
    codec = Codec()
    assert codec.is_large(sent) == bool(extra)
    assert (len(several_parts(sent)) == 2) == bool(extra)


def test_large_frames_are_neither_copied_when_sent_nor_when_received() -> None:
    fields = {
        "samples": np.arange(20_000, dtype=np.float64),
        "found": np.zeros((0, 8), np.uint8),
        "rate": np.array(2.5),
        "good": np.ones(3, bool),
    }
    sent = frame(fields=fields)
    head, *arrays = Codec().encode(sent)
    assert all(one is other for one, other in zip(arrays, fields.values(), strict=True))
    (came,) = Codec().decode(
        bytes(head), [memoryview(bytearray(a.tobytes())) for a in fields.values()]
    )
    assert fuzz_wire.same(sent, came)
    assert not any(array.flags.writeable for array in came.fields.values())
    parts = several_parts(sent)
    (came,) = Codec().decode(parts[0], parts[1:])
    assert np.shares_memory(came.fields["samples"], np.frombuffer(parts[1], np.uint8))


def test_a_part_across_the_alignment_of_its_dtype_is_copied() -> None:
    sent = frame(fields={"samples": np.arange(20_000, dtype=np.float64)})
    head, array = several_parts(sent)
    shifted = memoryview(b"x" + array)[1:]
    (came,) = Codec().decode(head, [shifted])
    assert came.fields["samples"].flags.aligned
    assert not came.fields["samples"].flags.writeable
    assert fuzz_wire.same(sent, came)


def test_a_first_part_that_is_no_bytes_object_is_taken() -> None:
    assert fuzz_wire.same(frame(), Codec().decode(memoryview(one_part(frame())))[0])  # type: ignore[arg-type]


# What an encoder refuses


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"marks": {"hyper": "x" * 5000}}, r"description takes 50\d\d bytes.*mark 'hyper'"),
        ({"fields": {"x" * 62 + f"{k:02}": np.ones(1) for k in range(64)}}, r"64 fields take"),
        ({"fields": {f"f{k}": np.ones(1) for k in range(65)}}, r"at most 64 entries"),
        ({"fields": {"samples": np.ones((1, 1, 1, 1, 1))}}, r"'samples' has shape"),
        ({"fields": {"sam ples": np.ones(1)}}, r"called 'sam ples'"),
        ({"fields": {"samples": np.ones(1, np.float16)}}, r"'samples' is float16"),
        ({"fields": {"samples": np.ones(1, ">f4")}}, r"'samples' is >f4"),
        ({"fields": {"samples": np.empty((2**40, 0))}}, r"shape \[1099511627776, 0\]"),
        ({"marks": {"gain": np.int64(3)}}, r"mark 'gain' is .*int64"),
        ({"marks": {"gain": None}}, r"mark 'gain' is None"),
        ({"marks": {"gain": [1, 2]}}, r"mark 'gain' is \[1, 2\]"),
        ({"marks": {"gain": 2**63}}, r"mark 'gain' is 9223372036854775808"),
        ({"marks": {"gain": 2**64}}, r"mark 'gain' is 18446744073709551616"),
        ({"marks": {"gain": "\ud800"}}, r"\['gain'\] cannot be sent"),
        ({"marks": {"": 1}}, r"a mark is called ''"),
        ({"stream": "x" * 65}, r"its stream is"),
        ({"stream": ""}, r"its stream is"),
        ({"stream": "a\nb"}, r"its stream is 'a\\nb'"),
        ({"stream": "\ud800"}, r"cannot be sent"),
        ({"seq": -1}, r"seq -1"),
        ({"sample": 2**63}, r"sample 9223372036854775808"),
    ],
)  # fmt: skip
def test_what_cannot_be_sent_is_named(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(FieldError, match=text):
        Codec().encode(frame(**changes))


@pytest.mark.parametrize("count", [100, 100_000], ids=["one part", "several parts"])
def test_a_frame_above_the_cap_is_neither_sent_nor_taken(count: int) -> None:
    sent = frame(fields={"samples": np.ones(count)})
    with pytest.raises(FieldError, match="may have"):
        Codec(cap=count * 8 - 1).encode(sent)
    head, *arrays = several_parts(sent) if count > 100 else [one_part(sent)]
    check, text = refusal(head, *arrays, cap=count * 8 - 1)
    assert check == "cap"
    assert str(count * 8 - 1) in text


# What a decoder refuses

X = [["samples", 9, 2]]  # float32, two of them, hence 16 bytes with padding
B16 = bytes(16)


@pytest.mark.parametrize(
    ("check", "part"),
    [
        ("short", b""),
        ("short", b"KLV"),
        ("short", described(["main", {}, []])[:47]),
        ("short", described(["main", {}, []]) + described(["main", {}, []])[:32]),
        ("magic", b"KLVX" + described(["main", {}, []])[4:]),
        ("magic", described(["main", {}, []]) + bytes(48)),
        ("kind", described(["main", {}, []], kind=6)),
        ("flags", described(["main", {}, []], flags=2)),
        ("length", described(msgpack.packb(["main", {"hyper": "x" * 4090}, []]))),
        ("length", described(["main", {}, []])[:-1]),
        ("length", described(["main", {}, X], B16)[:-1]),
        ("length", described(["main", {}, X], b"", size=16)),
        ("length", described(["main", {}, []]) * 4097),
        ("cap", described(["main", {}, X], B16, size=2**63)),
        ("crc", described(["main", {}, []]).replace(b"main", b"mail")),
        ("description", described(b"")),
        ("description", described(b"\xc1")),
        ("description", described(b"\x93\xa4main\x80")),
        ("description", described(msgpack.packb(["main", {}, []]) + b"\x00")),
        ("description", described(b"\x93\xa4ma\xff\xfe\x80\x90")),
        ("description", described(b"\x91" * 4096)),
        ("description", described(b"\xdd\xff\xff\xff\xff")),
        ("description", described(b"\x93\xa4main\x81\x90\x01\x90")),
        ("description", described({"stream": "main"})),
        ("description", described(["main", {}])),
        ("description", described(["main", {}, [], 1])),
        ("stream", described([1, {}, []])),
        ("stream", described(["", {}, []])),
        ("stream", described(["x" * 65, {}, []])),
        ("stream", described(["é" * 33, {}, []])),
        ("stream", described(["\x1b[2J", {}, []])),
        ("marks", described(["main", [], []])),
        ("marks", described(["main", {"a b": 1}, []])),
        ("marks", described(["main", {"a": None}, []])),
        ("marks", described(["main", {"a": [1]}, []])),
        ("marks", described(["main", {"a": b"raw"}, []])),
        ("marks", described(["main", {"a": 2**63}, []])),
        ("marks", described(["main", {"a": msgpack.ExtType(5, b"z")}, []])),
        ("fields", described(["main", {}, {}])),
        ("fields", described(["main", {}, [[f"f{k}", 9, 0] for k in range(65)]])),
        ("fields", described(["main", {}, ["samples"]])),
        ("fields", described(["main", {}, [["samples"]]])),
        ("fields", described(["main", {}, [[1, 9, 2]]], B16)),
        ("fields", described(["main", {}, [["../up", 9, 2]]], B16)),
        ("fields", described(["main", {}, [["a", 9, 2], ["a", 9, 2]]], B16 * 2)),
        ("dtype", described(["main", {}, [["samples", 13, 2]]], B16)),
        ("dtype", described(["main", {}, [["samples", -1, 2]]], B16)),
        ("dtype", described(["main", {}, [["samples", True, 2]]], B16)),
        ("dtype", described(["main", {}, [["samples", "float32", 2]]], B16)),
        ("dtype", described(["main", {}, [["samples", "O", 2]]], B16)),
        ("shape", described(["main", {}, [["samples", 9, -2]]], B16)),
        ("shape", described(["main", {}, [["samples", 9, 2.0]]], B16)),
        ("shape", described(["main", {}, [["samples", 9, True]]], B16)),
        ("shape", described(["main", {}, [["samples", 9, 1, 1, 1, 1, 2]]], B16)),
        ("shape", described(["main", {}, [["samples", 9, 2**62, 4]]], B16)),
        ("shape", described(["main", {}, [["samples", 9, 2**32, 2**32, 0]]])),
        ("buffer", described(["main", {}, [["samples", 9, 5]]], B16)),
        ("buffer", described(["main", {}, X], B16 * 2)),
        ("buffer", described(["main", {}, X])),
        ("buffer", described(["main", {}, [["good", 0, 3]]], b"\x00\x01\x02" + bytes(13))),
        ("buffer", described(["main", {}, X], flags=1, size=16)),
        ("parts", described(["main", {}, X], flags=1, size=8)),
        ("parts", described(["main", {}, X], flags=1, size=8) + described(["main", {}, []])),
        ("parts", described(["main", {}, []]) + described(["main", {}, X], flags=1, size=8)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_damaged_message_is_refused_by_the_check_meant_for_it(check: str, part: bytes) -> None:
    named, text = refusal(part)
    assert named == check
    assert len(text) < 500


@pytest.mark.parametrize("parts", [[], [b""], [bytes(12)], [bytes(8), b""], [bytes(8), bytes(8)]])
def test_parts_that_are_not_the_fields_are_refused(parts: list[bytes]) -> None:
    check, _ = refusal(described(["main", {}, X], flags=1, size=8), *parts)
    assert check == "parts"


def test_parts_behind_a_frame_in_one_part_are_refused() -> None:
    assert refusal(one_part(frame()), b"more")[0] == "parts"


def test_bools_in_parts_of_their_own_are_checked_too() -> None:
    part = described(["main", {}, [["good", 0, 3]]], flags=1, size=3)
    assert refusal(part, b"\x00\x01\x02")[0] == "buffer"


@pytest.mark.parametrize("remembered", [False, True])
def test_every_damaged_byte_of_header_and_description_is_found(remembered: bool) -> None:
    part = one_part(frame(fields={"samples": np.ones(4, np.float32)}))
    length = int.from_bytes(part[32:36], "little")
    codec = Codec()
    if remembered:
        codec.decode(part)
    for at in range(48 + length):
        for bit in range(8):
            damaged = bytearray(part)
            damaged[at] ^= 1 << bit
            with pytest.raises(FrameError):
                codec.decode(bytes(damaged))


@pytest.mark.parametrize("version", [0, 2, 515])
def test_another_protocol_version_is_refused_with_both_named(version: int) -> None:
    # a later version may have another header and another CRC: nothing behind it is looked at
    later = b"KLVT" + version.to_bytes(2, "little")
    for part in (later, later + bytes(10), later + one_part(frame())[6:]):
        check, text = refusal(part)
        assert check == "version"
        assert f"protocol version {version}, but this side speaks {PROTOCOL}" in text


def test_a_mark_given_twice_counts_once() -> None:
    twice = b"\x93\xa4main\x82\xa1a\x01\xa1a\x02\x90"
    assert Codec().decode(described(twice))[0].marks == {"a": 2}


# Bounds


def test_descriptions_remembered_stay_bounded() -> None:
    sender, receiver = Codec(), Codec()
    for number in range(3 * wire.CACHE_LIMIT):
        sent = frame(marks={"count": number})
        (came,) = receiver.decode(b"".join(sender.encode(sent)))
        assert came.marks == {"count": number}
    assert len(sender._plans) <= wire.CACHE_LIMIT
    assert len(receiver._layouts) <= wire.CACHE_LIMIT


def test_refused_descriptions_are_not_remembered() -> None:
    codec = Codec()
    for part in (described(["", {}, []]), described(["main", {}, []])[:-1]):
        with pytest.raises(FrameError):
            codec.decode(part)
    assert not codec._layouts


def test_what_a_frame_says_cannot_be_changed_by_its_receiver() -> None:
    codec = Codec()
    part = b"".join(codec.encode(frame()))
    came = codec.decode(part)[0]
    with pytest.raises(TypeError):
        came.marks["gain"] = 3.0  # type: ignore[index]
    came.fields["added"] = np.ones(1)  # type: ignore[index]
    assert fuzz_wire.same(codec.decode(part)[0], frame())


@pytest.mark.parametrize(
    "part",
    [
        described(b"\x90" * 4096),
        described(b"\xdc\x0f\xfd" + b"\x90" * 4093),
        described(["main", {}, [["samples", 9, 2**24]]], b"", flags=1, size=2**26),
        described(["main", {}, [["samples", 9, 2**22]]], b"", size=2**24),
        described(["main", {}, []]) * 4096,
        bytes(1 << 20),
    ],
    ids=["arrays", "one array of arrays", "absent parts", "absent buffer", "many frames", "zeros"],
)
def test_memory_stays_in_proportion_to_the_message(part: bytes) -> None:
    codec = Codec()
    tracemalloc.start()
    try:
        codec.decode(part)
    except FrameError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 10 * len(part) + 500_000


def test_a_codec_without_room_for_a_byte_is_refused() -> None:
    with pytest.raises(ValueError, match="cap = 0"):
        Codec(cap=0)


# Fuzz


def test_damaged_messages_give_frames_or_a_frame_error_and_nothing_else() -> None:
    tally = fuzz_wire.fuzz(100_000, seed=1)
    print(tally)  # noqa: T201 (counts by check, shown with -s)
    assert tally.count == 100_000
    assert tally.accepted + sum(tally.refused.values()) == tally.count
    assert tally.behind_crc >= 0.05 * tally.count
    assert set(tally.refused) == set(CHECKS)
    assert tally.slowest_s < fuzz_wire.SLOWEST_S
    assert tally.growth < fuzz_wire.GROWTH
