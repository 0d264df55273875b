"""The command line."""

from __future__ import annotations

import argparse

from bench.images.scenes import CASES, SCENES
from bench.images.speed import speed
from bench.images.study import study
from bench.images.table import table


def main() -> None:
    parser = argparse.ArgumentParser(description="tracking what images show")
    parts = parser.add_subparsers(dest="part", required=True)
    one = parts.add_parser("study")
    one.add_argument("--scene", choices=SCENES, required=True)
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--out", required=True)
    one.add_argument("--cases", default=",".join(CASES))
    one.add_argument("--steps", type=int, default=1500, help="of the encoder's training")
    one.add_argument("--gain-steps", type=int, default=450, help="of KalmanNet's training; 0: none")
    one.add_argument("--rounds", type=int, default=0, help="of Latent-KalmanNet; 0: without it")
    one.add_argument("--matching", action=argparse.BooleanOptionalAction, default=True)
    one.add_argument("--share", type=float, default=1.0, help="of all trajectories; for a try")
    parts.add_parser("table").add_argument("files", nargs="+")
    parts.add_parser("speed")
    options = parser.parse_args()
    if options.part == "study":
        study(options)
    elif options.part == "table":
        table(options.files)
    else:
        speed()


if __name__ == "__main__":
    main()
