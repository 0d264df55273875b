"""How single samples are stored, and what a recording says about itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import ParameterError
from pipeline.frame import Array


@dataclass(frozen=True, slots=True)
class Encoding:
    """One way to store samples as bytes.

    name        as a user of a flow would say it
    stored      numpy dtype of one component, with its byte order
    components  numbers per sample: 1, or 2 for I then Q
    zero        stored number that stands for 0
    full        distance from `zero` that stands for 1; 0 for floating point, taken as it is
    packed      the numbers are 24 bit wide, in 3 bytes; `stored` is what they are widened to
    keep        component that is kept, where only one of two is wanted; -1: both
    """

    name: str
    stored: str
    components: int
    zero: float = 0.0
    full: float = 0.0
    packed: bool = False
    keep: int = -1

    @property
    def bytes(self) -> int:
        """Bytes per sample in the file."""
        return self.components * (3 if self.packed else np.dtype(self.stored).itemsize)

    @property
    def dtype(self) -> str:
        """Dtype of the decoded samples: complex64 for I and Q, else float32."""
        return "complex64" if self.components == 2 and self.keep < 0 else "float32"

    def decode(self, raw: Array, scaled: bool = True) -> Array:
        """The samples in `raw`, as a new array or, for cf32 and f32, as a view of it.

        Numbers that float32 cannot hold are rounded to the nearest that it can; NaN and
        infinity come through.

        raw     (n * bytes,) uint8
        scaled  whole numbers as -1 ... 1; False: as they are stored, less `zero`
        """
        numbers = _widened(raw) if self.packed else raw.view(self.stored)
        if self.keep >= 0:
            numbers = numbers[self.keep :: self.components]
        if self.full:
            # float32 holds 16-bit numbers and their halves exactly; wider ones need float64.
            exact = np.float64 if numbers.itemsize > 2 else np.float32
            samples = np.subtract(numbers, self.zero, dtype=exact)
            samples /= self.full if scaled else (256.0 if self.packed else 1.0)
            numbers = samples
        with np.errstate(over="ignore"):
            samples = np.ascontiguousarray(numbers, dtype=np.float32)
        return samples.view(self.dtype)


def _widened(raw: Array) -> Array:
    """24-bit little-endian numbers as int32, times 256 so that the sign is in its place."""
    wide = np.zeros((raw.size // 3, 4), np.uint8)
    wide[:, 1:] = raw.reshape(-1, 3)
    return wide.reshape(-1).view("<i4")


#: Files that hold nothing but samples, by the names that SDR tools give them. Unsigned bytes of
#: an SDR have no code for 0: the middle of their range lies between 127 and 128.
RAW: dict[str, Encoding] = {
    encoding.name: encoding
    for encoding in (
        Encoding("cu8", "u1", 2, zero=127.5, full=127.5),
        Encoding("cs8", "i1", 2, full=128.0),
        Encoding("cs16", "<i2", 2, full=32768.0),
        Encoding("cf32", "<f4", 2),
        Encoding("f32", "<f4", 1),
        Encoding("s16", "<i2", 1, full=32768.0),
    )
}


@dataclass(frozen=True, slots=True)
class Recorded:
    """Where the samples of a recording lie, and what is known of them.

    path          file that holds them
    encoding      how each is stored
    format        what kind of recording it is, for people
    offset        byte at which they begin
    samples       how many there are; None: as many as will come out of a pipe
    rate_hz, centre_hz, epoch_utc_ns
                  as in StreamInfo; 0: not said
    gaps          pairs (position in the recording, samples lost just before it), in order
    continuous    consecutive samples were consecutive on the air
    sha512        of the bytes of the samples, in hex; "": not said
    said_by       file that says all this, for error texts
    """

    path: Path
    encoding: Encoding
    format: str
    offset: int = 0
    samples: int | None = None
    rate_hz: float = 0.0
    centre_hz: float = 0.0
    epoch_utc_ns: int = 0
    gaps: tuple[tuple[int, int], ...] = ()
    continuous: bool = True
    sha512: str = ""
    said_by: str = ""


def whole_samples(path: Path | str, nbytes: int, encoding: Encoding) -> int:
    """How many samples `nbytes` bytes are; ParameterError where they end inside one."""
    samples, rest = divmod(nbytes, encoding.bytes)
    if nbytes == 0:
        raise ParameterError(f"{path} holds no samples")
    if rest:
        raise ParameterError(
            f"{path} holds {nbytes} bytes of samples, which end inside a sample: {encoding.name} "
            f"has {encoding.bytes} bytes per sample; the file was cut short or has another format"
        )
    return samples
