import needs
import numpy as np
import pytest
from scipy import io, stats

from blocks.channel.isi import Isi
from pipeline.block import FieldType
from pipeline.errors import ParameterError
from pipeline.instance import drive

TAPS = (1.0, 0.61, 0.37, 0.22)
RNG = np.random.default_rng(5)
BPSK = RNG.choice(np.array([1, -1], np.int8), 50_000)
OOK = (BPSK > 0).astype(np.int8)


def run(sent, **parameters):
    """What the channel adds to one frame."""
    (fields,) = drive(Isi(**parameters), [{"sent": sent}])
    return fields


def impulse_responses(words, length=4, **parameters):
    """What words that begin with one 1 and go on with zeros leave behind them: the taps."""
    sent = np.zeros((words, length), np.int8)
    sent[:, 0] = 1
    return run(sent, noise="none", **parameters)


def test_stream_is_convolved_with_the_taps_after_silence():
    samples = run(BPSK, taps=TAPS, noise="none")["samples"]
    np.testing.assert_allclose(samples, np.convolve(BPSK, TAPS)[: BPSK.size], rtol=1e-6)


def test_words_are_convolved_each_by_itself():
    words = BPSK[:60].reshape(5, 12)
    samples = run(words, taps=TAPS, noise="none")["samples"]
    for word, row in zip(words, samples, strict=True):
        np.testing.assert_allclose(row, np.convolve(word, TAPS)[:12], rtol=1e-6)


def test_complex_symbols_keep_their_parts_apart():
    sent = ((BPSK[:100] + 1j * BPSK[100:200]) / np.sqrt(2)).astype(np.complex64)
    samples = run(sent, taps=TAPS, noise="none")["samples"]
    assert samples.dtype == np.complex64
    np.testing.assert_allclose(samples, np.convolve(sent, TAPS)[:100], atol=1e-6)


@pytest.mark.parametrize("before", [-1, 0, 1])
def test_symbols_before_a_word_are_what_the_parameter_says(before):
    samples = run(np.ones((2, 5), np.int8), taps=TAPS, noise="none", before=before)["samples"]
    padded = np.convolve(np.r_[[before] * 3, np.ones(5)], TAPS)[3:8]
    np.testing.assert_allclose(samples, [padded, padded], rtol=1e-6)


def test_exponential_profile_has_the_printed_taps():
    fields = impulse_responses(1, decay=0.5, memory=4)
    np.testing.assert_allclose(fields["samples"], [[1.0, 0.60653, 0.36788, 0.22313]], atol=5e-6)
    np.testing.assert_array_equal(fields["taps"], fields["samples"])


def test_normalised_taps_have_unit_energy():
    taps = impulse_responses(1, taps=(3.0, 4.0), normalise=True)["samples"]
    np.testing.assert_allclose(taps, [[0.6, 0.8, 0.0, 0.0]], rtol=1e-6)


def test_least_squares_finds_the_taps_within_their_standard_error():
    samples = run(BPSK, taps=TAPS, snr_db=0.0)["samples"]
    columns = np.stack([np.r_[np.zeros(lag), BPSK[: BPSK.size - lag]] for lag in range(4)], axis=1)
    found, *_ = np.linalg.lstsq(columns, samples, rcond=None)
    np.testing.assert_allclose(found, TAPS, atol=4 / np.sqrt(BPSK.size))


@pytest.mark.parametrize("normalise", [False, True])
def test_snr_is_one_over_the_noise_variance_whatever_the_taps(normalise):
    setting = {"taps": (3.0, -2.0, 1.0), "normalise": normalise, "snr_db": 7.0}
    noise = run(BPSK, **setting)["samples"] - run(BPSK, noise="none", **setting)["samples"]
    assert abs(noise.var() / 10**-0.7 - 1) < 4 * np.sqrt(2 / BPSK.size)


def test_noise_of_complex_samples_shares_its_variance_between_the_parts():
    sent = np.zeros(50_000, np.complex64)
    noise = run(sent, snr_db=7.0)["samples"]
    for part in (noise.real, noise.imag):
        assert abs(part.var() / (10**-0.7 / 2) - 1) < 4 * np.sqrt(2 / sent.size)


def cosine(block, tap, period):
    return np.exp(-0.2 * tap) * (0.8 + 0.2 * np.cos(2 * np.pi * block / period))


def accelerating(block, tap, period):
    q = max(5 * period - 1.5 * block, 10) - 1e-5
    return np.exp(-0.2 * tap) * (0.8 + 0.2 * np.cos(np.pi * block / q))


@pytest.mark.parametrize("fading", [cosine, accelerating])
def test_fading_taps_follow_the_papers_word_by_word(fading):
    fields = impulse_responses(300, length=6, fading=fading.__name__)
    expected = [[fading(k, tap, p) for tap, p in enumerate((51, 39, 33, 21))] for k in range(300)]
    np.testing.assert_allclose(fields["samples"][:, :4], expected, rtol=1e-6)
    np.testing.assert_array_equal(fields["samples"][:, 4:], 0.0)
    np.testing.assert_array_equal(fields["taps"], fields["samples"][:, :4])


def test_cosine_fading_spans_0_6_to_1_of_each_tap():
    taps = impulse_responses(51 * 39 * 11, fading="cosine")["taps"] / np.exp(-0.2 * np.arange(4))
    np.testing.assert_allclose(taps.max(axis=0), 1.0, rtol=1e-6)
    np.testing.assert_allclose(taps.min(axis=0), 0.6, atol=2.5e-3)  # periods are whole numbers


def test_taps_change_all_at_once_at_the_block_that_is_named():
    fields = impulse_responses(6, taps=TAPS, changed_taps=TAPS[::-1], change_block=4)
    np.testing.assert_allclose(fields["samples"], [TAPS] * 4 + [TAPS[::-1]] * 2, rtol=1e-6)
    np.testing.assert_array_equal(fields["taps"], fields["samples"])


def test_a_change_of_a_stream_stands_at_its_sample_however_the_stream_is_cut():
    channel = Isi(taps=(1.0,), changed_taps=(-2.0,), change_block=3, coherence=10, noise="none")
    parts = [{"sent": np.ones(size, np.int8)} for size in (7, 22, 1, 30)]
    samples = np.concatenate([fields["samples"] for fields in drive(channel, parts)])
    np.testing.assert_array_equal(samples, [1.0] * 30 + [-2.0] * 30)


def test_changed_taps_fade_on_and_are_normalised_by_themselves():
    setting = {"taps": (2.0, 0.0), "changed_taps": (3.0, 4.0), "normalise": True}
    taps = impulse_responses(9, fading="cosine", change_block=5, **setting)["taps"]
    expected = [[1.0, 0.0]] * 5 + [[0.6, 0.8]] * 4
    faded = [[0.8 + 0.2 * np.cos(2 * np.pi * k / p) for p in (51, 39)] for k in range(9)]
    np.testing.assert_allclose(taps, np.multiply(expected, faded), rtol=1e-6)


def test_taps_of_a_stream_change_at_multiples_of_the_coherence():
    frames = [{"sent": np.ones(25, np.int8)}, {"sent": np.ones(20, np.int8)}]
    channel = Isi(taps=(1.0,), fading="cosine", coherence=10, noise="none")
    first, second = drive(channel, frames, sample=3)
    samples = np.r_[first["samples"], second["samples"]]
    blocks = np.arange(3, 48) // 10
    np.testing.assert_allclose(samples, cosine(blocks, 0, 51), rtol=1e-6)
    np.testing.assert_allclose(first["taps"], cosine(np.arange(3)[:, None], 0, 51), rtol=1e-6)
    np.testing.assert_allclose(second["taps"], cosine(np.arange(2, 5)[:, None], 0, 51), rtol=1e-6)


def test_coherence_of_words_counts_their_symbols_one_after_the_other():
    fields = impulse_responses(6, fading="cosine", coherence=8)
    np.testing.assert_allclose(fields["samples"][:, 0], cosine(np.arange(6) // 2, 0, 51), rtol=1e-6)
    assert fields["taps"].shape == (3, 4)


# uncertain taps

DECAYING = np.exp(-0.2 * np.arange(4))


@pytest.mark.parametrize(("kind", "scale"), [("relative", DECAYING), ("absolute", np.ones(4))])
def test_uncertain_taps_have_the_stated_variance_in_every_coherence_block(kind, scale):
    words = 20_000
    fields = impulse_responses(words, tap_error=0.1, tap_error_kind=kind)
    np.testing.assert_array_equal(fields["taps"], fields["samples"])
    errors = (fields["taps"] - DECAYING) / scale / np.sqrt(0.1)
    assert np.abs(errors.mean(axis=0)).max() < 4 / np.sqrt(words)
    # Independent from tap to tap and from block to block.
    np.testing.assert_allclose(np.cov(errors.T), np.eye(4), atol=4 * np.sqrt(2 / words))
    assert abs(np.mean(errors[1:] * errors[:-1])) < 4 / np.sqrt(4 * words)
    assert stats.kstest(errors.ravel(), "norm").pvalue > 1e-3


def test_errors_begin_at_the_tap_that_is_named():
    taps = impulse_responses(5, tap_error=0.1, tap_error_from=1)["taps"]
    np.testing.assert_array_equal(taps[:, 0], 1.0)
    assert (np.abs(taps[:, 1:] / np.float32(DECAYING[1:]) - 1.0) > 1e-4).all()


@pytest.mark.parametrize("coherence", [1, 500])
def test_uncertain_taps_hold_for_a_coherence_block_however_the_stream_is_cut(coherence):
    setting = {"tap_error": 0.1, "coherence": coherence, "noise": "none"}
    whole = run(BPSK[:2000], **setting)
    symbols_before = np.stack([np.r_[np.zeros(lag), BPSK[: 2000 - lag]] for lag in range(4)], 1)
    used = np.repeat(whole["taps"], coherence, axis=0)
    np.testing.assert_allclose(whole["samples"], (symbols_before * used).sum(1), atol=1e-5)
    parts = [{"sent": part} for part in np.split(BPSK[:2000], [3, 700, 1499])]
    cut = np.concatenate([fields["samples"] for fields in drive(Isi(**setting), parts)])
    np.testing.assert_array_equal(cut, whole["samples"])


def test_errors_come_on_top_of_normalised_and_fading_taps():
    setting = {"taps": (3.0, 4.0), "normalise": True, "fading": "cosine"}
    plain = impulse_responses(50, **setting)["taps"]
    erring = impulse_responses(50, tap_error=0.01, **setting)["taps"]
    other = impulse_responses(50, tap_error=0.01, taps=(1.0, 1.0))["taps"]
    np.testing.assert_allclose(erring / plain, other, rtol=1e-5)


def test_uncertain_taps_of_poisson_noise_are_never_negative():
    setting = {"noise": "poisson", "snr_db": 20.0, "tap_error": 0.5, "tap_error_kind": "absolute"}
    fields = run(np.ones((500, 4), np.int8), **setting)
    assert fields["taps"].min() == 0.0
    assert np.mean(fields["taps"] == 0.0) > 0.05


def test_poisson_counts_have_mean_and_variance_root_snr_times_signal_plus_one():
    samples = run(np.ones(60_000, np.int8), taps=(1.0, 0.5), noise="poisson", snr_db=20.0)
    counts = samples["samples"][1:]
    mean = 10.0 * 1.5 + 1.0
    np.testing.assert_array_equal(counts, np.round(counts))
    assert abs(counts.mean() - mean) < 4 * np.sqrt(mean / counts.size)
    spread = np.sqrt(
        (mean + 2 * mean**2) / counts.size
    )  # of the variance: fourth moment less square
    assert abs(counts.var() - mean) < 4 * spread
    zeros = run(np.zeros(60_000, np.int8), noise="poisson", snr_db=20.0)["samples"]
    assert abs(zeros.mean() - 1.0) < 4 / np.sqrt(zeros.size)


def test_poisson_counts_of_each_sample_are_poisson():
    counts = run(np.ones(20_000, np.int8), taps=(1.0,), noise="poisson", snr_db=10.0)["samples"]
    mean = np.sqrt(10.0) + 1.0
    edges = np.arange(11)
    seen = np.r_[[np.sum(counts == k) for k in edges], np.sum(counts > 10)]
    expected = counts.size * np.r_[stats.poisson.pmf(edges, mean), stats.poisson.sf(10, mean)]
    assert stats.chisquare(seen, expected).pvalue > 1e-3


def test_poisson_noise_refuses_symbols_that_are_not_on_or_off():
    with pytest.raises(ParameterError, match=r"symbols 0 or 1.*set modulation = 'ook'"):
        run(BPSK, noise="poisson")
    with pytest.raises(ParameterError, match="needs symbols 0 or 1"):
        Isi(noise="poisson").narrow({"sent": FieldType.of("complex64", "time")})


def test_tanh_saturates_signal_and_noise_together():
    plain = run(BPSK[:1000], taps=TAPS, snr_db=3.0)["samples"]
    saturated = run(BPSK[:1000], taps=TAPS, snr_db=3.0, tanh=0.5)["samples"]
    np.testing.assert_allclose(saturated, np.tanh(0.5 * plain.astype(float)), atol=1e-6)


def test_quantiser_is_mid_rise_and_clips():
    sent = np.ones(8, np.int8)
    for value, level in [(0.01, 0.25), (-0.01, -0.25), (0.49, 0.25), (0.51, 0.75), (9.0, 0.75),
                         (-9.0, -0.75)]:  # fmt: skip
        samples = run(sent, taps=(value,), noise="none", quantiser_bits=2)["samples"]
        np.testing.assert_array_equal(samples, np.float32(level))
    samples = run(sent, taps=(0.3,), noise="none", quantiser_bits=1, quantiser_range=3.0)["samples"]
    np.testing.assert_array_equal(samples, np.float32(1.5))


def test_quantiser_acts_on_each_part_of_complex_samples():
    sent = np.array([0.3 - 0.6j], np.complex64)
    samples = run(sent, taps=(1.0,), noise="none", quantiser_bits=2)["samples"]
    np.testing.assert_array_equal(samples, np.complex64(0.25 - 0.75j))


# taps from files

ROWS = np.array([[1.0, 0.5], [0.9, 0.4], [0.8, 0.3]])


def write(folder, name, array):
    path = folder / name
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".csv":
        np.savetxt(path, array, delimiter=",", header="newest first")
    else:
        io.savemat(path, {"h": array})
    return str(path)


@pytest.mark.parametrize("name", ["taps.npy", "taps.csv", "taps.mat"])
def test_each_row_of_a_file_is_one_coherence_block(tmp_path, name):
    path = write(tmp_path, name, ROWS)
    fields = impulse_responses(5, length=2, taps_files=[path])
    np.testing.assert_allclose(fields["samples"], ROWS[[0, 1, 2, 0, 1]], rtol=1e-6)
    fields = impulse_responses(5, length=2, taps_files=[path], taps_end="hold")
    np.testing.assert_allclose(fields["samples"], ROWS[[0, 1, 2, 2, 2]], rtol=1e-6)


def test_several_files_hold_one_tap_each(tmp_path):
    paths = [write(tmp_path, "h_0.mat", ROWS[None, :, 0]), write(tmp_path, "h_1.npy", ROWS[:, 1])]
    fields = impulse_responses(3, length=2, taps_files=paths)
    np.testing.assert_allclose(fields["samples"], ROWS, rtol=1e-6)


def test_measured_taps_of_cost2100_have_their_known_ranges():
    paths = [str(needs.recording(f"cost2100/h_{tap}.mat")) for tap in range(4)]
    taps = impulse_responses(300, taps_files=paths)["samples"]
    for tap, (low, high) in enumerate([(0.834, 1.0), (0.091, 0.657), (0, 0.315), (0, 0.233)]):
        assert abs(taps[:, tap].min() - low) < 6e-4
        assert abs(taps[:, tap].max() - high) < 6e-4
    np.testing.assert_array_equal(
        impulse_responses(301, taps_files=paths, taps_end="cycle")["samples"][300], taps[0]
    )


def test_taps_of_a_file_are_normalised_on_average(tmp_path):
    path = write(tmp_path, "taps.npy", ROWS)
    taps = impulse_responses(3, taps_files=[path], normalise=True)["taps"]
    np.testing.assert_allclose(np.mean(np.sum(taps**2, axis=1)), 1.0, rtol=1e-6)
    np.testing.assert_allclose(taps / taps[0, 0], ROWS, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "array", "text"),
    [
        ("taps.npy", np.array([{}, 1], object), "cannot be read: .*allow_pickle"),
        ("taps.npy", np.array([[1.0, np.nan]]), "holds NaN or infinity"),
        ("taps.npy", np.array([[1j]]), "does not hold real numbers"),
        ("taps.npy", np.zeros((2, 0)), r"has shape \(2, 0\)"),
        ("taps.npy", np.zeros((2, 2, 2)), r"has shape \(2, 2, 2\)"),
    ],
)
def test_files_without_taps_are_refused(tmp_path, name, array, text):
    np.save(tmp_path / name, array, allow_pickle=True)
    with pytest.raises(ParameterError, match=rf"channel.isi: taps_files: '.*{name}' {text}"):
        Isi(taps_files=[str(tmp_path / name)])


def test_paths_that_cannot_be_read_are_refused_with_a_way_out(tmp_path):
    (tmp_path / "words.csv").write_text("one, two\n")
    io.savemat(tmp_path / "two.mat", {"a": ROWS, "b": ROWS})
    for name, text in [
        ("none.npy", "does not exist"),
        ("taps.txt", "ends in none of .npy, .csv, .mat"),
        ("words.csv", "cannot be read"),
        ("two.mat", r"holds 2 variables \(a, b\)"),
    ]:
        with pytest.raises(ParameterError, match=text):
            Isi(taps_files=[str(tmp_path / name)])


def test_files_of_single_taps_must_agree_in_length(tmp_path):
    one, two = write(tmp_path, "a.npy", ROWS[:, 0]), write(tmp_path, "b.npy", ROWS[:2, 1])
    with pytest.raises(ParameterError, match=r"b.npy' has 2 values, but '.*a.npy' has 3"):
        Isi(taps_files=[one, two])
    with pytest.raises(ParameterError, match="each holds one tap"):
        Isi(taps_files=[one, write(tmp_path, "c.npy", ROWS)])
    with pytest.raises(ParameterError, match="taps and taps_files are both given"):
        Isi(taps=TAPS, taps_files=[one])
    with pytest.raises(ParameterError, match="changed_taps and taps_files are both given"):
        Isi(changed_taps=TAPS, taps_files=[one])
    with pytest.raises(ParameterError, match="fade by themselves"):
        Isi(fading="cosine", taps_files=[one])


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"taps": [0.0, 0.0], "normalise": True}, "taps are all zero"),
        ({"taps": [1.0, 0.5], "changed_taps": [0.0, 0.0], "normalise": True}, "taps are all zero"),
        ({"changed_taps": [1.0, 0.5]}, "changed_taps has 2 items, but there are 4 taps before"),
        ({"memory": 5, "fading": "cosine"}, "periods has 4 items, but there are 5 taps"),
        ({"periods": [51.0, 0.0]}, "all must be above 0"),
        ({"taps": [1.0, -0.5], "noise": "poisson"}, "mean that is not negative"),
        ({"noise": "poisson", "before": -1}, "mean that is not negative"),
        ({"noise": "poisson", "snr_db": 140.0}, "gives counts above"),
        (
            {"noise": "poisson", "snr_db": 120.0, "tap_error": 9.0, "tap_error_kind": "absolute"},
            "gives counts above",
        ),
        ({"tap_error": 0.1, "tap_error_from": 4}, "tap_error_from = 4, but there are 4 taps"),
        ({"tap_error": -0.1}, "tap_error = -0.1, but it must be at least 0"),
        ({"before": 2}, "before = 2, but it must be one of -1, 0, 1"),
        ({"tanh": -1.0}, "tanh = -1.0 1/V, but it must be at least 0.0"),
    ],
)
def test_parameters_that_make_no_channel_are_refused(parameters, text):
    with pytest.raises(ParameterError, match=text):
        Isi(**parameters)


def test_symbols_before_must_belong_to_the_alphabet():
    with pytest.raises(ParameterError, match="before = 1 is no symbol of a complex alphabet"):
        run(np.ones(3, np.complex64), before=1)
