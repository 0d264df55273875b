"""What all trackers that learn promise."""

import numpy as np
import pytest
from tracking import LORENZ

from blocks.tracker.kalmannet import KalmanNet
from blocks.tracker.neural_augmented import NeuralAugmentedSmoother
from blocks.tracker.recurrent import Recurrent
from blocks.tracker.rtsnet import RTSNet
from pipeline.errors import WeightsError


@pytest.mark.parametrize("kind", [KalmanNet, NeuralAugmentedSmoother, Recurrent, RTSNet])
def test_without_weights_it_says_how_to_get_some(kind):
    block = kind(**LORENZ)
    block.start()
    with pytest.raises(WeightsError, match="no weights to track with; train some with `kalvit tr"):
        block.process(np.zeros((3, 3)))
