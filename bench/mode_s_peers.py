"""Mode S: messages that we and other decoders find in one recording, counted by one rule.

Every list of messages goes through `decoder.modes` (flow modes_messages), which counts the strict
ones: parity without remainder, an interrogator code that comes again and again, or an address known
from a clean message before. Ours come from the recording itself (flow modes). Of the others,
dump1090-mutability runs here where Debian's package is installed; it takes 2.4 million samples a
second only, so that the recording is resampled for it, and filler behind its end makes it give its
last messages. The others' lists were made once, elsewhere, and lie beside the shared recordings.

The second table is processor time per second of air: ours is that of the whole flow, kernels
loaded, dump1090's that of its process. Run it with: python -m bench.mode_s_peers
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from pipeline import Flow, run

DATA = Path(__file__).parents[2] / "shared" / "data"
RECORDING = DATA / "modes" / "modes1.bin"
LISTS = {
    "readsb, its best options": "modes1.readsb_resampled24_pt40.hex",
    "dump1090, flightaware": "modes1.flightaware_resampled24.hex",
    "dump1090-mutability, as run elsewhere": "modes1.mutability_resampled24.hex",
    "dump1090, antirez": "modes1.antirez_padded_fix.hex",
}
PEER = "dump1090-mutability"
FILLER = 500_000  # samples behind the end of what a peer is given
RATE_HZ = 2.0e6


def of_recording(path: Path, **detector: object) -> dict:
    """Summary of the flow modes on a recording of cu8 at 2 Msps."""
    flow = Flow.load("modes")
    given = {"path": str(path), "format": "cu8", "rate_hz": RATE_HZ, "continuous": False}
    for name, value in given.items():
        flow.set(f"source.{name}", value)
    for name, value in detector.items():
        flow.set(f"detector.{name}", value)
    return run(flow)


def of_list(path: Path) -> dict:
    """What the flow modes_messages counts in a list of messages."""
    flow = Flow.load("modes_messages")
    flow.set("messages.path", str(path))
    return run(flow)["results"]["counts"]


def of_peer(samples: np.ndarray, folder: Path) -> tuple[Path, float]:
    """dump1090-mutability's list of messages, and the processor time that it took [s]."""
    there, here = folder / "air.sc16", folder / "peer.hex"
    quicker = resample_poly(np.pad(samples, (0, FILLER)), 6, 5)
    parts = np.stack([quicker.real, quicker.imag], axis=1) * 256.0
    np.clip(np.rint(parts), -32768, 32767).astype("<i2").tofile(there)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [PEER, "--ifile", str(there), "--iformat", "SC16", "--raw", "--fix"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    here.write_text(done.stdout)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return here, used


def counted(name: str, counts: dict) -> None:
    """Print a row of the first table."""
    kinds = [counts.get(f"df{kind}", 0) for kind in (17, 11)]
    rest = counts["messages"] - sum(kinds)
    print(
        f"| {name} | {counts['messages']} | {counts['strict_messages']} "
        f"| {kinds[0]} | {kinds[1]} | {rest} | {counts['positions']} |"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--copies", type=int, default=40, help="of the recording, for the times")
    given = parser.parse_args()
    if not RECORDING.exists():
        parser.error(f"{RECORDING.name} is not there; this command needs the shared recordings")
    raw = np.fromfile(RECORDING, np.uint8).astype(np.float32) - 127.5
    samples = (raw[0::2] + 1j * raw[1::2]).astype(np.complex64)
    installed = shutil.which(PEER)

    print(
        "| modes1.bin | messages | strict | DF17 | DF11 | others | positions |\n" + "|--" * 7 + "|"
    )
    counted("Kalvit", of_recording(RECORDING)["results"]["counts"])
    wider = of_recording(RECORDING, threshold=0.3, likeness=0.35)
    counted("Kalvit, `threshold` 0.3, `likeness` 0.35", wider["results"]["counts"])
    counted("Kalvit, slicer", of_recording(RECORDING, bit_detector="slicer")["results"]["counts"])
    with tempfile.TemporaryDirectory() as folder:
        if installed:
            counted(f"{PEER}, run here", of_list(of_peer(samples, Path(folder))[0]))
        for name, list_name in LISTS.items():
            counted(name, of_list(DATA / "peer_output" / list_name))

        rng = np.random.default_rng(1)
        noise = np.rint(rng.normal(127.5, 8.0, 2 * 5 * int(RATE_HZ))).astype(np.uint8)
        air = {
            f"{given.copies} x modes1.bin": np.tile(np.fromfile(RECORDING, np.uint8), given.copies),
            "5 s of noise": noise,
        }
        print(f"\n| processor time per second of air | Kalvit | {PEER} |\n|--|--|--|")
        for name, octets in air.items():
            path = Path(folder) / "air.cu8"
            octets.tofile(path)
            seconds = octets.size / 2 / RATE_HZ
            begin = time.process_time()
            of_recording(path)
            ours = (time.process_time() - begin) / seconds
            theirs = "not installed"
            if installed:
                values = octets.astype(np.float32) - 127.5
                used = of_peer(
                    (values[0::2] + 1j * values[1::2]).astype(np.complex64), Path(folder)
                )
                theirs = f"{1e3 * used[1] / (seconds + FILLER / RATE_HZ):.0f} ms"
            print(f"| {name} | {1e3 * ours:.0f} ms | {theirs} |")
    if not installed:
        print(f"\n{PEER} was not run: apt-get install {PEER}")


if __name__ == "__main__":
    main()
