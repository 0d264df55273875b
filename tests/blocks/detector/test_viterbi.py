import numpy as np
import pytest
import references
from needs import compiled
from scipy import stats

from blocks.detector.viterbi import Viterbi
from blocks.kernels.trellis import ALPHABETS
from pipeline.errors import ConnectError, FieldError, ParameterError
from pipeline.instance import drive
from pipeline.signature import FieldType

NOISE_VAR = 0.4
SNR_DB = 14.0  # of Poisson noise
TAPS = {"single": [0.8], "two": [1.0, 0.5], "three": [0.4, 1.0, 0.3]}
LENGTH = {"bpsk": 8, "ook": 8, "qpsk": 4}


def gaussian(samples, means):
    return references.gaussian_log_likelihood(samples, means, NOISE_VAR)


def poisson(samples, means):
    return stats.poisson.logpmf(samples, 10 ** (SNR_DB / 20) * means + 1)


def samples_of(modulation, taps, words, rng, noise="gaussian"):
    """Words of a channel that was silent before, and what was sent."""
    alphabet = ALPHABETS[modulation]
    sent = alphabet[rng.integers(alphabet.size, size=(words, LENGTH[modulation]))]
    means = references.isi_means(sent, taps, np.zeros(len(taps)))
    if noise == "poisson":
        return rng.poisson(10 ** (SNR_DB / 20) * means + 1).astype(np.float32)
    noise = rng.standard_normal(means.shape)
    if means.dtype.kind == "c":
        noise = (noise + 1j * rng.standard_normal(means.shape)) / np.sqrt(2)
    samples = means + np.sqrt(NOISE_VAR) * noise
    return samples.astype(np.complex64 if means.dtype.kind == "c" else np.float32)


def assert_most_likely(symbols, samples, taps, modulation, log_likelihood, **options):
    alphabet = ALPHABETS[modulation]
    assert symbols.dtype == alphabet.dtype
    assert symbols.shape == samples.shape
    for word, row in zip(symbols, samples, strict=True):
        every = references.Enumerated(row, taps, alphabet, log_likelihood, **options)
        indices = [np.flatnonzero(alphabet == symbol)[0] for symbol in word]
        assert every.log_p_of(indices) >= every.log_p.max() - 1e-4


@pytest.mark.parametrize("modulation", ["bpsk", "ook", "qpsk"])
@pytest.mark.parametrize("taps", TAPS.values(), ids=TAPS)
@pytest.mark.parametrize("start", ["silence", "known", "unknown"])
@pytest.mark.parametrize("end", ["unknown", "known"])
def test_no_word_is_more_likely_than_the_decided_one(modulation, taps, start, end):
    samples = samples_of(modulation, taps, 5, np.random.default_rng(len(taps)))
    block = Viterbi(
        taps=taps, modulation=modulation, start_state=start, end_state=end, known_symbol=1
    )
    ((symbols,),) = [tuple(result.values()) for result in drive(block, [{"samples": samples}])]
    assert_most_likely(symbols, samples, taps, modulation, gaussian, start=start, end=end, known=1)


@pytest.mark.parametrize("modulation", ["bpsk", "qpsk"])
def test_no_word_is_more_likely_over_complex_taps(modulation):
    taps = np.array([0.9 - 0.2j, 0.1 + 0.6j, -0.3j])
    samples = samples_of(modulation, taps, 5, np.random.default_rng(2))
    block = Viterbi(taps=taps.real, taps_imag=taps.imag, modulation=modulation)
    (result,) = drive(block, [{"samples": samples}])
    assert_most_likely(
        result["symbols"], samples, taps, modulation, gaussian, start="silence", end="unknown"
    )


@pytest.mark.parametrize("start", ["silence", "known", "unknown"])
def test_no_word_is_more_likely_in_poisson_noise(start):
    taps = np.exp(-0.5 * np.arange(4))
    samples = samples_of("ook", taps, 8, np.random.default_rng(3), noise="poisson")
    block = Viterbi(taps=taps, modulation="ook", noise="poisson", snr_db=SNR_DB, start_state=start)
    (result,) = drive(block, [{"samples": samples}])
    assert_most_likely(result["symbols"], samples, taps, "ook", poisson, start=start, end="unknown")


def test_bpsk_over_real_taps_is_detected_in_complex_samples():
    rng = np.random.default_rng(4)
    real = samples_of("bpsk", TAPS["three"], 6, rng)
    samples = (real + 3j * rng.standard_normal(real.shape)).astype(np.complex64)
    (expected,) = drive(Viterbi(taps=TAPS["three"]), [{"samples": real}])
    (found,) = drive(Viterbi(taps=TAPS["three"]), [{"samples": samples}])
    np.testing.assert_array_equal(found["symbols"], expected["symbols"])


def test_normalised_taps_have_unit_energy():
    rng = np.random.default_rng(5)
    samples = (2 * rng.standard_normal((4, 50))).astype(np.float32)
    (expected,) = drive(Viterbi(taps=[0.6, 0.8]), [{"samples": samples}])
    (found,) = drive(Viterbi(taps=[3.0, 4.0], normalise=True), [{"samples": samples}])
    (other,) = drive(Viterbi(taps=[3.0, 4.0]), [{"samples": samples}])
    np.testing.assert_array_equal(found["symbols"], expected["symbols"])
    assert (other["symbols"] != expected["symbols"]).any()


# --- Streams ----------------------------------------------------------------------------------

PROAKIS_C = (0.227, 0.460, 0.688, 0.460, 0.227)


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


@pytest.mark.parametrize("cut", [1, 7, 100, 1000, "ragged"])
@pytest.mark.parametrize("lag", [0, 1, 37])
def test_decisions_do_not_depend_on_the_cut(cut, lag):
    _, samples = received(PROAKIS_C, 8.0, 1500)
    (whole,) = drive(Viterbi(taps=PROAKIS_C, lag=lag), [{"samples": samples}])
    frames = cut_up(samples, cut)
    results = drive(Viterbi(taps=PROAKIS_C, lag=lag), frames)
    assert [len(r["symbols"]) for r in results] == [len(f["samples"]) for f in frames]
    np.testing.assert_array_equal(np.concatenate([r["symbols"] for r in results]), whole["symbols"])


def test_an_answer_comes_once_lag_samples_past_its_window_are_in():
    block = Viterbi(taps=(1.0, 0.5), window=4, lag=2)
    block.start()
    answers = [len(block.process(np.zeros(2, np.float32))) for _ in range(8)]
    # windows of 4 symbols, decided with samples 6, 10, 14: two frames of 2 each time
    assert answers == [0, 0, 2, 0, 2, 0, 2, 0]
    assert len(block.finish()) == 2


@pytest.mark.parametrize("cut", [0, 3, 20, 21, 100])
def test_a_restored_block_goes_on_exactly(cut):
    _, samples = received(PROAKIS_C, 6.0, 200)
    block, other = Viterbi(taps=PROAKIS_C), Viterbi(taps=PROAKIS_C)
    block.start()
    for i in range(cut):
        block.process(samples[i : i + 1])
    other.start()
    other.restore(block.state())
    frames = [samples[cut : cut + 30], samples[cut + 30 :]]
    for frame in frames:
        for one, two in zip(other.process(frame), block.process(frame), strict=True):
            np.testing.assert_array_equal(one.symbols, two.symbols)
    for one, two in zip(other.finish(), block.finish(), strict=True):
        np.testing.assert_array_equal(one.symbols, two.symbols)


def test_a_second_start_forgets_the_first_stream():
    _, samples = received(PROAKIS_C, 6.0, 300)
    block = Viterbi(taps=PROAKIS_C)
    first = drive(block, [{"samples": samples}])
    block.start()
    block.process(samples[:111])
    second = drive(block, [{"samples": samples}])
    np.testing.assert_array_equal(first[0]["symbols"], second[0]["symbols"])


def test_a_restored_beginning_forgets_what_came_after_it():
    _, samples = received(PROAKIS_C, 6.0, 300)
    block = Viterbi(taps=PROAKIS_C)
    (expected,) = drive(block, [{"samples": samples}])
    block.start()
    beginning = block.state()
    block.process(samples[:111])
    block.restore(beginning)
    found = [*block.process(samples), *block.finish()]
    np.testing.assert_array_equal(found[0].symbols, expected["symbols"])


def test_empty_frames_and_words_are_answered():
    block = Viterbi(taps=(1.0, 0.5))
    empty = np.zeros(0, np.float32)
    results = drive(block, [{"samples": a} for a in (empty, np.ones(3, np.float32), empty)])
    assert [r["symbols"].shape for r in results] == [(0,), (3,), (0,)]
    for shape in ((0, 5), (4, 0), (1, 1)):
        (result,) = drive(Viterbi(taps=(1.0, 0.5)), [{"samples": np.ones(shape, np.float32)}])
        assert result["symbols"].shape == shape


@compiled
@pytest.mark.parametrize(("snr_db", "rate"), [(12.0, 0.0265), (16.0, 0.00032)])
def test_five_memories_of_lag_cost_less_than_one_percent_on_proakis_c(snr_db, rate):
    # Rates of reference runs with full traceback: 4e5 symbols, so a few percent off themselves.
    sent, samples = received(PROAKIS_C, snr_db, 400_000, seed=7)
    (lagged,) = drive(Viterbi(taps=PROAKIS_C), [{"samples": samples}])
    (full,) = drive(Viterbi(taps=PROAKIS_C), [{"samples": samples[None]}])
    wrong = lagged["symbols"] != sent
    wrong_full = full["symbols"][0] != sent
    assert wrong.sum() <= 1.01 * wrong_full.sum()
    batches = wrong.reshape(400, -1).mean(axis=1)  # errors come in bursts; batches do not
    interval = 3.3 * batches.std() / np.sqrt(400)  # 99.9 %
    assert abs(batches.mean() - rate) < interval + 0.05 * rate


@compiled
def test_frames_of_100_symbols_have_the_decisions_of_the_uncut_stream():
    _, samples = received(PROAKIS_C, 12.0, 50_000)
    (whole,) = drive(Viterbi(taps=PROAKIS_C), [{"samples": samples}])
    results = drive(Viterbi(taps=PROAKIS_C), cut_up(samples, 100))
    np.testing.assert_array_equal(np.concatenate([r["symbols"] for r in results]), whole["symbols"])


def test_a_word_is_decided_as_a_stream_that_is_seen_whole():
    _, samples = received((1.0, 0.6, 0.3), 6.0, 9000)
    (word,) = drive(Viterbi(taps=(1.0, 0.6, 0.3)), [{"samples": samples[None]}])
    stream = Viterbi(taps=(1.0, 0.6, 0.3), lag=9000)
    (full,) = drive(stream, [{"samples": samples}])
    np.testing.assert_array_equal(word["symbols"][0], full["symbols"])


@compiled
def test_qpsk_with_eight_symbols_of_memory_is_detected():
    taps = np.exp(-0.4 * np.arange(9))  # 65536 states
    rng = np.random.default_rng(9)
    sent = ALPHABETS["qpsk"][rng.integers(0, 4, 30)]
    noise = 0.1 * (rng.standard_normal(30) + 1j * rng.standard_normal(30))
    samples = (np.convolve(sent, taps)[:30] + noise).astype(np.complex64)
    block = Viterbi(taps=tuple(taps.tolist()), modulation="qpsk")
    (result,) = drive(block, [{"samples": samples[None]}])
    np.testing.assert_array_equal(result["symbols"][0], sent)


# --- What goes wrong --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"taps": []}, "taps has 0 items"),
        ({"taps": [0.0, 0.0]}, "taps are all 0"),
        ({"taps": [1.0] * 20}, r"2\^19 states, but at most 65536"),
        ({"taps": [1.0] * 10, "modulation": "qpsk"}, r"4\^9 states"),
        ({"taps": [1.0, 0.5], "taps_imag": [0.1]}, "taps_imag has 1 items, but taps has 2"),
        ({"taps": [1.0], "known_symbol": 2}, "known_symbol = 2, but bpsk has the symbols 0 ... 1"),
        ({"taps": [1.0], "modulation": "ook", "noise": "poisson"}, "needs snr_db"),
        ({"taps": [1.0], "noise": "poisson", "snr_db": 9.0}, "positive mean count.*'ook'"),
        ({"taps": [1e20]}, "taps of 1e.20 V in all .* overflow; give smaller taps"),
        ({"taps": [1.0], "snr_db": 4000.0}, "snr_db = 4000.0 dB, but it must be at least -300"),
        ({"taps": [1.0], "lag": -1}, "lag = -1 symbols, but it must be at least 0"),
        ({"taps": [1.0], "modulation": "8psk"}, "modulation = '8psk'"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(values, text):
    with pytest.raises(ParameterError, match=f"^detector.viterbi: .*{text}"):
        Viterbi(**values)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_samples_that_no_metric_can_hold_are_refused(bad):
    samples = np.ones(10, np.float32)
    samples[4] = bad
    with pytest.raises(FieldError, match=r"detector.viterbi: 'samples' holds .*expected finite"):
        drive(Viterbi(taps=(1.0,)), [{"samples": samples}])
    for part in ("real", "imag"):
        wrong = np.ones(10, np.complex64)
        setattr(wrong, part, samples)
        block = Viterbi(taps=(1.0,), modulation="qpsk")
        with pytest.raises(FieldError, match="expected finite"):
            drive(block, [{"samples": wrong}])


def test_real_samples_do_not_connect_to_complex_channels():
    reads = {"samples": FieldType.of("float32", "time")}
    for block in (Viterbi(taps=(1.0,), modulation="qpsk"), Viterbi(taps=(0,), taps_imag=(1.0,))):
        with pytest.raises(ConnectError, match="expected complex64"):
            block.narrow(reads)
    with pytest.raises(FieldError, match=r"'samples' is float32, .* expected complex64"):
        Viterbi(taps=(1.0,), modulation="qpsk").process(np.zeros(3, np.float32))
    poisson = Viterbi(taps=(1.0,), modulation="ook", noise="poisson", snr_db=9.0)
    with pytest.raises(ConnectError, match="counts are real"):
        poisson.narrow({"samples": FieldType.of("complex64", "time")})
