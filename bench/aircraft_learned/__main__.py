"""The command line."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from bench.aircraft_learned.table import table
from bench.aircraft_learned.trackers import FILTERS, rmse, tuned
from bench.aircraft_learned.tracks import FILE, NAME, export, load
from pipeline.models import Models
from pipeline.weights import Weights


def tune(options: argparse.Namespace) -> None:
    """Print what is best on the training aircraft."""
    training = load("training", options.file)
    for name, (run, start) in FILTERS.items():
        best = tuned(run, training, start)
        told = ", ".join(f"{key} {value:.3g}" for key, value in best.items())
        print(f"{name}: {told}; RMSE {rmse(run(training, **best)):.2f}", flush=True)


def keep(path: Path) -> None:
    """Make a trained network the next version of the model that the flow names."""
    card = json.loads(path.with_suffix(".json").read_text())
    with np.load(path) as found:
        weights = Weights(NAME, 1, dict(found), card["hyper"], labels="observations")
    models = Models()
    added = models.add(
        weights, training=card["training"], scores=card["scores"],
        command=card["command"],
    )  # fmt: skip
    models.promote(f"{NAME}@{added.version}")


def main() -> None:
    parser = argparse.ArgumentParser(description="trackers of aircraft that learned")
    parser.add_argument("--file", type=Path, default=FILE, help="the file of tracks")
    parser.add_argument("--networks", type=Path, help="a folder of trained networks, compared too")
    commands = parser.add_subparsers(dest="command")
    exporting = commands.add_parser("export")
    exporting.add_argument("to", type=Path)
    commands.add_parser("tune")
    keeping = commands.add_parser("keep")
    keeping.add_argument("network", type=Path)
    training = commands.add_parser("train")
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--steps", type=int, default=450)
    training.add_argument("--every", type=int, default=90)
    training.add_argument("--batch", type=int, default=32)
    training.add_argument("--rate", type=float, default=4e-3)
    training.add_argument("--length", type=int, default=60)
    training.add_argument("--architecture", type=int, default=2)
    training.add_argument("--in-mult", type=int, default=5)
    training.add_argument("--out-mult", type=int, default=10)
    training.add_argument("--motion", default="constant_velocity")
    training.add_argument("--disturbed", type=float, default=0.0, help="share of `disturbed`")
    training.add_argument("--begin", type=Path, help="a trained network to go on from")
    training.add_argument("--scaled", type=int, default=1)
    training.add_argument("--name", default="aircraft_kalmannet")
    training.add_argument("--out", default=".")
    options = parser.parse_args()
    options.told = "python -m bench.aircraft_learned train" + "".join(
        f" --{key.replace('_', '-')} {value.name if isinstance(value, Path) else value}"
        for key, value in vars(options).items()
        if key not in ("file", "networks", "command", "out") and value != training.get_default(key)
    )
    if options.command == "export":
        export(options.to, options.file)
    elif options.command == "train":
        from bench.aircraft_learned.training import train_network

        train_network(options)
    elif options.command == "keep":
        keep(options.network)
    elif options.command == "tune":
        tune(options)
    else:
        table(options)


if __name__ == "__main__":
    main()
