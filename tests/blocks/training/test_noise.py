"""Noise that is told from observations alone, and what smoothed states are believed."""

import numpy as np
import pytest

from blocks.kernels import smoother, state_space
from blocks.kernels.kalmannet_filter import Tracks
from blocks.training.noise import Noise, estimated, louder
from blocks.training.tracks import Lesson, Stretch, smoothed

SYSTEM = {"motion": "canonical", "observation": "identity"}


def seen(q2, r2, steps=4000, seed=0):
    model = state_space.build(**SYSTEM, process_noise=q2, observation_noise=r2)
    states, found = np.random.default_rng(seed).standard_normal((2, steps, 2))
    model.simulate(states, found, np.ones(steps), np.zeros((1, 2)))
    return found


@pytest.mark.parametrize(("q2", "r2"), [(0.1, 1.0), (0.1, 30.0), (0.02, 0.05), (1.0, 0.5)])
def test_the_noise_of_a_linear_system_is_found(q2, r2):
    model = state_space.build(**SYSTEM, process_noise=0.1)
    found = estimated(model, seen(q2, r2), np.ones(4000), np.zeros(2), np.eye(2))
    # both within a few standard errors of what 4000 steps tell
    assert 10.0 * np.log10(found.level * 0.1 / q2) == pytest.approx(0.0, abs=0.8)
    assert found.noise_db == pytest.approx(10.0 * np.log10(r2), abs=0.8)


def test_gaps_tell_nothing_and_do_no_harm():
    model, y = state_space.build(**SYSTEM, process_noise=0.1), seen(0.1, 4.0)
    y[np.random.default_rng(1).random(4000) < 0.3] = np.nan
    found = estimated(model, y, np.ones(4000), np.zeros(2), np.eye(2))
    assert found.noise_db == pytest.approx(6.0, abs=0.8)
    assert estimated(model, np.full((9, 2), np.nan), np.ones(9), np.zeros(2), np.eye(2)) is None


def lesson(y, noise, model):
    none = Tracks(*(np.zeros((1, 2)) for _ in Tracks._fields))
    half = len(y) // 2
    parts = [
        Stretch(part, np.ones(half), part, none, np.zeros(2), np.eye(2))
        for part in (y[:half], y[half:])
    ]
    return Lesson(model, parts, noise)


def test_labels_are_those_of_the_smoother_with_the_noise_that_was_found():
    model, y = state_space.build(**SYSTEM, process_noise=0.1), seen(0.1, 4.0, steps=200)
    states, believed = smoothed(lesson(y, Noise(4.0, 1.0, 0.0), model), lag=20)
    expected, _ = smoother.smooth(louder(model, 4.0), y, np.ones(200), np.zeros(2), np.eye(2))
    np.testing.assert_array_equal(states, expected)
    np.testing.assert_array_equal(np.flatnonzero(~believed), np.arange(180, 200))


@pytest.mark.parametrize(
    ("noise", "match"),
    [
        (None, "the observations tell no noise"),
        (Noise(4.0, 0.01, 0.0), "do not fit what was seen"),
        (Noise(-1.0, 1.0, 0.0), "lost its track at step"),
    ],
)
def test_a_smoother_that_went_wrong_gives_no_labels(noise, match):
    model, y = state_space.build(**SYSTEM, process_noise=0.1), seen(0.1, 4.0, steps=200)
    with pytest.raises(ValueError, match=match):
        smoothed(lesson(y, noise, model), lag=20)
