"""What trainers of trackers learn from stretches of a track, on the Lorenz attractor."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from needs import package

from blocks.kernels import state_space
from blocks.kernels.kalman import Track
from blocks.nodes.gain import GainNode
from blocks.training.tracks import Contextual, Followed, Lesson, Stretch
from pipeline.models import Models

CHAOS: dict[str, Any] = {"observation": "identity", "step_s": 0.02}
MODEL = state_space.build(
    "lorenz_taylor", process_noise=0.1, initial_variance=10.0,
    motion_parameters={"true_jacobian": 1.0}, **CHAOS,
)  # fmt: skip


@cache
def track(noise_db: float, steps: int, seed: int) -> tuple[Any, Any]:
    """States and observations of the attractor itself, where the model foretells with an error."""
    attractor = state_space.build("lorenz_rk4", process_noise=0.0, **CHAOS)
    states, seen = np.random.default_rng(seed).standard_normal((2, steps, 3))
    seen *= 10.0 ** (noise_db / 20.0)
    attractor.simulate(states, seen, np.full(steps, 0.02), np.ones((1, 3)))
    return states, seen


def shipped() -> GainNode:
    weights = Models().load("lorenz_kalmannet@1")
    return GainNode(MODEL, weights.hyper, weights.arrays)


def contextual(**values: Any) -> Contextual:
    weights = Models().load("lorenz_modulation@1")
    return Contextual(weights.hyper, weights.arrays, **{"least_db": 2.0, **values})


def lesson(noise_db: float, stretches: int = 10) -> Lesson:
    """What a tracker saw that is at home at 0 dB, after 500 steps in other noise."""
    _, seen = track(noise_db, 500 + 100 * stretches, seed=1)
    node = shipped()
    followed = Followed(MODEL, node, stride=20, window=stretches, drift_db=2.0)
    for at in range(0, len(seen), 100):
        part, intervals = seen[at : at + 100], np.full(100, 0.02)
        innovations, begun = followed.run(node, part, intervals)
        believed = followed.believe(part, intervals)
        followed.recent.append(Stretch(part, intervals, innovations, begun, *believed))
    return Lesson(MODEL, list(followed.recent), followed.noise())


def error_db(node: GainNode, noise_db: float) -> float:
    """On another trajectory."""
    states, seen = track(noise_db, 6000, seed=2)
    out = Track.empty((1, len(seen)), 3, 3)
    intervals = np.full((1, len(seen)), 0.02)
    node.filters.run(
        seen[None], intervals, node.filters.start(1), out, together=False, spread=False
    )
    return float(10.0 * np.log10(np.square(out.estimates[0] - states)[500:].mean()))


@pytest.mark.parametrize("noise_db", [10.0, -10.0])
@pytest.mark.parametrize("by", ["likelihood", "prediction", "smoother"])
def test_from_1000_observations_it_tells_weights_about_as_good_as_those_for_the_noise(by, noise_db):
    strategy = contextual(by=by)
    found = strategy.update(shipped(), lesson(noise_db))
    best = shipped().like(*strategy.told(noise_db))
    assert error_db(found, noise_db) < error_db(best, noise_db) + 1.0
    assert error_db(found, noise_db) < error_db(shipped(), noise_db) - 0.7
    # which counts as told from here on
    assert strategy.update(found, lesson(noise_db)) is None


def test_where_nothing_is_known_nothing_is_told():
    short = lesson(-10.0, 2)
    for by in ("likelihood", "prediction", "smoother"):
        assert contextual(by=by).update(shipped(), short._replace(noise=None)) is None
    with pytest.raises(ValueError, match="a lesson is not longer than the lag of 200 steps"):
        contextual(by="smoother", lag=200).update(shipped(), short)


@pytest.mark.parametrize("noise_db", [10.0, -10.0])
def test_from_smoothed_states_of_1000_steps_a_network_learns_what_holds_in_other_noise(noise_db):
    package("torch", "train")
    from blocks.models.kalmannet import network_of
    from blocks.training.descent import Smoothing

    strategy = Smoothing(network_of, lag=20, steps=20, rate=1e-4, reset=False)
    found = strategy.update(shipped(), lesson(noise_db))
    # with the noise of the lesson itself nothing was gained after a rise
    assert error_db(found, noise_db) < error_db(shipped(), noise_db) - 0.4


def test_noise_that_is_drawn_anew_is_other_noise_each_time_and_leaves_gaps():
    package("torch", "train")
    from blocks.models.kalmannet import network_of
    from blocks.training.descent import Redrawn
    from blocks.training.kalmannet import Unrolled
    from blocks.training.trajectories import Trajectories

    states, _ = track(0.0, 400, seed=3)
    seen = states.copy()
    seen[::7, 1] = np.nan
    part = Trajectories(states[None], seen[None], np.full((1, 400), 0.02))
    network = network_of(**shipped().hyper)
    network.load(shipped().arrays)
    loud, silent = (Redrawn(network, MODEL, level * np.eye(3)) for level in (0.01, 1e-20))
    one, two = (loud.teach(loud.start(states[:1]), part)[0] for _ in range(2))
    without = Unrolled(network, MODEL)
    exact = without.judge(without.start(states[:1]), part)[0]
    assert abs(one - two) > 1e-6
    assert silent.teach(silent.start(states[:1]), part)[0] == pytest.approx(exact, rel=1e-3)
    np.testing.assert_array_equal(loud.came[0], ~np.isnan(seen))
