"""Trainers that a subclass of GradientTrainer or DecisionFeedback makes of each strategy."""

import numpy as np
import pytest

from blocks.nodes.node import labels_of
from blocks.nodes.wiener import Wiener
from blocks.trainer.augmented import Augmented
from blocks.trainer.bayesian import Bayesian
from blocks.trainer.meta import Meta
from blocks.trainer.on_drift import OnDrift
from pipeline.errors import ParameterError
from pipeline.models import Models


def words(count, seed, gain=1.0):
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (count, 80), np.uint8)
    sent = np.concatenate([-np.ones((count, 1)), 2.0 * bits - 1.0], axis=1)
    samples = gain * (sent[:, 1:] + 0.5 * sent[:, :-1]) + 0.3 * rng.standard_normal((count, 80))
    return samples.astype(np.float32), bits


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A node that learned a channel of gain 1."""
    monkeypatch.setenv("KALVIT_MODELS", str(tmp_path))
    samples, bits = words(5, seed=1)
    labels = np.concatenate([labels_of(word, 2, 2, before=0) for word in bits])
    node = Wiener.fresh("bpsk", 2, samples.ravel(), labels)
    Models().add(node.weights("curve", labels="simulator"))
    return node


@pytest.mark.parametrize(
    "make",
    [
        lambda: Bayesian(model="curve@1"),
        lambda: Bayesian(model="curve@1", covariance="diagonal", iterations=2),
        lambda: Meta(model="curve@1", rate=1e-2, meta_rate=1e-2),
        lambda: Augmented(model="curve@1", rate=1e-2),
        lambda: OnDrift(model="curve@1", rate=1e-2, threshold=0.05),
    ],
)
def test_a_receiver_follows_its_channel(model, make):
    """The gain falls to 0.7: what is published then tells classes apart better."""
    trainer = make()
    trainer.start()
    published = None
    for gain, seed in ((1.0, 2), (0.7, 3)):
        samples, bits = words(30, seed, gain)
        for k in range(30):
            made = trainer.process(
                samples=samples[k : k + 1], accepted=np.ones(1, bool), reencoded=bits[k : k + 1],
                difference=np.zeros(1, np.float32),
            )  # fmt: skip
            published = made or published
    samples, bits = words(50, seed=4, gain=0.7)
    labels = np.concatenate([labels_of(word, 2, 2, before=0) for word in bits])
    before = model.losses(samples.ravel(), labels)
    after = Wiener.of(published.hyper, published.arrays).losses(samples.ravel(), labels)
    gained = before - after
    assert gained.mean() > 3.0 * gained.std() / np.sqrt(gained.size)


def test_a_test_for_shares_is_not_given_losses(model):
    with pytest.raises(ParameterError, match=r"test = .ddm. takes shares"):
        OnDrift(model="curve@1", test="ddm")
