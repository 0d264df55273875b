"""Grids given as text."""

import pytest

from pipeline.errors import FlowError
from pipeline.grid import Axis, decades, parse_grid


def test_decades_hold_both_ends_and_go_up_in_equal_ratios():
    axis = parse_grid("q = 1e-7 : 1e-1 : 3/decade")
    assert (axis.parameter, axis.log, len(axis.values)) == ("q", True, 19)
    assert (axis.values[0], axis.values[-1]) == (1e-7, 0.1)
    ratios = [high / low for low, high in zip(axis.values, axis.values[1:], strict=False)]
    assert ratios == pytest.approx([10.0 ** (1 / 3)] * 18, rel=1e-3)  # four digits are kept
    assert decades("q", 2.0, 30.0, 2).values == (2.0, 6.325, 20.0)


@pytest.mark.parametrize(
    ("text", "values", "log"),
    [
        ("lag=10:50:5", (10.0, 20.0, 30.0, 40.0, 50.0), False),
        ("a=-1:1:3", (-1.0, 0.0, 1.0), False),
        ("a=3:3:1", (3.0,), False),
        ("a=3:3:2/decade", (3.0,), True),
        ("a=0.123456789,3,1,3", (0.123456789, 1.0, 3.0), True),
        ("a=0,1", (0.0, 1.0), False),
        ("a=5", (5.0,), True),
    ],
)
def test_values_are_as_written_and_rise(text, values, log):
    assert parse_grid(text) == Axis("a" if text[0] == "a" else "lag", values, log)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("q=1", ("q",)),
        ("noise[12]=1", ("noise", 12)),
        ("motion_parameters.turn_noise=1", ("motion_parameters", "turn_noise")),
    ],
)
def test_items_of_lists_and_tables_have_a_path(text, path):
    assert parse_grid(text).path == path


def test_the_middle_is_geometric_on_a_logarithmic_axis():
    assert parse_grid("q=1:100:1/decade").between(1.0, 100.0) == 10.0
    assert parse_grid("q=0:100:3").between(0.0, 100.0) == 50.0
    assert parse_grid("q=1,100").between(0.0, 1.0) == 0.5  # what the flow has now may be 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("process_noise", "write PARAMETER=VALUES, such as process_noise="),
        ("=1,2", "write PARAMETER=VALUES"),
        ("a b=1,2", "write PARAMETER=VALUES"),
        ("a[b]=1", "write PARAMETER=VALUES"),
        ("q=", "there is no value after '='"),
        ("q=1,,2", "'' is no finite number"),
        ("q=1,two", "'two' is no finite number"),
        ("q=1,nan", "'nan' is no finite number"),
        ("q=1:inf:3", "'inf' is no finite number"),
        ("q=1:2", "write LOW:HIGH:N/decade or LOW:HIGH:N"),
        ("q=1:2:0", "write LOW:HIGH:N"),
        ("q=1:2:3/octave", "write LOW:HIGH:N"),
        ("q=2:1:3", "2 is above 1; write the smaller one first"),
        ("q=0:1:3/decade", "decades begin above 0, not at 0"),
        ("q=1e-300:1e300:9/decade", "has 5401 values; 1000 are the most"),
        ("q=0:1:1001", "has 1001 values; 1000 are the most"),
    ],
)
def test_what_is_no_grid_is_refused_with_what_would_be_one(text, said):
    with pytest.raises(FlowError) as caught:
        parse_grid(text)
    assert said in str(caught.value)
