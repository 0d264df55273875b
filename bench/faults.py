"""Ctrl-C at random times, printed as a table.

    python -m bench.faults --sigints 50

Every run is started as a user starts it, with 1 and 3 workers in turn, and gets SIGINT between
0.05 s after its process was spawned and steady running. It should end within 3 s with exit code
130, no traceback, a summary wherever a run folder was made, and no process, socket or lock left.
Exit code 1 if one does not. Other faults are in tests/pipeline/test_faults.py.
"""

from __future__ import annotations

import argparse
import random

from tests import faults


def main() -> int:
    """Print a line for each run, and the sums."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sigints", type=int, default=50)
    parser.add_argument("--earliest", type=float, default=0.05, help="seconds")
    parser.add_argument("--latest", type=float, default=2.5, help="seconds")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    print(" after  workers  code  ended in  folder  summary  faults")
    found = []
    for number in range(options.sigints):
        delay = draw.uniform(options.earliest, options.latest)
        run = faults.interrupt(delay, 3 if number % 2 else 1)
        found.append(run)
        print(
            f"{run.delay:4.2f} s  {run.workers:7}  {run.code:4}  {run.seconds:6.2f} s  "
            f"{'yes' if run.folder else 'no':>6}  {'yes' if run.summary else 'no':>7}  "
            f"{', '.join(run.faults(3.0)) or 'none'}",
            flush=True,
        )
        if run.faults(3.0):
            print(run.text)
    bad = sum(bool(run.faults(3.0)) for run in found)
    print(
        f"{len(found)} interrupted, {sum(run.folder for run in found)} of them with a run folder; "
        f"slowest end {max(run.seconds for run in found):.2f} s; {bad} with faults"
    )
    return int(bad > 0)


if __name__ == "__main__":
    raise SystemExit(main())
