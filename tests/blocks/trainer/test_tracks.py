"""What all trainers of trackers promise, on tracks made here."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gain_networks import constant_gain
from splits import run_alone, run_split

from blocks.kernels import state_space
from blocks.nodes.gain import GainNode
from blocks.tracker.kalmannet import KalmanNet
from blocks.trainer.modulated import Modulated
from blocks.trainer.tracks import TrackFeedback
from blocks.training.strategy import Strategy
from pipeline.errors import ParameterError
from pipeline.flow import Flow
from pipeline.frame import FrameInfo
from pipeline.plan import MAIN

SYSTEM: dict[str, Any] = {
    "motion": "canonical", "observation": "identity", "process_noise": 0.1, "initial_variance": 1.0
}  # fmt: skip
CHAOS: dict[str, Any] = {
    "motion": "lorenz_taylor", "observation": "identity", "step_s": 0.02, "process_noise": 0.1,
}  # fmt: skip
HIGH = np.array([[0.95, 0.0], [0.0, 0.95]])
BEST = np.array([[0.44, 0.16], [0.06, 0.27]])  # near what the filter of this system settles at


def seen(steps: int, seed: int = 0, values: Any = SYSTEM, noise: float = 1.0) -> tuple[Any, Any]:
    model, rng = state_space.build(**values), np.random.default_rng(seed)
    states, found = rng.standard_normal((2, steps, model.size))
    found *= noise
    start = np.ones((1, model.size))
    model.simulate(states, found, np.full(steps, model.step_s), start)
    return states, found


class Proposes(Strategy):
    """Proposes what a function of the serving node and the lesson says."""

    def __init__(self, proposal):
        self.proposal = proposal

    def update(self, serving, lesson):
        return self.proposal(serving, lesson)


class Taught(TrackFeedback):
    """Starts with gains that are too high, and learns as a test says."""

    name = "trainer.taught_tracks"
    proposal: Any

    def _first(self):
        weights = constant_gain(HIGH)
        node = self._node_of(weights)
        return super()._first()._replace(weights=node.weights("gain", version=4), node=node)

    def _fresh(self):
        return None

    def _strategy(self):
        return Proposes(self.proposal)


def gains(matrix):
    """A proposal of the same gain whatever was seen."""
    weights = constant_gain(np.ones((2, 2)))
    arrays = {**weights.arrays, "FC2.2.bias": np.ravel(matrix).astype(np.float32)}
    return lambda serving, lesson: GainNode(lesson.model, weights.hyper, arrays)


def taught(proposal, **values) -> Taught:
    trainer = Taught(**{**SYSTEM, "stretch": 100, **values})
    trainer.proposal = proposal
    trainer.start()
    return trainer


def feed(trainer, observations, frame=100, first=0):
    found = []
    for at in range(0, len(observations), frame):
        info = FrameInfo("main", at // frame, first + at, 0, {})
        found.append(trainer.process(observations[at : at + frame], info=info))
    return found


def events(trainer, *kinds):
    return [dict(note) for note in trainer.notes() if note["event"] in kinds]


# the gate


def test_a_candidate_is_judged_by_what_it_predicts_of_the_next_stretch():
    trainer = taught(gains(BEST))
    _, y = seen(400)
    answers = feed(trainer, y)
    # the first stretch finds the track; the second teaches; the third judges
    assert [w and (w.version, w.parent, w.labels) for w in answers] == [
        None, None, (5, 4, "observations"), None,
    ]  # fmt: skip
    (note,) = events(trainer, "published")
    tracker = KalmanNet(**SYSTEM)
    tracker.start()
    tracker.take(constant_gain(HIGH))
    own = tracker.process(y[:300]).innovations[200:]
    variances = np.median(own**2, axis=0) / 0.4549
    assert note["serving_loss"] == pytest.approx(0.5 * (own**2 / variances).mean())
    tracker.take(constant_gain(BEST))
    better = tracker.process(y[300:]).innovations
    assert (better**2 / variances).mean() < (own**2 / variances).mean()


def test_what_is_no_better_is_refused_after_its_trials_and_less_is_tried():
    trainer = taught(gains(HIGH), trials=3, longest_wait=4)
    assert feed(trainer, seen(5000)[1]) == [None] * 50
    notes = events(trainer, "refused")
    assert {note["why"] for note in notes} == {"its loss is not clearly less"}
    # taught at one, three trials, then 2 and at last 4 stretches pass
    assert np.diff([note["stretch"] for note in notes]).tolist()[:3] == [5, 7, 7]


@pytest.mark.parametrize(
    ("proposal", "reason"),
    [
        (gains(1e30 * BEST), "not_finite"),
        (gains(-3.0 * BEST), "worse"),
        (gains(np.nan * BEST), "not_finite"),
        (lambda s, lesson: 1 / 0, "failed"),
        (lambda s, lesson: 5, "failed"),
    ],
    ids=["overflow", "unstable", "nan", "exception", "no node"],
)
def test_what_goes_wrong_in_a_strategy_is_refused_and_told(proposal, reason):
    trainer = taught(proposal)
    assert feed(trainer, seen(3000)[1]) == [None] * 30
    report = trainer.report(None)
    assert (report["published"], report["version"]) == (0, 4)
    assert report["refused"] == report[f"refused_{reason}"] >= 3
    json.dumps(events(trainer, "refused"), allow_nan=False)


@pytest.mark.parametrize(
    ("matrix", "why"),
    [(-0.1 * BEST, "it has lost the track"), (0.99 * np.eye(2), "a greater loss than before")],
)
def test_a_version_that_got_through_by_luck_is_taken_back(matrix, why):
    trainer = taught(lambda serving, lesson: None, tolerance=1e9, trials=1)
    _, y = seen(8000)
    feed(trainer, y[:2000])
    proposals = iter([matrix])
    trainer._making.proposal = lambda serving, lesson: (
        gains(m)(serving, lesson) if (m := next(proposals, None)) is not None else None
    )
    published = [w for w in feed(trainer, y[2000:2300], first=2000) if w]
    assert [w.version for w in published] in ([5], [5, 4])
    feed(trainer, y[2300:], first=2300)
    (note,) = events(trainer, "returned")
    assert (note["version"], note["instead_of"]) == (4, 5)
    assert why in note["why"]
    report = trainer.report(None)
    assert (report["rolled_back"], report["version"], report["newest_version"]) == (1, 4, 5)


# what is learned from


def test_louder_noise_ends_the_waiting_and_what_was_learned_from_is_forgotten():
    lessons = []

    def proposal(serving, lesson):
        lessons.append(len(lesson.stretches))
        return gains(HIGH)(serving, lesson)

    trainer = taught(proposal, window=5, trials=1)
    feed(trainer, seen(3000)[1])
    assert max(lessons) == 5
    before = len(lessons)
    feed(trainer, seen(300, seed=1, noise=4.0)[1], first=3000)
    assert trainer.report(None)["drifts"] == 1
    assert lessons[before] == 1
    assert events(trainer, "drift")[0]["stretch"] == 30


def test_where_nothing_comes_nothing_is_learned_and_nothing_changes():
    trainer = taught(gains(BEST))
    nothing = np.full((3000, 2), np.nan)
    assert feed(trainer, nothing) == [None] * 30
    assert trainer.report(None)["trained"] == 0
    assert not trainer.notes()


def test_single_wild_observations_are_not_believed():
    losses = []
    for wild in (0.0, 1e6):
        trainer = taught(gains(HIGH), trials=1)
        _, y = seen(400)
        y[[210, 250, 260], 0] += wild
        feed(trainer, y)
        losses.append(events(trainer, "refused")[0]["serving_loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.3)


def test_frames_that_a_tap_left_out_begin_another_track():
    trainer = taught(gains(BEST), tolerance=-1e9, trials=1)
    _, y = seen(2000)
    feed(trainer, y[:1000])
    feed(trainer, y[1450:], first=1450)
    assert trainer.report(None)["stretches"] == 15
    judged = [note["stretch"] for note in events(trainer, "refused")]
    assert 10 not in judged  # it found the track again


def test_the_same_however_the_stream_is_cut_and_words_are_tracks_of_their_own():
    _, y = seen(1200)
    found = []
    for frame in (1, 70, 1200):
        trainer = taught(gains(BEST))
        feed(trainer, y, frame)
        found.append({**trainer.report(None), "update_s": 0})
    assert found[0] == found[1] == found[2]
    words = taught(gains(BEST))
    words.process(y.reshape(4, 300, 2))
    assert words.report(None)["stretches"] == 12
    assert words.report(None)["published"] == 1


def test_what_cannot_work_is_refused_with_what_to_do():
    with pytest.raises(ParameterError, match="model is missing; name the weights"):
        Modulated(hypernetwork="lorenz_modulation@1", **CHAOS)
    with pytest.raises(ParameterError, match="a network for 3 states and 3 observations, but"):
        Modulated(hypernetwork="lorenz_modulation@1", model="lorenz_kalmannet@1", **SYSTEM)
    with pytest.raises(ParameterError, match="hypernetwork = 'lorenz_kalmannet@1' holds none"):
        Modulated(hypernetwork="lorenz_kalmannet@1", model="lorenz_kalmannet@1", **CHAOS)
    with pytest.raises(ParameterError, match="stride = 30 does not divide stretch = 100"):
        taught(None, stride=30)


# faults, with a trainer that works


def spoiled(kind: str, y):
    """Observations with something wrong between steps 1000 and 2000."""
    y = y.copy()
    part = y[1000:2000]
    rng = np.random.default_rng(3)
    if kind == "missing":
        part[:] = np.nan
    elif kind == "outliers":
        part[rng.random(1000) < 0.05] += 30.0
    elif kind == "stuck":
        part[:] = part[0]
    return y


@pytest.mark.parametrize("kind", ["missing", "outliers", "stuck"])
def test_after_a_fault_the_tracker_is_as_good_as_without_a_trainer(kind):
    states, y = seen(5000, 5, {**CHAOS, "motion": "lorenz_rk4", "process_noise": 0.0})
    y = spoiled(kind, y)
    errors = {}
    for learns in (False, True):
        tracker = KalmanNet(covariance="none", model="lorenz_kalmannet", **CHAOS)
        trainer = Modulated(hypernetwork="lorenz_modulation@1", model="lorenz_kalmannet@1", **CHAOS)
        tracker.start()
        trainer.start()
        tracker.take(trainer._serving.weights)
        found = []
        for at in range(0, len(y), 100):
            found.append(tracker.process(y[at : at + 100]).estimates)
            if learns and (weights := feed(trainer, y[at : at + 100], first=at)[0]):
                tracker.take(weights)
        off = np.square(np.concatenate(found) - states).mean(1)
        errors[learns] = off[2500:].mean()
    assert errors[True] < 10**0.05 * errors[False]


def drifting() -> Flow:
    """A KalmanNet that follows the noise, with weights that come a frame later."""
    flow = Flow("drifting", seed=3)
    flow.add(
        "attractor", "source.state_space", frames=60, length=50, substeps=20,
        **{**CHAOS, "process_noise": 0.0}, changes=[{"at": 1000, "observation_noise": 0.1}],
    )  # fmt: skip
    flow.add("tracker", "tracker.kalmannet", model="lorenz_kalmannet@1", covariance="none", **CHAOS)
    flow.add(
        "trainer", "trainer.modulated", model="lorenz_kalmannet@1",
        hypernetwork="lorenz_modulation@1", budget_s=0.0, **CHAOS,
    )  # fmt: skip
    flow.add("error", "sink.tracking_error", marked="tracker", skip=1500)
    flow.connect("attractor -> tracker -> error")
    flow.tap("tracker -> trainer")
    flow.feedback("trainer ~> tracker", delay=1)
    return flow


def test_in_a_flow_with_an_integer_delay_every_run_is_the_same_whatever_the_workers():
    plan = drifting().check()
    one, two = (run_alone(plan, seconds=60.0)["results"] for _ in range(2))
    split = replace(plan, workers={MAIN: ("attractor", "tracker", "error"), "learn": ("trainer",)})
    three = {}
    for snapshot in run_split(split, seconds=60.0).values():
        three |= snapshot["results"]
    assert one["trainer"]["published"] >= 1
    assert one["error"]["version_changes"][0][2:] == ["tracker", 2]
    for other in (two, three):
        assert other["error"] == one["error"]
        for found in (other, one):
            found["trainer"] = {**found["trainer"], "update_s": 0.0}
        assert other["trainer"] == one["trainer"]
