"""Every packet that direwolf or multimon-ng decodes is decoded here, with the same contents."""

import shutil
import subprocess

import numpy as np
import packet_air as air
import pytest
from needs import recording

from blocks.decoder.ax25 import parse
from blocks.detector.afsk import Afsk
from blocks.detector.g3ruh import G3ruh

FAST = ("tigrisat", "koyo", "us04", "us01", "aalto1")
SLOW = ("swiatowid-ax25",)
NAMES = [*((name, 9600) for name in FAST), *((name, 1200) for name in SLOW)]


def needs(*programs):
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"needs the program {program}: make test-peers")


def own(audio, rate_hz, baud):
    kind, scrambler = (G3ruh, "g3ruh") if baud == 9600 else (Afsk, "none")
    return air.unpacked(*air.detect(kind, audio, rate_hz=rate_hz), scrambler)[0]


@pytest.fixture(scope="module", params=NAMES, ids=lambda given: given[0])
def recorded(request):
    name, baud = request.param
    path = recording(f"hdlc/{name}.wav")
    return path, own(*air.recording(name), baud), baud


def without(packets, others):
    """Those of `others` that are not among the packets, each taken once."""
    left = list(packets)
    return [other for other in others if other not in left or left.remove(other)]


@pytest.mark.parametrize("options", [(), ("-P", "+")], ids=["plain", "best"])
def test_packets_of_direwolf_are_found(recorded, options):
    needs("atest")
    path, packets, baud = recorded
    if baud == 1200 and options:
        options = ("-P", "E+")
    theirs = air.direwolf(path, baud, *options)
    assert theirs
    assert without(packets, theirs) == []


def readable(content):
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in content)


def test_packets_of_multimon_are_found(recorded):
    needs("multimon-ng", "sox")
    path, packets, baud = recorded
    sox = ["sox", str(path), "-t", "raw", "-r", "22050", "-e", "signed", "-b", "16", "-c", "1", "-"]
    raw = subprocess.run(sox, capture_output=True, check=True, timeout=60).stdout
    kind = "FSK9600" if baud == 9600 else "AFSK1200"
    command = ["multimon-ng", "-t", "raw", "-a", kind, "-"]
    out = subprocess.run(command, input=raw, capture_output=True, check=True, timeout=60).stdout
    texts = out.decode("latin-1").split(f"\n{kind}: fm ")[1:]
    assert texts
    ours = []
    for packet in packets:
        found = parse(packet)
        ours.append((found.source, readable(packet[found.info :])))
    for text in texts:
        head, _, body = text.partition("\n")
        sender = head.split()[0].removesuffix("-0")
        start = readable(body.encode("latin-1"))[:16]  # line breaks are printed in several ways
        assert any(of == sender and told.startswith(start) for of, told in ours), text


def test_more_packets_are_found_in_noise_than_direwolf_finds_and_none_that_was_not_sent(tmp_path):
    needs("atest")
    rng = np.random.default_rng(1)
    sent = air.packets_of(rng, 20)
    audio = air.fsk_audio(sent, rng, 11.0, ppm=50.0)
    air.write(tmp_path / "air.wav", audio)
    ours = own(audio, air.RATE_HZ, 9600)
    theirs = air.direwolf(tmp_path / "air.wav", 9600, "-P", "+")
    assert without(sent, ours) == []
    assert len(ours) > len(theirs) > 0


def test_tones_that_direwolf_makes_are_understood(tmp_path):
    needs("gen_packets", "atest")
    path = tmp_path / "made.wav"
    command = ["gen_packets", "-r", "48000", "-n", "20", "-o", str(path)]
    subprocess.run(command, capture_output=True, check=True, timeout=60)
    ours, theirs = own(*air.read(path), 1200), air.direwolf(path, 1200)
    assert without(ours, theirs) == []
    assert len(ours) > len(theirs) > 10


def test_levels_that_direwolf_makes_are_understood(tmp_path):
    needs("gen_packets", "atest")
    path = tmp_path / "made.wav"
    command = ["gen_packets", "-B", "9600", "-r", "48000", "-n", "20", "-o", str(path)]
    subprocess.run(command, capture_output=True, check=True, timeout=60)
    ours, theirs = own(*air.read(path), 9600), air.direwolf(path, 9600)
    assert without(ours, theirs) == []
    assert len(theirs) > 10
