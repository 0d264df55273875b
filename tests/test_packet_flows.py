"""The flows of packet radio, from a WAV file to lines of JSON."""

import json

import numpy as np
import packet_air as air
import pytest
from numba import config

from pipeline import run
from pipeline.flow import Flow


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="takes minutes without compilation")
@pytest.mark.parametrize("name", ["ax25", "ax25_1200"])
def test_packets_of_a_wav_file_become_lines_of_json(name, tmp_path):
    rng = np.random.default_rng(1)
    sent = air.packets_of(rng, 5, longest=40)
    audio = air.fsk_audio(sent, rng, 16.0) if name == "ax25" else air.afsk_audio(sent, rng, 20.0)
    air.write(tmp_path / "air.wav", audio)
    flow = Flow.load(name)
    flow.set("source.path", str(tmp_path / "air.wav"))
    flow.set("packets.path", str(tmp_path / "lines"))
    results = run(flow)["results"]["packets"]
    assert (results["packets"], results["stations"], results["refused"]) == (5, 5, 0)
    assert results["frames_good"][0] == 5
    lines = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    assert [line["info"] for line in lines] == [packet[16:].hex().upper() for packet in sent]
    times = [line["time"] for line in lines]
    assert 0.0 < times[0] < times[-1] < audio.size / air.RATE_HZ
