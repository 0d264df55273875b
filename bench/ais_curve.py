"""AIS: packet error rates of the detectors against Eb/N0, beside the bound of coherent detection.

    python -m bench.ais_curve                    # some 4 minutes on one core
    python -m bench.ais_curve --seconds 10       # shorter
    python -m bench.ais_curve --filters          # the slicer's filter at 12 dB, narrower and wider

Bursts of `source.ais_traffic` at 48 kHz, none of which overlap, with carriers up to 500 Hz off and
clocks up to 20 millionths; messages of one slot, and one in nine of two. Both detectors get the
same samples and find, time and tune bursts in the same way; a packet counts as received if all its
bytes are right and the check holds.

Eb/N0 is the ratio of powers in a band of 9600 Hz; in the sampled band of 48 kHz it is 7.0 dB less.
"bound" is the packet error rate of a detector that decides each symbol, from the first after the
opening flag to the end of the closing one, with all others known: then it takes two signals apart
whose levels differ in two neighbours, at a squared distance of d2 Eb (MSK: 2; here it depends on
whether the two are the same), and errs with a probability of Q(sqrt(d2 Eb/N0)), taken as
independent. Where the curves cross 10 % is interpolated in the
logarithm of the rate; intervals are of 95 %, of a rate Wilson's, of a crossing by drawing the
counts again. bench/AIS.md holds a run.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np

from blocks.detector import gmsk as detector
from blocks.kernels import gmsk, hdlc
from blocks.sink.error_rate import wilson
from tests import ais_air as air

DETECTORS = ("sequence", "slicer")
BANDWIDTH = 0.4  # of the Gaussian filter, per symbol
WANTED = 0.1  # rate at which the detectors are compared
DRAWS = 2000
POINTS = (4.0, 5.0, 6.0, 6.5, 7.0, 7.5, 8.0, 9.0, 10.0, 11.0, 12.0, 12.5, 13.0, 13.5, 14.0, 16.0)


def bursts(eb_n0_db: float, seconds: float, seed: int):
    return air.traffic(
        seed, frames=round(10 * seconds), stations=60, interval_s=2.5, overlap=0.0,
        eb_n0_db=(eb_n0_db, eb_n0_db),
    )  # fmt: skip


def squared_distance(other: int) -> float:
    """Of signals that differ in two levels next to each other, of 1 and `other`; over Eb."""
    places = np.arange(-4.0, 6.0, 1e-3)
    apart = gmsk.phases(np.array([2, 2 * other]), places, gmsk.phase_pulse(BANDWIDTH))
    return float((1.0 - np.cos(apart)).sum() * 1e-3)


def bound(wanted, eb_n0_db: float) -> float:
    """Packet error rate of symbols decided with all others known."""
    ratio = 10.0 ** (eb_n0_db / 10.0)
    wrong = {
        other: 0.5 * math.erfc(math.sqrt(squared_distance(other) * ratio / 2.0))
        for other in (1, -1)
    }
    rates = []
    for packet in wanted:
        bits = np.concatenate([hdlc.FLAG, hdlc.frame(packet.content), hdlc.FLAG]).astype(np.uint8)
        # a bit of 1 is sent as the level before it
        same = int(bits[len(hdlc.FLAG) + 1 :].sum())
        other = bits.size - len(hdlc.FLAG) - same
        rates.append(1.0 - (1.0 - wrong[1]) ** same * (1.0 - wrong[-1]) ** other)
    return float(np.mean(rates))


def crossing(points, lost, n) -> float:
    """Eb/N0 [dB] at which the rate falls to WANTED."""
    rates = np.maximum(lost, 0.5) / n
    for k in range(len(points) - 1):
        if rates[k] > WANTED >= rates[k + 1]:
            a, b = math.log(rates[k]), math.log(rates[k + 1])
            return points[k] + (points[k + 1] - points[k]) * (a - math.log(WANTED)) / (a - b)
    return math.nan


def curves(seconds: float, seed: int) -> None:
    lost, n = {name: [] for name in DETECTORS}, []
    busy, false = dict.fromkeys(DETECTORS, 0.0), dict.fromkeys(DETECTORS, 0)
    print(f"d2 = {squared_distance(1):.3f} and {squared_distance(-1):.3f}\n")
    print("Eb/N0 [dB]  packets   bound [%]   sequence [%]           slicer [%]")
    for eb_n0_db in POINTS:
        sent = bursts(eb_n0_db, seconds, seed)
        wanted = air.sent(sent)
        n.append(len(wanted))
        cells = []
        for name in DETECTORS:
            start = time.thread_time()
            results = air.detect(sent.samples, bit_detector=name)
            busy[name] += time.thread_time() - start
            found = air.packets(results)
            lost[name].append(int((~air.received(wanted, found)).sum()))
            false[name] += len(found) - int(air.received(found, air.sent(sent, False)).sum())
            low, high = (100 * limit for limit in wilson(lost[name][-1], n[-1]))
            cells.append(f"{100 * lost[name][-1] / n[-1]:6.2f} ({low:5.2f} ... {high:6.2f})")
        print(
            f"{eb_n0_db:10.1f} {n[-1]:8d} {100 * bound(wanted, eb_n0_db):11.2f}   "
            + "   ".join(cells),
            flush=True,
        )
    rng = np.random.default_rng(seed)
    places = {}
    print()
    for name in DETECTORS:
        drawn = [
            crossing(POINTS, rng.binomial(n, np.array(lost[name]) / n), n) for _ in range(DRAWS)
        ]
        places[name] = crossing(POINTS, lost[name], n), np.array(drawn)
        low, high = np.nanquantile(drawn, [0.025, 0.975])
        print(
            f"{name}: {100 * WANTED:g} % at {places[name][0]:.2f} dB ({low:.2f} ... {high:.2f}); "
            f"{false[name]} packets that nobody sent; "
            f"{len(POINTS) * seconds / busy[name]:.0f} x real time"
        )
    limits = np.array([100 * bound(wanted, p) for p in POINTS]) / 100 * n[-1]
    print(f"bound: {100 * WANTED:g} % at {crossing(POINTS, limits, n[-1]):.2f} dB")
    gains = places["slicer"][1] - places["sequence"][1]
    low, high = np.nanquantile(gains, [0.025, 0.975])
    gain = places["slicer"][0] - places["sequence"][0]
    print(f"gain of the sequence detector: {gain:.2f} dB ({low:.2f} ... {high:.2f})")


def filters(seconds: float, seed: int) -> None:
    """The slicer's packet errors at 12 dB with other filters than the one that it has."""
    sent = bursts(12.0, seconds, seed)
    wanted = air.sent(sent)
    print("half width of the slicer's filter (half power), per symbol -> packet errors at 12 dB")
    edge, stop = detector.SLICER_EDGE, detector.SLICER_STOP
    for shift in (-0.15, -0.1, -0.05, 0.0, 0.05, 0.1, 0.15, 0.3):
        detector.SLICER_EDGE, detector.SLICER_STOP = edge + shift, stop + shift
        found = air.packets(air.detect(sent.samples, bit_detector="slicer"))
        lost = int((~air.received(wanted, found)).sum())
        low, high = (100 * limit for limit in wilson(lost, len(wanted)))
        print(
            f"{0.5 * (edge + stop) + shift:.3f}   {100 * lost / len(wanted):6.2f} % "
            f"({low:.2f} ... {high:.2f})"
        )
    detector.SLICER_EDGE, detector.SLICER_STOP = edge, stop


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=40.0, help="on the air, for each Eb/N0")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--filters", action="store_true", help="compare filters of the slicer")
    given = parser.parse_args()
    (filters if given.filters else curves)(given.seconds, given.seed)


if __name__ == "__main__":
    main()
