import numpy as np
import pytest
import references
from scipy import stats

from blocks.kernels import trellis

ALPHABETS = trellis.ALPHABETS


def branches_of(indices, order, memory, past):
    """The branch that each symbol of a word takes, from its definition."""
    sent = [*past[::-1], *indices]
    return [
        sum(int(sent[memory + i - k]) * order**k for k in range(memory + 1))
        for i in range(len(indices))
    ]


@pytest.mark.parametrize("modulation", ["bpsk", "ook", "qpsk"])
@pytest.mark.parametrize("taps", [[0.7], [1.0, 0.5], [1.0, -0.5, 0.2, 0.1], [1 + 1j, 0.3j, 0.2]])
@pytest.mark.parametrize("silence", [True, False])
def test_branch_outputs_are_the_noise_free_samples(modulation, taps, silence):
    alphabet = ALPHABETS[modulation]
    order, memory = alphabet.size, max(len(taps) - 1, 1)
    rng = np.random.default_rng(5)
    indices = rng.integers(order, size=20)
    past = (0,) * memory if silence else tuple(rng.integers(order, size=memory))
    before = np.zeros(memory) if silence else alphabet[list(past)]
    expected = references.isi_means(alphabet[indices][None], np.array(taps), before)[0]

    outputs = trellis.outputs(np.array(taps), alphabet, silence=silence)

    rows = np.minimum(np.arange(20), len(outputs) - 1)
    found = outputs[rows, branches_of(indices, order, memory, past)]
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_a_branch_leads_from_its_quotient_to_its_remainder():
    order, memory = 4, 3
    branches = np.arange(order ** (memory + 1))
    whole = trellis.digits(branches, order, memory + 1)
    np.testing.assert_array_equal(
        trellis.digits(branches % order**memory, order, memory), whole[:, :-1]
    )
    np.testing.assert_array_equal(trellis.digits(branches // order, order, memory), whole[:, 1:])


def test_start_states_hold_what_came_before():
    def states(*args):
        return np.flatnonzero(trellis.start_states(*args)).tolist()

    assert states("silence", 1, 2, 3) == [0]
    assert states("known", 1, 2, 3) == [7]
    assert states("known", 2, 4, 2) == [10]
    assert states("unknown", 1, 2, 3) == list(range(8))


def test_end_states_have_the_known_symbol_newest():
    assert np.flatnonzero(trellis.states_ending(1, 2, 2, 3)).tolist() == [3, 7]
    assert trellis.states_ending(1, 0, 2, 3).all()


def metrics_of(taps, alphabet, samples, *, silence=False, first=9, **options):
    """Metrics (time, n_branches) of samples (time,)."""
    is_complex = np.iscomplexobj(samples)
    made = trellis.Metrics.of_channel(
        taps, ALPHABETS[alphabet], is_complex=is_complex, silence=silence, dtype=np.float64,
        **options,
    )  # fmt: skip
    scratch = np.empty(samples.size * made.width)
    return made(made.flat(samples), 0, samples.size, first, scratch)


@pytest.mark.parametrize("is_complex", [False, True])
def test_gaussian_metrics_are_negative_log_densities_but_for_a_constant(is_complex):
    rng, taps, noise_var = np.random.default_rng(2), np.array([1.0, 0.4]), 0.3
    samples = rng.standard_normal(9)
    if is_complex:
        samples = samples + 1j * rng.standard_normal(9)
    metrics = metrics_of(taps, "bpsk", samples, noise_var=noise_var)

    means = trellis.outputs(taps, ALPHABETS["bpsk"], silence=False)[0]
    errors = samples[:, None] - means
    if is_complex:  # circular: half the variance in each part
        part = stats.norm(scale=np.sqrt(noise_var / 2))
        log_p = part.logpdf(errors.real) + part.logpdf(errors.imag)
    else:
        log_p = stats.norm(scale=np.sqrt(noise_var)).logpdf(errors)
    np.testing.assert_allclose(np.ptp(metrics + log_p, axis=1), 0, atol=1e-12)


def test_poisson_metrics_are_negative_log_probabilities_but_for_a_constant():
    taps, snr = np.array([1.0, 0.6, 0.3]), 20.0
    counts = np.array([0.0, 3.0, 12.0])
    metrics = metrics_of(taps, "ook", counts, snr=snr)
    means = np.sqrt(snr) * trellis.outputs(taps, ALPHABETS["ook"], silence=False)[0] + 1
    log_p = stats.poisson.logpmf(counts[:, None], means)
    np.testing.assert_allclose(np.ptp(metrics + log_p, axis=1), 0, atol=1e-12)


def test_silence_is_counted_from_the_first_sample_of_the_stream():
    taps, samples = np.array([1.0, 0.5, 0.25]), np.random.default_rng(1).standard_normal(9)
    whole = metrics_of(taps, "bpsk", samples, silence=True, first=0)
    for cut in range(1, 9):
        rest = metrics_of(taps, "bpsk", samples[cut:], silence=True, first=cut)
        np.testing.assert_array_equal(rest, whole[cut:])


def test_poisson_refuses_means_that_are_not_positive():
    with pytest.raises(ValueError, match="positive mean count"):
        metrics_of(np.array([1.0]), "bpsk", np.zeros(1), snr=10.0)
    with pytest.raises(ValueError, match="give complex samples"):
        metrics_of(np.array([1j]), "ook", np.zeros(1), snr=10.0)


def test_metrics_of_read_only_samples():
    samples = np.zeros(4, np.float32)
    samples.flags.writeable = False
    metrics = metrics_of(np.array([1.0]), "bpsk", samples, noise_var=0.5)
    np.testing.assert_array_equal(metrics, np.ones((4, 4)))


@pytest.mark.parametrize("is_complex", [False, True])
def test_values_are_of_one_type_however_samples_come(is_complex):
    metrics = trellis.Metrics.of_channel(
        np.array([1.0, 0.5]), ALPHABETS["bpsk"], is_complex=is_complex
    )
    numbers = np.arange(6) * (1 + 2j if is_complex else 1)
    expected = np.stack([numbers.real, numbers.imag][: 1 + is_complex], axis=1).ravel()
    for dtype in (np.complex64, np.complex128) if is_complex else (np.float32, np.float64):
        samples = numbers.astype(dtype)
        read_only = samples.copy()
        read_only.flags.writeable = False
        for given in (samples, read_only, np.repeat(samples, 2)[::2], read_only[::-1][::-1]):
            values = metrics.flat(given)
            assert values.dtype == np.float32
            assert values.flags.c_contiguous  # so that numba sees one type
            assert values.flags.writeable
            np.testing.assert_array_equal(values, expected)


def test_metrics_that_are_handed_in_are_taken_as_they_are():
    metrics = np.random.default_rng(3).exponential(size=(6, 8))
    made = trellis.Metrics.given(8, np.float64)
    np.testing.assert_array_equal(made(made.flat(metrics), 16, 3, 0, np.empty(0)), metrics[2:5])
