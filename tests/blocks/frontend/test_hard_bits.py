import numpy as np
import pytest

from blocks.encoder.modulator import Modulator
from blocks.frontend.hard_bits import HardBits
from pipeline.instance import drive

BITS = np.random.default_rng(1).integers(0, 2, (3, 40), dtype=np.uint8)


@pytest.mark.parametrize("modulation", ["bpsk", "ook", "qpsk"])
@pytest.mark.parametrize("bits", [BITS, BITS[0]], ids=["words", "stream"])
def test_hard_bits_of_the_symbols_that_were_sent_are_the_bits_sent(modulation, bits):
    (sent,) = drive(Modulator(modulation=modulation), [{"coded": bits}], time="code")
    (found,) = drive(HardBits(), [{"symbols": sent["sent"]}])
    np.testing.assert_array_equal(found["hard"], bits)
