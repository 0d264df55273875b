import itertools

import numpy as np
import pytest
import references
from needs import compiled
from scipy import stats

from blocks.detector.sum_product import SumProduct
from blocks.detector.viterbi import Viterbi
from blocks.kernels.trellis import ALPHABETS
from pipeline.errors import ParameterError
from pipeline.instance import drive

NOISE_VAR = 0.4
SNR_DB = 14.0  # of Poisson noise
TAPS = {"single": [0.8], "two": [1.0, 0.5], "three": [0.4, 1.0, 0.3]}
LENGTH = {"bpsk": 8, "ook": 8, "qpsk": 4}
OUTPUTS = ("symbols", "posterior", "llr")


def gaussian(samples, means):
    return references.gaussian_log_likelihood(samples, means, NOISE_VAR)


def poisson(samples, means):
    return stats.poisson.logpmf(samples, 10 ** (SNR_DB / 20) * means + 1)


def some_samples(modulation, words, seed, is_complex):
    rng = np.random.default_rng(seed)
    shape = (words, LENGTH[modulation])
    samples = rng.standard_normal(shape)
    if is_complex:
        return (samples + 1j * rng.standard_normal(shape)).astype(np.complex64)
    return samples.astype(np.float32)


def assert_matches_enumeration(block, samples, taps, modulation, log_likelihood, **options):
    alphabet = ALPHABETS[modulation]
    (result,) = drive(block, [{"samples": samples}])
    for word, row in enumerate(samples):
        every = references.Enumerated(row, taps, alphabet, log_likelihood, **options)
        posterior = result["posterior"][word]
        np.testing.assert_allclose(posterior, every.posterior, rtol=0, atol=1e-6)
        np.testing.assert_allclose(posterior.sum(axis=1), 1, rtol=0, atol=1e-6)
        newest = every.posterior.reshape(len(row), -1, alphabet.size).sum(axis=1)
        decided = np.array([np.flatnonzero(alphabet == s)[0] for s in result["symbols"][word]])
        chosen = newest[range(len(row)), decided]
        np.testing.assert_allclose(chosen, newest.max(axis=1), atol=1e-9)
        for bit in range(result["llr"].shape[2]):
            # bit j is 1 where part j of the symbol is the larger of its two values
            part = alphabet.imag if bit == 1 else alphabet.real
            one = newest[:, part == part.max()].sum(axis=1)
            zero = newest[:, part != part.max()].sum(axis=1)
            with np.errstate(divide="ignore"):
                llr = np.log(one) - np.log(zero)
            sure = np.isinf(llr)
            np.testing.assert_allclose(result["llr"][word, ~sure, bit], llr[~sure], atol=1e-3)
            assert (result["llr"][word, sure, bit] * np.sign(llr[sure]) >= 30).all()
    assert result["llr"].shape[2] == (2 if modulation == "qpsk" else 1)


@pytest.mark.parametrize("modulation", ["bpsk", "ook", "qpsk"])
@pytest.mark.parametrize("taps", TAPS.values(), ids=TAPS)
@pytest.mark.parametrize("start", ["silence", "known", "unknown"])
@pytest.mark.parametrize("end", ["unknown", "known"])
def test_posteriors_match_enumeration(modulation, taps, start, end):
    samples = some_samples(modulation, 4, len(taps), modulation == "qpsk")
    block = SumProduct(
        taps=taps, modulation=modulation, noise_var=NOISE_VAR,
        start_state=start, end_state=end, known_symbol=1,
    )  # fmt: skip
    assert_matches_enumeration(
        block, samples, taps, modulation, gaussian, start=start, end=end, known=1
    )


@pytest.mark.parametrize("modulation", ["bpsk", "ook", "qpsk"])
def test_posteriors_match_enumeration_over_complex_taps(modulation):
    taps = np.array([0.9 - 0.2j, 0.1 + 0.6j, -0.3j])
    samples = some_samples(modulation, 4, 9, is_complex=True)
    block = SumProduct(
        taps=taps.real, taps_imag=taps.imag, modulation=modulation, noise_var=NOISE_VAR
    )
    assert_matches_enumeration(
        block, samples, taps, modulation, gaussian, start="silence", end="unknown"
    )


@pytest.mark.parametrize("start", ["silence", "known", "unknown"])
@pytest.mark.parametrize("end", ["unknown", "known"])
def test_posteriors_match_enumeration_in_poisson_noise(start, end):
    taps = np.exp(-0.5 * np.arange(4))
    samples = np.random.default_rng(3).poisson(5, (4, 8)).astype(np.float32)
    block = SumProduct(
        taps=taps, modulation="ook", noise="poisson", snr_db=SNR_DB,
        start_state=start, end_state=end,
    )  # fmt: skip
    assert_matches_enumeration(block, samples, taps, "ook", poisson, start=start, end=end)


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("start", ["silence", "known", "unknown"])
def test_words_shorter_than_the_memory_match_enumeration(length, start):
    taps = [0.4, 1.0, 0.3, 0.7]
    samples = np.random.default_rng(4).standard_normal((3, length)).astype(np.float32)
    for end in ("unknown", "known"):
        block = SumProduct(taps=taps, noise_var=NOISE_VAR, start_state=start, end_state=end)
        assert_matches_enumeration(block, samples, taps, "bpsk", gaussian, start=start, end=end)


def test_over_one_tap_the_llr_is_twice_the_sample_over_the_noise_variance():
    samples = np.linspace(-14, 14, 101, dtype=np.float32)
    double = {"taps": (1.0,), "precision": "double"}
    (result,) = drive(SumProduct(**double, noise_var=0.1), [{"samples": samples}])
    np.testing.assert_allclose(result["llr"][:, 0], 20 * samples, rtol=1e-5, atol=1e-5)
    (result,) = drive(SumProduct(**double, noise_var=0.05), [{"samples": samples}])
    np.testing.assert_allclose(
        result["llr"][:, 0], (40 * samples).clip(-300, 300), rtol=1e-5, atol=1e-5
    )
    (result,) = drive(SumProduct(taps=(1.0,), noise_var=0.1), [{"samples": samples}])
    np.testing.assert_allclose(
        result["llr"][:, 0], (20 * samples).clip(-38, 38), rtol=1e-5, atol=1e-5
    )


def test_noise_variance_and_snr_say_the_same():
    samples = some_samples("bpsk", 3, 5, is_complex=False)
    (one,) = drive(SumProduct(taps=(1.0, 0.5), noise_var=0.01), [{"samples": samples}])
    (two,) = drive(SumProduct(taps=(1.0, 0.5), snr_db=20.0), [{"samples": samples}])
    np.testing.assert_allclose(one["llr"], two["llr"], rtol=1e-5)


def received(taps, snr_db, length, seed=1):
    rng = np.random.default_rng(seed)
    sent = rng.choice(np.array([-1, 1], np.int8), length)
    noise = rng.standard_normal(length) * 10 ** (-snr_db / 20)
    return sent, (np.convolve(sent, taps)[:length] + noise).astype(np.float32)


def cut_up(samples, cut):
    if cut == "ragged":
        edges = np.sort(np.random.default_rng(0).integers(0, samples.size, 40))
    else:
        edges = np.arange(cut, samples.size, cut)
    return [{"samples": part} for part in np.split(samples, edges)]


EXPONENTIAL = tuple(np.exp(-0.5 * np.arange(4)).tolist())


@pytest.mark.parametrize("cut", [1, 7, 100, 1000, "ragged"])
@pytest.mark.parametrize("lag", [0, 1, 37])
def test_nothing_depends_on_the_cut(cut, lag):
    _, samples = received(EXPONENTIAL, 4.0, 1500)
    (whole,) = drive(SumProduct(taps=EXPONENTIAL, snr_db=4.0, lag=lag), [{"samples": samples}])
    results = drive(SumProduct(taps=EXPONENTIAL, snr_db=4.0, lag=lag), cut_up(samples, cut))
    for name in OUTPUTS:
        np.testing.assert_array_equal(np.concatenate([r[name] for r in results]), whole[name])


@pytest.mark.parametrize("cut", [0, 3, 20, 21, 100])
def test_a_restored_block_goes_on_exactly(cut):
    _, samples = received(EXPONENTIAL, 4.0, 200)
    values = {"taps": EXPONENTIAL, "snr_db": 4.0}
    block, other = SumProduct(**values), SumProduct(**values)
    block.start()
    for i in range(cut):
        block.process(samples[i : i + 1])
    other.start()
    other.restore(block.state())
    answers = zip(
        [*other.process(samples[cut : cut + 30]), *other.process(samples[cut + 30 :])],
        [*block.process(samples[cut : cut + 30]), *block.process(samples[cut + 30 :])],
        strict=True,
    )
    for one, two in [*answers, *zip(other.finish(), block.finish(), strict=True)]:
        for name in OUTPUTS:
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_empty_frames_and_words_are_answered():
    block = SumProduct(taps=(1.0, 0.5), snr_db=3.0)
    empty = np.zeros(0, np.float32)
    results = drive(block, [{"samples": a} for a in (empty, np.ones(3, np.float32), empty)])
    assert [r["posterior"].shape for r in results] == [(0, 2), (3, 2), (0, 2)]
    for shape in ((0, 5), (4, 0), (1, 1)):
        (result,) = drive(block, [{"samples": np.ones(shape, np.float32)}])
        assert result["llr"].shape == (*shape, 1)


def test_words_longer_than_the_metrics_held_at_once_are_treated_alike():
    _, samples = received((1.0, 0.6, 0.3), 3.0, 9000)
    values = {"taps": (1.0, 0.6, 0.3), "snr_db": 3.0}
    (word,) = drive(SumProduct(**values), [{"samples": samples[None]}])
    (full,) = drive(SumProduct(**values, lag=9000), [{"samples": samples}])
    np.testing.assert_allclose(word["llr"][0], full["llr"], rtol=1e-6)
    np.testing.assert_array_equal(word["posterior"][0], full["posterior"])


def test_decisions_and_posteriors_equal_a_plain_bcjr():
    _, samples = received(EXPONENTIAL, 4.0, 1000)
    words = samples.reshape(10, 100)
    (result,) = drive(
        SumProduct(taps=EXPONENTIAL, snr_db=4.0, start_state="unknown"), [{"samples": words}]
    )
    expected = references.bcjr(words, EXPONENTIAL, ALPHABETS["bpsk"], 10**-0.4, silence=False)
    np.testing.assert_allclose(
        result["posterior"][:, :, 1::2].sum(axis=2), expected[:, :, 1], atol=1e-6
    )


# --- Max-log ----------------------------------------------------------------------------------


@pytest.mark.parametrize("modulation", ["bpsk", "ook", "qpsk"])
@pytest.mark.parametrize("taps", TAPS.values(), ids=TAPS)
@pytest.mark.parametrize("start", ["silence", "known", "unknown"])
@pytest.mark.parametrize("end", ["unknown", "known"])
def test_max_log_llrs_compare_the_best_of_all_words_with_a_bit(modulation, taps, start, end):
    samples = some_samples(modulation, 4, len(taps), modulation == "qpsk")
    options = {"start": start, "end": end, "known": 1}
    block = SumProduct(
        taps=taps, modulation=modulation, noise_var=NOISE_VAR, mode="max_log",
        start_state=start, end_state=end, known_symbol=1,
    )  # fmt: skip
    (result,) = drive(block, [{"samples": samples}])
    alphabet = ALPHABETS[modulation]
    for word, row in enumerate(samples):
        every = references.Enumerated(row, taps, alphabet, gaussian, **options)
        best = every.indices[every.log_p.argmax()]
        np.testing.assert_array_equal(result["symbols"][word], alphabet[best])
        np.testing.assert_allclose(result["posterior"][word].sum(axis=1), 1, atol=1e-6)
        for i, bit in itertools.product(range(row.size), range(result["llr"].shape[2])):
            one = every.log_p[every.indices[:, i] >> bit & 1 == 1].max(initial=-np.inf)
            zero = every.log_p[every.indices[:, i] >> bit & 1 == 0].max(initial=-np.inf)
            expected = np.clip(one - zero, -300, 300)
            np.testing.assert_allclose(result["llr"][word, i, bit], expected, atol=1e-4)


def test_a_wrong_noise_level_is_a_factor_on_max_log_llrs():
    _, samples = received(EXPONENTIAL, 4.0, 1000)
    values = {"taps": EXPONENTIAL, "mode": "max_log"}
    (one,) = drive(SumProduct(**values, noise_var=4.0), [{"samples": samples}])
    (other,) = drive(SumProduct(**values, noise_var=1.0), [{"samples": samples}])
    np.testing.assert_allclose(4 * one["llr"], other["llr"], rtol=1e-5)
    np.testing.assert_array_equal(one["symbols"], other["symbols"])


def test_max_log_and_exact_agree_where_there_is_little_noise():
    sent, samples = received(EXPONENTIAL, 20.0, 1000)
    (exact,) = drive(
        SumProduct(taps=EXPONENTIAL, snr_db=20.0, precision="double"), [{"samples": samples}]
    )
    (best,) = drive(
        SumProduct(taps=EXPONENTIAL, snr_db=20.0, mode="max_log"), [{"samples": samples}]
    )
    np.testing.assert_array_equal(best["symbols"], sent)
    np.testing.assert_allclose(best["llr"], exact["llr"], atol=1.5)


def test_long_words_and_streams_are_max_log_detected_alike():
    _, samples = received((1.0, 0.6, 0.3), 3.0, 9000)
    values = {"taps": (1.0, 0.6, 0.3), "snr_db": 3.0, "mode": "max_log"}
    (word,) = drive(SumProduct(**values), [{"samples": samples[None]}])
    (full,) = drive(SumProduct(**values, lag=9000), [{"samples": samples}])
    np.testing.assert_allclose(word["llr"][0], full["llr"], atol=1e-5)
    np.testing.assert_array_equal(word["symbols"][0], full["symbols"])


# --- Statistics -------------------------------------------------------------------------------

#: Exact MAP error rate, mean over the decays 0.1, 0.2 ... 2.0 of the 4-tap exponential channel,
#: from runs of 20 x 1e5 symbols; SNR = 1 / noise variance with the taps as they are.
EXACT_MAP = {0.0: 0.1570, 4.0: 0.05414, 8.0: 4.155e-3}


@compiled
@pytest.mark.parametrize("snr_db", EXACT_MAP)
def test_error_rates_over_exponential_channels_are_those_of_exact_map(snr_db):
    rates = {SumProduct: [], Viterbi: []}
    for decay in np.arange(1, 21) / 10:
        taps = tuple(np.exp(-decay * np.arange(4)).tolist())
        sent, samples = received(taps, snr_db, 20_000, seed=int(100 * decay))
        for detector in rates:
            (result,) = drive(detector(taps=taps, snr_db=snr_db), [{"samples": samples}])
            wrong = (result["symbols"] != sent).reshape(40, -1)
            rates[detector].append(wrong.mean(axis=1))  # of batches: errors come in bursts
    exact = EXACT_MAP[snr_db]
    batches = np.array(rates[SumProduct])
    # 99.9 % interval of this run, and that of the printed figure, from 5 times the symbols
    interval = 3.3 * np.sqrt(1 + 1 / 5) * np.sqrt((batches.var(axis=1) / 40).sum()) / 20
    assert abs(batches.mean() - exact) < interval
    # The most likely sequence has no fewer wrong symbols in the mean, and few more.
    excess = np.array(rates[Viterbi]) - batches
    spread = 3.3 * np.sqrt((excess.var(axis=1) / 40).sum()) / 20
    assert -spread < excess.mean() < 0.05 * exact + spread


@compiled
def test_posteriors_are_calibrated():
    # Of the symbols decided with probability p, the fraction p is right: 99.9 % interval per bin.
    sent, samples = received(EXPONENTIAL, 2.0, 100_000)
    (result,) = drive(SumProduct(taps=EXPONENTIAL, snr_db=2.0), [{"samples": samples}])
    p = 1 / (1 + np.exp(-np.abs(result["llr"][:, 0].astype(float))))
    right = result["symbols"] == sent
    for low, high in [(0.5, 0.6), (0.6, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 0.99), (0.99, 1)]:
        inside = (p >= low) & (p < high)
        error = right[inside].astype(float) - p[inside]
        error = error[: error.size // 50 * 50].reshape(-1, 50).mean(axis=1)
        assert abs(error.mean()) < 3.3 * error.std() / np.sqrt(error.size)


@compiled
def test_every_position_of_a_word_has_the_error_rate_of_exact_map():
    # The first symbols profit from the silence before, the last lack their echoes.
    taps, snr_db, length, words = EXPONENTIAL, 4.0, 12, 4000
    rng = np.random.default_rng(21)
    sent = rng.choice(np.array([-1, 1], np.int8), (words, length))
    means = references.isi_means(sent, taps, np.zeros(3))
    samples = means + rng.standard_normal(means.shape) * 10 ** (-snr_db / 20)
    (result,) = drive(
        SumProduct(taps=taps, snr_db=snr_db), [{"samples": samples.astype(np.float32)}]
    )
    exact = references.bcjr(samples, taps, ALPHABETS["bpsk"], 10 ** (-snr_db / 10), silence=True)
    # The mean of the exact probability of error is the error rate that MAP has here.
    error = (result["symbols"] != sent) - exact.min(axis=2)
    assert (np.abs(error.mean(axis=0)) < 3.5 * error.std(axis=0) / np.sqrt(words)).all()
    wrong = (result["symbols"] != sent).mean(axis=0)
    assert wrong[-1] > wrong[5] > wrong[0]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"taps": [1.0]}, "neither of noise_var and snr_db given"),
        ({"taps": [1.0], "noise_var": 0.1, "snr_db": 10.0}, "both of noise_var and snr_db given"),
        ({"taps": [1.0], "noise_var": 0.0}, r"noise_var = 0.0 V\^2, but it must be above 0"),
        ({"taps": [1.0], "snr_db": 300.0}, r"taps of 1 V .* overflow; use precision = 'double'"),
        ({"taps": [1.0], "noise_var": 1e-300, "precision": "double"}, ".*; give more noise"),
        ({"taps": [1.0], "modulation": "ook", "noise": "poisson", "noise_var": 1.0, "snr_db": 1.0},
         "noise_var given, but Poisson noise has none"),
    ],
)  # fmt: skip
def test_parameters_that_do_not_fit_are_refused(values, text):
    with pytest.raises(ParameterError, match=f"^detector.sum_product: {text}"):
        SumProduct(**values)


@pytest.mark.parametrize("mode", ["exact", "max_log"])
def test_without_posteriors_of_the_states_nothing_else_changes(mode):
    _, samples = received(EXPONENTIAL, 4.0, 300)
    values = {"taps": EXPONENTIAL, "snr_db": 4.0, "mode": mode}
    for shaped in (samples, samples.reshape(3, 100)):
        (whole,) = drive(SumProduct(**values), [{"samples": shaped}])
        (without,) = drive(SumProduct(**values, states=False), [{"samples": shaped}])
        assert without["posterior"].shape == (*shaped.shape, 0)
        np.testing.assert_array_equal(without["llr"], whole["llr"])
        np.testing.assert_array_equal(without["symbols"], whole["symbols"])
