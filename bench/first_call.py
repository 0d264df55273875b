"""How long the first call of a workload takes: python -m bench.first_call NAME.

Prints JSON: seconds of the imports, of making the block and the first call, of a second one.
"""

from __future__ import annotations

import json
import sys
import time

BEGIN = time.perf_counter()

from bench import ours, workloads  # noqa: E402 (they are what is timed)

CALLS = {
    "Viterbi, 16 states": lambda: ours.viterbi(workloads.isi(4, 16, 100)),
    "Viterbi, 256 states": lambda: ours.viterbi(workloads.isi(8, 16, 100)),
    "sum-product, max-log, 16 states": lambda: ours.sum_product(
        workloads.isi(4, 16, 100), "max_log"
    ),
    "sum-product, exact, 16 states": lambda: ours.sum_product(workloads.isi(4, 16, 100), "exact"),
    "K = 7 decoder, 8-bit metrics": lambda: ours.convolutional(workloads.coded(16, 100), 8),
    "KF, one track": lambda: ours.kalman_track(workloads.motion(1, 100), is_joseph=True),
    "KF, many tracks": lambda: ours.kalman_tracks(workloads.motion(16, 100), is_joseph=True),
    "EKF, Lorenz": lambda: ours.extended(workloads.lorenz(100)),
    "particle filter, Lorenz": lambda: ours.bootstrap(workloads.lorenz(10), 100),
}


def main() -> None:
    """Time one of them."""
    imported = time.perf_counter()
    call = CALLS[sys.argv[1]]()
    call()
    first = time.perf_counter()
    call()
    again = time.perf_counter()
    seconds = {"imports": imported - BEGIN, "first": first - imported, "again": again - first}
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
