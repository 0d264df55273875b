"""What every block of the catalogue promises, whatever it computes.

A new block gets one line in CASES (or two, if it takes streams as well as words), and each test
below holds for it. What a block computes is tested in tests/blocks.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soapy_stand_in
import zmq_sides
from gain_networks import (
    calibrated,
    random_gain,
    random_passes,
    random_recursive,
    random_split,
)
from graph_networks import random_graph
from image_encoders import random_encoder
from learned_noises import constant_noise, random_noise
from random_layers import random_layers
from recurrent_networks import random_network
from rtl_tcp_server import Server, sending

from blocks import CATALOGUE
from blocks.decoder.ax25 import Ax25
from blocks.decoder.mode_s import Modes
from blocks.formats import ais
from blocks.kernels import gmsk, hdlc, mode_s_encoding, state_space
from blocks.nodes.dense import Dense
from blocks.tracker.aircraft import Aircraft
from pipeline.block import (
    Block,
    Context,
    Reframe,
    Silence,
    Sink,
    Source,
    Trainer,
    make,
    writes_of,
)
from pipeline.frame import DTYPES, FrameInfo, StreamInfo
from pipeline.signature import FieldType, bind, check_array
from pipeline.weights import Weights

Values = Mapping[str, Any]

# dims along which a stream goes on
CLOCKS = (
    "time", "data", "code", "candidate", "message", "sent_message", "track", "bit", "packet",
    "sent_packet",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One block with what it needs to run.

    block     its name in the catalogue
    about     what this case is about, if the block has several
    values    parameters that differ from the defaults, or a function that gives them for an empty
              folder, for blocks that read or write files
    inputs    what it reads: field -> (dims, array). The tests cut it along `word`, or else along
              one of CLOCKS
    cuts      sources: parameters that cut the same stream in other ways
    weights   what a learned block decides with, made when it is needed
    resumes   whether `restore` goes on where `state` was taken
    package   what it needs beside this repository: where it is not installed, tests skip
    """

    block: str
    about: str = ""
    values: Values | Callable[[Path], Values] = field(default_factory=dict)
    inputs: Mapping[str, tuple[str, np.ndarray]] = field(default_factory=dict)
    cuts: Sequence[Values] = ()
    weights: Callable[[], Weights] | None = None
    resumes: bool = True
    package: str = ""

    def __str__(self) -> str:
        return f"{self.block} {self.about}".strip().replace(" ", "-")


RNG = np.random.default_rng(20)
TAPS = (1.0, 0.61, 0.37, 0.22)
BPSK = RNG.choice(np.array([1, -1], np.int8), 2400)
OOK = (BPSK > 0).astype(np.int8)
QPSK = ((BPSK + 1j * BPSK[::-1]) / np.sqrt(2)).astype(np.complex64)
REAL = np.convolve(BPSK, TAPS)[:2400].astype(np.float32)
REAL += 0.5 * RNG.standard_normal(2400, np.float32)
COMPLEX = (QPSK + 0.2 * RNG.standard_normal(2400) + 0.2j * RNG.standard_normal(2400)).astype(
    np.complex64
)
WRONG = np.where(RNG.random(2400) < 0.1, -BPSK, BPSK)
MOVED = np.random.default_rng(21).standard_normal((2400, 2)).cumsum(axis=0)
SEEN = MOVED + np.random.default_rng(22).standard_normal((2400, 2))
SEEN[::9] = np.nan
SEEN[4::9, 1] = np.nan
UNEVEN = np.random.default_rng(23).uniform(0.5, 1.5, 2400)
WALK = {"motion": "random_walk", "observation": "identity", "initial_variance": 1.0}
TURN = {
    "motion": "coordinated_turn", "observation_noise": (1.0, 2.0), "initial_variance": 1.0,
    "motion_parameters": {"turn_noise": 0.01},
}  # fmt: skip


IMAGES = np.random.default_rng(30).random((2400, 9, 9), np.float32)
BITS = (BPSK > 0).astype(np.uint8)
SOFT = np.rint(40 * REAL.clip(-3, 3)).astype(np.int8)


def mode_s_messages() -> list[np.ndarray]:
    """What 40 aircraft send in turn, mixed with noise."""
    rng = np.random.default_rng(24)
    messages = []
    for number in range(2400):
        address = 0x400000 + number % 40
        place = (50.0 + number % 40 + 1e-5 * number, 8.0 + 1e-5 * number)
        kind = int(rng.integers(6))
        if kind == 0:
            code = int(rng.choice([0, 5, 60]))
            message = mode_s_encoding.all_call_reply(address, interrogator=code)
        elif kind == 1:
            message = mode_s_encoding.altitude_reply(address, 3000.0)
        elif kind == 2:
            message = mode_s_encoding.extended_squitter(
                address, mode_s_encoding.ground_velocity(-100.0, 200.0, 640.0)
            )
        elif kind == 3:
            message = rng.integers(0, 256, 14, dtype=np.uint8)
            message[0] |= 128
        else:
            message = mode_s_encoding.extended_squitter(
                address, mode_s_encoding.airborne_position(*place, 3000.0, kind % 2)
            )
        messages.append(message)
    return messages


MODE_S = mode_s_messages()
CANDIDATES = {
    "candidates": (
        "candidate bit",
        np.array([np.unpackbits(np.resize(m, 14)) * (np.arange(112) < 8 * m.size) for m in MODE_S])
        .astype(np.uint8),
    ),
    "candidate_bits": ("candidate", np.array([8 * m.size for m in MODE_S], np.int16)),
    "candidate_sample": (
        "candidate", np.random.default_rng(25).uniform(100.0, 400.0, 2400).cumsum(),
    ),
}  # fmt: skip
TIMES = {"candidate_time": ("candidate", np.arange(2400) / 20.0)}


def load(name: str) -> type[Block]:
    module, _, cls = CATALOGUE[name].partition(":")
    return getattr(importlib.import_module(module), cls)


def decoded(sink: str = "sink.modes_messages") -> Mapping[str, tuple[str, np.ndarray]]:
    """What decoder.modes makes of CANDIDATES, as far as this sink reads it.

    There are as many messages as candidates of which the status is told.
    """
    block = Modes()
    block.start()
    found = block.process(**{name: array for name, (_, array) in {**CANDIDATES, **TIMES}.items()})
    count = len(found.messages)
    dims = {"messages": "message byte", "callsign": "message character"}
    inputs = {}
    for name in load(sink).signature().reads:
        if name == "candidate_status":
            inputs[name] = ("candidate", found.candidate_status[:count])
        elif hasattr(found, name):
            inputs[name] = (dims.get(name, "message"), getattr(found, name))
    return inputs


def flying() -> Mapping[str, tuple[str, np.ndarray]]:
    """What 30 aircraft tell of themselves in turn, some of them with long breaks."""
    rng = np.random.default_rng(26)
    number = np.arange(1200)
    aircraft = np.where(number % 300 < 200, number % 30, number % 10)
    time = number / 5.0
    placed = rng.random(1200) < 0.5
    far = 0.05 * (rng.random(1200) < 0.02)  # outliers
    told = {
        "message_time": time,
        "message_address": (0x400000 + aircraft).astype(np.uint32),
        "latitude": np.where(placed, 50.0 + aircraft + far, np.nan),
        "longitude": np.where(placed, 179.9 + 0.0025 * time, np.nan),
        "altitude": np.where(placed, 3000.0 + 25.0 * (number % 3), np.nan),
        "ground_speed": np.where(placed, np.nan, 340.0),
        "track": np.where(placed, np.nan, 90.0),
        "vertical_rate": np.where(placed, np.nan, 64.0),
        "containment": np.where(placed, 185.2, np.nan),
        "on_ground": np.where(placed, 0, -1).astype(np.int8),
    }
    told["longitude"] = np.where(told["longitude"] > 180.0, -360.0, 0.0) + told["longitude"]
    return {name: ("message", array) for name, array in told.items()}


FLYING = flying()


def tracked() -> Mapping[str, tuple[str, np.ndarray]]:
    """What tracker.aircraft makes of FLYING."""
    block = Aircraft(coast_s=5.0, end_s=20.0)
    block.start()
    found = block.process(**{name: array for name, (_, array) in FLYING.items()})
    more = {
        "track_velocity": " axis", "track_covariance": " state state", "track_innovation": " state",
        "track_nis": " quantity", "track_log_likelihood": " quantity", "track_refused": " quantity",
        "track_reckoned": " plane",
    }  # fmt: skip
    return {name: ("track" + more.get(name, ""), getattr(found, name)) for name in found._fields}


def sent_and_found() -> Mapping[str, tuple[str, np.ndarray]]:
    """The messages of MODE_S as sent, and every third of them as found."""
    sent = np.array([np.resize(m, 14) for m in MODE_S])
    where = CANDIDATES["candidate_sample"][1]
    return {
        "sent_messages": ("sent_message byte", sent),
        "sent_bits": ("sent_message", CANDIDATES["candidate_bits"][1]),
        "sent_sample": ("sent_message", where),
        "sent_snr_db": ("sent_message", np.linspace(0.0, 20.0, 2400, dtype=np.float32)),
        "messages": ("message byte", np.repeat(sent[::3], 3, axis=0)),
        "message_sample": ("message", np.repeat(where[::3], 3)),
        "message_strict": ("message", np.tile(np.array([1, 1, 0], np.uint8), 800)),
    }


def hdlc_lanes() -> Mapping[str, tuple[str, np.ndarray]]:
    """Two lanes of scrambled bits with packets, which have wrong bits in different places."""
    rng = np.random.default_rng(26)
    flag = np.array(hdlc.FLAG, np.uint8)
    parts = [np.concatenate([hdlc.frame(rng.bytes(12)), flag]) for _ in range(25)]
    bits = np.concatenate([flag, flag, flag, *parts])[:2400]
    line = np.empty_like(bits)
    hdlc.to_line(bits, True, True, line)
    lanes = line ^ (rng.random((2, line.size)) < 0.002).astype(np.uint8)
    times = 5.0 * np.arange(line.size) + np.array([[0.3], [0.0]])
    return {"line_bits": ("lane bit", lanes), "bit_sample": ("lane bit", times)}


def ax25_packets() -> Mapping[str, tuple[str, np.ndarray]]:
    """Packets of three senders, one of them no AX.25, as decoder.hdlc gives them."""
    rng = np.random.default_rng(27)
    callsigns = [f"{name:6s}".encode() for name in ("CQ", "DL1ABC", "OH2AGS")]
    rows = rng.integers(0, 256, (2400, 32), dtype=np.uint8)
    for row, sender in zip(rows, rng.integers(0, 3, 2400), strict=True):
        row[:16] = [*(c << 1 for c in callsigns[0]), 0x60, *(c << 1 for c in callsigns[sender]),
                    0x61 + 2 * sender, 0x03 if sender else 0x01, 0xF0]  # fmt: skip
        row[0] |= sender == 2
    return {
        "packet_bytes": ("packet byte", rows),
        "packet_length": ("packet", rng.integers(16, 33, 2400).astype(np.int32)),
    }


def read_packets() -> Mapping[str, tuple[str, np.ndarray]]:
    """What decoder.ax25 makes of them, with places."""
    given = ax25_packets()
    found = Ax25().process(**{name: array for name, (_, array) in given.items()})
    dims = {"packet_digipeaters": "packet hop character", "packet_repeated": "packet hop"}
    dims |= dict.fromkeys(("packet_destination", "packet_source"), "packet character")
    inputs = {**given, "packet_sample": ("packet", 5000.0 * np.arange(2400))}
    return inputs | {n: (dims.get(n, "packet"), a) for n, a in found._asdict().items()}


def ais_bursts() -> np.ndarray:
    """Three bursts of AIS at 2.5 samples per symbol, in noise."""
    rng = np.random.default_rng(27)
    air = 0.1 * rng.standard_normal((2400, 2)).view(complex)[:, 0]
    flag = np.array(hdlc.FLAG, np.uint8)
    pulse = gmsk.phase_pulse(0.4)
    for begin in (60.3, 820.8, 1600.1):
        packet = ais.position_report(211_000_000, 54.0, 10.0)
        bits = np.concatenate([np.arange(24) % 2, flag, hdlc.frame(packet), flag]).astype(np.uint8)
        line = np.empty_like(bits)
        hdlc.to_line(bits, False, True, line)
        n = np.arange(int(begin - 10), int(begin + 2.5 * len(line) + 10))
        places = (n - begin) / 2.5
        phases = gmsk.phases(2.0 * line - 1.0, places, pulse) + 2.0 * np.pi * 300.0 * n / 24e3
        air[n] += (abs(places - 0.5 * len(line)) < 0.5 * len(line) + 2) * np.exp(1j * phases)
    return air.astype(np.complex64)


def ais_packets() -> Mapping[str, tuple[str, np.ndarray]]:
    """Packets of AIS of several types, and some that are none."""
    rng = np.random.default_rng(28)
    packets = []
    for number in range(500):
        mmsi = 211_000_000 + number % 40
        packets.append((
            ais.position_report(mmsi, 54.0 + 1e-3 * number, 10.0, speed=0.1 * number),
            ais.voyage(mmsi, name=f"SHIP {number % 40}", callsign="DK1"),
            ais.class_b_report(mmsi, 54.0, 10.0 + 1e-3 * number),
            ais.class_b_name(mmsi, "YACHT"),
            rng.bytes(int(rng.integers(9, 50))),
        )[number % 5])  # fmt: skip
    contents = np.zeros((len(packets), 53), np.uint8)
    for row, packet in zip(contents, packets, strict=True):
        row[: len(packet)] = np.frombuffer(packet, np.uint8)
    return {
        "packet_bytes": ("packet byte", contents),
        "packet_length": ("packet", np.array([len(p) for p in packets], np.int32)),
        "packet_sample": ("packet", rng.uniform(1000.0, 3000.0, len(packets)).cumsum()),
    }


def ais_messages() -> Mapping[str, tuple[str, np.ndarray]]:
    """Packets with what might be in them, beside what was sent, of which some came wrong."""
    packets = ais_packets()
    rng = np.random.default_rng(29)
    count = len(packets["packet_length"][1])
    kinds = rng.choice(np.array([0, 1, 5, 18], np.uint8), count)
    latitude = np.where(rng.random(count) < 0.7, rng.uniform(50.0, 60.0, count), np.nan)
    sent = packets["packet_bytes"][1].copy()
    sent[::7, 20] ^= 1
    names = rng.integers(65, 91, (count, 20), np.uint8) * (kinds == 5)[:, None].astype(np.uint8)
    return {
        **packets,
        "message_type": ("packet", kinds),
        "mmsi": ("packet", (rng.integers(1, 40, count) * (kinds > 0)).astype(np.uint32)),
        "latitude": ("packet", latitude),
        "longitude": ("packet", latitude - 45.0),
        "ground_speed": ("packet", rng.uniform(0.0, 20.0, count)),
        "ship_name": ("packet letter", names),
        "sent_packet_bytes": ("sent_packet sent_byte", sent),
        "sent_packet_length": ("sent_packet", packets["packet_length"][1]),
        "sent_packet_sample": ("sent_packet", packets["packet_sample"][1] + 0.25),
        "sent_packet_clear": ("sent_packet", (np.arange(count) % 4 > 0).astype(np.uint8)),
    }


def dense(modulation: str, memory: int = 4) -> Weights:
    """Of a network that knows nothing, for real samples with a table that not all are in."""
    fresh = Dense.fresh(modulation, memory, rng=np.random.default_rng(30), hidden=(9,),
                        activations=("tanh",))  # fmt: skip
    span = None if modulation == "qpsk" else [-2.0, 2.0]
    return Dense.of({**fresh.hyper, "span": span}, fresh.arrays).weights("net")


SHIPPED = {"model": "viterbinet_tanh@1"}  # whatever others are in the user's folder


CHAOS = {
    "motion": "lorenz_taylor", "observation": "identity", "step_s": 0.02, "process_noise": 0.1,
}  # fmt: skip


def seen_chaos() -> Mapping[str, tuple[str, np.ndarray]]:
    """The Lorenz attractor in noise that becomes louder, with gaps."""
    model, rng = state_space.build(**CHAOS), np.random.default_rng(31)
    states, seen = rng.standard_normal((2, 2400, 3))
    seen[1000:] *= 3.0
    model.simulate(states, seen, np.full(2400, 0.02), np.ones((1, 3)))
    seen[::11] = np.nan
    return {"observations": ("time observation", seen)}


def accepted_words() -> Mapping[str, tuple[str, np.ndarray]]:
    """Words of BPSK over two taps that a code accepted, some of them with other labels."""
    rng = np.random.default_rng(30)
    bits = rng.integers(0, 2, (60, 40), np.uint8)
    sent = np.concatenate([np.full((60, 1), -1.0), 2.0 * bits - 1.0], axis=1)
    samples = sent[:, 1:] + 0.5 * sent[:, :-1] + 0.3 * rng.standard_normal(bits.shape)
    bits[::4] = bits[3]
    accepted = rng.random(60) < 0.9
    return {
        "samples": ("word time", samples.astype(np.float32)),
        "accepted": ("word", accepted),
        "reencoded": ("word code", bits),
        "difference": ("word", np.where(accepted, 0.01, np.nan).astype(np.float32)),
        "pilot": ("word", np.arange(60) % 10 == 0),
    }


SMALL = {"units": 3, "window": 5}
QPSK_GRU = {"modulation": "qpsk", "cell": "gru", "layers": 1}


def layers(name: str, values: Values) -> Weights:
    """Of recurrent layers that learned nothing."""
    return random_layers(load(name)(**values))


def words(array: np.ndarray) -> np.ndarray:
    return array.reshape(60, 40, *array.shape[1:])


def a_file(array: np.ndarray, name: str) -> Callable[[Path], Values]:
    """Parameters of a source that reads this array from a file."""

    def values(folder: Path) -> Values:
        array.tofile(folder / name)
        return {"path": str(folder / name), "length": 100}

    return values


def a_text(text: str) -> Callable[[Path], Values]:
    """Parameters of a source that reads this text from a file."""

    def values(folder: Path) -> Values:
        (folder / "made.txt").write_text(text)
        return {"path": str(folder / "made.txt")}

    return values


def beside(folder: Path) -> Values:
    """Parameters of a sink that writes a file in which streams follow one another as they come."""
    return {"path": str(folder.with_suffix(".out")), "overwrite": True}


@cache
def receiver() -> Server:
    """A server of samples, as long as the tests run."""
    return sending(np.rint(127.5 + 100.0 * REAL.clip(-1.2, 1.2)).astype(np.uint8).tobytes())


def of_receiver(folder: Path) -> Values:
    return {"connect": receiver().address, "length": 50, "frames": 20}


def of_stand_in(folder: Path) -> Values:
    soapy_stand_in.install()
    return {"length": 50, "frames": 20}


CASES = [
    Case(
        "source.random_symbols", "stream",
        {"frames": 5, "length": 480},
        cuts=[{"frames": 2400, "length": 1}, {"frames": 343, "length": 7}, {"length": 1000}],
    ),
    Case(
        "source.random_symbols", "words",
        {"frames": 5, "length": 40, "words": 12, "modulation": "qpsk"},
        cuts=[{"frames": 60, "words": 1}, {"frames": 9, "words": 7}],
    ),
    Case(
        "source.recording", "real",
        a_file(REAL, "real.f32"),
        cuts=[{"length": 1}, {"length": 7}, {"length": 1000}],
    ),
    Case("source.recording", "complex", a_file(COMPLEX, "complex.cf32"), cuts=[{"length": 1000}]),
    Case(
        "source.random_bits", "stream",
        {"frames": 5, "length": 480},
        cuts=[{"frames": 2400, "length": 1}, {"frames": 343, "length": 7}, {"length": 1000}],
    ),
    Case(
        "source.random_bits", "words",
        {"frames": 5, "length": 40, "words": 12},
        cuts=[{"frames": 60, "words": 1}, {"frames": 9, "words": 7}],
    ),
    Case(
        "source.random_bits", "pilots",
        {"frames": 5, "length": 40, "words": 12, "pilot_every": 5},
        cuts=[{"frames": 60, "words": 1}, {"frames": 9, "words": 7}],
    ),
    Case("encoder.convolutional", "stream", inputs={"bits": ("data", BITS)}),
    Case(
        "encoder.convolutional", "words",
        {"rate": "1/3", "ending": "tail_biting"},
        {"bits": ("word data", words(BITS))},
    ),
    Case(
        "encoder.reed_solomon",
        values={"n": 9, "k": 5},
        inputs={"bits": ("word data", words(BITS))},
    ),
    Case("encoder.modulator", "stream", {"modulation": "qpsk"}, {"coded": ("code", BITS)}),
    Case("encoder.modulator", "words", inputs={"coded": ("word code", words(BITS))}),
    Case("channel.awgn", "stream", inputs={"sent": ("time", BPSK)}),
    Case("channel.awgn", "words", inputs={"sent": ("word time", words(QPSK))}),
    Case(
        "channel.camera", "stream", {"side": 8, "noise_var": 0.1},
        {"states": ("time state", MOVED)},
    ),
    Case(
        "channel.camera", "words", {"side": 8, "scene": "lorenz", "levels": 0},
        {"states": ("word time state", words(np.repeat(MOVED, 2, axis=1)))},
    ),
    Case(
        "channel.isi", "uncertain stream",
        {"tap_error": 0.1, "coherence": 50},
        {"sent": ("time", BPSK)},
    ),
    Case("channel.isi", "stream", inputs={"sent": ("time", BPSK)}),
    Case(
        "channel.isi", "complex stream",
        {"fading": "cosine", "coherence": 64, "tanh": 0.5, "quantiser_bits": 6},
        {"sent": ("time", QPSK)},
    ),
    Case(
        "channel.isi", "changed stream",
        {"changed_taps": TAPS, "change_block": 20, "coherence": 60},
        {"sent": ("time", BPSK)},
    ),
    Case("channel.isi", "counts", {"noise": "poisson"}, {"sent": ("time", OOK)}),
    Case(
        "channel.isi", "words",
        {"fading": "accelerating", "before": 1},
        {"sent": ("word time", words(BPSK))},
    ),
    Case("frontend.cut", "real", {"length": 100}, {"samples": ("time", REAL)}),
    Case("frontend.cut", "complex", {"length": 700}, {"samples": ("time", COMPLEX)}),
    Case("frontend.demapper", "real", {"snr_db": 6.0}, {"samples": ("time", REAL)}),
    Case(
        "frontend.demapper", "complex",
        {"noise_var": 0.1, "modulation": "qpsk"},
        {"samples": ("time", COMPLEX)},
    ),
    Case("frontend.hard_bits", "stream", inputs={"symbols": ("time", QPSK)}),
    Case("frontend.hard_bits", "words", inputs={"symbols": ("word time", words(BPSK))}),
    Case(
        "frontend.learned_features", "stream", {"angles": (0,), "most_variance": 2.0},
        {"images": ("time row column", IMAGES)},
        weights=random_encoder,
    ),
    Case(
        "frontend.learned_features", "words", {"numbers": (2, 0), "angles": (0,)},
        {"images": ("word time row column", words(IMAGES))},
        weights=lambda: random_encoder((False, True)),
    ),
    Case("frontend.magnitude", "stream", inputs={"samples": ("time", COMPLEX)}),
    Case("frontend.magnitude", "words", inputs={"samples": ("word time", words(COMPLEX))}),
    Case("frontend.soft_bits", inputs={"llr": ("time bit", 4 * REAL[:, None])}),
    Case(
        "decoder.convolutional", "stream",
        {"constraint_length": 5, "window": 32},
        {"llr": ("time bit", 4 * REAL[:, None])},
    ),
    Case(
        "decoder.convolutional", "stream of soft bits",
        {"rate": "1/3", "window": 10, "lag": 20, "metric_bits": 8, "start_state": "unknown"},
        {"llr": ("time bit", SOFT.reshape(1200, 2))},
    ),
    Case(
        "decoder.convolutional", "words",
        {"constraint_length": 5},
        {"llr": ("word time bit", words(4 * REAL)[:, :, None])},
    ),
    Case(
        "decoder.reed_solomon",
        values={"n": 5, "k": 2},
        inputs={
            "hard": ("word code", words(BITS)),
            "erased": ("word byte", np.resize([True, False, False, False], (60, 5))),
        },
    ),
    Case(
        "decoder.reed_solomon", "pilots",
        {"n": 5, "k": 2, "pilot_every": 7},
        {"hard": ("word code", words(BITS))},
    ),
    *(
        Case(
            "detector.modes", f"{bits} at {rate_hz / 1e6} Msps",
            {"rate_hz": rate_hz, "bit_detector": bits, "threshold": 0.3, "likeness": 0.2},
            {"magnitude": ("time", np.abs(COMPLEX))},
        )
        for rate_hz in (2.0e6, 2.4e6)
        for bits in ("sequence", "slicer+repair")
    ),
    Case("detector.viterbi", "stream", {"taps": TAPS}, {"samples": ("time", REAL)}),
    Case(
        "detector.viterbi", "complex stream",
        {"taps": (1.0, 0.4), "modulation": "qpsk"},
        {"samples": ("time", COMPLEX)},
    ),
    Case("detector.viterbi", "words", {"taps": TAPS}, {"samples": ("word time", words(REAL))}),
    Case(
        "detector.sum_product", "stream",
        {"taps": TAPS, "noise_var": 0.25},
        {"samples": ("time", REAL)},
    ),
    Case(
        "detector.sum_product", "max-log stream",
        {"taps": TAPS, "noise_var": 0.25, "mode": "max_log"},
        {"samples": ("time", REAL)},
    ),
    Case(
        "detector.sum_product", "words",
        {"taps": TAPS, "noise_var": 0.25},
        {"samples": ("word time", words(REAL))},
    ),
    Case(
        "detector.viterbinet", "stream", weights=lambda: dense("bpsk"),
        inputs={"samples": ("time", REAL)},
    ),
    Case(
        "detector.viterbinet", "words", weights=lambda: dense("bpsk"),
        inputs={"samples": ("word time", words(REAL))},
    ),
    Case(
        "detector.learned_factor_graph", "complex stream", {"modulation": "qpsk", "memory": 2},
        {"samples": ("time", COMPLEX)}, weights=lambda: dense("qpsk", memory=2),
    ),
    Case(
        "detector.learned_factor_graph", "words", weights=lambda: dense("bpsk"),
        inputs={"samples": ("word time", words(REAL))},
    ),
    Case("detector.least_squares", "stream", {"taps": TAPS}, {"samples": ("time", REAL)}),
    Case(
        "detector.least_squares", "words", {"taps": TAPS, "algorithm": "sum_product"},
        {"samples": ("word time", words(REAL))},
    ),
    Case(
        "detector.state_gaussian", "complex stream",
        {"taps": (1.0, 0.4), "memory": 2, "modulation": "qpsk", "algorithm": "max_log"},
        {"samples": ("time", COMPLEX)},
    ),
    Case(
        "detector.state_gaussian", "words", {"taps": TAPS}, {"samples": ("word time", words(REAL))}
    ),
    *(
        Case(name, about, SMALL | values, inputs, weights=partial(layers, name, SMALL | values))
        for name in ("detector.sbrnn", "detector.lstm")
        for about, values, inputs in (
            ("stream", {}, {"samples": ("time", REAL[:800])}),
            ("complex words", QPSK_GRU, {"samples": ("word time", words(COMPLEX))}),
        )
    ),
    Case(
        "detector.full_knowledge",
        inputs={
            "undistorted": ("word time", words(REAL)),
            "taps": ("block tap", np.array([TAPS], np.float32)),
        },
    ),
    Case(
        "sink.error_rate", "stream",
        {"skip": 10},
        {"sent": ("time", BPSK), "symbols": ("time", WRONG)},
    ),
    Case(
        "sink.error_rate", "words",
        inputs={"sent": ("word time", words(BPSK)), "symbols": ("word time", words(WRONG))},
    ),
    Case(
        "sink.error_rate", "words and pilots",
        inputs={
            "sent": ("word time", words(BPSK)),
            "symbols": ("word time", words(WRONG)),
            "pilot": ("word", np.arange(60) % 5 == 0),
        },
    ),
    Case(
        "sink.error_rates", "stream",
        {"skip": 10},
        {"sent": ("time", BPSK), "symbols": ("time", WRONG)},
    ),
    Case(
        "sink.error_rates", "words",
        inputs={
            "sent": ("word time", words(BPSK)),
            "symbols": ("word time", words(WRONG)),
            "least_squares": ("word time", words(np.roll(WRONG, 7))),
            "full_knowledge": ("word time", words(BPSK)),
            "pilot": ("word", np.arange(60) % 10 == 0),
        },
    ),
    Case(
        "sink.recording",
        values=lambda folder: {"path": str(folder / "made"), "overwrite": True},
        inputs={"samples": ("time", REAL)},
        resumes=False,  # its memory is a file
    ),
    Case(
        "source.state_space", "stream",
        {"frames": 5, "length": 480, "substeps": 3, "jitter": 0.5, "missing": 0.1},
        cuts=[{"frames": 2400, "length": 1}, {"frames": 343, "length": 7}, {"length": 1000}],
    ),
    Case(
        "source.state_space", "words",
        {
            "frames": 5, "length": 40, "words": 12, "motion": "lorenz_rk4", "step_s": 0.02,
            "observation": "spherical", "process_noise": 0.1, "initial_variance": 1.0,
        },
        cuts=[{"frames": 60, "words": 1}, {"frames": 9, "words": 7}],
    ),
    Case(
        "source.state_space", "changes",
        {
            "frames": 5, "length": 480, "motion": "sinusoidal", "observation": "identity",
            "changes": [{"at": 700, "observation_noise": 10.0}, {"at": 701, "delta": 1.0}],
        },
        cuts=[{"frames": 2400, "length": 1}, {"frames": 343, "length": 7}, {"length": 1000}],
    ),
    Case(
        "tracker.kalman", "stream",
        inputs={"observations": ("time observation", SEEN), "interval_s": ("time", UNEVEN)},
    ),
    Case(
        "tracker.kalman", "square root", {"form": "square_root"},
        {"observations": ("time observation", SEEN)},
    ),
    Case(
        "tracker.kalman", "float32", {"form": "square_root", "precision": "float32"},
        {"observations": ("time observation", SEEN)},
    ),
    Case(
        "tracker.kalman", "steady", {"form": "steady"}, {"observations": ("time observation", SEEN)}
    ),
    Case(
        "tracker.kalman", "words",
        inputs={"observations": ("word time observation", words(SEEN))},
    ),
    Case(
        "tracker.extended_kalman", "stream", TURN,
        {"observations": ("time observation", SEEN), "interval_s": ("time", UNEVEN)},
    ),
    Case(
        "tracker.extended_kalman", "words", TURN,
        {
            "observations": ("word time observation", words(SEEN)),
            "interval_s": ("word time", words(UNEVEN)),
        },
    ),
    Case(
        "tracker.extended_kalman", "told variances", {**WALK, "initial_variance": 1.0},
        {
            "observations": ("word time observation", words(SEEN)),
            "observation_variances": ("word time observation", 1.0 + words(MOVED) ** 2),
        },
    ),
    Case(
        "tracker.unscented_kalman", "stream", TURN,
        {"observations": ("time observation", SEEN), "interval_s": ("time", UNEVEN)},
    ),
    Case(
        "tracker.unscented_kalman", "words", TURN,
        {"observations": ("word time observation", words(SEEN).astype(np.float32))},
    ),
    Case(
        "tracker.kalmannet", "stream", TURN,
        {"observations": ("time observation", SEEN), "interval_s": ("time", UNEVEN)},
        weights=lambda: random_gain(5, 2),
    ),
    Case(
        "tracker.kalmannet", "words", WALK,
        {"observations": ("word time observation", words(SEEN))},
        weights=lambda: random_gain(2, 2, architecture=1),
    ),
    Case(
        "tracker.split_kalmannet", "stream", TURN,
        {"observations": ("time observation", SEEN), "interval_s": ("time", UNEVEN)},
        weights=lambda: calibrated(random_split(5, 2), np.eye(5), np.eye(2)),
    ),
    Case(
        "tracker.split_kalmannet", "words", WALK,
        {"observations": ("word time observation", words(SEEN))},
        weights=lambda: random_split(2, 2),
    ),
    Case(
        "tracker.recursive_kalmannet", "stream", TURN,
        {"observations": ("time observation", SEEN), "interval_s": ("time", UNEVEN)},
        weights=lambda: random_recursive(5, 2),
    ),
    Case(
        "tracker.recursive_kalmannet", "words", WALK,
        {"observations": ("word time observation", words(SEEN))},
        weights=lambda: calibrated(random_recursive(2, 2), np.eye(2), np.eye(2)),
    ),
    Case(
        "tracker.learned_noise", "stream", TURN,
        {"observations": ("time observation", SEEN), "interval_s": ("time", UNEVEN)},
        weights=lambda: random_noise(5, 2),
    ),
    Case(
        "tracker.learned_noise", "words", WALK,
        {"observations": ("word time observation", words(SEEN))},
        weights=lambda: constant_noise(np.eye(2), np.eye(2)),
    ),
    Case(
        "tracker.moving_horizon", "stream", {**TURN, "window": 7},
        {"observations": ("time observation", SEEN), "interval_s": ("time", UNEVEN)},
    ),
    Case(
        "tracker.moving_horizon", "words", {**TURN, "iterations": 2},
        {"observations": ("word time observation", words(SEEN))},
    ),
    Case(
        "tracker.neural_augmented_smoother", "stream", {**TURN, "lag": 20},
        {"observations": ("time observation", SEEN), "interval_s": ("time", UNEVEN)},
        weights=lambda: random_graph(5, 2),
    ),
    Case(
        "tracker.neural_augmented_smoother", "words", WALK,
        {"observations": ("word time observation", words(SEEN))},
        weights=lambda: random_graph(2, 2, "network", start="observations"),
    ),
    Case(
        "tracker.particle", "stream", {**WALK, "particles": 50, "shrink": 0.99},
        {"observations": ("time observation", SEEN), "interval_s": ("time", UNEVEN)},
    ),
    Case(
        "tracker.particle", "words", {**WALK, "particles": 50},
        {"observations": ("word time observation", words(SEEN))},
    ),
    Case(
        "tracker.rtsnet", "stream", {**TURN, "lag": 13},
        {"observations": ("time observation", SEEN), "interval_s": ("time", UNEVEN)},
        weights=lambda: random_passes(5, 2, 2),
    ),
    Case(
        "tracker.rtsnet", "smoothed", {**WALK, "lag": 20},
        {"observations": ("time observation", SEEN)},
        weights=lambda: random_passes(2, 2, 1, sees="smoothed"),
    ),
    Case(
        "tracker.rtsnet", "words", WALK,
        {"observations": ("word time observation", words(SEEN))},
        weights=lambda: random_passes(2, 2, 2),
    ),
    Case(
        "tracker.recurrent", "stream", TURN,
        {"observations": ("time observation", SEEN), "interval_s": ("time", UNEVEN)},
        weights=lambda: random_network(5, 2),
    ),
    Case(
        "tracker.recurrent", "words", WALK,
        {"observations": ("word time observation", words(SEEN))},
        weights=lambda: random_network(2, 2, "predictions"),
    ),
    Case(
        "tracker.smoother", "stream", {"lag": 13},
        {"observations": ("time observation", SEEN), "interval_s": ("time", UNEVEN)},
    ),
    Case(
        "tracker.smoother", "iterated", {**TURN, "lag": 20, "iterations": 2},
        {"observations": ("time observation", SEEN)},
    ),
    Case(
        "tracker.smoother", "words",
        inputs={"observations": ("word time observation", words(SEEN))},
    ),
    Case(
        "sink.tracking_error", "stream",
        {"skip": 10, "trajectory": 100},
        {
            "states": ("time state", MOVED),
            "estimates": ("time estimate", MOVED + 0.5 * np.nan_to_num(SEEN - MOVED)),
            "extended": ("time estimate", MOVED + 0.7 * np.nan_to_num(SEEN - MOVED)),
            "covariances": ("time estimate estimate", np.tile(np.eye(2), (2400, 1, 1))),
            "innovations": ("time observation", SEEN - MOVED),
            "nis": ("time", np.nansum((SEEN - MOVED) ** 2, axis=1)),
            "log_likelihood": ("time", np.nansum(-0.5 * (SEEN - MOVED) ** 2, axis=1)),
        },
    ),
    Case(
        "sink.tracking_error", "words",
        {"skip": 3},
        {
            "states": ("word time state", words(MOVED)),
            "estimates": ("word time estimate", words(np.nan_to_num(SEEN))),
        },
    ),
    Case(
        "sink.prediction_error", "stream",
        {"skip": 10},
        {
            "innovations": ("time observation", SEEN - MOVED),
            "observations": ("time observation", SEEN),
            "estimates": ("time estimate", MOVED),
            "log_likelihood": ("time", np.nansum(-0.5 * (SEEN - MOVED) ** 2, axis=1)),
        },
    ),
    Case(
        "sink.prediction_error", "words",
        {"skip": 3},
        {"innovations": ("word time observation", words(SEEN - MOVED))},
    ),
    Case(
        "source.modes_messages", "csv",
        a_text("".join(f"{n / 20},{m.tobytes().hex()}\n" for n, m in enumerate(MODE_S))),
        cuts=[{"length": 1}, {"length": 7}, {"length": 1000}],
    ),
    Case(
        "source.modes_traffic",
        values={"frames": 5, "length": 480, "aircraft": 30, "replies": 1000.0},
        cuts=[{"frames": 2400, "length": 1}, {"frames": 343, "length": 7}, {"length": 1000}],
    ),
    Case(
        "source.tracks",
        values=a_text(json.dumps([
            {
                "icao24": f"{40 + n % 60:06x}", "timestamp": 1e4 * (n // 60),
                "latitude": 47.0 + 1e-4 * n, "longitude": 8.0 - 2e-4 * n,
            }
            for n in range(2400)
        ])),
        cuts=[{"words": 7}, {"words": 60}],
    ),
    Case("detector.g3ruh", values={"rate_hz": 28_800.0}, inputs={"samples": ("time", REAL)}),
    Case("detector.afsk", values={"rate_hz": 8000.0}, inputs={"samples": ("time", REAL)}),
    Case("decoder.ax25", inputs=ax25_packets()),
    Case(
        "source.ais_traffic",
        values={
            "frames": 5, "length": 480, "rate_hz": 24e3, "stations": 30, "interval_s": 1.0,
            "overlap": 0.5,
        },
        cuts=[{"frames": 2400, "length": 1}, {"frames": 343, "length": 7}, {"length": 1000}],
    ),
    Case(
        "detector.gmsk", "sequence", {"rate_hz": 24e3, "longest": 256},
        {"samples": ("time", ais_bursts())},
    ),
    Case(
        "detector.gmsk", "slicer",
        {"rate_hz": 24e3, "longest": 256, "centre_hz": 300.0, "bit_detector": "slicer"},
        {"samples": ("time", ais_bursts())},
    ),
    Case("decoder.ais", values={"rate_hz": 48e3}, inputs=ais_packets(), package="pyais"),
    Case("sink.ais_messages", inputs=ais_messages()),
    Case(
        "sink.nmea",
        inputs={name: ais_packets()[name] for name in ("packet_bytes", "packet_length")},
    ),
    Case("decoder.hdlc", values={"scrambler": "g3ruh", "longest": 32}, inputs=hdlc_lanes()),
    Case("decoder.modes", "samples", {"rate_hz": 2e6}, CANDIDATES),
    Case("decoder.modes", "times", {"memory_s": 20.0}, {**CANDIDATES, **TIMES}),
    Case("sink.modes_messages", inputs=decoded()),
    Case("sink.message_errors", values={"rate_hz": 2e6}, inputs=sent_and_found()),
    Case("tracker.aircraft", values={"coast_s": 5.0, "end_s": 20.0}, inputs=FLYING),
    Case("sink.tracks", inputs=tracked()),
    Case(
        "sink.tracks", "geojson",
        lambda folder: {"geojson": str(folder / "map"), "overwrite": True},
        tracked(),
    ),
    Case(
        "source.zeromq_stream",
        values=zmq_sides.from_replier(REAL),
        cuts=[{"length": 60, "frames": 40}, {"length": 1200, "frames": 2}],
        resumes=False,  # the sender goes on
    ),
    Case(
        "sink.zeromq_stream", "stream",
        {"address": zmq_sides.ANYWHERE, "pattern": "pub", "pass_tags": True},
        {"samples": ("time", REAL)},
        resumes=False,  # its peers have what was sent
    ),
    Case(
        "sink.zeromq_stream", "words",
        {"address": zmq_sides.ANYWHERE, "pattern": "pub"},
        {"samples": ("word time", words(BPSK))},
        resumes=False,
    ),
    Case("sink.avr", "", beside, decoded("sink.avr"), resumes=False),  # its memory is a file
    Case("sink.beast", "", beside, decoded("sink.beast"), resumes=False),
    Case("sink.sbs", "", beside, decoded("sink.sbs"), resumes=False),
    Case(
        "source.rtl_tcp", "", of_receiver, resumes=False,  # samples come once
        cuts=[{"length": 1, "frames": 1000}, {"length": 7, "frames": 143}],
    ),
    Case(
        "source.soapy", "", of_stand_in, resumes=False,
        cuts=[{"length": 1, "frames": 1000}, {"length": 7, "frames": 143}],
    ),
    Case("sink.null"),
    Case("sink.packets", inputs=read_packets()),
    Case("trainer.decision_feedback", "", SHIPPED | {"batch": 20}, accepted_words()),
    Case("trainer.pilots", "", SHIPPED | {"lesson": 4}, accepted_words()),
    Case(
        "trainer.modulated", "stream",
        {**CHAOS, "model": "lorenz_kalmannet@1", "hypernetwork": "lorenz_modulation@1"},
        seen_chaos(),
    ),
    Case(
        "trainer.modulated", "words",
        {**CHAOS, "model": "lorenz_kalmannet@1", "hypernetwork": "lorenz_modulation@1",
         "stretch": 40},
        {"observations": (
            "word time observation", seen_chaos()["observations"][1].reshape(12, 200, 3)
        )},
    ),
    Case(
        "trainer.smoothed", "",
        {**CHAOS, "model": "lorenz_kalmannet@1", "steps": 1, "budget_s": 0.0, "tolerance": 1.0,
         "patience": 3, "stretch": 400, "window": 1},
        seen_chaos(), package="torch",
    ),
    Case(
        "trainer.unsupervised", "",
        {**CHAOS, "model": "lorenz_kalmannet@1", "steps": 1, "budget_s": 0.0, "stretch": 400,
         "window": 2, "hidden": "reset"},
        seen_chaos(), package="torch",
    ),
    Case("trainer.meta", "", SHIPPED | {"every": 2, "pairs": 2}, accepted_words()),
    Case("trainer.on_drift", "", SHIPPED | {"threshold": 0.01}, accepted_words()),
    Case("trainer.augmented", "", SHIPPED | {"count": 2}, accepted_words()),
    Case("trainer.bayesian", "", SHIPPED | {"covariance": "diagonal"}, accepted_words()),
    Case("trainer.refit", "taps", {"memory": 2, "patience": 3}, accepted_words()),
    Case(
        "trainer.refit", "class gaussians",
        {"kind": "class_gaussians", "memory": 2, "words": 3},
        accepted_words(),
    ),
]  # fmt: skip

# Cuts of the inputs: lengths of the frames, of which the last is repeated up to the end.
WHOLE, ONES, SEVENS, THOUSANDS = (10_000,), (1,), (7,), (1000,)
RAGGED = (0, 1, 3, 0, 11, 29, 1, 500, 0, 64, 2, 250)

Frame = Mapping[str, np.ndarray]


def cut_axis(dims: Sequence[str]) -> int:
    return next(i for i, dim in enumerate(dims) if dim == "word" or dim in CLOCKS)


def cut(
    case: Case, lengths: Sequence[int], most: int | None = None, backwards: bool = False
) -> list[Frame]:
    """The inputs of a case, or `most` of them, in read-only frames of these lengths."""
    if not case.inputs:
        return [{}] * 3000  # more calls than any source of CASES has frames
    whole = {}
    for name, (dims, array) in case.inputs.items():
        dims_cut = {"word", *CLOCKS} & set(dims.split())
        whole[name] = (cut_axis(dims.split()) if dims_cut else -1, array)
    axis, array = next(iter(whole.values()))
    total = array.shape[axis] if most is None else most
    frames: list[Frame] = []
    start = 0
    while start < total or not frames:
        stop = min(start + lengths[min(len(frames), len(lengths) - 1)], total)
        frame = {}
        for name, (axis, array) in whole.items():
            if axis < 0:  # the same for all frames
                frame[name] = array
                continue
            if backwards:
                array = np.flip(array, axis)
            frame[name] = np.ascontiguousarray(array.take(range(start, stop), axis))
            frame[name].flags.writeable = False
        frames.append(frame)
        start = stop
    return frames


class Run:
    """One instance of a block, driven by hand as the runtime would drive it.

    after    another run, in whose place this one goes on with the next frame
    """

    def __init__(
        self,
        case: Case,
        folder: Path,
        stream: str = "main",
        after: Run | None = None,
        **values: Any,
    ) -> None:
        # Instances never share files: each has a folder of its own.
        if case.package:
            pytest.importorskip(case.package, reason=f"needs {case.package}: see pyproject.toml")
        self.folder = folder / f"instance{len(list(folder.iterdir()))}"
        self.folder.mkdir()
        given = case.values(self.folder) if callable(case.values) else case.values
        self.block = make(
            load(case.block), {**given, **values}, Context("under_test", stream, seed=7)
        )
        self.weights = case.weights
        self.signature = self.block.signature()
        self.given = {
            name: FieldType.of(array.dtype.name, dims)
            for name, (dims, array) in case.inputs.items()
        }
        groups = bind((self.signature.reads[name], kind) for name, kind in self.given.items())
        written = writes_of(self.block, self.given, groups)
        self.types = {name: spec.type for name, spec in written.items()}
        self.start()
        if after is not None:
            self.seq, self.unanswered = after.seq, after.unanswered
            self.samples = dict(after.samples)

    def start(self) -> Run:
        """Start, or start over."""
        self.results: list[Any] = []
        self.copies: list[list[np.ndarray]] = []  # of the results, as they were returned
        self.seq = self.unanswered = 0
        self.samples: dict[str, int] = {}
        self.block.start()
        if self.weights is not None:
            self.block.take(self.weights())
        if isinstance(self.block, Sink):
            self.block.open(self.block.context.stream, StreamInfo())
        return self

    def feed(self, frames: Sequence[Frame], stream: str = "") -> Run:
        """Hand over these frames; to a source, call it so often."""
        stream = stream or self.block.context.stream
        for frame in frames:
            arguments: dict[str, Any] = dict(frame)
            sample = self.samples.get(stream, 0)
            if self.signature.wants_info:
                arguments["info"] = FrameInfo(stream, self.seq, sample, 0, {})
            if frame:
                name, kind = next(iter(self.given.items()))
                sizes = zip(frame[name].shape, kind.dims, strict=True)
                lengths = [size for size, dim in sizes if dim in ("word", *CLOCKS)]
                self.samples[stream] = sample + int(np.prod(lengths))
            self.seq += 1
            self.unanswered += 1
            result = self.block.process(**arguments)
            while isinstance(result, Silence):
                result = self.block.process(**arguments)
            if result is None and isinstance(self.block, Source):
                break
            self._keep(result)
        return self

    def finish(self) -> Run:
        """Finish; from here on it can be started again."""
        self._keep(self.block.finish())
        if isinstance(self.block, Source):
            self.block.close()
        elif not isinstance(self.block, Reframe | Sink):
            assert self.unanswered == 0, "a frame without an answer, or more answers than frames"
        return self

    def _keep(self, results: Any) -> None:
        for result in results if isinstance(results, list) else [results]:
            if isinstance(self.block, Sink):
                continue
            for (name, kind), array in zip(self.types.items(), result, strict=True):
                check_array(self.block.name, name, array, kind)
            self.results.append(result)
            self.copies.append([array.copy() for array in result])
            self.unanswered -= 1

    def exactly(self) -> list[Any]:
        """What came out, frame by frame; of a sink, what it reports and leaves in its folder."""
        if isinstance(self.block, Sink):
            found = dict(self.block.report(None))
            found.pop("update_s", None)  # what a trainer took depends on the machine
            report = json.dumps(found).replace(str(self.folder), "")
            return [report, {path.name: path.read_bytes() for path in self.folder.iterdir()}]
        return [(a.dtype, a.shape, a.tobytes()) for result in self.results for a in result]

    def joined(self) -> Any:
        """What came out, put together again: it may not depend on how the input was cut.

        Fields without a dim of CLOCKS describe their own frame, as the taps of a channel do, and
        are left out. A reframe block makes the same frames whatever it was given.
        """
        if isinstance(self.block, Reframe | Sink):
            return self.exactly()
        found = {}
        for name, kind in self.types.items():
            if set(CLOCKS) & set(kind.dims):
                axis = cut_axis(kind.dims)
                whole = np.concatenate([getattr(r, name) for r in self.results], axis)
                shape = whole.shape[:axis] + whole.shape[axis + 1 :]
                found[name] = (whole.dtype, shape, whole.shape[axis], whole.tobytes())
        return found


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_block_has_a_case_here(name):
    assert name in {case.block for case in CASES}, (
        f"{name} stands in the catalogue, but nothing here tests it: add "
        f'Case("{name}", values={{...}}, inputs={{"field": ("time", array)}}) to CASES in '
        "tests/test_every_block.py, with the parameters that have no default and an array for "
        'each field that it reads; if it takes words too, a second case with dims "word time"'
    )


def test_every_case_names_a_block_of_the_catalogue():
    assert {case.block for case in CASES} <= set(CATALOGUE)


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_class_bears_the_name_of_the_catalogue_and_says_what_it_does(name):
    cls = load(name)
    assert cls.name == name
    assert cls.__doc__
    for parameter in cls.params().describe():
        assert parameter.doc, f"{name}: parameter {parameter.name!r} has no doc"


def test_a_field_has_one_meaning_wherever_it_is_written():
    meanings: dict[str, Any] = {}
    for name in CATALOGUE:
        for spec in load(name).signature().writes.values():
            assert spec.meaning is not None, f"{name} writes {spec.name!r}, but not what it means"
            known = meanings.setdefault(spec.name, spec.meaning)
            assert spec.meaning is known, f"{name} gives {spec.name!r} a meaning of its own"


def test_parameters_round_trip(case, tmp_path):
    block = Run(case, tmp_path).block
    again = type(block)(**json.loads(json.dumps(block.values())))
    assert again.values() == block.values()


def test_types_of_written_fields_are_settled(case, tmp_path):
    for name, kind in Run(case, tmp_path).types.items():
        assert kind.settled, f"{case.block}.narrow leaves {name!r} open: {kind}"


def test_inputs_are_left_as_they_came(case, tmp_path):
    before = cut(case, RAGGED)
    frames = [{name: array.copy() for name, array in frame.items()} for frame in before]
    Run(case, tmp_path).feed(frames).finish()
    for frame, expected in zip(frames, before, strict=True):
        for name, array in frame.items():
            np.testing.assert_array_equal(array, expected[name])


def test_outputs_are_never_written_again(case, tmp_path):
    run = Run(case, tmp_path).feed(cut(case, RAGGED)).finish()
    for result, copies in zip(run.results, run.copies, strict=True):
        for array, copy in zip(result, copies, strict=True):
            np.testing.assert_array_equal(array, copy)


def test_same_seed_gives_the_same(case, tmp_path):
    one, two = (Run(case, tmp_path).feed(cut(case, RAGGED)).finish() for _ in range(2))
    assert one.exactly() == two.exactly()


def test_a_block_that_is_started_again_has_forgotten_everything(case, tmp_path):
    run = Run(case, tmp_path).feed(cut(case, RAGGED)).finish()
    once = run.exactly()
    run.start().feed(cut(case, RAGGED)[:7])  # left in the middle
    run.start().feed(cut(case, RAGGED)).finish()
    assert run.exactly() == once


def test_a_block_that_has_not_started_works_or_says_so(case, tmp_path):
    run = Run(case, tmp_path)
    run.block = make(type(run.block), run.block.values(), run.block.context)
    error = ""
    try:
        run.feed(cut(case, WHOLE)[:1])
    except AttributeError as raised:
        error = str(raised)
    assert not error or re.match(rf"{case.block}: .* call start\(\) first", error)


@pytest.mark.parametrize("length", [0, 1])
def test_streams_of_nothing_and_of_one_sample_are_served(case, tmp_path, length):
    run = Run(case, tmp_path).finish()
    assert run.results == []
    run.start()
    if case.inputs:  # a source makes its own
        run.feed(cut(case, WHOLE, most=length)).finish()
        timed = any("time" in kind.dims for kind in run.given.values())
        for result in run.results:
            for (name, kind), array in zip(run.types.items(), result, strict=True):
                if timed and "time" in kind.dims:
                    assert array.shape[cut_axis(kind.dims)] == length, name


@pytest.mark.parametrize(
    "lengths", [ONES, SEVENS, THOUSANDS, RAGGED], ids=["1", "7", "1000", "ragged"]
)
def test_result_is_the_same_however_the_stream_is_cut(case, tmp_path, lengths):
    whole = Run(case, tmp_path).feed(cut(case, WHOLE)).finish()
    parts = Run(case, tmp_path).feed(cut(case, lengths)).finish()
    assert parts.joined() == whole.joined()


@pytest.mark.parametrize("case", [c for c in CASES if c.block.startswith("source.")], ids=str)
def test_sources_send_the_same_however_they_cut_it(case, tmp_path):
    whole = Run(case, tmp_path).feed(cut(case, ())).finish().joined()
    assert case.cuts, f"{case.block} needs `cuts`: parameters that cut the same stream otherwise"
    for values in case.cuts:
        other = Run(case, tmp_path, **values).feed(cut(case, ())).finish().joined()
        for name, (dtype, shape, length, content) in whole.items():
            assert other[name][:2] == (dtype, shape)
            assert other[name][2] >= length  # the last frame may reach further
            assert other[name][3][: len(content)] == content


@pytest.mark.parametrize("case", [c for c in CASES if c.resumes], ids=str)
def test_a_fresh_instance_goes_on_from_a_state(case, tmp_path):
    frames = cut(case, RAGGED)
    for place in (0, 1, 5, 9):
        first = Run(case, tmp_path).feed(frames[:place])
        state = first.block.state()
        for name, value in state.items():
            if isinstance(value, np.ndarray):
                assert value.dtype.name in DTYPES, name
                value.flags.writeable = False  # as it comes out of a frame
            else:
                assert isinstance(value, bool | int | float | str), name
        second, third = (Run(case, tmp_path, after=first) for _ in range(2))
        second.block.restore(state)
        answered = len(first.results)
        first.feed(frames[place:]).finish()
        del first.results[:answered]
        second.feed(frames[place:]).finish()
        third.block.restore(state)  # a state is a copy: two that went on have not changed it
        third.feed(frames[place:]).finish()
        assert second.exactly() == first.exactly(), f"after {place} frames"
        assert third.exactly() == first.exactly(), f"after {place} frames"


def test_two_interleaved_streams_give_what_each_gives_alone(case, tmp_path):
    if issubclass(load(case.block), Trainer):
        pytest.skip("one model learns from all streams, in the order in which they come")
    a, b = cut(case, RAGGED), cut(case, (50, 1, 300), backwards=True)
    alone = {"a": Run(case, tmp_path, "a"), "b": Run(case, tmp_path, "b")}
    mixed = {"a": Run(case, tmp_path, "a"), "b": Run(case, tmp_path, "b")}
    if issubclass(load(case.block), Sink):  # one instance for all streams
        alone["b"], mixed["b"] = alone["a"], mixed["a"]
    for stream, frames in (("a", a), ("b", b)):
        alone[stream].feed(frames, stream)
    for frame_a, frame_b in zip_longest(a, b):
        for stream, frame in (("a", frame_a), ("b", frame_b)):
            if frame is not None:
                mixed[stream].feed([frame], stream)
    for run in {id(run): run for run in (*alone.values(), *mixed.values())}.values():
        run.finish()
    for stream in "ab":
        assert mixed[stream].exactly() == alone[stream].exactly()
