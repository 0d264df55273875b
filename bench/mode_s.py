"""Mode S: messages found by each bit detector, and what they cost.

Three tables: strict messages (tests/mode_s_air.py, `strict`) in the shared recordings; false ones
in noise; processor time of the detector block per second of air, on noise and on the recordings.
The time is that of the thread, best of five. bench/modes_curve.py has the messages lost against
signal to noise, bench/mode_s_peers.py what others find. Run it with: python -m bench.mode_s
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


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--noise", type=float, default=10.0, help="seconds")
    given = parser.parse_args()
    counts()
    false_ones(given.noise)
    costs()


if __name__ == "__main__":
    main()
