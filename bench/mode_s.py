"""Mode S: messages found by each bit detector, and what they cost.

Three tables: strict messages (tests/mode_s_air.py, `strict`) in the shared recordings; processor
time of the detector block per second of air, on noise and on the recordings; share of simulated
messages that have a wrong bit, against the peak signal-to-noise ratio of a pulse. The time is that
of the thread, best of five. Run it with: python -m bench.mode_s
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np

from tests import mode_s_air as air

DETECTORS = ("slicer", "slicer+repair", "sequence", "sequence+repair")
GATES = ({}, {"threshold": 0.4}, {"threshold": 0.3, "likeness": 0.35})
RECORDINGS = ("modes1.bin", "test_1641427457780.iq")
LENGTHS = (4096, 65536)  # samples per frame
REPEATS = 5


def named(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "defaults"


def counts() -> None:
    print("strict messages (candidates)")
    for name in RECORDINGS:
        found = air.recording(name)
        if found is None:
            print(f"{name}: not here")
            continue
        magnitude, rate_hz = found
        for gate in GATES:
            row = []
            for bit_detector in DETECTORS:
                seen = air.detect(magnitude, rate_hz, bit_detector=bit_detector, **gate)
                n = len(air.strict(seen, rate_hz))
                row.append(f"{bit_detector} {n:3d} ({len(seen.candidates)})")
            print(f"{name:22s} {named(gate):30s} {'   '.join(row)}")


def false_ones(seconds: float) -> None:
    """Noise, and as many made-up addresses taken for known as the bar has."""
    rng = np.random.default_rng(1)
    known = rng.integers(1, 1 << 24, 200).tolist()
    print(f"\n{seconds:g} s of noise, 200 made-up addresses taken for known")
    for rate_hz in (2.0e6, 2.4e6):
        for gate in GATES:
            accepted = seen = 0
            for _ in range(round(seconds)):
                noise = air.received([], rate_hz, int(rate_hz), rng, snr_db=0.0)
                found = air.detect(noise, rate_hz, (65536,), **gate)
                accepted += len(air.strict(found, rate_hz, known))
                seen += len(found.candidates)
            print(
                f"{rate_hz / 1e6} Msps, {named(gate):30s} {seen / seconds:7.0f} candidates/s, "
                f"{accepted} accepted"
            )


def costs() -> None:
    print(f"\nthread time per second of air, best of {REPEATS}; load {os.getloadavg()[0]:.1f}")
    rng = np.random.default_rng(2)
    streams = {
        f"noise at {rate_hz / 1e6} Msps": (
            air.received([], rate_hz, int(rate_hz), rng, snr_db=0.0), rate_hz,
        )
        for rate_hz in (2.0e6, 2.4e6)
    }  # fmt: skip
    streams |= {name: found for name in RECORDINGS if (found := air.recording(name))}
    for name, (magnitude, rate_hz) in streams.items():
        for length in LENGTHS:
            times = []
            for _ in range(REPEATS + 1):  # the first may compile
                start = time.thread_time()
                found = air.detect(magnitude, rate_hz, (length,))
                times.append(time.thread_time() - start)
            seconds = magnitude.size / rate_hz
            best = min(times[1:]) / seconds
            print(
                f"{name:22s} frames of {length:5d}: {1e3 * best:5.0f} ms, {1 / best:5.1f} x real "
                f"time, {len(found.candidates) / seconds:6.0f} candidates/s"
            )


def errors(n_messages: int) -> None:
    """Single messages, so that nothing but noise and timing is in their way."""
    print(f"\n% of {n_messages} long messages not found with all bits right")
    ratios = range(6, 23, 2)
    print(" " * 26 + "".join(f"{snr_db:7d}" for snr_db in ratios) + " dB")
    for rate_hz in (2.0e6, 2.4e6):
        wrong = {bit_detector: [] for bit_detector in DETECTORS}
        for snr_db in ratios:
            rng = np.random.default_rng([3, snr_db])
            step = 200e-6 * rate_hz
            sent = [
                (air.squitter(rng), k * step + 20 * rng.random() + 5) for k in range(n_messages)
            ]
            magnitude = air.received(sent, rate_hz, int(n_messages * step), rng, snr_db)
            for bit_detector in DETECTORS:
                found = air.detect(magnitude, rate_hz, (65536,), bit_detector=bit_detector)
                right = 0
                for bits, begin in sent:
                    near = np.abs(found.candidate_sample - begin) < 2
                    right += bool((found.candidates[near] == bits).all(axis=1).any())
                wrong[bit_detector].append(100 * (1 - right / n_messages))
        for bit_detector, shares in wrong.items():
            row = "".join(f"{share:7.1f}" for share in shares)
            print(f"{rate_hz / 1e6} Msps  {bit_detector:15s} {row}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=1000, help="simulated, per ratio")
    parser.add_argument("--noise", type=float, default=10.0, help="seconds")
    given = parser.parse_args()
    counts()
    false_ones(given.noise)
    costs()
    errors(given.messages)


if __name__ == "__main__":
    main()
