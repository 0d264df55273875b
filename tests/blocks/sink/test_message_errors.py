import numpy as np
import pytest

from blocks.sink.message_errors import MessageErrors
from pipeline.errors import RunError
from pipeline.frame import FrameInfo, StreamInfo


def sink(rate_hz=2e6):
    block = MessageErrors()
    block.start()
    block.open("main", StreamInfo(rate_hz=rate_hz))
    return block


def feed(block, sent=(), found=()):
    """One frame: sent (sample, first byte, bits, dB), found (sample, first byte, strict)."""
    message = np.zeros((len(sent) + len(found), 14), np.uint8)
    message[:, 0] = [row[1] for row in (*sent, *found)]
    block.process(
        message[: len(sent)],
        np.array([row[2] for row in sent], np.int16),
        np.array([row[0] for row in sent], float),
        np.array([row[3] for row in sent], np.float32),
        message[len(sent) :],
        np.array([row[0] for row in found], float),
        np.array([row[2] for row in found], np.uint8),
        FrameInfo(),
    )


DF17, DF11 = 17 << 3, 11 << 3


def test_messages_are_found_by_their_bits_and_place_also_in_a_later_frame():
    block = sink()
    feed(block, [(100.3, DF17, 112, 10.2), (1000.0, DF11, 56, 10.9), (2000.0, DF17, 112, 12.0)])
    feed(block, [], [(99.9, DF17, 1), (1004.0, DF11, 1), (2000.0, DF17 + 1, 0)])
    found = block.report(None)
    assert found["sent"] == 3
    assert found["message_error_rate"] == pytest.approx(2 / 3)
    assert found["df17_sent"] == 2
    assert found["df17_error_rate"] == 0.5
    assert found["df11_error_rate"] == 1.0
    assert found["messages"] == 3
    assert found["false_messages"] == 2  # too far off; other bits
    assert found["false_strict_messages"] == 1
    assert found["by_snr_db"] == [[10, 2, 1], [12, 1, 1]]


def test_the_same_message_found_twice_is_false_once():
    block = sink()
    feed(block, [(100.0, DF17, 112, 10.0)], [(100.0, DF17, 1), (100.0, DF17, 1)])
    found = block.report(None)
    assert found["message_error_rate"] == 0.0
    assert found["false_messages"] == 1


def test_messages_that_share_samples_are_counted_apart_whatever_frame_they_come_in():
    block = sink()
    # a long one from 100 to 340, a short one from 330 to 458, which ends later, and one from 460
    feed(block, [(100.0, DF17, 112, 10.0)])
    feed(block, [(330.0, DF11, 56, 10.0)])
    feed(block, [(460.0, DF11, 56, 10.0)], [(460.0, DF11, 1)])
    found = block.report(None)
    assert found["clear_error_rate"] == 0.0
    assert found["overlapped_error_rate"] == 1.0
    assert found["by_snr_db"] == [[10, 1, 0]]


def test_counts_stay_when_messages_are_too_old_to_be_found():
    block = sink()
    feed(block, [(1000.0 * n, DF17, 112, 10.0) for n in range(5000)], [(0.0, DF17, 1)])
    feed(block, [], [(1000.0, DF17, 1), (4_999_000.0, DF17, 1)])  # the first of them is too old
    found = block.report(None)
    assert found["sent"] == 5000
    assert found["message_error_rate"] == pytest.approx(4998 / 5000)
    assert found["false_messages"] == 1


def test_the_picture_is_drawn_where_something_was_sent(tmp_path):
    block = sink()
    assert "picture" not in block.report(tmp_path)
    feed(block, [(100.0, DF17, 112, 10.0), (900.0, DF17, 112, 12.0)], [(100.0, DF17, 1)])
    assert (tmp_path / block.report(tmp_path)["picture"]).stat().st_size > 1000


def test_a_stream_of_unknown_rate_is_refused():
    with pytest.raises(RunError, match=r"sink\.message_errors: the sample rate of stream main is"):
        feed(sink(0.0), [(100.0, DF17, 112, 10.0)])
