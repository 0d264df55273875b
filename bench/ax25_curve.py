"""Packets against noise: the sequence detector beside a slicer with the same clock, and direwolf.

Tables of simulated audio (tests/packet_air.py). Share of wrong bits and of packets lost
against Eb/N0, for three receivers; the slicer has the clock of the sequence detector.
Packets lost for other choices of the detector, and in signals that direwolf makes. What is accepted
in noise alone. And the time that
the detectors take. Run it with: python -m bench.ax25_curve; the results stand in bench/AX25.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from blocks.decoder.ax25 import parse
from blocks.detector import afsk, g3ruh
from blocks.kernels.line_bits import Lane
from tests import packet_air as air

RECEIVERS = {
    "wide (7.5 and 7 kHz)": {},
    "narrow (6 and 3.5 kHz)": {"passband_hz": 6000.0, "audio_hz": 3500.0},
    "too narrow (6 and 2.5 kHz)": {"passband_hz": 6000.0, "audio_hz": 2500.0},
}
AT_ONCE = 25  # packets of one piece of audio
REPEATS = 5


def audio_of(count: int, ebn0_db: float, seed: int, **receiver: float):
    """Packets, and pieces of audio that hold them."""
    rng = np.random.default_rng([seed, round(10 * ebn0_db)])
    for _ in range(0, count, AT_ONCE):
        sent = air.packets_of(rng, AT_ONCE)
        ppm, offset = rng.uniform(-100.0, 100.0), rng.uniform(-0.3, 0.3)
        yield sent, air.fsk_audio(sent, rng, ebn0_db, ppm=ppm, offset=offset, **receiver)


def wrong_bits(sent: list[bytes], bits: np.ndarray) -> tuple[int, int]:
    """Wrong bits of a lane, and bits, of packets and most flags, each where it fits best."""
    signs = 2.0 * bits[bits < 2] - 1.0
    wrong = total = 0
    size = 1 << (signs.size + 4000).bit_length()
    spectrum = np.fft.rfft(signs, size)
    for packet in sent:
        # the sender's scrambler begins at 0 with the flags, so that the line is known
        # but for its ends, where the carrier comes and goes
        line = 2.0 * air.line_of(packet, True)[40:-16] - 1.0
        match = np.fft.irfft(spectrum * np.fft.rfft(line, size).conj(), size)[: signs.size]
        wrong += round((line.size - np.abs(match).max()) / 2.0)
        total += line.size
    return wrong, total


def missing(sent: list[bytes], found: list[bytes]) -> tuple[int, int]:
    """Packets that are lost, and that were never sent."""
    return len(set(sent) - set(found)), len(set(found) - set(sent))


def curves(count: int, ratios: range) -> None:
    for name, receiver in RECEIVERS.items():
        print(f"\n{count} packets, receiver {name}: share of wrong bits / of lost packets")
        peer = "| direwolf | direwolf -P + |" if shutil.which("atest") else "|"
        print(f"| Eb/N0 [dB] | slicer | sequence | all lanes {peer}")
        print("|" + "---|" * (peer.count("|") + 3))
        for ebn0_db in ratios:
            wrong, lost, false, total = np.zeros(2), np.zeros(5), 0, 0
            for sent, audio in audio_of(count, ebn0_db, 1, **receiver):
                for k, bit_detector in enumerate(("slicer", "sequence")):
                    bits, times = air.detect(g3ruh.G3ruh, audio, bit_detector=bit_detector)
                    errors, size = wrong_bits(sent, bits[0])
                    wrong[k] += errors
                    lost[k] += missing(sent, air.unpacked(bits[:1], times[:1])[0])[0]
                total += size
                both = missing(sent, air.unpacked(bits, times)[0])
                lost[2] += both[0]
                false += both[1]
                if shutil.which("atest"):
                    with tempfile.TemporaryDirectory() as folder:
                        path = Path(folder) / "air.wav"
                        air.write(path, audio)
                        for k, options in enumerate(((), ("-P", "+"))):
                            lost[3 + k] += missing(sent, air.direwolf(path, 9600, *options))[0]
            share = lost / count
            row = f"| {ebn0_db} | {wrong[0] / total:.1e} / {share[0]:.3f} "
            row += f"| {wrong[1] / total:.1e} / {share[1]:.3f} | {share[2]:.3f} |"
            if shutil.which("atest"):
                row += f" {share[3]:.3f} | {share[4]:.3f} |"
            print(row + (f" ({false} never sent)" if false else ""), flush=True)


def choices(count: int, ebn0_db: float) -> None:
    """Packets that one lane loses, for other reaches, rounds, memories and starts."""
    print(f"\nshare of {count} packets lost by one lane at {ebn0_db:g} dB")
    print(
        "| clock, fit [blocks], rounds; memory; sharpened | wide | narrow | too narrow | 4 flags |"
    )
    print("|---|---|---|---|---|")
    usual = Lane(8, 8, 2)
    tried = [
        (usual, 3, 0), (Lane(4, 8, 2), 3, 0), (Lane(16, 8, 2), 3, 0), (Lane(32, 8, 2), 3, 0),
        (Lane(8, 4, 2), 3, 0), (Lane(8, 16, 2), 3, 0), (Lane(8, 8, 1), 3, 0),
        (Lane(8, 8, 3), 3, 0), (usual, 0, 0), (usual, 1, 0), (usual, 5, 0),
        (Lane(16, 8, 2), 3, 1), (Lane(16, 8, 2), 3, 2), (Lane(16, 8, 2), 1, 2),
        (Lane(16, 8, 2), 0, 2),
    ]  # fmt: skip
    kept = g3ruh.G3ruh.lanes, g3ruh.SHARPENED
    cases = [*RECEIVERS.values(), {"flags": 4}]
    lost = np.zeros((len(tried), len(cases)))
    for k, case in enumerate(cases):
        for sent, audio in audio_of(count, ebn0_db, 2, **case):
            for row, (lane, memory, sharpened) in enumerate(tried):
                g3ruh.G3ruh.lanes, g3ruh.SHARPENED = (lane,), (sharpened,)
                found, _ = air.unpacked(*air.detect(g3ruh.G3ruh, audio, memory=memory))
                lost[row, k] += missing(sent, found)[0]
    g3ruh.G3ruh.lanes, g3ruh.SHARPENED = kept
    for (lane, memory, sharpened), row in zip(tried, lost / count, strict=True):
        shares = " | ".join(f"{share:.3f}" for share in row)
        print(f"| {', '.join(map(str, lane))}; {memory}; {sharpened} | {shares} |", flush=True)


def signals_of_the_peer(count: int) -> None:
    """Packets in the test signals that direwolf makes, each in more noise than the one before."""
    if not (shutil.which("gen_packets") and shutil.which("atest")):
        return
    print(f"\npackets found of {count} in the noise of direwolf's gen_packets")
    print("| baud | direwolf | direwolf, best options | all lanes |")
    print("|---|---|---|---|")
    for baud, best, kind, scrambler in (
        (9600, "+", g3ruh.G3ruh, "g3ruh"), (1200, "E+", afsk.Afsk, "none"),
    ):  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "made.wav"
            command = ["gen_packets", "-B", str(baud), "-r", "48000", "-n", str(count), "-o", path]
            subprocess.run(command, capture_output=True, check=True)
            audio, rate_hz = air.read(path)
            theirs = [len(air.direwolf(path, baud, *o)) for o in ((), ("-P", best))]
            bits, times = air.detect(kind, audio, rate_hz=rate_hz)
            ours, _ = air.unpacked(bits, times, scrambler)
        print(f"| {baud} | {theirs[0]} | {theirs[1]} | {len(ours)} |")


def noise_alone(minutes: float) -> None:
    rng = np.random.default_rng(3)
    for kind, scrambler in ((g3ruh.G3ruh, "g3ruh"), (afsk.Afsk, "none")):
        frames, good, accepted = np.zeros(4, np.int64), 0, 0
        for _ in range(round(6 * minutes)):
            silence = np.zeros(round(10 * air.OVER * air.RATE_HZ))
            audio = air.discriminated(silence, rng, 0.0, 9600.0, 3000.0, 7500.0, 7000.0)
            packets, outcomes = air.unpacked(*air.detect(kind, audio, (65536,)), scrambler)
            frames += outcomes.sum(axis=0)
            good += len(packets)
            accepted += sum(parse(packet) is not None for packet in packets)
        checked = frames[0] + frames[1]
        print(
            f"{kind.name}, {minutes:g} min of noise: {checked} frames of all lanes were checked "
            f"(2^-16 of them: {checked / 65536:.3f}), {good} passed, {accepted} with addresses"
        )


def costs() -> None:
    print(f"\nthread time, best of {REPEATS}; load {os.getloadavg()[0]:.1f}")
    rng = np.random.default_rng(4)
    audio = rng.standard_normal(10 * int(air.RATE_HZ)).astype(np.float32)
    for kind in (g3ruh.G3ruh, afsk.Afsk):
        for bit_detector in ("slicer", "sequence"):
            best = np.inf
            for _ in range(REPEATS + 1):
                start = time.thread_time()
                air.detect(kind, audio, bit_detector=bit_detector)
                best = min(best, time.thread_time() - start)
            print(f"{kind.name} {bit_detector}: {10.0 / best:.1f} x real time at 48 kHz")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packets", type=int, default=100, help="simulated, per ratio")
    parser.add_argument("--minutes", type=float, default=10.0, help="of noise")
    given = parser.parse_args()
    curves(given.packets, range(9, 14))
    choices(given.packets, 12.0)
    signals_of_the_peer(100)
    noise_alone(given.minutes)
    costs()


if __name__ == "__main__":
    main()
