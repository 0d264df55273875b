"""What all trainers that learn from accepted words promise, on words made here."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from blocks.nodes.node import labels_of
from blocks.nodes.taps import Taps
from blocks.trainer.feedback import DecisionFeedback
from blocks.trainer.refit import Refit
from blocks.training.strategy import Strategy
from pipeline.errors import FieldError, ParameterError
from pipeline.models import Models
from pipeline.weights import Weights

TAPS = np.array([1.0, 0.8, 0.6, 0.4])
LENGTH = 136


def words(count: int, taps=TAPS, *, seed=0, snr_db=10.0, wrong=0.0) -> dict[str, np.ndarray]:
    """Fields of words over a channel; of a share of them the labels are those of another word."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (count, LENGTH), np.uint8)
    sent = np.concatenate([-np.ones((count, 3)), 2.0 * bits - 1.0], axis=1)
    samples = sum(tap * sent[:, 3 - k :][:, :LENGTH] for k, tap in enumerate(taps))
    samples = samples + rng.standard_normal(samples.shape) * 10.0 ** (-snr_db / 20.0)
    others = rng.random(count) < wrong
    bits[others] = rng.integers(0, 2, (int(others.sum()), LENGTH), np.uint8)
    fields = {
        "samples": samples.astype(np.float32),
        "accepted": np.ones(count, bool),
        "reencoded": bits,
        "difference": np.zeros(count, np.float32),
    }
    for array in fields.values():
        array.flags.writeable = False
    return fields


def one_by_one(trainer, fields) -> list[Weights | None]:
    return [
        trainer.process(**{name: array[k : k + 1] for name, array in fields.items()})
        for k in range(len(fields["samples"]))
    ]


class Proposes(Strategy):
    """Proposes what a function of the serving node and the word says."""

    def __init__(self, proposal: Callable[[Any, Any], Any]) -> None:
        self.proposal = proposal

    def update(self, serving, word):
        return self.proposal(serving, word)


class Taught(DecisionFeedback):
    """Starts with a channel that is known, and learns as a test says."""

    name = "trainer.taught"
    trains = Taps
    proposal: Callable[[Any, Any], Any]
    first = Taps("bpsk", 4, {"taps": TAPS, "noise_var": np.array(0.1)})

    def check(self):
        pass

    def _first(self):
        return super()._first()._replace(weights=self.first.weights("taps", version=4))

    def _fresh(self):
        return self.first

    def _strategy(self):
        return Proposes(self.proposal)


def taught(proposal, **values) -> Taught:
    trainer = Taught(**values)
    trainer.proposal = proposal
    trainer.start()
    return trainer


def once(trainer: Taught, taps) -> None:
    """Let it propose these taps after the next word, and nothing then."""
    proposals = iter([taps])

    def proposal(serving, word):
        taps = next(proposals, None)
        return None if taps is None else like(serving, taps)

    trainer._making.proposal = proposal


def like(serving, taps, noise_var=0.1):
    return type(serving)(
        serving.modulation, serving.memory,
        {"taps": np.asarray(taps, float), "noise_var": np.array(noise_var)},
    )  # fmt: skip


def bad(serving, word):
    """A node that no word should get."""
    return like(serving, -TAPS)


def good(serving, word):
    """The channel as it is, so that it never loses."""
    return like(serving, TAPS)


def events(trainer, *kinds: str) -> list[dict]:
    return [dict(note) for note in trainer.notes() if note["event"] in kinds]


# the gate


def test_a_candidate_is_judged_by_the_next_word_and_serves_after_it():
    trainer = taught(good)
    trainer.start()
    answers = one_by_one(trainer, words(3))
    assert answers[0] is None
    assert [(w.version, w.parent, w.labels) for w in answers[1:]] == [
        (5, 4, "decisions"), (6, 5, "decisions"),
    ]  # fmt: skip
    notes = events(trainer, "published")
    assert [note["word"] for note in notes] == [1, 2]


def test_losses_are_compared_on_a_word_that_neither_was_trained_on():
    seen = []

    def proposal(serving, word):
        seen.append(word.samples.copy())
        return like(serving, TAPS + 0.01)

    trainer = taught(proposal)
    fields = words(2)
    one_by_one(trainer, fields)
    (note,) = events(trainer, "published")
    np.testing.assert_array_equal(seen[0], np.zeros_like(seen[0]))  # the rehearsal
    np.testing.assert_array_equal(seen[1], fields["samples"][0])
    labels = labels_of(fields["reencoded"][1], 4, 2, before=0)
    for key, node in (("loss", like(Taught.first, TAPS + 0.01)), ("serving_loss", Taught.first)):
        assert note[key] == pytest.approx(node.losses(fields["samples"][1], labels).mean())


def test_a_worse_candidate_is_refused_and_the_log_says_why():
    trainer = taught(bad)
    assert one_by_one(trainer, words(30)) == [None] * 30
    report = trainer.report(None)
    assert report["published"] == 0
    assert report["refused"] == report["refused_worse"] > 0
    assert report["version"] == 4
    first = events(trainer, "refused")[0]
    assert (first["word"], first["reason"], first["why"]) == (1, "worse", "its loss is greater")
    assert first["loss"] > first["serving_loss"]


def test_after_k_refusals_in_a_row_2_to_the_k_words_pass_without_training():
    trainer = taught(bad, longest_wait=8)
    one_by_one(trainer, words(60))
    refused = [note["word"] for note in events(trainer, "refused")]
    # trained on a word, judged on the next, which with 2^k - 1 more is not trained on
    assert np.diff(refused).tolist() == [3, 5, *[9] * (len(refused) - 3)]


def test_a_publication_ends_the_waiting():
    proposals = iter([bad, bad, good, bad, bad])
    trainer = taught(lambda serving, word: next(proposals, good)(serving, word))
    one_by_one(trainer, words(30))
    notes = events(trainer, "refused", "published")
    assert [note["event"] for note in notes[:4]] == ["refused", "published", "refused", "refused"]
    words_between = np.diff([note["word"] for note in notes[:4]]).tolist()
    assert words_between[0] == 3  # one refusal: 2 words
    assert words_between[2] == 3  # again one refusal


@pytest.mark.parametrize(
    ("proposal", "reason", "why"),
    [
        (lambda s, w: like(s, [1.0, np.nan, 0.0, 0.0]), "not_finite", "parameters are not finite"),
        (lambda s, w: like(s, TAPS, np.inf), "not_finite", "parameters are not finite"),
        (lambda s, w: like(s, 1e30 * TAPS), "not_finite", "losses are not finite"),
        (lambda s, w: like(s, 1e6 * TAPS), "worse", "loss is greater"),
        (lambda s, w: 1 / 0, "failed", "ZeroDivisionError: division by zero"),
        (lambda s, w: like(s, np.ones(5)), "failed", "it is another node"),
        (lambda s, w: 5, "failed", "AttributeError"),
    ],
    ids=["nan", "infinity", "overflow", "explosion", "exception", "shape", "no node"],
)
def test_what_goes_wrong_in_a_strategy_is_refused_and_told(proposal, reason, why):
    trainer = taught(proposal)
    assert one_by_one(trainer, words(40)) == [None] * 40
    report = trainer.report(None)
    assert report["words"] == report["accepted"] == 40
    assert (report["published"], report["version"]) == (0, 4)
    assert report["refused"] == report[f"refused_{reason}"] >= 3
    notes = events(trainer, "refused")
    assert all(note["reason"] == reason and why in note["why"] for note in notes)
    json.dumps(notes, allow_nan=False)


def test_an_endless_update_is_given_up_and_none_runs_beside_it():
    end = threading.Event()
    running = []

    def proposal(serving, word):
        if word.samples.any():  # not in the rehearsal
            running.append(1)
            end.wait(60.0)
        return like(serving, TAPS)

    trainer = taught(proposal, budget_s=0.02, longest_wait=0)
    fields = words(20)
    assert one_by_one(trainer, fields) == [None] * 20
    assert running == [1]
    report = trainer.report(None)
    assert (report["refused_too_late"], report["published"]) == (1, 0)
    (note,) = events(trainer, "refused")
    assert note["why"] == "not done within 0.02 s"
    end.set()
    while trainer._budget.busy:
        pass
    one_by_one(trainer, fields)
    assert trainer.report(None)["published"] > 10


# which words count


def test_words_that_were_not_accepted_or_were_changed_much_are_left_out():
    fields = dict(words(6))
    fields["accepted"] = np.array([True, False, True, True, True, True])
    fields["difference"] = np.array([0.0, np.nan, 0.03, 0.01, np.nan, 0.02], np.float32)
    seen = []

    def proposal(serving, word):
        seen.append(word.samples.copy())

    trainer = taught(proposal)
    one_by_one(trainer, fields)
    wanted = fields["samples"][[0, 3, 5]]
    np.testing.assert_array_equal(seen[1:], wanted)
    report = trainer.report(None)
    assert (report["words"], report["accepted"], report["trained"]) == (6, 5, 0)


def test_pilots_count_whatever_the_decoder_changed_and_are_told_apart():
    fields = dict(words(6))
    fields["accepted"] = np.array([True] * 3 + [False] * 3)
    fields["difference"] = np.array([0.4, 0.0, np.nan, np.nan, 0.1, np.nan], np.float32)
    fields["pilot"] = np.array([True, False, True, False, True, False])
    seen = []

    def proposal(serving, word):
        seen.append((word.pilot, word.difference))
        return like(serving, TAPS)

    trainer = taught(proposal)
    answers = one_by_one(trainer, fields)
    assert [pilot for pilot, _ in seen[1:]] == [True, False, True, True]
    made = [(w.version, w.labels) for w in answers if w is not None]
    assert made == [(5, "pilots"), (6, "decisions"), (7, "decisions")]


def test_samples_that_are_not_finite_are_left_out_and_told():
    fields = dict(words(20))
    samples = fields["samples"].copy()
    samples[3, 5], samples[8, 0], samples[9] = np.nan, np.inf, -np.inf
    fields["samples"] = samples
    seen = []
    trainer = taught(lambda serving, word: seen.append(word.samples.copy()))
    one_by_one(trainer, fields)
    assert len(seen) == 1 + 17
    assert np.isfinite(seen[1:]).all()
    assert [note["word"] for note in events(trainer, "word")] == [3, 8, 9]


@pytest.mark.parametrize("wrong", [0.3, 0.5])
def test_words_with_wrong_labels_do_not_spoil_what_serves(wrong):
    # labels of other words, which the check let through without a change
    trainer = Refit()
    trainer.start()
    one_by_one(trainer, words(20))
    assert trainer.report(None)["published"] > 5
    clean = words(100, seed=5)
    labels = [labels_of(bits, 4, 2, before=0) for bits in clean["reencoded"]]
    loss = []
    for k in range(200):
        one_by_one(trainer, words(1, seed=100 + k, wrong=wrong))
        if k % 20 == 19:
            node = trainer._serving.node
            loss.append(node.losses(clean["samples"].ravel(), np.concatenate(labels)).mean())
    true = like(Taught.first, TAPS).losses(clean["samples"].ravel(), np.concatenate(labels)).mean()
    assert max(loss) < 1.1 * true  # fits to a word of 136 bits cost about 2 %
    report = trainer.report(None)
    assert report["not_believed"] > 0.8 * wrong * 200
    assert report["published"] > 40


def test_a_node_that_knows_nothing_believes_its_first_word():
    trainer = Refit()
    trainer.start()
    first = one_by_one(trainer, words(2))[1]
    assert (first.name, first.version, first.parent) == ("taps", 1, 0)
    np.testing.assert_allclose(first.arrays["taps"], TAPS, atol=0.15)


# the way back


def test_a_version_with_which_words_fail_is_taken_back_under_its_own_number():
    trainer = taught(lambda serving, word: None)
    one_by_one(trainer, words(30))
    once(trainer, 0.97 * TAPS)
    (published,) = [w for w in one_by_one(trainer, words(2, seed=1)) if w]
    fields = dict(words(5, seed=2))
    fields["accepted"] = np.zeros(5, bool)
    answers = one_by_one(trainer, fields)
    (back,) = [w for w in answers if w]
    assert answers[2] is back
    assert (published.version, back.version) == (5, 4)
    assert back.digest == Taught.first.weights("taps", version=4).digest
    (note,) = events(trainer, "returned")
    assert (note["version"], note["instead_of"]) == (4, 5)
    assert note["why"] == "0 of 3 words accepted, 20 of 20 before"
    assert trainer.report(None)["rolled_back"] == 1
    trainer._making.proposal = good
    again = [w for w in one_by_one(trainer, words(10, seed=3)) if w]
    assert again[0].version == 6  # numbers are not used twice
    assert again[0].parent == 4


def test_a_version_that_got_through_the_gate_by_luck_is_taken_back():
    trainer = taught(lambda serving, word: None, tolerance=1e9)
    one_by_one(trainer, words(30))
    once(trainer, 0.7 * TAPS)
    one_by_one(trainer, words(2, seed=1))
    assert trainer.report(None)["version"] == 5
    answers = one_by_one(trainer, words(12, seed=2))
    (back,) = [w for w in answers if w]
    assert back.version == 4
    (note,) = events(trainer, "returned")
    assert note["why"] == "a greater loss than before on 10 of 10 words"


# the contract


def test_the_same_however_words_are_put_into_frames():
    fields = words(75, wrong=0.1)
    outcomes = []
    for size in (1, 25, 75):
        trainer = Refit(words=2)
        trainer.start()
        for k in range(0, 75, size):
            last = trainer.process(**{name: array[k : k + size] for name, array in fields.items()})
        report = dict(trainer.report(None))
        del report["update_s"]
        outcomes.append((report, trainer._serving.weights.digest))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert last is trainer._serving.weights


def test_the_model_is_named_on_and_its_versions_go_on(tmp_path, monkeypatch):
    monkeypatch.setenv("KALVIT_MODELS", str(tmp_path))
    models = Models()
    node = like(Taught.first, 0.9 * TAPS)
    for _ in range(3):
        models.add(node.weights("channel", labels="simulator"))
    trainer = Refit(model="channel@3")
    trainer.start()
    made = next(w for w in one_by_one(trainer, words(5)) if w)
    assert (made.name, made.version, made.parent) == ("channel", 4, 3)
    with pytest.raises(ParameterError, match="no model named 'chanel'; did you mean 'channel'"):
        Refit(model="chanel")


def test_what_cannot_work_is_refused_with_what_to_do():
    with pytest.raises(ParameterError, match=r"known_symbol = 2, but bpsk has the symbols 0 ... 1"):
        Refit(known_symbol=2)
    trainer = Refit(modulation="qpsk")
    trainer.start()
    fields = words(1)
    with pytest.raises(FieldError, match="136 code bits and 136 samples, but each symbol of qpsk"):
        one_by_one(trainer, fields)


def test_qpsk_labels_are_those_of_the_modulator():
    trainer = Refit(modulation="qpsk", memory=2, start_state="unknown")
    trainer.start()
    reencoded = np.array([[1, 0, 0, 1, 1, 1, 0, 0]], np.uint8)
    labels = trainer._labels(np.zeros((1, 4), np.complex64), reencoded)
    # symbols 1, 2, 3, 0; class = newest + 4 before
    np.testing.assert_array_equal(labels, [[-1, 2 + 4 * 1, 3 + 4 * 2, 0 + 4 * 3]])
