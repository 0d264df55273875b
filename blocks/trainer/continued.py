"""A few gradient steps on every word that the receiver accepted."""

from __future__ import annotations

from blocks.trainer.gradients import GradientTrainer
from blocks.training.strategy import Strategy


class Continued(GradientTrainer, name="trainer.decision_feedback"):
    """Steps of Adam from the serving node, on the newest word that was accepted or is known.

    As online ViterbiNet learns (Shlezinger et al., IEEE TWC 19(5), 2020, algorithm 2).
    """

    def _strategy(self) -> Strategy:
        return self._continued()
