import itertools

import numpy as np
import pytest

from blocks.kernels import gmsk, gmsk_detection

PULSE = gmsk.phase_pulse(0.4)
BRANCHES = gmsk.branch_waveforms(PULSE)


def products_of(levels):
    return (np.cumprod(levels) > 0).astype(np.uint8)


def test_the_phase_pulse_is_a_symbol_smoothed_by_the_gaussian_filter():
    # Murota and Hirade: a filter with h(t) ~ exp(-2 (pi B t)^2 / ln 2), here by plain summation
    step = 1 / 512
    t = np.arange(-6, 6, step)
    response = np.exp(-2 * (np.pi * 0.4 * t) ** 2 / np.log(2))
    symbol = (abs(t) < 0.5) + 0.5 * (abs(t) == 0.5)
    pulse = np.convolve(symbol, response / response.sum(), mode="same")
    share = np.cumsum(pulse) * step
    places = np.arange(-gmsk.REACH, gmsk.REACH + 0.001, 0.125)
    expected = np.interp(places, t - 0.5 * step, share)
    np.testing.assert_allclose(np.interp(places, _table_places(), PULSE), expected, atol=2e-3)


def _table_places():
    return np.linspace(-gmsk.REACH, gmsk.REACH, PULSE.size)


def test_each_level_turns_the_phase_by_a_quarter_of_a_turn_in_the_end():
    levels = np.array([1, 1, -1, 1, -1, -1, -1])
    total = gmsk.phases(levels, np.array([-9.0, 16.0]), PULSE)
    np.testing.assert_allclose(total, [0.0, -0.5 * np.pi], atol=1e-9)


def test_a_wide_filter_gives_msk():
    levels = np.array([1, 1, -1, -1, 1])
    places = np.arange(0.0, 4.0, 0.25)
    straight = np.interp(places + 0.5, np.arange(6), 0.5 * np.pi * np.cumsum([0, *levels]))
    phases = gmsk.phases(levels, places, gmsk.phase_pulse(50.0))
    np.testing.assert_allclose(phases, straight, atol=0.02)


def test_the_branches_of_the_trellis_are_the_waveform():
    levels = np.random.default_rng(1).choice([-1, 1], 60)
    exact = gmsk.waveform(levels, PULSE)
    products = products_of(levels)
    for n in range(2, 59):
        branch = gmsk_detection.branch(products, n)
        np.testing.assert_allclose(1j ** (n - 1) * BRANCHES[branch], exact[n], atol=2e-3)


def test_decisions_are_those_of_trying_all_sequences():
    rng = np.random.default_rng(2)
    known, count = 6, 15
    wrong = 0
    for _ in range(10):
        levels = rng.choice([-1, 1], count)
        points = gmsk.waveform(levels, PULSE)
        points = points + 1.5 * (
            rng.standard_normal(points.shape) + 1j * rng.standard_normal(points.shape)
        )
        sums = np.empty((count, gmsk.BRANCHES), np.complex64)
        gmsk_detection.branch_sums(points.astype(np.complex64), BRANCHES, sums)
        products = products_of(levels)
        sent = products.copy()
        products[known:] = 7
        gmsk_detection._decide(
            sums, products, known, count, np.empty((count, gmsk.BRANCHES), np.float32),
            np.empty((count, gmsk.STATES), np.uint8), np.empty(gmsk.STATES, np.float32),
            np.empty(gmsk.STATES, np.float32), np.zeros(count),
        )  # fmt: skip
        best = max(
            (np.array([*sent[:known], *rest], np.uint8)
             for rest in itertools.product((0, 1), repeat=count - known)),
            key=lambda tried: sum(
                sums[n, gmsk_detection.branch(tried, n)].real for n in range(known - 1, count - 1)
            ),
        )  # fmt: skip
        np.testing.assert_array_equal(products, best)
        wrong += int((products != sent).sum())
    assert wrong > 0  # else the noise tells nothing


@pytest.mark.parametrize("turn", [0.0, 0.7, -0.4])
def test_known_levels_have_a_score_of_one_whatever_the_carrier(turn):
    rng = np.random.default_rng(3)
    levels = rng.choice([-1, 1], 34)
    places = np.arange(0, 30, 0.2)
    for sign in (1, -1):
        signal = np.exp(1j * (sign * gmsk.phases(levels, places, PULSE) + turn * places))
        angles = gmsk.phases(levels, places, PULSE)
        known = np.exp(1j * (angles[5:] - angles[:-5])).astype(np.complex64)[None]
        y = np.concatenate([np.zeros(20), signal, np.zeros(40)]).astype(np.complex64)
        scores, kinds = np.empty(50, np.float32), np.empty(50, np.int64)
        scratch = np.empty((8, 50 + known.shape[1]), np.float32)
        gmsk_detection.correlate(y, 5, known, scratch, scores, kinds)
        assert scores.argmax() == 20
        assert scores[20] == pytest.approx(1.0, abs=1e-5)
        assert kinds[20] == (sign < 0)


def test_peaks_are_the_best_within_reach():
    scores = np.random.default_rng(4).integers(0, 20, 400).astype(np.float32)
    found = np.empty(380, np.int64)
    count = gmsk_detection.peaks(scores, 12.0, 10, found)
    expected = [
        i for i in range(380)
        if scores[i + 10] >= 12.0
        and scores[i + 10] == scores[i : i + 21].max()
        and i + 10 == i + scores[i : i + 21].argmax()
    ]  # fmt: skip
    assert found[:count].tolist() == expected
    assert 10 < count < 40


def test_resampling_gives_back_a_band_limited_signal_between_its_samples():
    n = np.arange(200)
    y = np.exp(0.9j * n).astype(np.complex64)
    out = np.empty(300, np.complex64)
    gmsk_detection.resample(y, 20.3, 0.5, 0.0, gmsk_detection.interpolation(), out)
    np.testing.assert_allclose(out, np.exp(0.9j * (20.3 + 0.5 * np.arange(300))), atol=5e-3)


def test_the_filter_passes_its_band_and_stops_the_rest():
    taps = gmsk_detection.low_pass(5.0, 0.85, 1.65)
    n = np.arange(taps.size) - taps.size // 2

    def gain(place):
        return abs((taps * np.exp(2j * np.pi * place / 5.0 * n)).sum())

    assert min(gain(f) for f in np.arange(0, 0.86, 0.05)) > 0.98
    assert max(gain(f) for f in np.arange(1.65, 2.5, 0.05)) < 0.02
