"""A KalmanNet that learns from what a smoother makes of the same observations afterwards."""

from __future__ import annotations

from typing import ClassVar

from blocks.models.kalmannet import network_of
from blocks.trainer.descent import DescentTrainer
from blocks.training.descent import Smoothing
from blocks.training.strategy import Strategy
from pipeline.block import param


class Smoothed(DescentTrainer, name="trainer.smoothed"):
    """Steps of Adam towards the states that an extended smoother finds with a delay.

    The tracker's decision feedback. A Rauch-Tung-Striebel smoother knows of each state at least
    `lag` observations after it, and the noise as it makes what was seen likeliest: the ratio of
    observation_noise to process_noise is looked for on a grid, their size follows. Where it loses
    its track, or its states do not fit what was seen, nothing is learned. The network sees these
    states in noise that is drawn anew for each step of Adam, as loud as was found, so that it does
    not learn what is in the noise of a few observations.

    Where there is a hypernetwork, trainer.modulated with by = "smoother" follows faster and nearer.
    """

    labels: ClassVar[str] = "smoothed states"

    lag: int = param(
        default=20, at_least=1, unit="steps", doc="that the smoother has to know after a state"
    )

    def _strategy(self) -> Strategy:
        return Smoothing(
            network_of, steps=self.steps, rate=self.rate, reset=self.hidden == "reset", lag=self.lag
        )
