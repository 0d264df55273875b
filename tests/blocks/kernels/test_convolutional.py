import numpy as np
import pytest
import references
from needs import compiled

from blocks.kernels.convolutional import Decoder, factor_of, top_of
from blocks.kernels.convolutional_lanes import round_to
from blocks.kernels.shift_register import STANDARD, ShiftRegisterCode

METRICS = ["uint8", "uint16", "float32"]
CODES = {"-".join(generators): ShiftRegisterCode(generators) for generators in STANDARD.values()}
IN_LANES = {name: code for name, code in CODES.items() if code.memory >= 3}
# All codes in 8 bits, which have least room; the others compile what they share.
SIDE_BY_SIDE = [(name, "uint8") for name in IN_LANES] + [
    (name, metrics)
    for name in ("15-17", "23-35", "133-145-175", "561-753")
    for metrics in ("uint16", "float32")
]
ODD = {"2-7": ShiftRegisterCode(["2", "7"]), "3-1-2": ShiftRegisterCode(["3", "1", "2"])}
SMALL = {name: code for name, code in CODES.items() if code.memory <= 3} | ODD


def some_soft(metrics, size, seed=1, spread=40.0):
    values = spread * np.random.default_rng(seed).standard_normal(size)
    if metrics == "float32":
        return values.astype(np.float32)
    return np.rint(values.clip(-127, 127)).astype(np.int8)


def as_counted(soft, decoder):
    """The soft values as the decoder rounds them."""
    if decoder.metrics == "float32":
        return soft.astype(float)
    return np.rint(soft.clip(-127) * (decoder.top / 127.0))


def decode_words(decoder, soft, **options):
    """Bits of the words in the rows of `soft`."""
    size = soft.shape[1]
    return decoder.decode(soft.ravel(), len(soft), size, size // decoder.code.outputs, **options)


@pytest.mark.parametrize("metrics", METRICS)
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(
    ("start", "ending"), [("known", "terminated"), ("known", "truncated"), ("unknown", "truncated")]
)
def test_no_code_word_fits_better_than_the_decided_one(metrics, name, start, ending):
    code = SMALL[name]
    length = 5
    words, coded = references.every_code_word(code.generators, length, ending, start)
    soft = some_soft(metrics, (20, coded.shape[1]))
    for lanes in (False, True):
        decoder = Decoder(code, metrics, lanes=lanes)
        bits = decode_words(
            decoder, soft, known_start=start == "known", known_end=ending == "terminated",
            first=0, count=length,
        )  # fmt: skip
        fit = as_counted(soft, decoder) @ (2 * coded.T - 1)  # (20, words)
        for k in range(20):
            decided = (words == bits[k]).all(axis=1)
            assert fit[k, decided].max() == pytest.approx(fit[k].max(), rel=1e-6)


@pytest.mark.parametrize("length", [1, 2, 3, 6, 7])
@pytest.mark.parametrize("ending", ["terminated", "truncated"])
def test_words_shorter_than_the_register_are_decided_too(length, ending):
    code = CODES["133-171"]
    words, coded = references.every_code_word(code.generators, length, ending)
    soft = some_soft("float32", (30, coded.shape[1]), seed=length)
    bits = decode_words(
        Decoder(code, "float32"), soft, known_start=True, known_end=ending == "terminated",
        first=0, count=length,
    )  # fmt: skip
    best = (soft.astype(float) @ (2 * coded.T - 1)).argmax(axis=1)
    np.testing.assert_array_equal(bits, words[best])


@compiled
@pytest.mark.parametrize(("name", "metrics"), SIDE_BY_SIDE)
def test_lanes_decide_as_one_by_one(name, metrics):
    code = IN_LANES[name]
    for known_start, known_end, count in [(True, True, 100), (False, False, 33), (True, False, 1)]:
        soft = some_soft(metrics, (count, 60 * code.outputs), seed=count)
        options = {"known_start": known_start, "known_end": known_end, "first": 3, "count": 50}
        lanes = decode_words(Decoder(code, metrics), soft, **options)
        plain = decode_words(Decoder(code, metrics, lanes=False), soft, **options)
        assert lanes.shape == (count, 50)
        np.testing.assert_array_equal(lanes, plain)


@compiled
@pytest.mark.parametrize(
    ("name", "metrics"), [case for case in SIDE_BY_SIDE if case[1] != "float32"]
)
def test_the_loudest_soft_values_overflow_nothing(name, metrics):
    # One by one the path metrics have 32 bits, so an overflow of the lanes would show.
    code, rng = IN_LANES[name], np.random.default_rng(3)
    loud = rng.choice(np.array([-127, 127], np.int8), (64, 150 * code.outputs))
    sent = code.encode(rng.integers(0, 2, (64, 150)), np.zeros((64, code.memory), np.uint8))
    loud[32:] = np.where(sent[32:], 127, -127)  # a code word, then its opposite
    loud[32:, 75 * code.outputs :] *= -1
    for known in (True, False):
        options = {"known_start": known, "known_end": False}
        lanes = decode_words(Decoder(code, metrics), loud, **options)
        plain = decode_words(Decoder(code, metrics, lanes=False), loud, **options)
        np.testing.assert_array_equal(lanes, plain)


@pytest.mark.parametrize("metrics", ["uint8", "uint16"])
@pytest.mark.parametrize("name", CODES)
def test_soft_values_keep_at_least_twenty_one_levels(metrics, name):
    top = top_of(CODES[name], metrics)
    assert (metrics == "uint16" and top == 127) or 10 <= top < 127


@pytest.mark.parametrize("top", [*range(1, 20), 64, 126])
def test_rounding_is_to_the_nearest(top):
    soft = np.arange(-128, 128).astype(np.int8)
    rounded = soft.copy()
    round_to(rounded, factor_of(top), (0.0,))
    np.testing.assert_array_equal(rounded, np.rint(soft.clip(-127) * (top / 127)))


def test_a_factor_on_all_log_likelihood_ratios_changes_no_bit():
    code, soft = CODES["23-35"], some_soft("float32", (20, 100))
    options = {"known_start": True, "known_end": False}
    bits = decode_words(Decoder(code, "float32"), soft, **options)
    for factor in (2.0**-60, 2.0**40):
        scaled = decode_words(Decoder(code, "float32"), soft * np.float32(factor), **options)
        np.testing.assert_array_equal(scaled, bits)


def test_nothing_gives_nothing():
    decoder = Decoder(CODES["5-7"], "float32")
    empty = np.empty(0, np.float32)
    for sequences, steps in [(0, 5), (3, 0)]:
        found = decoder.decode(empty, sequences, 0, steps, known_start=True, known_end=False)
        assert found.shape == (sequences, steps)


@compiled
def test_words_too_long_for_a_tile_are_decided_one_by_one():
    code, rng = CODES["561-753"], np.random.default_rng(5)
    bits = rng.integers(0, 2, (2, 132_000), dtype=np.uint8)
    coded = code.encode(bits, np.zeros((2, 8), np.uint8))
    assert bits.shape[1] * code.n_states // 16 * 32 > 1 << 26
    soft = np.where(coded, 50, -50).astype(np.int8)
    found = decode_words(Decoder(code, "uint16"), soft, known_start=True, known_end=False)
    np.testing.assert_array_equal(found, bits)


# --- Streams --------------------------------------------------------------------------------------


def stream_of(code, metrics, bits, seed=4):
    """Soft values of a noisy stream of bits, as the metrics want them."""
    sent = code.encode(bits, np.zeros(code.memory, np.uint8))
    noisy = 2.0 * sent - 1 + 0.9 * np.random.default_rng(seed).standard_normal(sent.size)
    if metrics == "float32":
        return noisy.astype(np.float32)
    return np.rint(40 * noisy.clip(-3, 3)).astype(np.int8)


def decided(windows, soft, cut):
    if cut == "ragged":
        edges = np.sort(np.random.default_rng(0).integers(0, soft.size, 30))
    else:
        edges = np.arange(cut, soft.size, cut)
    found = [*(windows.push(p) for p in np.split(soft, edges)), windows.finish()]
    return np.concatenate([bits for (bits,) in found])


BITS = np.random.default_rng(6).integers(0, 2, 1500, dtype=np.uint8)


@compiled
@pytest.mark.parametrize("metrics", METRICS)
@pytest.mark.parametrize(("window", "lag"), [(1, 5), (7, 40), (64, 20), (64, 64), (2000, 30)])
def test_bits_of_a_stream_do_not_depend_on_the_cut(metrics, window, lag):
    code = CODES["23-35"]
    soft = stream_of(code, metrics, BITS)
    for known in (True, False):
        made = [
            decided(Decoder(code, metrics).stream(window, lag, known_start=known), soft, cut)
            for cut in (10_000, 1, 7, 500, "ragged")
        ]
        assert made[0].size == BITS.size
        for bits in made[1:]:
            np.testing.assert_array_equal(bits, made[0])


@compiled
@pytest.mark.parametrize(("window", "lag"), [(7, 40), (64, 20), (50, 50)])
@pytest.mark.parametrize("known", [True, False])
def test_a_window_is_decided_from_lag_bits_before_it_to_lag_bits_past_it(window, lag, known):
    code = CODES["15-17"]
    soft = stream_of(code, "float32", BITS[:500])
    plain = Decoder(code, "float32", lanes=False)
    (bits,) = Decoder(code, "float32").stream(window, lag, known_start=known).push(soft)
    assert bits.size == (500 - lag) // window * window
    for at in range(0, bits.size, window):
        first = max(0, at - lag)
        found = plain.decode(
            soft[2 * first :], 1, 0, at + window + lag - first,
            known_start=known and first == 0, known_end=False, first=at - first, count=window,
        )  # fmt: skip
        np.testing.assert_array_equal(bits[at : at + window], found[0])


def test_a_lag_as_long_as_the_stream_gives_the_most_likely_sequence():
    code = CODES["5-7"]
    soft = stream_of(code, "float32", BITS[:200])
    plain = Decoder(code, "float32", lanes=False)
    expected = plain.decode(soft, 1, 0, 200, known_start=True, known_end=False)[0]
    windows = Decoder(code, "float32").stream(64, 200, known_start=True)
    np.testing.assert_array_equal(decided(windows, soft, 11), expected)


@pytest.mark.parametrize("cut", [0, 1, 81, 240, 241, 1000])
def test_a_restored_stream_goes_on_exactly(cut):
    code = CODES["5-7"]
    soft = stream_of(code, "uint16", BITS[:700])
    first = Decoder(code, "uint16").stream(40, 40, known_start=True)
    first.push(soft[:cut])
    second = Decoder(code, "uint16").stream(40, 40, known_start=True)
    second.restore(first.state())
    np.testing.assert_array_equal(second.push(soft[cut:])[0], first.push(soft[cut:])[0])
    np.testing.assert_array_equal(second.finish()[0], first.finish()[0])


def test_a_stream_keeps_no_more_than_it_needs():
    code = CODES["5-7"]
    windows = Decoder(code, "uint16").stream(40, 30, known_start=True)
    for _ in range(50):
        windows.push(np.full(36, 5, np.int8))
        assert windows.state()["values"].size <= 2 * (40 + 2 * 30)


@compiled
def test_eight_memories_of_lag_cost_nothing_that_shows():
    # K = 7 at Eb/N0 = 1 dB, where one bit in 33 is wrong and survivors merge late.
    code, rng = CODES["133-171"], np.random.default_rng(8)
    bits = rng.integers(0, 2, 200_000, dtype=np.uint8)
    sent = code.encode(bits, np.zeros(6, np.uint8))
    soft = (2.0 * sent - 1 + 10**-0.05 * rng.standard_normal(sent.size)).astype(np.float32)
    decoder = Decoder(code, "float32")
    full = decoder.decode(soft, 1, 0, bits.size, known_start=True, known_end=False)[0]
    cut = decided(decoder.stream(256, 48, known_start=True), soft, 100_000)
    exact = (full != bits).mean()
    assert 0.02 < exact < 0.05
    assert (cut != bits).mean() < 1.01 * exact
    assert (cut != full).mean() < 0.05 * exact
