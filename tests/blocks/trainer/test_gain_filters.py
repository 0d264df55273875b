"""What trains the trackers with a learned gain: weights that serve, and covariances calibrated."""

import numpy as np
import pytest
from gain_networks import random_gain
from needs import package

package("torch", "train")

from blocks.kernels.calibration import Calibration  # noqa: E402
from blocks.tracker.kalmannet import KalmanNet  # noqa: E402
from blocks.tracker.recursive_kalmannet import RecursiveKalmanNet  # noqa: E402
from blocks.tracker.split_kalmannet import SplitKalmanNet  # noqa: E402
from blocks.trainer import kalmannet, recursive_kalmannet, split_kalmannet  # noqa: E402
from pipeline.errors import ParameterError  # noqa: E402
from pipeline.models import Models  # noqa: E402
from pipeline.train import Lessons  # noqa: E402
from pipeline.weights import Weights  # noqa: E402

VALUES = {"motion": "canonical", "observation": "identity"}
TINY = {"steps": 2, "piece": 5, "batch": 4, "long_steps": 1, "truncate": 5}


def lessons():
    model = KalmanNet(**VALUES)._build()
    records = []
    for seed in (1, 2):
        states, seen = np.random.default_rng(seed).standard_normal((2, 8 * 30, 2))
        model.simulate(states, seen, np.ones(240), np.zeros((8, 2)))
        shape = (8, 30, 2)
        records.append({"states": states.reshape(shape), "observations": seen.reshape(shape)})
    return Lessons(records[:1], records[1:])


@pytest.mark.parametrize(
    ("trainer", "cls"),
    [
        (kalmannet, KalmanNet), (split_kalmannet, SplitKalmanNet),
        (recursive_kalmannet, RecursiveKalmanNet),
    ],
    ids=["kalmannet", "split", "recursive"],
)  # fmt: skip
def test_what_is_learned_serves_with_covariances_that_agree_with_its_errors(trainer, cls):
    block, given = cls(**VALUES), lessons()
    learnt = trainer.fit(block, given, **TINY)
    assert learnt.training["steps"] == 3
    block.start()
    block.take(Weights("gain", 1, learnt.arrays, learnt.hyper))
    (record,) = given.held_out
    found = block.process(record["observations"])
    off = found.estimates - record["states"]
    error = 10.0 * np.log10(np.square(off).mean())
    assert learnt.scores["mse_db"] == pytest.approx(error, abs=1e-3)
    nees = np.einsum("wti,wtij,wtj->wt", off, np.linalg.inv(found.covariances), off)
    assert nees.mean() == pytest.approx(2.0, rel=0.01)  # on what it was calibrated on


def test_weights_made_before_keep_their_network_and_get_a_calibration(tmp_path, monkeypatch):
    monkeypatch.setenv("KALVIT_MODELS", str(tmp_path))
    made = Models().add(random_gain(2, 2))
    learnt = kalmannet.fit(KalmanNet(**VALUES), lessons(), calibrate="gain@1")
    for name, array in made.arrays.items():
        np.testing.assert_array_equal(learnt.arrays[name], array)
    assert learnt.hyper == made.hyper
    assert Calibration.of(learnt.arrays, 2, 2) is not None


def test_lengths_of_features_are_in_units_of_the_usual_errors_of_a_kalman_filter():
    learnt = kalmannet.fit(KalmanNet(**VALUES), lessons(), scaled=True, **TINY)
    F, _, H = KalmanNet(**VALUES)._build().matrices(np.ones(1))
    F, H, P = F[0], H[0] if H.ndim == 3 else H, np.zeros((2, 2))
    for _ in range(100):  # the Riccati recursion with the noise that was simulated, Q = R = I
        P = F @ P @ F.T + np.eye(2)
        S = H @ P @ H.T + np.eye(2)
        P = P - P @ H.T @ np.linalg.inv(S) @ H @ P
    expected = np.sqrt([*P.diagonal(), *S.diagonal()])
    np.testing.assert_allclose(learnt.hyper["scales"], expected, rtol=0.15)  # noise of 240 steps


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"piece": 0}, "piece = 0, but must be a whole number of at least 1"),
        ({"piece": 30}, "trajectories of 30 steps are too short for pieces of 30"),
        ({"every": 0}, "every = 0"), ({"batch": 0}, "batch = 0"), ({"steps": 1.5}, "steps = 1.5"),
        ({"rate": float("nan")}, "rate = nan, but must be a number above 0"),
        ({"decay": -1.0}, "decay = -1.0, but must be a number of at least 0"),
        ({"architecture": 3}, "architecture = 3, but there are 1 and 2"),
        ({"calibrate": "cv_learned_noise"}, "no weights of it: 'architecture'"),
    ],
)  # fmt: skip
def test_a_schedule_that_cannot_be_is_refused_before_anything_is_learned(wrong, said):
    with pytest.raises(ParameterError, match=said):
        kalmannet.fit(KalmanNet(**VALUES), lessons(), **{**TINY, **wrong})
