import numpy as np
import pytest

from blocks.frontend.cut import Cut
from pipeline.errors import ParameterError

SAMPLES = np.arange(1050, dtype=np.float32)


def recut(block, samples, length):
    """All frames that come of a stream in frames of `length`."""
    block.start()
    frames = []
    for start in range(0, samples.size, length):
        frames += block.process(samples[start : start + length])
    return [frame.samples for frame in frames + block.finish()]


@pytest.mark.parametrize("came", [1, 99, 100, 101, 1050])
def test_frames_have_the_length_asked_for_and_the_last_is_partial(came):
    frames = recut(Cut(length=100), SAMPLES, came)
    assert [frame.size for frame in frames] == [100] * 10 + [50]
    np.testing.assert_array_equal(np.concatenate(frames), SAMPLES)


def test_a_stream_that_fits_ends_without_an_empty_frame():
    assert [frame.size for frame in recut(Cut(length=350), SAMPLES, 200)] == [350] * 3


def test_frames_come_as_soon_as_they_are_complete():
    block = Cut(length=10)
    block.start()
    assert [len(block.process(SAMPLES[:size])) for size in (9, 1, 25, 5, 0)] == [0, 1, 2, 1, 0]


def test_a_stream_starts_anew_after_its_end():
    block = Cut(length=10)
    assert [frame.size for frame in recut(block, SAMPLES[:15], 15)] == [10, 5]
    assert [frame.size for frame in recut(block, SAMPLES[:15], 15)] == [10, 5]


def test_complex_samples_stay_complex():
    (frame,) = recut(Cut(length=10), np.ones(10, np.complex64), 3)
    assert frame.dtype == np.complex64


def test_length_zero_is_refused():
    with pytest.raises(ParameterError, match="length = 0 samples, but it must be at least 1"):
        Cut(length=0)
