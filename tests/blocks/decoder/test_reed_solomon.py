import numpy as np
import pytest

from blocks.decoder.reed_solomon import ReedSolomon
from blocks.encoder.reed_solomon import ReedSolomon as Encoder
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
