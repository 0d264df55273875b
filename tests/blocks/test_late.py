import numpy as np
import pytest

from blocks.decoder.convolutional import Convolutional
from blocks.detector.sum_product import SumProduct
from blocks.detector.viterbi import Viterbi
from blocks.late import LateRows
from blocks.tracker.smoother import Smoother
from pipeline.errors import FieldError


def test_rows_go_to_the_frames_they_belong_to_however_they_come():
    rng = np.random.default_rng(1)
    lengths = rng.integers(0, 9, 100)
    rows = np.arange(lengths.sum())
    expected = np.split(rows, np.cumsum(lengths)[:-1])
    late, found, at = LateRows(np.empty(0, int), np.empty((0, 2), int)), [], 0
    for length in lengths:
        late.expect(int(length))
        stop = min(at + int(rng.integers(0, 9)), rows.size)
        late.add(rows[at:stop], np.stack([rows, -rows], axis=1)[at:stop])
        at = stop
        found += late.complete()
    late.add(rows[at:], np.stack([rows, -rows], axis=1)[at:])
    found += late.complete()
    assert len(found) == len(expected)
    for (one, two), want in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, want)
        np.testing.assert_array_equal(two[:, 1], -want)


def test_what_waits_survives_state_and_restore():
    late = LateRows(np.empty(0, np.int8))
    late.expect(3)
    late.add(np.array([1, 2], np.int8))
    other = LateRows(np.empty(0, np.int8))
    other.restore(late.state())
    late.add(np.array([7], np.int8))  # no longer seen by the other
    other.add(np.array([3, 4], np.int8))
    ((rows,),) = other.complete()
    np.testing.assert_array_equal(rows, [1, 2, 3])
    np.testing.assert_array_equal(other.state()["late_0"], [4])


@pytest.mark.parametrize(
    ("block", "frame"),
    [
        (Viterbi(taps=(1.0, 0.5)), np.ones(5, np.float32)),
        (SumProduct(taps=(1.0, 0.5), noise_var=0.1), np.ones(5, np.float32)),
        (Convolutional(ending="truncated"), np.ones((5, 2), np.float32)),
        (Smoother(), np.ones((5, 2))),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_words_in_the_middle_of_a_stream_are_refused_while_its_frames_wait(block, frame):
    block.start()
    assert block.process(frame) == []
    with pytest.raises(FieldError, match="words came in the middle of a stream, of which 1 frames"):
        block.process(frame[None])
    assert len(block.finish()) == 1
    assert len(block.process(frame[None])) == 1
