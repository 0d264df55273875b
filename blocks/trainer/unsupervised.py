"""A KalmanNet that learns to predict what it sees."""

from __future__ import annotations

from blocks.models.kalmannet import network_of
from blocks.trainer.descent import DescentTrainer
from blocks.training.descent import Prediction
from blocks.training.strategy import Strategy


class Unsupervised(DescentTrainer, name="trainer.unsupervised"):
    """Steps of Adam on how well the tracker's network predicts the next observation.

    Revach et al., "Unsupervised Learned Kalman Filtering", EUSIPCO 2022. No states need to be
    known, nor how loud the noise is. Of some 1000 observations it learns little that holds in other
    noise, and after a rise of the noise nothing (bench/ONLINE_TRACKING.md); where there is a
    hypernetwork, trainer.modulated with by = "prediction" fits the same to one number.
    """

    def _strategy(self) -> Strategy:
        return Prediction(
            network_of, steps=self.steps, rate=self.rate, reset=self.hidden == "reset"
        )
