import sys

import numpy as np
import pytest
import soapy_stand_in
from soapy_stand_in import OVERFLOW, TIMEOUT

from blocks.source.soapy import Soapy
from pipeline.errors import ParameterError, RunError
from pipeline.frame import Gap, Silence


@pytest.fixture
def receiver(monkeypatch):
    monkeypatch.setitem(sys.modules, "SoapySDR", None)

    def make(values=None, **told):
        soapy_stand_in.install(**told)
        block = Soapy(length=100, **(values or {}))
        block.start()
        return block

    return make


def read(frame):
    """Samples as whole numbers; of a gap how many are lost; None for silence."""
    if isinstance(frame, Silence):
        return None
    return frame.samples if isinstance(frame, Gap) else (1000 * frame.samples.real).round()


def frames(block, count):
    return [read(block.process()) for _ in range(count)]


def test_samples_come_as_the_receiver_gives_them(receiver):
    block = receiver()
    np.testing.assert_array_equal(np.concatenate(frames(block, 3)), np.arange(300))
    info = block.describe()
    assert (info.rate_hz, info.centre_hz, info.format) == (2.0e6, 1090e6, "soapy")


def test_settings_reach_the_receiver(receiver):
    values = {"channel": 1, "antenna": "LNAH", "gain_db": 40.0, "centre_hz": 1e9}
    block = receiver(values)
    calls = list(block._receiver.calls)
    assert ("setFrequency", 1, 1, 1e9) in calls
    assert ("setAntenna", 1, 1, "LNAH") in calls
    assert ("setGainMode", 1, 1, False) in calls
    assert ("setGain", 1, 1, 40.0) in calls


def test_an_overflow_is_a_gap_as_long_as_the_time_stamps_say(receiver):
    block = receiver(script=[0, OVERFLOW, 777])
    first, nothing, lost, rest = frames(block, 4)
    assert (len(first), nothing, lost, rest[0]) == (100, None, 777, 877)


def test_an_overflow_without_time_stamps_is_a_gap_by_the_clock(receiver):
    block = receiver(script=[0, OVERFLOW, OVERFLOW, 777], timed=False)
    first, none, nor_now, lost, rest = frames(block, 5)
    assert (none, nor_now) == (None, None)
    assert (len(first), len(rest)) == (100, 100)
    assert lost >= 1


def test_a_receiver_from_which_nothing_comes_is_silent(receiver):
    nothing, samples = frames(receiver(script=[TIMEOUT]), 2)
    assert (nothing, samples[0]) == (None, 0)


def test_a_receiver_that_fails_is_an_error_that_says_so(receiver):
    block = receiver({"device": "driver=x"}, script=[-2])
    with pytest.raises(RunError, match=r"driver=x failed: STREAM_ERROR \(-2\)"):
        block.process()


def test_a_receiver_that_is_not_there_is_an_error_that_says_so(receiver):
    with pytest.raises(RunError, match=r"driver=none: .*no match"):
        receiver({"device": "driver=none"})


def test_a_rate_that_the_receiver_does_not_have_is_refused(receiver):
    with pytest.raises(RunError, match=r"samples at 1.8e\+06 Hz, not at rate_hz = 2e\+06 Hz"):
        receiver(rate_hz=1.8e6)


def test_without_the_module_the_way_to_get_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "SoapySDR", None)
    with pytest.raises(ParameterError, match=r"python3-soapysdr.*--system-site-packages"):
        Soapy()
