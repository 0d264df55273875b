"""Decoded bits per second of the convolutional decoder on one core, a batch of words at a time.

CPU time, so that other load on the machine counts little, and wall time; both include all from soft
values (words, code) to bits (words, data). Run it with: python -m bench.decoding_speed
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np

from blocks.kernels.convolutional import Decoder
from blocks.kernels.shift_register import STANDARD, ShiftRegisterCode

NOISE = 0.6  # standard deviation: Eb/N0 = 4.4 dB at rate 1/2
REPEATS = 9


def main() -> None:
    """Print one row for each arithmetic, in lanes and one by one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=7, help="constraint length")
    parser.add_argument("--outputs", type=int, default=2, help="code bits per bit")
    parser.add_argument("--words", type=int, default=1024)
    parser.add_argument("--bits", type=int, default=1024, help="bits of a word")
    given = parser.parse_args()
    code = ShiftRegisterCode(STANDARD[given.length, given.outputs])
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2, (given.words, given.bits), dtype=np.uint8)
    tail = np.zeros((given.words, code.memory), np.uint8)
    coded = code.encode(np.concatenate([bits, tail], axis=1), tail)
    noisy = 2.0 * coded - 1 + NOISE * rng.standard_normal(coded.shape)
    llr = (2 * noisy / NOISE**2).astype(np.float32)
    soft = np.rint((16 * llr).clip(-127, 127)).astype(np.int8)
    load = os.getloadavg()[0]
    print(f"K = {given.length}, generators {code.generators}, {given.words} words of {given.bits}")
    print(
        f"bits; Mb/s by CPU and by wall time, best and median of {REPEATS}; load average {load:.1f}"
    )
    for metrics in ("uint8", "uint16", "float32"):
        for lanes, words in ((True, given.words), (False, min(given.words, 16))):
            decoder = Decoder(code, metrics, lanes=lanes)
            values = (llr if metrics == "float32" else soft)[:words]
            times = []
            for _ in range(REPEATS + 1):
                start = np.array([time.process_time(), time.perf_counter()])
                found = decoder.decode(
                    values, words, coded.shape[1], given.bits + code.memory,
                    known_start=True, known_end=True, count=given.bits,
                )  # fmt: skip
                times.append([time.process_time(), time.perf_counter()] - start)
            rates = words * given.bits / 1e6 / np.array(times[1:])  # the first may compile
            wrong = (found != bits[:words]).mean()
            form = "in lanes" if lanes else "one by one"
            cpu, wall = (
                f"{best:6.1f} ({median:6.1f})"
                for best, median in zip(rates.max(axis=0), np.median(rates, axis=0), strict=True)
            )
            print(f"{metrics:8s} {form:11s} CPU {cpu}  wall {wall}  bit error rate {wrong:.1e}")


if __name__ == "__main__":
    main()
