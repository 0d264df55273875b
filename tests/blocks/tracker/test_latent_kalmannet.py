"""Latent-KalmanNet as a block: against its steps written out, gaps, what it refuses, training."""

import numpy as np
import pytest
from gain_networks import constant_gain
from image_encoders import random_encoder, random_latent
from tracking import served

from blocks.kernels.image_encoder import encoder_of
from blocks.tracker.latent_kalmannet import LatentKalmanNet
from pipeline.errors import FieldError, WeightsError
from pipeline.weights import Weights

PENDULUM = {"motion": "pendulum", "observation": "angle", "step_s": 0.05}
GAIN = np.array([[0.4], [2.0]])
IMAGES = np.random.default_rng(5).random((12, 9, 9)).astype(np.float32)


def weights_of(gain=GAIN):
    """A random encoder with a gain that is always the same."""
    encoder, told = random_encoder((True,), extra=2), constant_gain(gain)
    arrays = {f"encoder.{name}": array for name, array in encoder.arrays.items()}
    arrays |= {f"gain.{name}": array for name, array in told.arrays.items()}
    return Weights("latent", 1, arrays, {"encoder": encoder.hyper, "gain": told.hyper})


def test_each_image_is_read_beside_what_the_model_foretells():
    found = served(LatentKalmanNet, weights_of(), **PENDULUM).process(IMAGES)
    weights = random_encoder((True,), extra=2)
    encoder = encoder_of(weights.hyper, weights.arrays)
    angle, speed = np.pi / 2, 0.0
    for t, features in enumerate(encoder.look(IMAGES)):
        pull = -9.81 * np.sin(angle)
        angle, speed = angle + 0.05 * speed + 0.5 * 0.05**2 * pull, speed + 0.05 * pull
        mean, variance = np.empty((2, 1, 1))
        encoder.tell(features[None], np.array([[angle]]), mean, variance)
        off = mean[0, 0] - angle
        off -= 2.0 * np.pi * np.round(off / (2.0 * np.pi))
        angle, speed = angle + 0.4 * off, speed + 2.0 * off
        np.testing.assert_allclose(found.innovations[t, 0], off, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.estimates[t], [angle, speed], rtol=1e-4, atol=1e-5)


def test_an_image_with_a_hole_is_bridged_by_the_model():
    images = IMAGES.copy()
    images[3, 4, 4] = np.nan
    found = served(LatentKalmanNet, weights_of(), **PENDULUM).process(images)
    angle, speed = found.estimates[2]
    pull = -9.81 * np.sin(angle)
    expected = [angle + 0.05 * speed + 0.5 * 0.05**2 * pull, speed + 0.05 * pull]
    np.testing.assert_allclose(found.estimates[3], expected)
    assert np.isnan(found.innovations[3, 0])
    assert np.isfinite(found.estimates).all()


def test_weights_and_images_that_do_not_fit_are_refused():
    block = served(LatentKalmanNet, weights_of(), **PENDULUM)
    before = block.process(IMAGES[:4])
    for weights, said in (
        (random_latent(3, (True,)), "network for 3 states and 1 observations"),
        (random_latent(2, (False,)), "read 1 numbers and see 1 beside an image, but the model obs"),
        (random_encoder(), "lack 'encoder'"),
    ):
        with pytest.raises(WeightsError, match=said):
            block.take(weights)
    with pytest.raises(FieldError, match="'images' are 9 x 8 pixels, but its weights read 9 x 9"):
        block.process(IMAGES[:, :, :8])
    block.start()
    with pytest.raises(WeightsError, match="no weights to track with"):
        block.process(IMAGES)
    assert np.isfinite(before.estimates).all()


def test_training_in_turns_finds_a_tracker_that_follows():
    pytest.importorskip("torch", reason="needs torch: see pyproject.toml")
    from blocks.channel.camera import Camera
    from blocks.source.state_space import StateSpace
    from blocks.trainer.latent_kalmannet import fit
    from pipeline.block import Context, make
    from pipeline.train import Lessons

    def record(seed, words):
        values = {**PENDULUM, "process_noise": 1e-3, "words": words, "length": 40, "frames": 1}
        source = make(StateSpace, values, Context("source", "main", seed=seed))
        source.start()
        states = source.process().states
        camera = make(Camera, {"side": 12, "noise_var": 0.01}, Context("camera", "main", seed=seed))
        camera.start()
        return {"states": states, "images": camera.process(states).images}

    block = LatentKalmanNet(**PENDULUM)
    lessons = Lessons([record(1, 25)], [record(2, 6)], seed=3)
    learnt = fit(
        block, lessons, rounds=2, reads=150, steps=20, long_steps=5, every=20, piece=10,
        channels=[8, 8], kernels=[3, 3], reads_rate=5e-3,
    )  # fmt: skip
    block.start()
    block.take(Weights("latent", 1, learnt.arrays, learnt.hyper))
    fresh = record(4, 10)
    off = (block.process(fresh["images"]).estimates - fresh["states"])[..., 0]
    off -= 2.0 * np.pi * np.round(off / (2.0 * np.pi))
    blind = fresh["states"][..., 0] - np.pi / 2  # what stays where it began is off by
    assert np.square(off).mean() < 0.25 * np.square(blind).mean()
