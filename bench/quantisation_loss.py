"""What rounding soft values costs a convolutional code: Eb/N0 at a bit error rate, in dB.

For each code and width the error rate of float32 is measured over Eb/N0, then that of soft values
in 8 bits with 16-bit and 8-bit path metrics on the same noise. The
loss is how far the curve of float32 lies to the left of a rounded one, at the error rate that the
rounded one has. Run it with: python -m bench.quantisation_loss
"""

from __future__ import annotations

import argparse
import math

import numpy as np

from blocks.kernels.convolutional import Decoder
from blocks.kernels.shift_register import STANDARD, ShiftRegisterCode

LENGTH = 1000  # bits of a terminated word
GRID = (1.5, 2.0, 2.5, 3.0)  # Eb/N0 [dB]
WORDS = 512  # decoded at once
SCALE = {2: 16.0, 3: 24.0}  # steps of soft bits per nat, as frontend.soft_bits advises
SEED = 1


def wrong_bits(
    code: ShiftRegisterCode, ebn0_db: float, scale: float, least: int
) -> tuple[dict[str, int], int]:
    """Bits that each arithmetic got wrong on the same words, and bits sent."""
    rng = np.random.default_rng([SEED, int(10 * ebn0_db)])
    snr = 10 ** (ebn0_db / 10) * 2 / code.outputs  # 1 / noise variance
    decoders = {kind: Decoder(code, kind) for kind in ("float32", "uint16", "uint8")}
    wrong, sent = dict.fromkeys(decoders, 0), 0
    while wrong["float32"] < least and sent < 40 * WORDS * LENGTH:
        bits = rng.integers(0, 2, (WORDS, LENGTH), dtype=np.uint8)
        tail = np.zeros((WORDS, code.memory), np.uint8)
        coded = code.encode(np.concatenate([bits, tail], axis=1), tail)
        noise = rng.standard_normal(coded.shape, np.float32) / np.float32(math.sqrt(snr))
        llr = 2 * np.float32(snr) * (2 * coded.astype(np.float32) - 1 + noise)
        soft = np.rint((scale * llr).clip(-127, 127)).astype(np.int8)
        for kind, decoder in decoders.items():
            found = decoder.decode(
                llr if kind == "float32" else soft, WORDS, coded.shape[1], LENGTH + code.memory,
                known_start=True, known_end=True, count=LENGTH,
            )  # fmt: skip
            wrong[kind] += int((found != bits).sum())
        sent += bits.size
    return wrong, sent


def main() -> None:
    """Print one row per code and Eb/N0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--errors", type=int, default=2000, help="bit errors to wait for")
    parser.add_argument("--lengths", type=int, nargs="*", default=[5, 7, 9])
    given = parser.parse_args()
    print("K  rate  Eb/N0     float32   16-bit    8-bit     loss of 16-bit, 8-bit metrics [dB]")
    for (length, outputs), generators in STANDARD.items():
        if length not in given.lengths:
            continue
        code = ShiftRegisterCode(generators)
        rows = []
        for ebn0_db in GRID:
            wrong, sent = wrong_bits(code, ebn0_db, SCALE[outputs], given.errors)
            rows.append([wrong[kind] / sent for kind in ("float32", "uint16", "uint8")])
        curve = np.log(np.array(rows))
        for at, ebn0_db in enumerate(GRID):
            # d log(error rate) / d dB of float32, around this point
            slope = np.gradient(curve[:, 0], GRID)[at]
            loss = (curve[at, 0] - curve[at, 1:]) / slope
            rates = "  ".join(f"{rate:.2e}" for rate in rows[at])
            lost = f"{loss[0]:+.3f}, {loss[1]:+.3f}"
            print(f"{length}  1/{outputs}   {ebn0_db:.1f} dB   {rates}  {lost}")
        top = Decoder(code, "uint8").top
        print(f"   8-bit metrics round soft values to -{top} ... {top}, {2 * top + 1} levels")


if __name__ == "__main__":
    main()
