import numpy as np
import pytest
from scipy import stats

from blocks.frontend.demapper import Demapper
from blocks.kernels.trellis import ALPHABETS
from pipeline.errors import ConnectError, FieldError, ParameterError
from pipeline.instance import drive

RNG = np.random.default_rng(1)


def llr_of(samples, **values):
    (frame,) = drive(Demapper(**values), [{"samples": samples}])
    return frame["llr"]


@pytest.mark.parametrize("modulation", ["bpsk", "ook"])
@pytest.mark.parametrize("shape", [(50,), (5, 10)])
def test_llr_of_real_samples_is_that_of_the_two_densities(modulation, shape):
    samples = RNG.standard_normal(shape).astype(np.float32)
    low, high = ALPHABETS[modulation].astype(float)
    expected = stats.norm.logpdf(samples, high, 0.5) - stats.norm.logpdf(samples, low, 0.5)
    llr = llr_of(samples, modulation=modulation, noise_var=0.25)
    np.testing.assert_allclose(llr[..., 0], expected, rtol=1e-5, atol=1e-5)
    same = llr_of(samples, modulation=modulation, snr_db=6.020599913)
    np.testing.assert_allclose(llr, same, rtol=1e-6)


@pytest.mark.parametrize("shape", [(50,), (5, 10)])
def test_llrs_of_qpsk_are_those_of_its_bits_given_all_four_symbols(shape):
    samples = (RNG.standard_normal(shape) + 1j * RNG.standard_normal(shape)).astype(np.complex64)
    likelihood = np.exp(-(np.abs(samples[..., None] - ALPHABETS["qpsk"]) ** 2) / 0.5)
    llr = llr_of(samples, modulation="qpsk", noise_var=0.5)
    assert llr.shape == (*shape, 2)
    for bit in (0, 1):
        one = np.arange(4) >> bit & 1 == 1
        expected = np.log(likelihood[..., one].sum(-1)) - np.log(likelihood[..., ~one].sum(-1))
        np.testing.assert_allclose(llr[..., bit], expected, rtol=1e-4, atol=1e-5)


def test_bpsk_in_complex_samples_has_half_of_the_noise_in_its_part():
    samples = (RNG.standard_normal(20) + 1j * RNG.standard_normal(20)).astype(np.complex64)
    np.testing.assert_allclose(
        llr_of(samples, noise_var=0.5), llr_of(samples.real.copy(), noise_var=0.25), rtol=1e-6
    )


def test_llrs_stay_within_300_nats():
    llr = llr_of(np.array([-1e30, -1.0, 1e30], np.float32), snr_db=60.0)
    np.testing.assert_array_equal(llr[:, 0], [-300, -300, 300])


@pytest.mark.parametrize(
    ("values", "text"),
    [({}, "neither of noise_var and snr_db"), ({"noise_var": 1.0, "snr_db": 0.0}, "both of")],
)
def test_the_noise_is_given_once(values, text):
    with pytest.raises(ParameterError, match=f"^frontend.demapper: {text}"):
        Demapper(**values)


def test_qpsk_in_real_samples_and_nan_are_refused():
    with pytest.raises(ConnectError, match="qpsk gives complex samples; expected complex64"):
        llr_of(np.zeros(3, np.float32), modulation="qpsk", snr_db=3.0)
    with pytest.raises(FieldError, match="'samples' holds nan"):
        llr_of(np.array([1.0, np.nan], np.float32), snr_db=3.0)
