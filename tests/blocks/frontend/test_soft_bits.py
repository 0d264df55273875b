import numpy as np
import pytest

from blocks.frontend.soft_bits import SoftBits
from pipeline.errors import FieldError
from pipeline.instance import drive


def soft(llr, **values):
    (frame,) = drive(SoftBits(**values), [{"llr": np.array(llr, np.float32)[:, None]}])
    assert frame["soft"].dtype == np.int8
    return frame["soft"][:, 0].tolist()


def test_steps_are_scale_times_llr_to_the_nearest():
    assert soft([0.0, 0.24, 0.26, -0.9, 3.0], scale=2.0) == [0, 0, 1, -2, 6]


def test_what_lies_beyond_is_cut_alike_on_both_sides():
    assert soft([np.inf, -np.inf, 1e38, -1e38, 8.1, -8.1]) == [127, -127, 127, -127, 127, -127]


def test_nan_is_refused():
    with pytest.raises(FieldError, match="'llr' holds NaN"):
        soft([np.nan])
