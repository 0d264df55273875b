"""SigMF recordings: a file of samples and a JSON file that describes them.

SigMF 1.2, https://sigmf.org. The metadata are JSON with a handful of keys, so they are read and
written here; the tests hold both directions against the `sigmf` package, which need not be
installed to record.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from blocks.formats.encoding import Encoding, Recorded, whole_samples
from pipeline.errors import ParameterError

META, DATA, ARCHIVE = ".sigmf-meta", ".sigmf-data", ".sigmf"

#: SigMF datatypes of the arrays that can be recorded.
DATATYPES = {"complex64": "cf32_le", "float32": "rf32_le", "int8": "ri8"}

VERSION = "1.2.0"  # of the specification that the written keys come from
LARGEST_META = 64 << 20  # bytes
NANOSECONDS = 1_000_000_000
START = "core:sample_start"
CONTINUOUS = "kalvit:continuous"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DATATYPE = re.compile(r"([cr])(f32|f64|i8|u8|i16|u16|i32|u32)(_le|_be)?")
_DATETIME = re.compile(r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d+))?[Zz]")


def base_of(path: Path) -> Path:
    """The common part of the names of a pair, from either name or from the part itself."""
    if path.suffix in (META, DATA):
        return path.with_name(path.name[: -len(path.suffix)])
    return path


def beside(base: Path, suffix: str) -> Path:
    """`base` with `suffix` appended, whatever dots its name has."""
    return base.with_name(base.name + suffix)


def read(path: Path) -> Recorded:
    """Where the samples of a SigMF recording lie and what its metadata say.

    path    either file of a pair, their common part, or a `.sigmf` archive (an uncompressed tar)
    Raises ParameterError for metadata that are no SigMF or ask for what is not supported, and
    where they contradict the length of the samples.
    """
    if path.suffix == ARCHIVE:
        text, source, offset, size, said_by = _from_archive(path)
        return _described(_parsed(text, said_by), source, offset, size, said_by)
    meta = beside(base_of(path), META)
    try:
        if meta.stat().st_size > LARGEST_META:
            raise ParameterError(
                f"{meta} is larger than {LARGEST_META >> 20} MiB; that is no SigMF"
            )
        metadata = _parsed(meta.read_bytes(), str(meta))
    except OSError as error:
        raise ParameterError(f"cannot read {meta}: {error.strerror}") from None
    name = metadata["global"].get("core:dataset", beside(base_of(path), DATA).name)
    if not isinstance(name, str) or Path(name).name != name or name == ".." or "\0" in name:
        raise ParameterError(
            f"{meta}: core:dataset = {name!r}; expected the name of a file beside it"
        )
    data = meta.with_name(name)
    try:
        size = data.stat().st_size
    except OSError as error:
        raise ParameterError(
            f"{meta} describes the samples in {data}, which cannot be read: {error.strerror}"
        ) from None
    return _described(metadata, data, 0, size, str(meta))


def verify(recorded: Recorded) -> None:
    """Compare the SHA-512 of the samples with the one in the metadata, if there is one."""
    if not recorded.sha512 or recorded.samples is None:
        return
    size = recorded.samples * recorded.encoding.bytes
    changed = recorded.path.stat().st_mtime_ns
    digest = _sha512(recorded.path, recorded.offset, size, changed)
    if digest != recorded.sha512.lower():
        raise ParameterError(
            f"{recorded.path} is damaged: its SHA-512 begins with {digest[:12]}, but "
            f"{recorded.said_by} says {recorded.sha512[:12].lower()}"
        )


@lru_cache(maxsize=16)  # a flow is built more than once before it runs
def _sha512(path: Path, offset: int, size: int, changed_ns: int) -> str:
    digest = hashlib.sha512()
    with path.open("rb") as file:
        file.seek(offset)
        while size > 0 and (piece := file.read(min(size, 1 << 20))):
            digest.update(piece)
            size -= len(piece)
    return digest.hexdigest()


def _from_archive(path: Path) -> tuple[bytes, Path, int, int, str]:
    """Text of the metadata; file, offset and size of the samples; who says so."""
    try:
        with tarfile.open(path, "r:") as archive:
            members = {m.name: m for m in archive if m.isreg() and not m.issparse()}
            metas = [name for name in members if name.endswith(META)]
            if len(metas) != 1:
                raise ParameterError(
                    f"{path} holds {len(metas)} recordings; expected one: unpack it with tar and "
                    f"name a {META} file"
                )
            data = members.get(metas[0][: -len(META)] + DATA)
            if data is None:
                raise ParameterError(f"{path} has no {DATA} file beside {metas[0]}")
            if members[metas[0]].size > LARGEST_META:
                raise ParameterError(f"{path}: {metas[0]} is larger than {LARGEST_META >> 20} MiB")
            file = archive.extractfile(members[metas[0]])
            text = file.read() if file is not None else b""
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise ParameterError(f"{path} is no SigMF archive, which is a plain tar: {error}") from None
    there = path.stat().st_size - data.offset_data
    if data.size > there:
        raise ParameterError(
            f"{path} was cut short: it should hold {data.size} bytes of samples, but has {there}"
        )
    return text, path, data.offset_data, data.size, f"{path} ({metas[0]})"


def _parsed(text: bytes, where: str) -> dict[str, Any]:
    """The metadata, with the three objects that they must have."""
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ParameterError(f"{where} is no SigMF metadata: not JSON ({error})") from None
    if not isinstance(metadata, dict) or not isinstance(metadata.get("global"), dict):
        raise ParameterError(f"{where} is no SigMF metadata: it has no 'global' object")
    for part in ("captures", "annotations"):
        items = metadata.setdefault(part, [])
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise ParameterError(f"{where}: {part!r} must be a list of objects")
    return metadata


def _described(
    metadata: Mapping[str, Any], path: Path, offset: int, size: int, where: str
) -> Recorded:
    """What the metadata say of `size` bytes of samples."""
    overall = metadata["global"]
    if "core:datatype" not in overall:
        raise ParameterError(f"{where} has no core:datatype")
    encoding = _encoding(overall["core:datatype"], where)
    _refuse_the_unsupported(metadata, where)
    samples = whole_samples(path, size, encoding)
    rate_hz = _number(overall, "core:sample_rate", where)
    if rate_hz < 0:
        raise ParameterError(f"{where}: core:sample_rate = {rate_hz} Hz, but it must be above 0")
    first = _whole(overall, "core:offset", where)

    captures = metadata["captures"]
    begins = [_begin(capture, "captures", first, samples, where) for capture in captures]
    if begins != sorted(begins):
        raise ParameterError(f"{where}: the captures are not in the order of core:sample_start")
    tuned = [_number(c, "core:frequency", where) for c in captures if "core:frequency" in c]
    if len(set(tuned)) > 1:
        raise ParameterError(
            f"{where}: the receiver was retuned between {min(tuned)} Hz and {max(tuned)} Hz; a "
            "stream has one core:frequency: cut the recording where it changes"
        )
    centre_hz = _number(captures[0], "core:frequency", where) if captures else 0.0
    epoch_utc_ns = 0
    if captures and "core:datetime" in captures[0]:
        epoch_utc_ns = nanoseconds(captures[0]["core:datetime"], where)
        if rate_hz:
            epoch_utc_ns -= round(begins[0] * NANOSECONDS / rate_hz)

    for item in metadata["annotations"]:
        end = _begin(item, "annotations", first, samples, where)
        end += _whole(item, "core:sample_count", where)
        if end > samples:
            raise ParameterError(
                f"{path} was cut short: {where} describes samples up to {end}, but it holds "
                f"{samples}"
            )
    sha512 = overall.get("core:sha512", "")
    if not isinstance(sha512, str):
        raise ParameterError(f"{where}: core:sha512 must be a text")
    return Recorded(
        path, encoding, f"sigmf {encoding.name}", offset, samples, rate_hz, centre_hz,
        epoch_utc_ns, _gaps(captures, begins, samples, where),
        continuous=overall.get(CONTINUOUS) is not False, sha512=sha512, said_by=where,
    )  # fmt: skip


def _encoding(datatype: object, where: str) -> Encoding:
    found = _DATATYPE.fullmatch(datatype) if isinstance(datatype, str) else None
    if found is None:
        raise ParameterError(
            f"{where}: core:datatype = {datatype!r}; expected c or r, then f32, f64, i8, u8, i16, "
            "u16, i32 or u32, then _le or _be, as in cf32_le"
        )
    kind, number, order = found.groups()
    bits = int(number[1:])
    stored = (">" if order == "_be" else "<") + f"{number[0]}{bits // 8}"
    # Unsigned numbers as for raw cu8: the same bytes are the same samples in any wrapping.
    zero = (2.0**bits - 1) / 2 if number[0] == "u" else 0.0
    full = {"u": zero, "i": 2.0 ** (bits - 1), "f": 0.0}[number[0]]
    return Encoding(found.group(), stored, 2 if kind == "c" else 1, zero, full)


def _refuse_the_unsupported(metadata: Mapping[str, Any], where: str) -> None:
    overall = metadata["global"]
    if overall.get("core:num_channels", 1) != 1:
        raise ParameterError(
            f"{where}: core:num_channels = {overall['core:num_channels']!r}; only recordings of "
            "one channel can be read: split it"
        )
    headers = any(capture.get("core:header_bytes") for capture in metadata["captures"])
    if headers or overall.get("core:trailing_bytes"):
        raise ParameterError(
            f"{where}: its data file has bytes that are no samples (core:header_bytes or "
            "core:trailing_bytes), which cannot be read; convert it to a conforming recording"
        )
    extensions = overall.get("core:extensions", [])
    if not isinstance(extensions, list):
        raise ParameterError(f"{where}: core:extensions must be a list")
    for extension in extensions:
        if isinstance(extension, dict) and extension.get("optional") is False:
            raise ParameterError(
                f"{where} cannot be understood without its extension {extension.get('name')!r}, "
                "which is not known here"
            )


def _begin(item: Mapping[str, Any], part: str, first: int, samples: int, where: str) -> int:
    """Position in the file at which a capture or an annotation begins."""
    begin = _whole(item, START, where) - first
    if begin < 0:
        raise ParameterError(
            f"{where}: {part} begin at sample {begin + first}, before core:offset = {first}"
        )
    if begin > samples:
        raise ParameterError(
            f"{where}: {part} begin at sample {begin}, but there are only {samples} samples; the "
            "file of samples was cut short"
        )
    return begin


def _gaps(
    captures: Sequence[Mapping[str, Any]], begins: Sequence[int], samples: int, where: str
) -> tuple[tuple[int, int], ...]:
    """Samples lost between captures, where core:global_index counts on while the file does not."""
    gaps: list[tuple[int, int]] = []
    position = index = 0
    for number, (begin, capture) in enumerate(zip(begins, captures, strict=True)):
        # Counted from the first capture: what came before it belongs to no recording.
        expected = index + begin - position if number else _whole(capture, START, where)
        index = _whole(capture, "core:global_index", where, expected)
        lost = index - expected if number else 0
        if lost < 0:
            raise ParameterError(
                f"{where}: core:global_index runs backwards at sample {begin}, from {expected} to "
                f"{index}"
            )
        if lost and 0 < begin < samples:
            gaps.append((begin, lost))
        position = begin
    return tuple(gaps)


def _number(item: Mapping[str, Any], key: str, where: str, default: float = 0.0) -> float:
    value = item.get(key, default)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= 1e300:
        return float(value)
    raise ParameterError(f"{where}: {key} = {value!r}; expected a number")


def _whole(item: Mapping[str, Any], key: str, where: str, default: int = 0) -> int:
    value = item.get(key, default)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63:
        return value
    raise ParameterError(f"{where}: {key} = {value!r}; expected a whole number, 0 or more")


def nanoseconds(text: object, where: str) -> int:
    """UTC in nanoseconds since 1970 of an RFC 3339 time such as 2026-11-20T12:00:00.5Z."""
    found = _DATETIME.fullmatch(text) if isinstance(text, str) else None
    try:
        if found is None:
            raise ValueError
        whole = datetime.fromisoformat(found[1].upper()).replace(tzinfo=UTC) - _EPOCH
    except ValueError:
        raise ParameterError(
            f"{where}: core:datetime = {text!r}; expected a time like 2026-11-20T12:00:00.5Z"
        ) from None
    fraction = int((found[2] or "0")[:9].ljust(9, "0"))
    return (whole.days * 86400 + whole.seconds) * NANOSECONDS + fraction


def time_text(utc_ns: int) -> str:
    """The inverse of `nanoseconds`.

    >>> time_text(1_500_000_000)
    '1970-01-01T00:00:01.500000000Z'
    """
    seconds, fraction = divmod(utc_ns, NANOSECONDS)
    when = _EPOCH + timedelta(seconds=seconds)
    return f"{when:%Y-%m-%dT%H:%M:%S}.{fraction:09}Z"


def metadata(
    *,
    datatype: str,
    samples: int,
    sha512: str,
    captures: Sequence[Mapping[str, Any]],
    rate_hz: float,
    continuous: bool,
    description: str,
    label: str,
) -> dict[str, Any]:
    """The metadata of a recording, ready for JSON.

    One annotation spans all samples, so that a file that lost its end is found out without
    reading it through.

    captures    objects as the specification has them, in order
    rate_hz     0: unknown, left out
    """
    overall: dict[str, Any] = {
        "core:datatype": datatype,
        "core:version": VERSION,
        "core:recorder": "kalvit",
        "core:description": description,
        "core:sha512": sha512,
    }
    if rate_hz:
        overall["core:sample_rate"] = rate_hz
    if not continuous:
        overall[CONTINUOUS] = False
        overall["core:extensions"] = [{"name": "kalvit", "version": "0.1.0", "optional": True}]
    whole = {START: 0, "core:sample_count": samples, "core:label": label}
    return {"global": overall, "captures": list(captures), "annotations": [whole]}
