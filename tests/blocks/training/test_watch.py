import numpy as np
import pytest

from blocks.training.watch import LEVEL, Watch, fewer, more_than_half


def test_probabilities_are_those_of_the_exact_tests():
    stats = pytest.importorskip("scipy.stats", reason="needs scipy: see pyproject.toml")
    for taken, tried, before, tried_before in ((0, 2, 80, 80), (3, 9, 30, 40), (5, 5, 2, 7)):
        table = [[taken, tried - taken], [before, tried_before - before]]
        expected = stats.fisher_exact(table, alternative="less").pvalue
        assert fewer(taken, tried, before, tried_before) == pytest.approx(expected, rel=1e-9)
    for lost, tried in ((0, 0), (3, 4), (10, 10), (14, 20)):
        expected = stats.binom.sf(lost - 1, tried, 0.5)
        assert more_than_half(lost, tried) == pytest.approx(expected, rel=1e-9)


def watched(patience=20, words=100):
    """After so many words that a version called "old" served and the check accepted."""
    watch = Watch(patience)
    for _ in range(words):
        watch.add("old", 1)
    return watch


def test_a_version_with_which_nothing_is_accepted_goes_after_three_words():
    watch = watched()
    for _ in range(3):
        assert watch.alarm() == ""
        watch.add("new", 0)
    assert watch.alarm() == "0 of 3 words accepted, 20 of 20 before"
    assert watch.reference == "old"


def test_versions_in_quick_succession_count_together():
    watch = watched()
    for number in range(3):
        watch.add(f"new {number}", 0)
    assert watch.alarm()
    assert watch.reference == "old"


def test_a_version_that_loses_every_comparison_goes_after_ten_words():
    watch = watched()
    for number in range(10):
        assert watch.alarm() == ""
        watch.add("new", 1, worse=1)
        assert bool(watch.alarm()) == (number == 9)
    assert watch.alarm() == "a greater loss than before on 10 of 10 words"


def test_what_has_served_for_the_patience_is_what_to_return_to():
    watch = watched(patience=20)
    for _ in range(19):
        watch.add("new", 1, worse=0)
        assert watch.reference == "old"
    watch.add("new", 1, worse=0)
    assert watch.reference == "new"
    for _ in range(5):  # no version is to blame for that
        watch.add("new", 0)
        assert watch.alarm() == ""


def test_words_that_failed_before_the_change_are_no_fault_of_the_new_version():
    watch = watched()
    for _ in range(15):
        watch.add("old", 0)
    for _ in range(10):
        watch.add("new", 0)
        assert watch.alarm() == ""


def test_words_that_were_not_asked_for_do_not_count():
    watch = watched()
    for _ in range(19):
        watch.add("new", -1)
        assert watch.alarm() == ""


def test_after_a_return_nothing_is_left_to_return_to():
    watch = watched()
    for _ in range(30):
        watch.add("middle", 1)
    for _ in range(3):
        watch.add("new", 0)
    assert watch.alarm()
    watch.returned()
    assert watch.reference == "middle"
    for _ in range(10):
        watch.add("middle", 0)
        assert watch.reference == "middle"
        assert watch.alarm() == ""


def test_false_alarms_are_as_rare_as_the_level_says():
    rng = np.random.default_rng(3)
    alarms = 0
    for _ in range(300):
        watch = Watch(20)
        for _ in range(80):
            watch.add("old", int(rng.random() < 0.9))
        for _ in range(19):
            watch.add("new", int(rng.random() < 0.9), worse=int(rng.random() < 0.5))
            if watch.alarm():
                alarms += 1
                break
    # two tests, asked 19 times each; they are far from independent
    assert alarms <= 300 * 2 * 19 * LEVEL
