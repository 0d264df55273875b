"""What trainers of trackers that follow gradients have in common."""

from __future__ import annotations

from abc import ABC
from typing import Literal

from blocks.trainer.tracks import TrackFeedback
from pipeline.block import param


class DescentTrainer(TrackFeedback, ABC):
    """A trainer of trackers whose strategy takes steps of Adam."""

    steps: int = param(default=20, at_least=1, at_most=100_000, doc="of Adam per lesson")
    rate: float = param(default=1e-4, above=0.0, doc="of Adam")
    hidden: Literal["kept", "reset"] = param(
        default="kept",
        doc="states of the network where a stride begins: those of the serving filter, or as "
        "before the first step",
    )
