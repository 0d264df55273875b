"""Runs one peer: python -m bench.peers.serve MODULE.FUNCTION INPUTS.npz RESULT.npy.

Says in one line of JSON what it is, or why it is absent; then, for each line that it is sent, runs
the workload for a while and says how many seconds one run took.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

import numpy as np

ROUND_S = 0.06  # at least, of a round


def main() -> None:
    name, inputs, result = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer

    def say(**answer: Any) -> None:
        answers.write(json.dumps(answer) + "\n")

    module, function = name.split(".")
    try:
        with np.load(inputs, allow_pickle=False) as arrays:
            prepare = getattr(importlib.import_module(f"bench.peers.{module}"), function)
            work = prepare(**arrays)
            np.save(result, np.asarray(work.run()), allow_pickle=False)
    except Exception as error:  # absent, or no longer as it was: the others still compete
        say(absent=f"{type(error).__name__}: {error}"[:200])
        raise

    def seconds(runs: int) -> float:
        before = work.clock()
        for _ in range(runs):
            work.run()
        return work.clock() - before

    runs = max(1, round(ROUND_S / max(seconds(1), 1e-9)))
    say(package=work.package)
    for _ in sys.stdin:
        say(seconds=seconds(runs) / runs / work.times)


if __name__ == "__main__":
    main()
