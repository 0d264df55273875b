import numpy as np
import pytest

from blocks.decoder.reed_solomon import ReedSolomon
from blocks.encoder.reed_solomon import ReedSolomon as Encoder
from blocks.source.random_bits import RandomBits
from pipeline.errors import FieldError
from pipeline.flow import Flow
from pipeline.instance import drive
from pipeline.local import run

CODE = {"n": 17, "k": 13}
BITS = np.random.default_rng(1).integers(0, 2, (5, 104), dtype=np.uint8)
CODED = drive(Encoder(**CODE), [{"bits": BITS}])[0]["coded"]


def decoded(hard, **fields):
    """What the decoder adds to one frame."""
    (found,) = drive(ReedSolomon(**CODE), [{"hard": hard, **fields}])
    return found


def test_corrections_and_failures_are_told_apart():
    hard = CODED.copy()
    hard[1, 5] ^= 1
    hard[2, [0, 1, 2, 3, 100]] ^= 1  # 5 bits in 2 bytes
    hard[3, [0, 9, 18]] ^= 1  # 3 bytes, of which 2 can be corrected
    hard[4, 135] ^= 1
    found = decoded(hard)
    np.testing.assert_array_equal(found["accepted"], [True, True, True, False, True])
    np.testing.assert_array_equal(found["corrected"], [0, 1, 2, -1, 1])
    kept = [0, 1, 2, 4]
    np.testing.assert_array_equal(found["payload"][kept], BITS[kept])
    np.testing.assert_array_equal(found["reencoded"][kept], CODED[kept])
    # What failed stays as it was decided.
    np.testing.assert_array_equal(found["payload"][3], hard[3, :104])
    np.testing.assert_array_equal(found["reencoded"][3], hard[3])


def test_difference_is_the_share_of_bits_that_the_code_changed():
    hard = CODED.copy()
    hard[1, 5] ^= 1
    hard[2, [0, 1, 2, 3, 100]] ^= 1
    hard[3, [0, 9, 18]] ^= 1
    expected = np.float32([0.0, 1 / 136, 5 / 136, np.nan, 0.0])
    np.testing.assert_allclose(decoded(hard)["difference"], expected, rtol=1e-6)


def test_erased_bytes_cost_half_as_much():
    erased = np.zeros((5, 17), bool)
    erased[:, [0, 3, 9]] = True
    hard = CODED.copy()
    hard[:, :8] ^= 1
    hard[1, 24:32] ^= 1
    hard[2, [72, 24]] ^= 1
    found = decoded(hard, erased=erased)
    np.testing.assert_array_equal(found["corrected"], [1, 2, 3, 1, 1])
    np.testing.assert_array_equal(found["payload"], BITS)
    erased[0, [1, 2, 4]] = True
    np.testing.assert_array_equal(
        decoded(hard, erased=erased)["accepted"], [False, True, True, True, True]
    )


def test_fields_of_another_length_are_refused():
    with pytest.raises(FieldError, match=r"'hard' has 120 bits per word.*take 136"):
        decoded(CODED[:, :120])
    with pytest.raises(FieldError, match=r"'erased' has 16 bytes per word, but n = 17"):
        decoded(CODED, erased=np.zeros((5, 16), bool))


# pilots


def sent_with_pilots(words, **values):
    """Information and code bits of so many words."""
    source = RandomBits(frames=1, length=104, words=words, **values)
    source.start()
    bits = source.process().bits
    return bits, drive(Encoder(**CODE), [{"bits": bits}])[0]["coded"]


def test_pilots_are_known_whatever_was_decided():
    bits, coded = sent_with_pilots(8, pilot_every=3, pilot_seed=9)
    hard = np.random.default_rng(4).integers(0, 2, coded.shape, dtype=np.uint8)
    hard[6] = coded[6]
    hard[6, [0, 50]] ^= 1
    (found,) = drive(ReedSolomon(**CODE, pilot_every=3, pilot_seed=9), [{"hard": hard}])
    pilot = np.array([0, 3, 6])
    np.testing.assert_array_equal(np.flatnonzero(found["pilot"]), pilot)
    np.testing.assert_array_equal(np.flatnonzero(found["accepted"]), pilot)
    np.testing.assert_array_equal(found["payload"][pilot], bits[pilot])
    np.testing.assert_array_equal(found["reencoded"][pilot], coded[pilot])
    wrong = hard[pilot] != coded[pilot]
    np.testing.assert_allclose(found["difference"][pilot], wrong.mean(axis=1), rtol=1e-6)
    assert found["difference"][6] == np.float32(2 / 136)
    np.testing.assert_array_equal(
        found["corrected"][pilot], wrong.reshape(3, 17, 8).any(axis=2).sum(axis=1)
    )
    assert found["corrected"][0] > 2  # more than the code could correct


def test_without_pilots_no_word_is_one():
    np.testing.assert_array_equal(decoded(CODED)["pilot"], False)


def test_pilots_stay_where_they_are_when_words_are_lost_in_a_gap():
    # The runtime starts a block anew after a gap; the clock tells how long that was.
    bits, coded = sent_with_pilots(12, pilot_every=3)
    decoder = ReedSolomon(**CODE, pilot_every=3)
    (before,) = drive(decoder, [{"hard": coded[:4]}])
    (after,) = drive(decoder, [{"hard": 1 - coded[8:]}], sample=8)
    np.testing.assert_array_equal(before["pilot"], [True, False, False, True])
    np.testing.assert_array_equal(after["pilot"], [False, True, False, False])
    np.testing.assert_array_equal(after["payload"][1], bits[9])


def test_errors_of_pilots_are_not_counted():
    flow = Flow.load("coded_isi")
    flow.set("bits.pilot_every", 5)
    flow.set("decoder.pilot_every", 5)
    results = run(flow, frames=4)["results"]
    for sink, per_word in (("uncoded", 136), ("errors", 120)):
        assert results[sink]["words"] == 80
        assert results[sink]["symbols"] == 80 * per_word
    flow.set("decoder.pilot_seed", 1)  # knows other bits than were sent
    wrong = run(flow, frames=4)["results"]
    assert wrong["errors"]["errors"] == results["errors"]["errors"]


def rates(frames, words, **settings):
    """Wrong symbols and wrong payload bits of the ready flow."""
    flow = Flow.load("coded_isi")
    for key, value in {"bits.words": words, **settings}.items():
        flow.set(key, value)
    results = run(flow, frames=frames)["results"]
    return [results[sink] for sink in ("uncoded", "errors")]


def test_the_code_mends_what_noise_did_but_not_what_wrong_taps_do():
    uncoded, coded = rates(200, 25, **{"channel.fading": "none"})
    assert 0 < coded["symbol_error_rate"] < 0.35 * uncoded["symbol_error_rate"] < 1e-3
    uncoded, coded = rates(60, 25)
    assert 0.03 < uncoded["symbol_error_rate"] < 0.06
    assert coded["symbol_error_rate"] > 0.9 * uncoded["symbol_error_rate"]


def test_the_flow_gives_the_same_however_many_words_a_frame_has():
    assert rates(4, 25) == rates(20, 5)
