import numpy as np
import pytest
import references
from needs import compiled

from blocks.channel.awgn import Awgn
from blocks.decoder.convolutional import Convolutional
from blocks.encoder.convolutional import Convolutional as Encoder
from blocks.encoder.modulator import Modulator
from blocks.frontend.demapper import Demapper
from blocks.frontend.soft_bits import SoftBits
from blocks.kernels.shift_register import STANDARD
from pipeline.errors import FieldError
from pipeline.instance import drive

RNG = np.random.default_rng(1)
ENDINGS = ["terminated", "tail_biting", "truncated"]


def encoded(bits, **values):
    (frame,) = drive(Encoder(**values), [{"bits": bits}])
    return frame["coded"]


def payload_of(llr, **values):
    (frame,) = drive(Convolutional(**values), [{"llr": llr}])
    return frame["payload"]


def soft_of(coded, dtype, noise=0.0, seed=2):
    values = 2.0 * coded - 1 + noise * np.random.default_rng(seed).standard_normal(coded.shape)
    if dtype == np.float32:
        return values.astype(np.float32)[..., None]
    return np.rint(50 * values.clip(-2.5, 2.5)).astype(np.int8)[..., None]


@pytest.mark.parametrize(("length", "outputs"), STANDARD)
@pytest.mark.parametrize("ending", ENDINGS)
def test_without_noise_every_bit_comes_back(length, outputs, ending):
    code = {"constraint_length": length, "rate": f"1/{outputs}", "ending": ending}
    bits = RNG.integers(0, 2, (3, 40), dtype=np.uint8)
    coded = encoded(bits, **code)
    for dtype, metric_bits in [(np.float32, 16), (np.int8, 16), (np.int8, 8)]:
        llr = soft_of(coded, dtype)
        np.testing.assert_array_equal(payload_of(llr, **code, metric_bits=metric_bits), bits)


@compiled
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(("dtype", "metric_bits"), [(np.float32, 16), (np.int8, 16), (np.int8, 8)])
def test_noisy_words_are_decided_as_the_most_likely_ones(ending, dtype, metric_bits):
    generators = ("23", "35")
    words, coded = references.every_code_word(generators, 8, ending)
    sent = RNG.integers(0, len(words), 1000)
    llr = soft_of(coded[sent], dtype, noise=1.0)
    bits = payload_of(llr, generators=generators, ending=ending, metric_bits=metric_bits)
    best = words[(llr[..., 0].astype(float) @ (2 * coded.T - 1)).argmax(axis=1)]
    wrong = (bits != best).any(axis=1).mean()
    assert (best != words[sent]).any(axis=1).mean() > 0.05  # the noise is worth deciding on
    if dtype == np.float32:  # two tail-biting words may be all but equal
        assert wrong <= (0.003 if ending == "tail_biting" else 0)
    else:
        assert wrong < (0.1 if metric_bits == 8 else 0.02)  # equal sums, and rounding


@compiled
def test_pairs_of_soft_values_are_read_in_order():
    bits = RNG.integers(0, 2, (4, 60), dtype=np.uint8)
    llr = soft_of(encoded(bits), np.float32, noise=0.7)
    pairs = payload_of(llr.reshape(4, 66, 2))
    np.testing.assert_array_equal(pairs, payload_of(llr))


@compiled
def test_a_chain_of_blocks_carries_bits_over_noisy_qpsk():
    bits = RNG.integers(0, 2, 4000, dtype=np.uint8)
    frames = [{"bits": part} for part in np.split(bits, [10, 11, 500, 502, 3000])]
    whole = [dict(frame) for frame in frames]
    for block in (
        Encoder(rate="1/2"), Modulator(modulation="qpsk"), Awgn(snr_db=5.0),
        Demapper(modulation="qpsk", snr_db=5.0), SoftBits(), Convolutional(rate="1/2"),
    ):  # fmt: skip
        (reads,) = [n for n in block.signature().reads if n != "info"]
        given = "soft" if isinstance(block, Convolutional) else reads
        for frame, added in zip(
            whole, drive(block, [{reads: frame[given]} for frame in whole]), strict=True
        ):
            frame.update(added)
    sizes = [frame["bits"].size for frame in frames]
    assert [frame["payload"].size for frame in whole] == sizes
    payload = np.concatenate([frame["payload"] for frame in whole])
    sent = np.concatenate([frame["sent"] for frame in whole])
    samples = np.concatenate([frame["samples"] for frame in whole])
    assert 0.02 < ((samples.real > 0) != (sent.real > 0)).mean() < 0.06
    np.testing.assert_array_equal(payload, bits)


def frames_of(llr, cut):
    if cut == "ragged":
        edges = np.sort(np.random.default_rng(0).integers(0, len(llr), 40))
    else:
        edges = np.arange(cut, len(llr), cut)
    return [{"llr": part} for part in np.split(llr, edges)]


STREAM = RNG.integers(0, 2, 1201, dtype=np.uint8)


@compiled
@pytest.mark.parametrize("rate", ["1/2", "1/3"])
@pytest.mark.parametrize("dtype", [np.float32, np.int8])
@pytest.mark.parametrize("window", [1, 30, 256])
def test_a_stream_is_decided_the_same_however_it_is_cut(rate, dtype, window):
    llr = soft_of(encoded(STREAM, rate=rate), dtype, noise=0.7)
    (whole,) = drive(Convolutional(rate=rate, window=window), [{"llr": llr}])
    assert (whole["payload"] != STREAM).mean() < 0.01
    outputs = 2 if rate == "1/2" else 3
    for cut in (1, 7, 100, "ragged"):
        frames = frames_of(llr, cut)
        answers = drive(Convolutional(rate=rate, window=window), frames)
        ends = np.cumsum([len(frame["llr"]) for frame in frames]) // outputs
        sizes = np.diff(ends, prepend=0).tolist()
        assert [answer["payload"].size for answer in answers] == sizes
        found = np.concatenate([answer["payload"] for answer in answers])
        np.testing.assert_array_equal(found, whole["payload"])


@compiled
def test_bits_come_no_later_than_a_window_and_the_lag():
    block = Convolutional(window=50, lag=40)
    block.start()
    llr = soft_of(encoded(STREAM), np.float32)
    answered = 0
    for i in range(1200):
        answered += len(block.process(llr[2 * i : 2 * i + 2]))
        assert answered >= i + 1 - (50 + 40) + 1


@compiled
def test_an_unknown_start_finds_its_way_into_a_stream():
    llr = soft_of(encoded(STREAM), np.float32, noise=0.5)[2 * 500 :]
    joined = payload_of(llr, start_state="unknown")
    np.testing.assert_array_equal(joined[10:], STREAM[510:])


def test_words_of_the_wrong_size_are_refused():
    with pytest.raises(
        FieldError,
        match=r"'llr' has 13 values per word, but terminated words of L bits have 2 \(L \+ 6\)",
    ):
        payload_of(np.zeros((2, 13, 1), np.float32))
    with pytest.raises(FieldError, match="'llr' has 10 values per word"):
        payload_of(np.zeros((2, 10, 1), np.float32))
    with pytest.raises(FieldError, match=r"tail_biting words of L bits have 3 \(L\)"):
        payload_of(np.zeros((2, 10, 1), np.float32), rate="1/3", ending="tail_biting")


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -1e30])
def test_soft_values_that_cannot_be_added_are_refused(wrong):
    with pytest.raises(FieldError, match=r"'llr' holds .*; expected finite numbers below 1e\+15"):
        payload_of(np.array([[1.0], [wrong]], np.float32))


@pytest.mark.parametrize("ending", ENDINGS)
def test_empty_words_and_frames_are_answered(ending):
    size = 12 if ending == "terminated" else 0
    for words in (0, 3):
        found = payload_of(np.zeros((words, size, 1), np.int8), ending=ending)
        assert found.shape == (words, 0)
    frames = [{"llr": np.zeros((n, 1), np.float32)} for n in (0, 1, 0, 1, 3)]
    sizes = [answer["payload"].size for answer in drive(Convolutional(ending=ending), frames)]
    assert sizes == [0, 0, 0, 1, 1]


# --- Statistics -----------------------------------------------------------------------------------


def bit_error_rate(ebn0_db, words, dtype, **values):
    """Error rate of words of 1000 bits, and the standard deviation of its mean."""
    rng = np.random.default_rng(int(100 * ebn0_db))
    bits = rng.integers(0, 2, (words, 1000), dtype=np.uint8)
    coded = encoded(bits)
    noise = rng.standard_normal(coded.shape, np.float32) * np.float32(10 ** (-ebn0_db / 20))
    llr = ((2.0 * coded.astype(np.float32) - 1 + noise) * 2 * 10 ** (ebn0_db / 10)).astype(
        np.float32
    )[..., None]
    if dtype == np.int8:
        llr = np.rint((16 * llr).clip(-127, 127)).astype(np.int8)
    wrong = (payload_of(llr, **values) != bits).mean(axis=1)
    return wrong.mean(), wrong.std() / np.sqrt(words)


@compiled
@pytest.mark.parametrize(("ebn0_db", "words"), [(3.0, 500), (3.5, 2000)])
def test_error_rate_of_the_code_of_nasa_lies_just_below_the_union_bound(ebn0_db, words):
    # The bound counts overlapping errors twice: at 3.5 dB by a fifth or so.
    bound = references.union_bound(("133", "171"), ebn0_db, 20)
    rate, deviation = bit_error_rate(ebn0_db, words, np.float32)
    assert 0.6 * bound - 3.3 * deviation < rate < bound + 3.3 * deviation


@compiled
@pytest.mark.parametrize("metric_bits", [8, 16])
def test_eight_bits_cost_less_than_a_twentieth_of_a_decibel(metric_bits):
    # Around 3 dB the error rate falls by a factor of 1.5 in 0.1 dB, 1.2 in 0.05 dB. The same
    # noise for both, so that the difference has little spread.
    exact, _ = bit_error_rate(2.5, 1000, np.float32)
    rounded, _ = bit_error_rate(2.5, 1000, np.int8, metric_bits=metric_bits)
    assert rounded < 1.2 * exact
