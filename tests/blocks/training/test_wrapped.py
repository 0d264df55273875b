import numpy as np
import pytest
from scipy import stats

from blocks.nodes.taps import Taps
from blocks.training.augmented import Augmented, Classes
from blocks.training.drift import Ddm, PageHinkley
from blocks.training.labelled import Labelled
from blocks.training.on_drift import OnDrift
from blocks.training.refit import Refit
from blocks.training.strategy import Strategy

SERVING = Taps("bpsk", 1, {"taps": np.ones(1), "noise_var": np.array(0.5)})


class Seen(Strategy):
    """Remembers what it was shown."""

    def __init__(self):
        self.words, self.missed = [], 0

    def update(self, serving, word):
        self.words.append(word)
        return serving

    def lost(self):
        self.missed += 1


def word(samples, labels, difference=0.0):
    return Labelled(np.asarray(samples, np.float32), np.asarray(labels), False, difference)


@pytest.mark.parametrize("is_complex", [False, True])
def test_drawn_samples_have_the_centre_and_spread_of_their_class(is_complex):
    rng = np.random.default_rng(1)
    centres = np.array([-1.0, 0.5, 2.0])
    if is_complex:
        centres = centres * (1.0 + 1.0j)
    labels = np.repeat([0, 1, 2], 2000)
    noise = rng.standard_normal(6000)
    if is_complex:
        noise = (noise + 1j * rng.standard_normal(6000)) / np.sqrt(2.0)
    classes = Classes(memory=0.0)
    classes.add(centres[labels] + 0.3 * noise, labels)
    samples, drawn = classes.drawn(4000, rng, is_complex=is_complex)
    np.testing.assert_array_equal(np.bincount(drawn), [4000] * 3)
    for k in range(3):
        own = samples[drawn == k]
        # means of 2000 and of 4000; variances likewise
        assert abs(own.mean() - centres[k]) < 4.0 * 0.3 * np.sqrt(1 / 2000 + 1 / 4000)
        assert np.std(own) == pytest.approx(0.3, rel=4.0 * np.sqrt(0.5 / 4000 + 0.5 / 6000))
    if not is_complex:
        standard = (samples - np.repeat(centres, 4000)) / 0.3
        assert stats.kstest(standard, "norm").pvalue > 1e-3


def test_old_words_fade_from_the_statistics():
    classes = Classes(memory=0.5)
    for value in (8.0, 4.0, 2.0):
        classes.add(np.full(10, value), np.zeros(10, int))
    samples, _ = classes.drawn(200_000, np.random.default_rng(2), is_complex=False)
    expected = (8.0 * 0.25 + 4.0 * 0.5 + 2.0) / 1.75
    assert samples.mean() == pytest.approx(expected, abs=0.03)


def test_classes_that_were_not_seen_are_not_drawn():
    inner = Seen()
    Augmented(inner, count=5).update(SERVING, word([1.0, 1.1, -1.0], [1, 1, -1]))
    (shown,) = inner.words
    np.testing.assert_array_equal(shown.labels, [1, 1, -1, 1, 1, 1, 1, 1])
    np.testing.assert_array_equal(shown.samples[:3], np.float32([1.0, 1.1, -1.0]))


@pytest.mark.parametrize("watch", ["loss", "difference", "acceptance"])
def test_words_are_shown_at_the_start_and_after_a_change_in_what_is_watched(watch):
    inner = Seen()
    test = Ddm(trials=1) if watch == "acceptance" else PageHinkley(allowance=0.02, threshold=0.3)
    strategy = OnDrift(inner, test, watch=watch, words=3)
    rng = np.random.default_rng(4)

    def words(count, gain, difference, lost):
        shown = []
        for k in range(count):
            labels = rng.integers(0, 2, 100)
            samples = gain * (2 * labels - 1) + 0.7 * rng.standard_normal(100)
            if k % lost == lost - 1:
                strategy.lost()
            before = len(inner.words)
            strategy.update(SERVING, word(samples, labels, difference))
            shown.append(len(inner.words) > before)
        return shown

    assert words(60, 1.0, 0.01, lost=20) == [True] * 3 + [False] * 57
    assert strategy.alarms == 0
    after = words(30, 0.3, 0.2, lost=2)
    assert sum(after[:12]) >= 3
    assert strategy.alarms >= 1
    assert inner.missed == 3 + 15


def test_a_loss_that_is_not_finite_is_an_alarm():
    strategy = OnDrift(Seen(), PageHinkley(allowance=0.1, threshold=1.0), words=1)
    strategy.update(SERVING, word([1.0, -1.0], [1, 0]))
    assert strategy.alarms == 0
    broken = Taps("bpsk", 1, {"taps": np.array([np.nan]), "noise_var": np.array(0.5)})
    strategy.update(broken, word([1.0, -1.0], [1, 0]))
    assert strategy.alarms == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: Augmented(Refit(words=2), count=3),
        lambda: OnDrift(Refit(), PageHinkley(allowance=0.0, threshold=0.1), words=2),
        lambda: OnDrift(Refit(), Ddm(after=5), watch="acceptance", words=2),
    ],
)
def test_a_restored_strategy_goes_on_alike(make):
    rng = np.random.default_rng(6)
    labels = rng.integers(0, 2, (12, 30))
    samples = 2 * labels - 1 + rng.standard_normal((12, 30)) * np.linspace(0.1, 1.5, 12)[:, None]
    seen = [word(*pair) for pair in zip(samples, labels, strict=True)]
    whole, before = make(), make()
    for each in (whole, before):
        for one in seen[:6]:
            each.update(SERVING, one)
            each.lost()
    after = make()
    after.restore(before.state())
    for one in seen[6:]:
        expected, found = (each.update(SERVING, one) for each in (whole, after))
        assert (expected is None) == (found is None)
        if found is not None:
            np.testing.assert_array_equal(found.arrays["taps"], expected.arrays["taps"])
