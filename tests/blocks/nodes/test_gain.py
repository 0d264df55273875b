"""A gain network that other weights come from: what they keep."""

import numpy as np
from gain_networks import calibrated, random_gain

from blocks.kernels import state_space
from blocks.kernels.calibration import Calibration
from blocks.nodes.gain import GainNode

MODEL = state_space.build("canonical", "identity")
OTHER = random_gain(2, 2, seed=1)


def test_weights_that_come_of_others_are_calibrated_as_they_are():
    Q, R = 0.5 * np.eye(2), np.diag([1.0, 2.0])
    own = calibrated(random_gain(2, 2), Q, R, 1.5)
    node = GainNode(MODEL, own.hyper, own.arrays)
    for given, expected in ((None, R), (4.0 * R, 4.0 * R)):
        found = node.like(OTHER.hyper, OTHER.arrays, given)
        kept = Calibration.of(found.weights("gain").arrays, 2, 2)
        np.testing.assert_array_equal(kept.process, Q)
        np.testing.assert_array_equal(kept.observation, expected)
        assert kept.share == 1.5
        np.testing.assert_array_equal(found.arrays["FC5.weight"], OTHER.arrays["FC5.weight"])
    plain = GainNode(MODEL, OTHER.hyper, OTHER.arrays).like(own.hyper, OTHER.arrays)
    assert Calibration.of(plain.arrays, 2, 2) is None
