"""Packet radio on the air: random packets, what an FM receiver makes of them, what is decoded.

For tests and bench. The signal is made at four times the rate of the audio, in complex baseband:
shaped levels turn a carrier, noise is added, a filter of the receiver is passed, and the turn from
sample to sample is the audio, with the clicks and the rising noise that discriminators give.
"""

from __future__ import annotations

import subprocess
import wave
from pathlib import Path

import numpy as np

from blocks.decoder.hdlc import Hdlc
from blocks.kernels import hdlc
from pipeline.frame import FrameInfo

DATA = Path(__file__).parents[2] / "shared" / "data" / "hdlc"
RATE_HZ = 48_000.0
OVER = 4
LEVEL = 0.3  # of the audio
LONGEST = 400  # bytes of a packet


def address(callsign, ssid, last):
    return bytes(ord(c) << 1 for c in f"{callsign:6s}") + bytes([0x60 | ssid << 1 | last])


def packets_of(rng, count, shortest=20, longest=200):
    """Random packets of AX.25, from random callsigns, with so many bytes of information."""
    calls = ["".join(chr(c) for c in rng.integers(65, 91, 6)) for _ in range(2 * count)]
    return [
        address(to, 0, False) + address(of, 1, True) + b"\x03\xf0"
        + rng.bytes(int(rng.integers(shortest, longest)))
        for to, of in zip(calls[::2], calls[1::2], strict=True)
    ]  # fmt: skip


def line_of(packet, scrambled, flags=40):
    """Bits on the line: flags before, the packet, three flags behind."""
    flag = np.array(hdlc.FLAG, np.uint8)
    bits = np.concatenate([np.tile(flag, flags), hdlc.frame(packet), np.tile(flag, 3)])
    line = np.empty_like(bits)
    hdlc.to_line(bits, scrambled, True, line)
    return line


def levels(lines, rng, baud, gap_s, rate_hz):
    """Levels, -1 or 1, and whether there is a carrier, each line after a gap."""
    level, carrier = [], []
    for line in lines:
        silent, count = round(gap_s * rate_hz), round(line.size * rate_hz / baud)
        place = np.arange(count) / rate_hz * baud + rng.random()
        own = 2.0 * line[np.floor(place).astype(int).clip(0, line.size - 1)] - 1.0
        level += [np.zeros(silent), own]
        carrier += [np.zeros(silent), np.ones(count)]
    tail = np.zeros(round(gap_s * rate_hz))
    return np.concatenate([*level, tail]), np.concatenate([*carrier, tail])


def filtered(values, rate_hz, response):
    """Values after a filter with this response to frequencies."""
    spectrum = np.fft.fft(values) * response(np.abs(np.fft.fftfreq(values.size, 1 / rate_hz)))
    out = np.fft.ifft(spectrum)
    return out if np.iscomplexobj(values) else out.real


def butterworth(cutoff_hz):
    return lambda f: 1.0 / np.sqrt(1.0 + (f / cutoff_hz) ** 8)


def raised_cosine(baud):
    """Of the sender: half at half the baud, 1 up to a quarter; the pulses are made impulses."""

    def response(f):
        x = 2.0 * f / baud
        return 0.5 * (1.0 + np.cos(np.pi * (x - 0.5).clip(0.0, 1.0))) / np.sinc(f / baud).clip(0.3)

    return response


def fsk_audio(
    packets, rng, ebn0_db, *, baud=9600.0, ppm=0.0, offset=0.1, flags=40, gap_s=0.05,
    passband_hz=7500.0, audio_hz=7000.0, scrambled=True,
):  # fmt: skip
    """Audio (time,) float32 of packets of FSK with a deviation of 3/9.6 of the baud.

    ebn0_db      energy of a bit over the noise density, at the antenna
    ppm          that the sender's clock is too fast
    offset       of its frequency, in parts of the deviation
    passband_hz  of the receiver, to each side; audio_hz of what follows: 3 dB, 4th order
    """
    rate_hz, deviation = OVER * RATE_HZ, baud * 3.0 / 9.6
    lines = [line_of(packet, scrambled, flags) for packet in packets]
    level, carrier = levels(lines, rng, baud * (1.0 + 1e-6 * ppm), gap_s, rate_hz)
    frequency = deviation * (filtered(level, rate_hz, raised_cosine(baud)) + offset)
    signal = carrier * np.exp(2j * np.pi * np.cumsum(frequency) / rate_hz)
    return discriminated(signal, rng, ebn0_db, baud, deviation, passband_hz, audio_hz)


def discriminated(signal, rng, ebn0_db, baud, deviation, passband_hz, audio_hz):
    """What a receiver makes of a carrier of amplitude 1 in noise."""
    rate_hz = OVER * RATE_HZ
    noise = rng.standard_normal(signal.size) + 1j * rng.standard_normal(signal.size)
    signal = signal + noise * np.sqrt(rate_hz / baud / 10 ** (ebn0_db / 10) / 2.0)
    signal = filtered(signal, rate_hz, butterworth(passband_hz))
    turn = np.angle(signal[1:] * signal[:-1].conj()) * rate_hz / (2.0 * np.pi * deviation)
    audio = filtered(turn, rate_hz, butterworth(audio_hz))[::OVER]
    return (LEVEL * audio).astype(np.float32)


def afsk_audio(packets, rng, snr_db, *, ppm=0.0, twist_db=0.0, flags=40, gap_s=0.1):
    """Audio (time,) float32 of packets in two tones at 1200 baud, in white noise.

    snr_db    power of a tone over that of the noise up to 3 kHz
    twist_db  level of the tone of 2200 Hz over that of 1200 Hz
    """
    lines = [line_of(packet, False, flags) for packet in packets]
    level, carrier = levels(lines, rng, 1200.0 * (1.0 + 1e-6 * ppm), gap_s, RATE_HZ)
    phase = 2.0 * np.pi * np.cumsum(1700.0 - 500.0 * level) / RATE_HZ
    tone = carrier * np.cos(phase) * np.where(level < 0.0, 10 ** (twist_db / 20), 1.0)
    noise = rng.standard_normal(tone.size) * np.sqrt(RATE_HZ / 6000.0 / 10 ** (snr_db / 10) / 2.0)
    return (LEVEL * (tone + noise)).astype(np.float32)


def detect(kind, audio, lengths=(4096,), first=0, rate_hz=RATE_HZ, **values):
    """Bits and their places, both (lane, bit), of audio cut into frames of these lengths."""
    block = kind(rate_hz=rate_hz, **values)
    block.start()
    results, at, k = [], 0, 0
    while at < audio.size:
        length = lengths[k % len(lengths)]
        results += block.process(audio[at : at + length], FrameInfo(sample=first + at))
        at, k = at + length, k + 1
    results += block.finish()
    assert len(results) == k
    return tuple(np.concatenate(arrays, axis=1) for arrays in zip(*results, strict=True))


def unpacked(bits, times, scrambler="g3ruh"):
    """Packets, and frames of each lane by outcome, in bits."""
    block = Hdlc(scrambler=scrambler, shortest=15, longest=LONGEST)
    block.start()
    found = block.process(bits, times)
    rows = zip(found.packet_bytes, found.packet_length, strict=True)
    return [row[:length].tobytes() for row, length in rows], found.hdlc_frames


def recording(name):
    """Audio and rate of a shared recording; None where it is not here."""
    path = DATA / f"{name}.wav"
    return read(path) if path.exists() else None


def read(path):
    with wave.open(str(path)) as file:
        frames, rate_hz = file.readframes(file.getnframes()), file.getframerate()
    return np.frombuffer(frames, "<i2").astype(np.float32) / 32768.0, float(rate_hz)


def write(path, audio):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, int(RATE_HZ), audio.size, "NONE", ""))
        file.writeframes((audio.clip(-1, 1) * 32767).astype("<i2").tobytes())


def direwolf(path, baud, *options):
    """The packets that direwolf's atest finds in a WAV file, without their checks."""
    command = ["atest", "-B", str(baud), *options, "-h", str(path)]
    out = subprocess.run(command, capture_output=True, timeout=60, check=True).stdout
    packets, lines = [], []
    for line in [*out.decode("latin-1").splitlines(), "------"]:
        head, _, rest = line.partition(":  ")
        if len(head) == 5 and head.startswith("  "):
            if int(head, 16) == 0:
                lines = []
            lines.append(bytes.fromhex(rest[:48]))
        elif line.startswith("------") and lines:
            packets.append(b"".join(lines))
            lines = []
    return packets
