"""Mode S: share of messages lost against the signal-to-noise ratio, for every bit detector.

    python -m bench.modes_curve                                    # 5 minutes on one core
    python -m bench.modes_curve --seconds 10                       # shorter
    python -m bench.modes_curve --png curve.png --json curve.json

Simulated air (source.modes_traffic) of 60 aircraft, whose messages are drawn anew between 4 and
26 dB; what counts as found came out of detector.modes and decoder.modes with all bits right, at its
place. Messages on which another lay are left out, and the first second, in which the decoder gets
to know the addresses. The ratio at which 10 % are lost is where the rate, averaged over
neighbours with a normal window of 0.4 dB, falls below that for good; gains are differences of it to
the slicer on the same messages, with 95 % intervals of 400 bootstrap samples of the messages.
Time is that of the thread. bench/MODES.md holds a run.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from blocks.decoder.mode_s import Modes
from blocks.detector.mode_s import ModeS
from blocks.source.modes_traffic import ModesTraffic
from pipeline.block import Context, make
from pipeline.frame import FrameInfo

Array = np.ndarray[Any, Any]

DETECTORS = ("slicer", "slicer+repair", "sequence", "sequence+repair")
RATES_HZ = (2.0e6, 2.4e6)
LOW_DB, HIGH_DB = 4.0, 26.0
LEVEL = 0.1  # share of messages lost
WINDOW_DB, STEP_DB = 0.4, 0.05
SAMPLES = 400  # of the bootstrap
PIECE_S = 20.0  # simulated at once
NEAR = 3.0  # samples


class Air(NamedTuple):
    """Samples and what was sent in them; `counts` tells the messages that count."""

    magnitude: Array
    rate_hz: float
    sent: dict[str, Array]  # fields of the source, in the order of their beginning
    counts: Array


class Found(NamedTuple):
    """What came of the messages sent.

    right       of those that count
    snr_db      of the same
    long        whether they have 112 bits
    false       messages that nobody sent
    candidates, seconds of air, and of the thread
    """

    right: Array
    snr_db: Array
    long: Array
    false: int
    candidates: int
    air_s: float
    thread_s: float


def simulated(rate_hz: float, seconds: float, seed: int, **values: Any) -> Air:
    """Some seconds of air."""
    given = {"aircraft": 60, "snr_db": (LOW_DB, HIGH_DB), **values}
    frames = -(-int(seconds * rate_hz) // 65536)
    source = make(ModesTraffic, {"rate_hz": rate_hz, "frames": frames, **given}, Context(seed=seed))
    assert isinstance(source, ModesTraffic)
    source.start()
    pieces = []
    while (frame := source.process()) is not None:
        pieces.append(frame._asdict() | {"samples": np.abs(frame.samples)})
    whole = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    magnitude = whole.pop("samples")
    order = np.argsort(whole["sent_sample"])
    sent = {name: array[order] for name, array in whole.items()}
    begin = sent["sent_sample"]
    end = begin + (8 + sent["sent_bits"]) * rate_hz / 1e6
    clear = np.ones(len(begin), bool)
    clear[1:] &= np.maximum.accumulate(end)[:-1] < begin[1:] - NEAR
    clear[:-1] &= begin[1:] > end[:-1] + NEAR
    return Air(magnitude, rate_hz, sent, clear & (begin > rate_hz))


def received(air: Air, **values: Any) -> Found:
    """What a detector and the decoder make of it."""
    context = Context(info=ModesTraffic(rate_hz=air.rate_hz).describe())
    detector, decoder = make(ModeS, values, context), make(Modes, {}, context)
    assert isinstance(detector, ModeS)
    assert isinstance(decoder, Modes)
    detector.start()
    decoder.start()
    places, messages, candidates = [], [], 0
    began = time.thread_time()
    for first in range(0, air.magnitude.size, 65536):
        answers = detector.process(air.magnitude[first : first + 65536], FrameInfo(sample=first))
        if first + 65536 >= air.magnitude.size:
            answers += detector.finish()
        for found in answers:
            candidates += len(found.candidates)
            decoded = decoder.process(
                found.candidates, found.candidate_bits, found.candidate_sample
            )
            places.append(decoded.message_sample)
            messages.append(decoded.messages)
    thread_s = time.thread_time() - began
    right = np.zeros(len(air.counts), bool)
    false, begin = 0, air.sent["sent_sample"]
    for sample, message in zip(np.concatenate(places), np.concatenate(messages), strict=True):
        low, high = np.searchsorted(begin, [sample - NEAR, sample + NEAR])
        same = (air.sent["sent_messages"][low:high] == message).all(axis=1)
        right[low:high] |= same
        false += not same.any()
    own = air.counts
    return Found(
        right[own], air.sent["sent_snr_db"][own], air.sent["sent_bits"][own] == 112, false,
        candidates, air.magnitude.size / air.rate_hz, thread_s,
    )  # fmt: skip


def joined(pieces: list[Found]) -> Found:
    """The same of several pieces of air."""
    columns = list(zip(*pieces, strict=True))
    return Found(*map(np.concatenate, columns[:3]), *map(sum, columns[3:]))


def crossing(lost: Array, snr_db: Array, weights: Array) -> Array:
    """Ratio [dB] at which LEVEL of the messages are lost, for each row of weights; NaN: above all.

    lost, snr_db  (N,)
    weights       (B, N)  how often each message counts
    """
    grid = np.arange(snr_db.min(), snr_db.max() - WINDOW_DB, STEP_DB)
    window = np.exp(-0.5 * ((grid[:, None] - snr_db) / WINDOW_DB) ** 2)
    total = window @ weights.T
    rate = (window * lost) @ weights.T / np.maximum(total, 1e-9)
    above = rate > LEVEL
    last = len(grid) - 1 - np.argmax(above[::-1], axis=0)  # at which it is still above
    last[~above.any(axis=0)] = 0
    where: Array = np.append(grid[1:], np.nan)[last]
    return where


def gains(found: dict[str, Found], kept: Array, rng: np.random.Generator) -> dict[str, Any]:
    """Where each detector loses LEVEL of the messages `kept`, and its gain over the slicer."""
    count = int(kept.sum())
    weights = np.ones((SAMPLES + 1, count))
    for row in weights[1:]:
        row[:] = np.bincount(rng.integers(count, size=count), minlength=count)
    at = {
        name: crossing(~one.right[kept], one.snr_db[kept], weights) for name, one in found.items()
    }
    most = float(found["slicer"].snr_db.max()) - WINDOW_DB
    base = at["slicer"]
    result: dict[str, Any] = {}
    for name, places in at.items():
        never = bool(np.isnan(base).any())  # then the gain is a lower bound
        difference = np.where(np.isnan(base), most, base) - places
        result[name] = {
            "snr_db": float(places[0]),
            "snr_db_ci95": np.percentile(places[1:], [2.5, 97.5]).tolist(),
            "gain_db": float(difference[0]),
            "gain_db_ci95": np.percentile(difference[1:], [2.5, 97.5]).tolist(),
            "gain_is_lower_bound": never,
        }
    return result


def curve(found: Found, kept: Array) -> list[list[float]]:
    """By steps of 1 dB: least ratio, messages, lost ones."""
    step = np.floor(found.snr_db[kept]).astype(int)
    lost = ~found.right[kept]
    return [[int(k), int((step == k).sum()), int(lost[step == k].sum())] for k in np.unique(step)]


def show(rate_hz: float, found: dict[str, Found], results: dict[str, Any]) -> None:
    """Print the tables of a rate."""
    print(f"\n{rate_hz / 1e6} Msps: % of messages lost, by their signal-to-noise ratio [dB]")
    steps = [row[0] for row in results["all"]["slicer"]["curve"]]
    print(" " * 16 + "".join(f"{step:6d}" for step in steps))
    for name in found:
        rows = results["all"][name]["curve"]
        print(f"{name:16s}" + "".join(f"{100 * lost / count:6.1f}" for _, count, lost in rows))
    print(f"\n{'':16s}   {'10 % of all lost at':24s}{'gain over the slicer':26s}112 bits: gain")
    for name, one in found.items():
        texts = []
        for part in ("all", "long"):
            own = results[part][name]
            sign = ">" if own["gain_is_lower_bound"] else ""
            low, high = own["gain_db_ci95"]
            at_low, at_high = own["snr_db_ci95"]
            if np.isnan(own["snr_db"]):
                texts += [f"nowhere below {HIGH_DB:g} dB", "-"]
            else:
                texts += [
                    f"{own['snr_db']:5.2f} dB ({at_low:5.2f} ... {at_high:5.2f})",
                    f"{sign}{own['gain_db']:.2f} dB ({low:.2f} ... {high:.2f})",
                ]
        print(
            f"{name:16s}   {texts[0]:26s}{texts[1]:26s}{texts[3]:26s}"
            f"{one.false:3d} false, {one.air_s / one.thread_s:4.1f} x real time"
        )


def draw(results: dict[str, Any], path: Path) -> None:
    """Leave a picture of the curves."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
    for axes, (rate, result) in zip(panels, results.items(), strict=True):
        for name, own in result["all"].items():
            step, count, lost = np.array(own["curve"], float).T
            axes.semilogy(step + 0.5, np.maximum(lost, 0.1) / count, ".-", label=name)
        axes.axhline(LEVEL, color="black", linewidth=0.8, linestyle="--")
        axes.set_ylim(1e-3, 1.1)
        axes.set_title(f"{float(rate) / 1e6} Msps")
        axes.set_xlabel("signal-to-noise ratio of the message [dB]")
        axes.grid(alpha=0.25)
    panels[0].set_ylabel("share of messages lost")
    panels[0].legend(fontsize=8)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of air, at each rate")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--png", type=Path, help="file for a picture of the curves")
    given = parser.parse_args()
    results: dict[str, Any] = {}
    for rate_hz in RATES_HZ:
        pieces: dict[str, list[Found]] = {name: [] for name in DETECTORS}
        for seed in range(max(1, round(given.seconds / PIECE_S))):
            air = simulated(rate_hz, min(given.seconds, PIECE_S), seed)
            for name in DETECTORS:
                pieces[name].append(received(air, bit_detector=name))
        found = {name: joined(parts) for name, parts in pieces.items()}
        rng = np.random.default_rng(4)
        long = found["slicer"].long
        parts = {"all": np.ones(long.size, bool), "long": long}
        result = results[f"{rate_hz:.0f}"] = {
            part: gains(found, kept, rng) for part, kept in parts.items()
        }
        for part, kept in parts.items():
            for name, one in found.items():
                result[part][name] |= {
                    "curve": curve(one, kept), "false": one.false, "air_s": one.air_s,
                    "thread_s": one.thread_s, "candidates": one.candidates,
                }  # fmt: skip
        show(rate_hz, found, result)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")
    if given.png:
        draw(results, given.png)


if __name__ == "__main__":
    main()
