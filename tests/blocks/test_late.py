import numpy as np

from blocks.late import LateRows


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
