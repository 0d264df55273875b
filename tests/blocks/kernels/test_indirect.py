import numpy as np
import pytest
from needs import compiled
from numba import njit

from blocks.kernels.indirect import address_of, call_noise


def reciprocal(interval, parameters, out):
    out[0, 0] = parameters[0] / interval


@njit
def call(address, interval, parameters, out):
    call_noise(address, interval, parameters, out)


def test_a_function_is_called_by_its_address_and_division_by_zero_is_no_error():
    address, out = address_of(reciprocal, "noise"), np.zeros((1, 1))
    assert address == address_of(reciprocal, "noise")
    with np.errstate(divide="ignore"):
        for interval, expected in ((4.0, 0.5), (0.0, np.inf)):
            call(address, np.float64(interval), np.array([2.0]), out)
            assert out[0, 0] == expected


@compiled
@pytest.mark.parametrize(
    ("interval", "parameters", "out"),
    [
        (1.0, np.zeros(1, np.float32), np.zeros((1, 1))),
        (1.0, np.zeros(4)[::2], np.zeros((1, 1))),
        (1.0, np.zeros(1), np.zeros((2, 2)).T),
        (1.0, np.zeros(1), np.zeros(1)),
        (1, np.zeros(1), np.zeros((1, 1))),
    ],
)
def test_arguments_of_another_type_are_refused_before_they_are_misread(interval, parameters, out):
    with pytest.raises(Exception, match="call_noise takes"):
        call(address_of(reciprocal, "noise"), interval, parameters, out)


@compiled
def test_read_only_arrays_are_refused_since_they_might_be_written():
    fixed = np.zeros((1, 1))
    fixed.flags.writeable = False
    with pytest.raises(Exception, match="call_noise takes"):
        call(address_of(reciprocal, "noise"), 1.0, np.zeros(1), fixed)


@compiled
def test_what_does_not_compile_to_the_form_is_refused():
    def wrong(interval, parameters):
        pass

    with pytest.raises(Exception, match="3 argument types given"):
        address_of(wrong, "noise")
