"""Gradient steps on words that the receiver knows beforehand."""

from __future__ import annotations

from blocks.trainer.gradients import GradientTrainer
from blocks.training.pilots import Pilots as OnPilots
from blocks.training.strategy import Strategy


class Pilots(GradientTrainer, name="trainer.pilots"):
    """Steps of Adam from the serving node, on pilot words only.

    Words that were accepted serve the gate alone: they tell whether what pilots taught is better.
    """

    def _strategy(self) -> Strategy:
        return OnPilots(self._continued())
