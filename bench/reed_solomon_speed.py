"""Words of Reed-Solomon codes decoded per second, beside the library reedsolo, on one core.

The best of five rounds by processor time; both correct the same words, and results are compared.
Run it with: python -m bench.reed_solomon_speed
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import reedsolo

from blocks.kernels.reed_solomon import Codec

ROUNDS = 5
CASES = ((17, 15, 0), (17, 15, 1), (255, 223, 16))  # n, k, wrong bytes of each word


def best_s(work: Callable[[], object]) -> float:
    """Least processor time of a call [s]."""
    times = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return min(times)


def main() -> None:
    """Print a row for each case."""
    rng = np.random.default_rng(1)
    print("| code, wrong bytes | ours, words/s | reedsolo, words/s | ratio |\n|--|--|--|--|")
    for n, k, wrong in CASES:
        ours = Codec(n, k, 0x11D, 0, 2)
        theirs = reedsolo.RSCodec(n - k, nsize=n)
        sent = ours.encode(rng.integers(0, 256, (2000, k), np.uint8))
        came = sent.copy()
        for row in came:
            row[rng.choice(n, wrong, replace=False)] ^= rng.integers(1, 256, wrong, np.uint8)
        few = came[:50]
        assert (ours.decode(came)[0] == sent).all()
        assert [bytes(theirs.decode(row.tobytes())[1]) for row in few] == [
            row.tobytes() for row in sent[:50]
        ]
        own = len(came) / best_s(lambda ours=ours, came=came: ours.decode(came))
        other = len(few) / best_s(
            lambda theirs=theirs, few=few: [theirs.decode(row.tobytes()) for row in few]
        )
        print(f"| RS({n}, {k}), {wrong} | {own:,.0f} | {other:,.0f} | {own / other:.0f} |")


if __name__ == "__main__":
    main()
