import numpy as np
import pytest

from blocks.nodes.node import labels_of
from blocks.nodes.taps import Taps
from blocks.nodes.wiener import Wiener
from blocks.training.continued import Continued
from blocks.training.labelled import Labelled
from blocks.training.pilots import Pilots
from blocks.training.refit import Refit

EMPTY = Taps("bpsk", 2, {"taps": np.zeros(2), "noise_var": np.array(1.0)})


def word(seed, taps=(1.0, 0.5), count=60, pilot=False, noise=0.3):
    rng = np.random.default_rng(seed)
    symbols = rng.integers(0, 2, count)
    sent = np.concatenate([[-1], 2 * symbols - 1])
    samples = taps[0] * sent[1:] + taps[1] * sent[:-1] + noise * rng.standard_normal(count)
    return Labelled(samples.astype(np.float32), labels_of(symbols, 2, 2, before=0), pilot, 0.0)


def test_refit_is_least_squares_over_the_last_words():
    strategy = Refit(words=2)
    words = [word(seed) for seed in range(3)]
    found = [strategy.update(EMPTY, one) for one in words][-1]
    samples = np.concatenate([one.samples for one in words[1:]])
    labels = np.concatenate([one.labels for one in words[1:]])
    symbols = np.stack([2 * (labels % 2) - 1, 2 * (labels // 2) - 1], axis=1)
    expected = np.linalg.inv(symbols.T @ symbols) @ symbols.T @ samples
    np.testing.assert_allclose(found.arrays["taps"], expected, rtol=1e-6)


def test_refit_proposes_nothing_where_labels_are_too_few():
    unknown = word(1)._replace(labels=np.full(60, -1))
    assert Refit().update(EMPTY, unknown) is None


def test_continued_takes_the_given_steps_from_the_serving_node():
    start = Wiener.fresh("bpsk", 2, *word(1)[:2])
    newest = word(2)
    found = Continued(steps=3, rate=1e-2).update(start, newest)
    # the first three steps of Adam, with numbers instead of the class
    at, first, second = start.parameters, 0.0, 0.0
    for step in (1, 2, 3):
        slope = start.moved(at).gradient(newest.samples, newest.labels)[1]
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        scale = np.sqrt(second / (1 - 0.999**step)) + 1e-8
        at = at - 1e-2 * first / (1 - 0.9**step) / scale
    np.testing.assert_allclose(found.parameters, at, rtol=1e-9)


def test_pilots_learn_from_no_decision():
    strategy = Pilots(Refit())
    assert strategy.update(EMPTY, word(1)) is None
    assert strategy.update(EMPTY, word(1, pilot=True)) is not None


@pytest.mark.parametrize("make", [lambda: Refit(words=3), lambda: Pilots(Refit(words=2)),
                                  lambda: Continued(batch=16)])  # fmt: skip
def test_a_restored_strategy_goes_on_alike(make):
    start = Wiener.fresh("bpsk", 2, *word(1)[:2])
    serving = start if isinstance(make(), Continued) else EMPTY
    whole, before, after = make(), make(), make()
    for seed in range(3):
        whole.update(serving, word(seed, pilot=True))
        before.update(serving, word(seed, pilot=True))
    after.restore(before.state())
    expected, found = (each.update(serving, word(9, pilot=True)) for each in (whole, after))
    for name, array in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)
