import numpy as np
import pytest
from image_encoders import random_encoder

from blocks.channel.camera import Camera
from blocks.frontend.learned_features import LearnedFeatures
from blocks.source.state_space import StateSpace
from pipeline.errors import FieldError, ParameterError, WeightsError
from pipeline.models import Models

RNG = np.random.default_rng(4)


def served(weights, **values):
    block = LearnedFeatures(**values)
    block.start()
    block.take(weights)
    return block


def test_what_is_unsure_counts_as_missing():
    images = RNG.random((50, 9, 9)).astype(np.float32)
    free = served(random_encoder(), angles=(0,)).process(images)
    limit = float(np.median(free.observation_variances))
    found = served(random_encoder(), angles=(0,), most_variance=limit).process(images)
    unsure = free.observation_variances > limit
    assert 20 <= unsure.sum() <= 30
    assert np.isnan(found.observations[unsure]).all()
    np.testing.assert_array_equal(found.observations[~unsure], free.observations[~unsure])


def test_weights_that_tell_something_else_are_refused():
    for weights, said in (
        (random_encoder((False,)), "tell number and see 0 numbers beside an image, but numbers ="),
        (random_encoder((True,), extra=2), "tell angle and see 2 numbers"),
    ):
        with pytest.raises(WeightsError, match=said):
            served(weights, angles=(0,))


def test_images_of_another_size_are_refused():
    with pytest.raises(FieldError, match="'images' are 8 x 9 pixels, but its weights read 9 x 9"):
        served(random_encoder(), angles=(0,)).process(np.zeros((2, 8, 9), np.float32))


def test_without_weights_it_says_how_to_get_some():
    block = LearnedFeatures()
    block.start()
    with pytest.raises(WeightsError, match="no weights to read images with; train some with `kalv"):
        block.process(np.zeros((2, 9, 9), np.float32))


@pytest.mark.parametrize("values", [{"numbers": ()}, {"numbers": (1, 1)}])
def test_numbers_are_named_once(values):
    with pytest.raises(ParameterError, match="must name some numbers of the state, each once"):
        LearnedFeatures(**values)


def test_an_angle_has_to_be_told():
    with pytest.raises(ParameterError, match="not all among numbers"):
        LearnedFeatures(numbers=(0,), angles=(1,))


def test_the_shipped_network_reads_as_well_as_its_card_says():
    source = StateSpace(
        motion="pendulum", observation="angle", step_s=0.05, substeps=20, process_noise=1e-3,
        words=20, length=100, frames=1,
    )  # fmt: skip
    source.start()
    states = source.process().states
    camera = Camera(salt_pepper=0.5, noise_var=0.04)
    camera.start()
    models = Models()
    found = served(models.load("pendulum_features"), angles=(0,)).process(
        camera.process(states).images
    )
    off = found.observations[..., 0] - states[..., 0]
    off -= 2.0 * np.pi * np.round(off / (2.0 * np.pi))
    told = models.card("pendulum_features").scores["variance_0"]
    # 20 trajectories; the mean of one is off by as much as the mean of all
    assert np.square(off).mean() == pytest.approx(told, rel=3.0 / np.sqrt(20.0))
    unsure = found.observation_variances[..., 0] > 0.3
    assert np.square(off[unsure]).mean() > 10.0 * np.square(off[~unsure]).mean()
