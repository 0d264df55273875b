import numpy as np
import pytest

from blocks.kernels import line_bits
from blocks.kernels.line_bits import Lane, LineBits

SPACING = 5.0
SIZE = line_bits.block_of(SPACING)


def a_line(blocks, seed, faster=0.0, shift=0.0):
    """Random bits, a signal of raised-cosine pulses, and where their middles are."""
    rng = np.random.default_rng(seed)
    count = blocks * SIZE
    spacing = SPACING / (1.0 + faster)
    bits = rng.integers(0, 2, int(count / spacing) + 20, np.uint8)
    times = np.arange(count) / spacing + shift
    signal = np.zeros(count)
    for k in range(-6, 7):  # pulses of 13 bits
        near = np.floor(times).astype(int) + k
        at = times - near
        pulse = np.sinc(at) * np.cos(np.pi * 0.5 * at) / (1.0 - at**2 + 1e-9)
        inside = (near >= 0) & (near < bits.size)
        signal += np.where(inside, (2.0 * bits[near.clip(0, bits.size - 1)] - 1.0) * pulse, 0.0)
    return bits, signal, spacing


@pytest.mark.parametrize("faster", [-100e-6, 0.0, 100e-6])
@pytest.mark.parametrize("shift", [0.0, 0.3, 0.7])
def test_middles_are_where_the_pulses_stand(faster, shift):
    _, signal, spacing = a_line(60, 1, faster, shift)
    line = line_bits.lines(signal, 0, SPACING, 60)
    found = line_bits.middles(line, 0, SPACING, SIZE, 8)
    inner = found[(found > 10 * SIZE) & (found < 50 * SIZE)]
    off = (inner / spacing + shift + 0.5) % 1.0 - 0.5  # in bits
    assert np.abs(off).max() < 0.05
    assert np.abs(np.diff(inner) - spacing).max() < 0.05


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_a_stretch_gives_the_same_bits_in_whatever_signal_it_lies(rounds):
    rng = np.random.default_rng(2)
    _, signal, _ = a_line(100, 2)
    signal += 0.3 * rng.standard_normal(signal.size)
    decider, lane = LineBits(SPACING, 3, 2.0), Lane(4, 3, rounds)
    reach = line_bits.reach_of(lane)
    whole = decider.decide(signal, signal[None], 0, lane, 40, 60)
    part = signal[(40 - reach) * SIZE : (60 + reach) * SIZE]
    cut = decider.decide(part, part[None], (40 - reach) * SIZE, lane, reach, reach + 20)
    np.testing.assert_array_equal(cut[0], whole[0])
    np.testing.assert_allclose(cut[1], whole[1], rtol=0, atol=1e-9)


def test_correlations_are_sums_of_products():
    rng = np.random.default_rng(3)
    rows, bits = rng.standard_normal((50, 4)), rng.integers(0, 2, 50).astype(np.int8)
    edges, memory = np.array([0, 20, 20, 50]), 2
    found = np.empty((3, 7, 7))
    line_bits.correlations(rows, bits, edges, memory, found)
    signs = 2.0 * bits - 1.0
    past = [-signs[np.maximum(np.arange(50) - j, 0)] for j in (1, 2)]
    wide = np.column_stack([rows, *past, signs])
    for k in range(3):
        part = wide[edges[k] : edges[k + 1]]
        np.testing.assert_allclose(found[k], np.tril(part.T @ part), atol=1e-12)


def test_interference_over_whole_bits_is_taken_away():
    bits, signal, _ = a_line(80, 4)
    delay = round(SPACING)
    smeared = signal + 0.3 * np.random.default_rng(1).standard_normal(signal.size)
    smeared[delay:] += 0.5 * signal[:-delay]
    smeared[2 * delay :] += 0.4 * signal[: -2 * delay]
    wrong = []
    for rounds in (0, 1, 2):
        decider = LineBits(SPACING, 3, 2.0)
        found, times = decider.decide(smeared, smeared[None], 0, Lane(8, 8, rounds), 20, 60)
        wrong.append(np.mean(found != bits[np.round(times / SPACING).astype(int)]))
    assert wrong[0] > 0.08
    assert wrong[1] < 0.05
    assert wrong[2] < 0.002


def test_values_between_samples_are_those_of_a_parabola():
    x = np.arange(20.0)
    times = np.linspace(2.0, 16.9, 50)
    np.testing.assert_allclose(line_bits.at(x**2 - 3 * x, times), times**2 - 3 * times, atol=1e-12)
