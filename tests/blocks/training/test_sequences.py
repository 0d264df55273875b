"""Networks for sequences learn what can be learned, and keep the best that they had."""

import numpy as np
import pytest
from needs import package

torch = package("torch", "train")

from blocks.models.recurrent import Lstm  # noqa: E402 (torch may be missing)
from blocks.training.sequences import Sequences, fit, loss_of  # noqa: E402


def signs(count, seed, unknown=0.0):
    """The class is the sign of the sample before."""
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((count, 10, 1)).astype(np.float32)
    classes = np.roll(inputs[:, :, 0] > 0.0, 1, axis=1).astype(np.int64)
    classes[:, 0] = -1
    classes[rng.random(classes.shape) < unknown] = -1
    return Sequences(inputs, classes)


def small(seed=0):
    torch.manual_seed(seed)
    return Lstm(order=2, n_in=1, layers=1, units=4)


def test_a_tiny_network_learns_what_needs_a_memory():
    module = small()
    assert loss_of(module, signs(200, 1)) == pytest.approx(np.log(2.0), abs=0.1)  # chance
    scores = fit(module, signs(300, 0), signs(200, 1), epochs=12, rate=0.03, batch=20)
    assert scores["loss"] < 0.15
    assert loss_of(module, signs(200, 2)) < 0.2


def test_the_parameters_of_the_best_epoch_are_kept_and_it_stops_when_none_is_better():
    told = []
    module = small()
    noise = Sequences(signs(20, 0).inputs, signs(20, 3).classes)  # nothing to learn but by heart
    scores = fit(
        module, noise, Sequences(signs(50, 1).inputs, signs(50, 4).classes), epochs=60, rate=0.05,
        batch=5, patience=4, progress=lambda *args: told.append(args),
    )  # fmt: skip
    losses = [loss for _, _, loss in told]
    best = int(np.argmin(losses))
    assert [epoch for epoch, _, _ in told] == list(range(1, best + 1 + 4 + 1))
    assert len(told) < 60
    assert scores == {"loss": losses[best], "epochs": best + 1}
    kept = loss_of(module, Sequences(signs(50, 1).inputs, signs(50, 4).classes))
    assert kept == pytest.approx(losses[best], rel=1e-6)


def test_the_same_seed_learns_the_same():
    found = []
    for seed in (1, 1, 2):
        module = small()
        fit(module, signs(30, 0), signs(30, 1), seed=seed, epochs=2, batch=7)
        found.append(module.arrays()["output_bias"])
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_unknown_classes_are_left_out():
    whole = signs(100, 5)
    known = signs(100, 5, unknown=0.5)
    module = small()
    with torch.inference_mode():
        log_p = module(torch.from_numpy(whole.inputs)).numpy()
    own = np.take_along_axis(log_p, np.maximum(known.classes, 0)[..., None], 2)[..., 0]
    expected = -own[known.classes >= 0].mean()
    assert loss_of(module, known) == pytest.approx(expected, rel=1e-5)


def test_samples_that_are_no_numbers_teach_nothing():
    broken = signs(10, 0)
    broken.inputs[:, 3] = np.nan
    with pytest.raises(ValueError, match="training gave no finite loss"):
        fit(small(), broken, signs(10, 1), epochs=2)
