import numpy as np
import packet_air as air
import pytest
from needs import compiled, recording

from blocks.decoder.ax25 import parse
from blocks.detector.afsk import Afsk
from blocks.detector.g3ruh import G3ruh
from pipeline.block import Context
from pipeline.errors import RunError
from pipeline.frame import StreamInfo

pytestmark = compiled


def lost(sent, found):
    return len(set(sent) - set(found))


@pytest.fixture(scope="module")
def clear():
    """Ten packets at 16 dB from a sender whose clock is fast, and their audio."""
    rng = np.random.default_rng(1)
    sent = air.packets_of(rng, 10)
    return sent, air.fsk_audio(sent, rng, 16.0, ppm=100.0)


@pytest.mark.parametrize("bit_detector", ["slicer", "sequence"])
def test_clear_packets_are_found_in_a_lane_that_is_not_sharpened(clear, bit_detector):
    sent, audio = clear
    bits, times = air.detect(G3ruh, audio, bit_detector=bit_detector)
    assert air.unpacked(bits[:1], times[:1])[0] == sent


def test_receivers_that_are_too_narrow_are_what_the_other_lanes_are_for():
    rng = np.random.default_rng(8)
    sent = air.packets_of(rng, 10)
    audio = air.fsk_audio(sent, rng, 16.0, passband_hz=6000.0, audio_hz=2500.0)
    bits, times = air.detect(G3ruh, audio)
    alone = [
        lost(sent, air.unpacked(bits[k : k + 1], times[k : k + 1])[0]) for k in range(len(bits))
    ]
    assert alone[0] >= 8
    assert lost(sent, air.unpacked(bits, times)[0]) <= 1


def test_polarity_and_level_and_a_constant_do_not_matter(clear):
    sent, audio = clear
    for changed in (-audio, 1e-3 * audio, 1e3 * audio, audio + np.float32(5.0)):
        assert air.unpacked(*air.detect(G3ruh, changed))[0] == sent


@pytest.mark.parametrize("ppm", [-100.0, 100.0])
@pytest.mark.parametrize("offset", [-0.5, 0.5])
def test_clocks_and_frequencies_may_be_off(ppm, offset):
    rng = np.random.default_rng(2)
    sent = air.packets_of(rng, 4)
    audio = air.fsk_audio(sent, rng, 16.0, ppm=ppm, offset=offset)
    assert air.unpacked(*air.detect(G3ruh, audio))[0] == sent


@pytest.mark.parametrize("baud", [2400.0, 4800.0, 14_400.0])
def test_other_speeds_are_set(baud):
    rng = np.random.default_rng(3)
    sent = air.packets_of(rng, 4)
    audio = air.fsk_audio(sent, rng, 16.0, baud=baud, passband_hz=0.8 * baud, audio_hz=0.7 * baud)
    assert air.unpacked(*air.detect(G3ruh, audio, baud=baud))[0] == sent


def test_the_sequence_detector_gets_packets_that_the_slicer_with_the_same_clock_loses():
    rng = np.random.default_rng(4)
    sent = air.packets_of(rng, 20)
    audio = air.fsk_audio(sent, rng, 13.0, passband_hz=6000.0, audio_hz=3500.0)
    slicer, sequence = (
        air.unpacked(*air.detect(G3ruh, audio, bit_detector=kind))[0]
        for kind in ("slicer", "sequence")
    )
    assert set(sequence) <= set(sent)
    assert lost(sent, sequence) <= 1
    assert lost(sent, slicer) >= 10


@pytest.mark.parametrize("lengths", [(777,), (1, 50_000, 0, 9), (10**7,)])
def test_bits_do_not_depend_on_how_the_stream_is_cut(clear, lengths):
    _, audio = clear
    whole, parts = air.detect(G3ruh, audio), air.detect(G3ruh, audio, lengths)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, other)


def test_bits_are_numbered_one_after_another_at_the_speed_of_the_sender(clear):
    _, audio = clear
    bits, times = air.detect(G3ruh, audio, first=1_000_000)
    for lane in range(len(bits)):
        own = times[lane][bits[lane] < 2]
        assert own[0] >= 1_000_000
        assert own[-1] < 1_000_000 + audio.size
        steps = np.diff(own)
        assert steps.min() > 4.5
        assert steps.max() < 5.5
        assert abs(np.median(steps) - 5.0 / (1 + 100e-6)) < 0.005


def test_the_last_bits_of_a_stream_are_flushed():
    rng = np.random.default_rng(5)
    sent = air.packets_of(rng, 1)
    audio = air.fsk_audio(sent, rng, 20.0, gap_s=0.0)
    # it ends with three flags: what is cut off here is one and a half
    assert air.unpacked(*air.detect(G3ruh, audio[:-60]))[0] == sent


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 3e38])
def test_samples_that_are_no_numbers_hide_only_what_they_touch(clear, wrong):
    sent, audio = clear
    bits, times = air.detect(G3ruh, audio)
    changed = audio.copy()
    changed[round(np.median(times[0][bits[0] < 2]))] = wrong
    found, _ = air.unpacked(*air.detect(G3ruh, changed))
    assert set(found) <= set(sent)
    assert lost(sent, found) <= 1


@pytest.mark.parametrize("kind", [G3ruh, Afsk])
def test_nothing_is_accepted_in_noise_and_silence(kind):
    rng = np.random.default_rng(6)
    scrambler = "g3ruh" if kind is G3ruh else "none"
    noise = rng.standard_normal(240_000).astype(np.float32)
    for audio in (noise, np.zeros(100_000, np.float32), np.ones(100_000, np.float32)):
        found, _ = air.unpacked(*air.detect(kind, audio, (65_536,)), scrambler)
        assert [packet for packet in found if parse(packet)] == []


@pytest.mark.parametrize("twist_db", [-9.0, 0.0, 9.0])
@pytest.mark.parametrize("ppm", [-100.0, 100.0])
def test_tones_may_be_unequal(twist_db, ppm):
    rng = np.random.default_rng(7)
    sent = air.packets_of(rng, 6, longest=60)
    audio = air.afsk_audio(sent, rng, 20.0 + max(0.0, -twist_db), ppm=ppm, twist_db=twist_db)
    assert air.unpacked(*air.detect(Afsk, audio), "none")[0] == sent


def test_rates_that_do_not_fit_are_refused():
    with pytest.raises(RunError, match="the sample rate of stream main is not known; set rate_hz"):
        G3ruh().start()
    with pytest.raises(
        RunError, match=r"22050 samples per second are too few for 9600 baud; .* 28800"
    ):
        G3ruh(rate_hz=22_050.0).start()
    block = G3ruh(rate_hz=44_100.0)
    block.context = Context(info=StreamInfo(rate_hz=48_000.0))
    with pytest.raises(RunError, match="44100 Hz, but the stream has 48000 Hz; leave it out"):
        block.start()


@pytest.mark.parametrize(
    ("name", "count"),
    [("tigrisat", 4), ("koyo", 3), ("us04", 2), ("us01", 1), ("aalto1", 1), ("swiatowid-ax25", 2)],
)
def test_recordings_give_what_direwolf_gives_with_its_best_options(name, count):
    recording(f"hdlc/{name}.wav")
    kind, scrambler = (Afsk, "none") if name == "swiatowid-ax25" else (G3ruh, "g3ruh")
    audio, rate_hz = air.recording(name)
    found, _ = air.unpacked(*air.detect(kind, audio, rate_hz=rate_hz), scrambler)
    assert len([packet for packet in found if parse(packet)]) >= count
