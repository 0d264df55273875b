"""The channels, what is sent over them, and how likely what comes is when the taps are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.special import ndtr

from blocks.channel.isi import Isi
from blocks.kernels.trellis import ALPHABETS, digits
from blocks.nodes.node import labels_of
from pipeline.block import Context
from pipeline.instance import drive

Array = np.ndarray[Any, Any]

MEMORY = 4
CLASSES = 2**MEMORY
WORD = 500  # symbols; as long as a coherence block of uncertain taps
TRAINING = 5000  # labelled symbols
TAP_ERROR = 0.1  # variance, as in the papers
DECAYS = tuple(k / 10 for k in range(1, 21))
TANH = 0.5  # scale


class Channel(NamedTuple):
    """One kind of channel, with taps exp(-decay l), l = 0 ... 3.

    values    parameters of channel.isi
    symbols   SNR [dB] -> test symbols over each decay: exact MAP makes 1000 errors or more in all
    """

    name: str
    title: str
    modulation: Literal["bpsk", "ook"]
    values: Mapping[str, Any]
    symbols: Mapping[int, int]

    @property
    def before(self) -> Literal[-1, 0]:
        """The symbol sent before each word: the first of the alphabet."""
        return -1 if self.modulation == "bpsk" else 0

    @property
    def class_symbols(self) -> Array:
        """Symbols of each class, (CLASSES, MEMORY) float64, newest first."""
        found: Array = ALPHABETS[self.modulation].astype(float)[
            digits(np.arange(CLASSES), 2, MEMORY)
        ]
        return found


_SYMBOLS = {-6: 5_000, -4: 5_000, -2: 5_000, 0: 5_000, 2: 5_000, 4: 5_000, 6: 10_000, 8: 25_000,
            10: 150_000}  # fmt: skip

CHANNELS = {
    channel.name: channel
    for channel in (
        Channel("gaussian", "Gaussian noise", "bpsk", {}, _SYMBOLS),
        Channel(
            "poisson", "Poisson counts", "ook", {"noise": "poisson"},
            {10: 5_000, 13: 5_000, 16: 5_000, 19: 5_000, 22: 5_000, 25: 10_000, 28: 20_000,
             31: 60_000, 34: 200_000},
        ),
        Channel("tanh", f"Gaussian noise, then tanh({TANH} y)", "bpsk", {"tanh": TANH}, _SYMBOLS),
        Channel(
            "quantised", "Gaussian noise, then 4 levels", "bpsk",
            {"quantiser_bits": 2, "quantiser_range": 2.0},
            {-6: 5_000, -2: 5_000, 2: 5_000, 6: 5_000, 10: 10_000},
        ),
    )
}  # fmt: skip


class Place(NamedTuple):
    """One channel at one SNR and with one decay of its taps."""

    channel: Channel
    snr_db: int
    decay: float

    @property
    def taps(self) -> Array:
        """Newest symbol first, (1, MEMORY)."""
        found: Array = np.exp(-self.decay * np.arange(MEMORY))[None]
        return found


class Words(NamedTuple):
    """Words that were sent, and what came of them.

    indices  (word, time) int64    of the symbols in the alphabet
    samples  (word, time) float32
    """

    indices: Array
    samples: Array


def transmit(
    place: Place, words: int, length: int, purpose: str, seed: int, **values: Any
) -> Words:
    """Words of random symbols over the channel; `values` are more parameters of channel.isi."""
    channel = place.channel
    about = f"{channel.name}, {place.snr_db} dB, decay {place.decay}, {purpose}"
    rng = np.random.default_rng([seed, *about.encode()])
    indices = rng.integers(2, size=(words, length))
    block = Isi(
        decay=place.decay, memory=MEMORY, snr_db=float(place.snr_db), before=channel.before,
        **channel.values, **values,
    )  # fmt: skip
    sent = ALPHABETS[channel.modulation][indices]
    (fields,) = drive(block, [{"sent": sent}], context=Context("channel", about, seed))
    return Words(indices, fields["samples"])


class Labelled(NamedTuple):
    """What detectors learn from.

    samples  (time,) float32
    indices  (time,) int64  of the symbols
    labels   (time,) int64  classes
    """

    place: Place
    samples: Array
    indices: Array
    labels: Array


#: What the labelled symbols were sent over: parameters of channel.isi.
KNOWLEDGE: dict[str, Mapping[str, Any]] = {
    "perfect": {},
    "uncertain": {"tap_error": TAP_ERROR, "tap_error_kind": "relative", "coherence": WORD},
}


def labelled(place: Place, knowledge: str, seed: int) -> Labelled:
    """TRAINING symbols with their labels."""
    words = transmit(place, 1, TRAINING, f"labelled, {knowledge}", seed, **KNOWLEDGE[knowledge])
    indices = words.indices[0]
    return Labelled(place, words.samples[0], indices, labels_of(indices, MEMORY, 2, before=0))


def metrics_of(place: Place, samples: Array, taps: Array) -> Array:
    """Branch metrics (time, CLASSES) float32 of the true channel with these taps.

    samples  (time,)
    taps     (n, MEMORY)  each row holds for time / n samples
    """
    channel = place.channel
    means = (taps @ channel.class_symbols.T)[:, None]
    values = samples.astype(np.float64).reshape(len(taps), -1, 1)
    snr = 10.0 ** (place.snr_db / 10)
    if channel.values.get("noise") == "poisson":
        means = np.sqrt(snr) * means + 1.0
        metrics = means - values * np.log(means)
    elif "quantiser_bits" in channel.values:  # the probability of what is rounded to the sample
        top = channel.values["quantiser_range"]
        half = top / 2 ** channel.values["quantiser_bits"]
        low = np.where(values - half <= -top, -np.inf, values - half)
        high = np.where(values + half >= top, np.inf, values + half)
        # As a lower tail, of whichever sign, which keeps its digits.
        upwards = values < means
        ends = (
            np.where(upwards, high - means, means - low),
            np.where(upwards, low - means, means - high),
        )
        metrics = ndtr(np.sqrt(snr) * ends[0]) - ndtr(np.sqrt(snr) * ends[1])
        metrics = -np.log(np.maximum(metrics, 1e-300))
    else:
        if "tanh" in channel.values:  # one to one, but for float32, which comes to 1 at last
            values = np.arctanh(np.clip(values, -1.0 + 6e-8, 1.0 - 6e-8)) / channel.values["tanh"]
        metrics = 0.5 * snr * (values - means) ** 2
    metrics -= metrics.min(axis=2, keepdims=True)
    found: Array = metrics.reshape(-1, CLASSES).astype(np.float32)
    return found


def wrong_taps(place: Place, rows: int, kind: str, seed: int) -> Array:
    """What a receiver with uncertain knowledge takes for the taps, (rows, MEMORY)."""
    rng = np.random.default_rng([seed, *f"{place} {kind}".encode()])
    error = np.sqrt(TAP_ERROR) * rng.standard_normal((rows, MEMORY))
    taps = place.taps * (1.0 + error) if kind == "relative" else place.taps + error
    found: Array = np.maximum(taps, 0.0) if place.channel.modulation == "ook" else taps
    return found
