import needs
import numpy as np
import pytest
from mode_s_air import detect, received, recording, squitter, strict

from blocks.detector.mode_s import ModeS
from blocks.source.modes_traffic import ModesTraffic
from pipeline.block import Context, make
from pipeline.errors import ParameterError, RunError
from pipeline.frame import StreamInfo

RATES = [2.0e6, 2.4e6]
DETECTORS = ["slicer", "slicer+repair", "sequence", "sequence+repair"]


def traffic(rate_hz, count, n_messages, seed, snr_db=30.0):
    """Messages of both lengths with gaps between, and what is received of them."""
    rng = np.random.default_rng(seed)
    step = count / n_messages
    assert step > 130 * rate_hz / 1e6
    sent = [
        (squitter(rng, size=112 if k % 3 else 56), k * step + 8 + 4 * rng.random())
        for k in range(n_messages)
    ]
    return sent, received(sent, rate_hz, count, rng, snr_db)


def found_of(sent, found):
    """For each message the candidates that have its bits."""
    return [
        [
            n for n in range(len(found.candidates))
            if found.candidate_bits[n] == bits.size
            and (found.candidates[n, : bits.size] == bits).all()
            and abs(found.candidate_sample[n] - begin) < 2
        ]
        for bits, begin in sent
    ]  # fmt: skip


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("bit_detector", DETECTORS)
def test_clear_messages_are_found_at_any_fraction_of_a_sample(rate_hz, bit_detector):
    sent, y = traffic(rate_hz, 20_000, 60, seed=1)
    found = detect(y, rate_hz, bit_detector=bit_detector)
    own = found_of(sent, found)
    missed = sum(not candidates for candidates in own)
    # at 2.0 Msps a slicer sees nothing but noise where samples fall on the edges of the chips
    assert missed <= (0 if bit_detector.startswith("sequence") else 20)
    assert (np.diff(found.candidate_sample) >= 0).all()
    assert (found.candidate_score > 0.5).all()
    assert (found.candidate_score <= 1.0).all()
    for (_, begin), candidates in zip(sent, own, strict=True):
        for n in candidates:
            assert abs(found.candidate_sample[n] - begin) < 0.5
            assert 0.5 < found.candidate_level[n] < 1.1
    past = np.arange(112) >= found.candidate_bits[:, None]
    assert not found.candidates[past].any()
    assert not found.candidate_llr[past].any()


@pytest.mark.parametrize("bit_detector", ["slicer", "sequence"])
def test_bits_are_the_signs_of_their_ratios(bit_detector):
    _, y = traffic(2.0e6, 20_000, 60, seed=2, snr_db=12.0)
    found = detect(y, 2.0e6, bit_detector=bit_detector)
    assert len(found.candidates) > 40
    np.testing.assert_array_equal(found.candidates == 1, found.candidate_llr > 0)


@pytest.mark.parametrize("rate_hz", RATES)
def test_the_sequence_detector_gets_more_than_the_slicer_and_repair_adds_to_both(rate_hz):
    sent, y = traffic(rate_hz, 120_000, 360, seed=3, snr_db=12.0)
    right = {}
    for bit_detector in DETECTORS:
        found = detect(y, rate_hz, (16384,), bit_detector=bit_detector)
        right[bit_detector] = sum(map(bool, found_of(sent, found)))
    assert right["sequence"] > right["slicer"] + 0.05 * len(sent)
    for bit_detector in ("slicer", "sequence"):
        assert right[bit_detector + "+repair"] > right[bit_detector]


def lost_share(rate_hz, bit_detector, snr_db, seconds):
    """Share of simulated messages that are lost at a signal-to-noise ratio, and how many they are.

    Of messages that lie on each other, too: they are as many for every detector.
    """
    values = {
        "rate_hz": rate_hz, "frames": 1, "length": int(seconds * rate_hz), "aircraft": 60,
        "snr_db": (snr_db, snr_db),
    }  # fmt: skip
    source = make(ModesTraffic, values, Context(seed=9))
    source.start()
    sent = source.process()
    found = detect(np.abs(sent.samples), rate_hz, (65536,), bit_detector=bit_detector)
    right = 0
    bits = np.unpackbits(sent.sent_messages, axis=1)
    for begin, own in zip(sent.sent_sample, bits, strict=True):
        low, high = np.searchsorted(found.candidate_sample, [begin - 2, begin + 2])
        right += bool((found.candidates[low:high] == own).all(axis=1).any())
    return 1.0 - right / len(bits), len(bits)


# bench/MODES.md has the whole curves: at 10 % errors the gain is some 9 and 2 dB
@pytest.mark.parametrize(("rate_hz", "snr_db", "gain_db"), [(2.0e6, 17.0, 4.0), (2.4e6, 13.0, 1.0)])
def test_the_slicer_needs_more_signal_than_the_sequence_detector(rate_hz, snr_db, gain_db):
    sequence, _ = lost_share(rate_hz, "sequence", snr_db, 2.0)
    slicer, count = lost_share(rate_hz, "slicer", snr_db + gain_db, 2.0)
    deviation = np.sqrt((sequence * (1 - sequence) + slicer * (1 - slicer)) / count)
    assert count > 800
    assert slicer - sequence > 2.0 * deviation  # 95 %
    assert sequence < 0.2


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("lengths", [(1,), (7,), (500, 0, 3, 64), (100_000,)])
def test_candidates_do_not_depend_on_how_the_stream_is_cut(rate_hz, lengths):
    _, y = traffic(rate_hz, 3000, 8, seed=4)
    whole, parts = detect(y, rate_hz, threshold=0.3), detect(y, rate_hz, lengths, threshold=0.3)
    assert len(whole.candidates) >= 8
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("size", [56, 112])
def test_messages_at_both_ends_of_a_stream_are_found_but_not_one_that_is_cut_off(rate_hz, size):
    rng = np.random.default_rng(size)
    bits = squitter(rng, size=size)
    middle = 0.25e-6 * rate_hz  # of a chip: the first pulse stands on the first sample,
    last = 998 + middle - (8 + size) * rate_hz / 1e6  # and the last chip on the last but one
    y = received([(bits, -middle), (bits, last)], rate_hz, 1000, rng)
    found = detect(y, rate_hz)
    right = (found.candidates[:, :size] == bits).all(axis=1)
    for begin in (-middle, last):
        assert (right & (abs(found.candidate_sample - begin) < 0.5)).any()
    cut_off = detect(y[:-4], rate_hz)
    assert not (abs(cut_off.candidate_sample - last) < 2).any()


def test_samples_are_counted_from_the_start_of_the_stream_also_after_a_gap():
    sent, y = traffic(2.0e6, 3000, 8, seed=5)
    here, later = detect(y, 2.0e6), detect(y, 2.0e6, first=1_000_000)
    np.testing.assert_array_equal(later.candidate_sample, here.candidate_sample + 1_000_000)
    assert all(found_of(sent, here))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 3e38])
def test_samples_that_are_no_numbers_hide_only_what_they_touch(wrong):
    sent, y = traffic(2.0e6, 3000, 8, seed=6)
    y[1200] = wrong  # in the fourth message
    found = detect(y, 2.0e6)
    right = [bool(own) for own in found_of(sent, found)]
    assert right == [True, True, True, False, True, True, True, True]
    for array in found:
        assert np.isfinite(array).all()


@pytest.mark.parametrize("value", [0.0, 1e-30, 0.7, 1e6])
def test_a_stream_of_one_value_holds_no_message(value):
    assert detect(np.full(5000, value, np.float32), 2.0e6, threshold=0.0).candidates.size == 0


@pytest.mark.parametrize("rate_hz", RATES)
def test_noise_passes_the_gate_seldom_and_never_the_parity(rate_hz):
    rng = np.random.default_rng(7)
    y = received([], rate_hz, int(0.5 * rate_hz), rng, snr_db=0.0)
    found = detect(y, rate_hz, (65536,))
    assert len(found.candidates) < 1000 * 0.5  # per second
    assert strict(found, rate_hz, known=rng.integers(1, 1 << 24, 200).tolist()) == []


def test_a_rate_without_a_model_is_refused():
    with pytest.raises(ParameterError, match=r"rate_hz = 2.1e.06 Hz; expected 2e.06 Hz or 2.4e.06"):
        ModeS(rate_hz=2.1e6)
    with pytest.raises(RunError, match="sample rate of stream main is not known; set rate_hz"):
        ModeS().start()
    block = ModeS()
    block.context = Context(info=StreamInfo(rate_hz=48000.0))
    with pytest.raises(RunError, match="the stream has 48000 Hz; expected"):
        block.start()
    block = ModeS(rate_hz=2.0e6)
    block.context = Context(info=StreamInfo(rate_hz=2.4e6))
    with pytest.raises(RunError, match=r"rate_hz = 2e.06 Hz, but the stream has 2.4e.06 Hz"):
        block.start()


# recordings


def real(name):
    """Magnitudes and rate of a recording; skips the test where it is not here."""
    needs.recording(f"modes/{name}")
    return recording(name)


def test_the_first_recording_gives_more_messages_than_readsb_finds_in_it():
    y, rate_hz = real("modes1.bin")
    found = detect(y, rate_hz)
    messages = strict(found, rate_hz)
    assert len(messages) >= 364  # readsb: 349
    assert {address for _, _, address in messages} == {0x4D2023}
    made_up = np.random.default_rng(8).integers(1, 1 << 24, 200).tolist()
    assert strict(found, rate_hz, known=made_up) == messages
    eager = detect(y, rate_hz, (50_000,), threshold=0.3, likeness=0.35)
    assert len(strict(eager, rate_hz)) >= 375


def test_the_count_is_the_same_with_filler_behind_the_end_and_whatever_the_frame_size():
    y, rate_hz = real("modes1.bin")
    bare = detect(y, rate_hz)
    for filled, lengths in [(np.append(y, np.full(50_000, 0.7, np.float32)), (9999,)), (y, (777,))]:
        other = detect(filled, rate_hz, lengths)
        own = other.candidate_sample < y.size - 242
        for one, rest in zip(bare, other, strict=True):
            np.testing.assert_array_equal(one[: own.sum()], rest[own])
        assert strict(other, rate_hz) == strict(bare, rate_hz)


def test_the_recording_at_2_4_msps_is_decoded_without_resampling():
    y, rate_hz = real("test_1641427457780.iq")
    messages = strict(detect(y, rate_hz), rate_hz)
    assert [address for _, _, address in messages] == [
        0xAD9293, 0xAA2BC4, 0xAD9293, 0xACF497, 0xA0AAA0,
    ]  # fmt: skip
