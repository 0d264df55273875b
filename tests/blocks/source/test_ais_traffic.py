import numpy as np
import pytest
from ais_air import traffic

from blocks.source.ais_traffic import NOISE, AisTraffic
from pipeline.errors import ParameterError

SLOT = 1280  # samples at 48 kHz
QUIET = {"overlap": 0.0, "clock_ppm": 0.0}


def test_packets_are_messages_of_the_kinds_that_are_promised():
    air = traffic(frames=100, stations=60, interval_s=2.0)
    kinds, counts = np.unique(air.sent_packet_bytes[:, 0] >> 2, return_counts=True)
    assert kinds.tolist() == [1, 2, 3, 4, 5, 18, 24]
    told = np.isfinite(air.sent_packet_latitude)
    shares = dict(zip(kinds.tolist(), counts / counts.sum(), strict=True))
    assert shares[5] + shares[24] == pytest.approx(1 / 6, abs=0.05)
    assert 1 - told.mean() == pytest.approx(shares[5] + shares[24])
    assert (
        air.sent_packet_length[air.sent_packet_bytes[:, 0] >> 2 == 5].tolist()
        == [53] * counts[kinds.tolist().index(5)]
    )
    # stations / interval, of intervals of 0.5 ... 1.5 times 2 s: the mean of 1 / x there is ln 3
    assert air.samples.size / 48e3 * 30 * np.log(3) == pytest.approx(counts.sum(), rel=0.1)


def test_true_positions_are_those_in_the_messages():
    pyais = pytest.importorskip("pyais", reason="needs pyais: pip install 'kalvit[dev]'")
    from blocks.formats import nmea

    air = traffic(frames=40, stations=60, interval_s=2.0)
    for row, size, latitude, longitude in zip(
        air.sent_packet_bytes, air.sent_packet_length, air.sent_packet_latitude,
        air.sent_packet_longitude, strict=True,
    ):  # fmt: skip
        sentences = nmea.sentences(row[:size].tobytes())
        said = pyais.decode(*[line.encode() for line in sentences]).asdict()
        if np.isfinite(latitude):
            assert said["lat"] == pytest.approx(latitude, abs=2e-6)  # sent in units of 1.7e-6
            assert said["lon"] == pytest.approx(longitude, abs=2e-6)
            assert abs(latitude - 54.4) < 20.1 / 111.2
        else:
            assert "lat" not in said


@pytest.mark.parametrize("rate_hz", [48e3, 96e3])
def test_strength_is_energy_per_bit_over_noise_density(rate_hz):
    values = {"rate_hz": rate_hz, "stations": 1, "interval_s": 1.0, "frames": 200, **QUIET}
    air = traffic(eb_n0_db=(25.0, 25.0), **values)
    silence = traffic(eb_n0_db=(-50.0, -50.0), **values)
    assert silence.samples.std() == pytest.approx(NOISE, rel=0.01)
    signal = air.samples - silence.samples  # the noise is the same
    inside = np.concatenate([
        signal[int(sample) : int(sample) + int(rate_hz * 0.015)]
        for sample in air.sent_packet_sample[:-1]
    ])  # fmt: skip
    assert inside.size > 0
    density = NOISE**2 / rate_hz
    energy = (np.abs(inside) ** 2).mean() / 9600
    assert 10 * np.log10(energy / density) == pytest.approx(25.0, abs=0.2)
    np.testing.assert_array_equal(air.sent_packet_eb_n0_db, 25.0)


def test_bursts_stay_in_their_slots_and_have_the_band_of_gmsk():
    air = traffic(frames=60, stations=20, interval_s=2.0, eb_n0_db=(60.0, 60.0), **QUIET)
    assert air.sent_packet_clear.all()
    power = np.abs(air.samples) ** 2
    for sample in air.sent_packet_sample:
        begin = sample - (8 + 32) * 5  # ramp, training and flag before
        assert abs(begin / SLOT - round(begin / SLOT)) * SLOT < 5.0
        edge = round(begin / SLOT) * SLOT
        assert (
            power[edge - 4 : edge + 4].max() < 0.02 * power[int(sample) : int(sample) + 600].min()
        )
    spectrum = np.abs(np.fft.fft(air.samples)) ** 2
    places = np.abs(np.fft.fftfreq(air.samples.size, 1 / 48e3))
    inside = spectrum[places < 5_700].sum() / spectrum.sum()
    assert inside > 0.985  # 99 % of GMSK 0.4 lies within 1.08 / T; carriers are up to 500 Hz off


def test_messages_that_take_any_slot_overlap_and_say_so():
    air = traffic(frames=60, stations=60, interval_s=2.0, overlap=1.0)
    begins = np.round((air.sent_packet_sample - 200) / SLOT).astype(int)
    sizes = np.where(air.sent_packet_length > 40, 2, 1)
    users = np.zeros(begins.max() + 3, int)
    for begin, size in zip(begins, sizes, strict=True):
        users[begin : begin + size] += 1
    alone = [
        (users[begin : begin + size] == 1).all() for begin, size in zip(begins, sizes, strict=True)
    ]
    inner = begins < begins.max() - 3  # the last ones may overlap with what has not ended
    np.testing.assert_array_equal(np.array(alone)[inner], air.sent_packet_clear[inner] == 1)
    assert 0.2 < air.sent_packet_clear.mean() < 0.8


def test_another_seed_gives_another_sea():
    one, other = traffic(1, frames=20), traffic(2, frames=20)
    assert not np.array_equal(one.samples, other.samples)
    assert set(one.sent_packet_sample.tolist()) != set(other.sent_packet_sample.tolist())


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"eb_n0_db": (20.0, 10.0)}, r"eb_n0_db = \[20.0, 10.0\] dB; expected the least"),
        ({"eb_n0_db": (20.0,)}, r"eb_n0_db = \[20.0\] dB; expected the least and the most"),
        ({"area": (95.0, 0.0)}, r"area = \[95.0, 0.0\]; expected a latitude of -80 ... 80"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(values, text):
    with pytest.raises(ParameterError, match=f"source.ais_traffic: {text}"):
        AisTraffic(**values)
