"""Training of frontend.learned_features on images of which a few hundred suffice."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch: see pyproject.toml")

from blocks.channel.camera import Camera
from blocks.frontend.learned_features import LearnedFeatures
from blocks.trainer.learned_features import fit
from pipeline.errors import ParameterError
from pipeline.train import Lessons
from pipeline.weights import Weights


def record(count, seed):
    rng = np.random.default_rng(seed)
    camera = Camera(side=12, salt_pepper=0.0, noise_var=0.01)
    camera.start()
    # some are seen, of others the bob is hidden
    states = np.stack([rng.uniform(-np.pi, np.pi, count), np.zeros(count)], 1)
    images = np.array(camera.process(states).images)
    images[::4] = 0.1 * rng.standard_normal(images[::4].shape)
    return {"states": states, "images": images}


def test_angles_are_learned_around_the_circle_and_what_cannot_be_seen_is_told_to_be_unsure():
    block = LearnedFeatures(angles=(0,))
    lessons = Lessons([record(1000, 1)], [record(400, 2)], seed=3)
    learnt = fit(block, lessons, steps=300, every=100, channels=[8, 8], kernels=[3, 3], rate=5e-3)
    block.start()
    block.take(Weights("features", 1, learnt.arrays, learnt.hyper))
    fresh = record(400, 4)
    found = block.process(fresh["images"])
    off = found.observations[:, 0] - fresh["states"][:, 0]
    off -= 2.0 * np.pi * np.round(off / (2.0 * np.pi))
    hidden = np.arange(400) % 4 == 0
    assert np.sqrt(np.square(off[~hidden]).mean()) < 0.35  # a guess is off by 1.8
    told = found.observation_variances[:, 0]
    assert np.median(told[hidden]) > 20.0 * np.median(told[~hidden])


def test_numbers_that_states_do_not_have_are_refused():
    lessons = Lessons([record(10, 1)], [record(10, 2)])
    with pytest.raises(ParameterError, match=r"numbers = \(2,\), but states have 2 numbers"):
        fit(LearnedFeatures(numbers=(2,)), lessons)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"batch": 0}, "batch = 0"), ({"rate": 0.0}, "rate = 0.0"), ({"kernels": [5]}, "kernels|zip")],
)
def test_options_that_cannot_be_are_refused(wrong, said):
    lessons = Lessons([record(10, 1)], [record(10, 2)])
    with pytest.raises(ParameterError, match=said):
        fit(LearnedFeatures(), lessons, **wrong)
