"""What the runtime promises as a whole, on short runs of ready flows in real workers."""

from __future__ import annotations

import numpy as np
import pytest
from needs import recording

from pipeline import run
from pipeline.flow import Flow
from pipeline.roots import Limits
from pipeline.supervisor import Supervisor

TAPS = [1.0, 0.61, 0.37, 0.22]


def results(flow: Flow, runs, frames: int = 0) -> dict:
    outcome = Supervisor(flow.check(), limits=Limits(frames=frames), runs=runs).run()
    assert (outcome.code, outcome.errors) == (0, [])
    assert all(edge["lost"] == 0 for edge in outcome.summary["edges"].values())
    return outcome.summary["results"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    flow = Flow.load("isi_viterbi")
    flow.seed = 3
    flow.set("symbols.rate", 0.0)
    return results(flow, tmp_path_factory.mktemp("runs"), frames=100)


@pytest.mark.parametrize(
    "split",
    [
        {"rx": ["detector"]},
        {
            name: [block]
            for name, block in zip(
                "abcd", ("symbols", "channel", "detector", "errors"), strict=True
            )
        },
        {"ends": ["symbols", "errors"], "middle": ["channel", "detector"]},
    ],
    ids=["detector apart", "every block apart", "both ends together"],
)
def test_results_do_not_depend_on_the_split_into_workers(alone, split, tmp_path):
    flow = Flow.load("isi_viterbi")
    flow.seed = 3
    flow.set("symbols.rate", 0.0)
    for worker, blocks in split.items():
        flow.assign(worker, blocks)
    assert results(flow, tmp_path, frames=100) == alone
    assert alone["errors"]["symbols"] == 100_000


def test_a_recording_replays_to_the_same_decisions(tmp_path):
    first = Flow("first", seed=5)
    first.add("symbols", "source.random_symbols", frames=20, length=777)
    first.add("channel", "channel.isi", taps=TAPS, snr_db=4.0)
    first.add("kept", "sink.recording", path=str(tmp_path / "samples"))
    first.add("detector", "detector.viterbi", taps=TAPS)
    decided = {"samples": "symbols"}
    first.add("decisions", "sink.recording", path=str(tmp_path / "live"), reads=decided)
    first.connect("symbols -> channel -> kept")
    first.connect("channel -> detector -> decisions")
    first.assign("disk", ["kept"])
    results(first, tmp_path)

    again = Flow("again")
    again.add("samples", "source.recording", path=str(tmp_path / "samples.sigmf-meta"), length=256)
    again.add("detector", "detector.viterbi", taps=TAPS)
    again.add("decisions", "sink.recording", path=str(tmp_path / "replayed"), reads=decided)
    again.connect("samples -> detector -> decisions")
    results(again, tmp_path)

    live = np.fromfile(tmp_path / "live.sigmf-data", np.int8)
    assert live.size == 20 * 777
    np.testing.assert_array_equal(np.fromfile(tmp_path / "replayed.sigmf-data", np.int8), live)


def test_branches_in_other_workers_see_the_same_frames(tmp_path):
    flow = Flow("fork", seed=1)
    flow.add("symbols", "source.random_symbols", frames=30)
    flow.add("channel", "channel.isi", taps=TAPS, snr_db=6.0)
    flow.connect("symbols -> channel")
    for name in ("viterbi", "sum_product"):
        noise = {"noise_var": 10**-0.6} if name == "sum_product" else {}
        flow.add(name, f"detector.{name}", taps=TAPS, **noise)
        flow.add(f"{name}_errors", "sink.error_rate")
        flow.connect(f"channel -> {name} -> {name}_errors")
    fused = results(flow, tmp_path)
    flow.assign("map", ["sum_product"])
    flow.assign("count", ["viterbi_errors", "sum_product_errors"])
    assert results(flow, tmp_path) == fused
    # the symbol-wise MAP detector makes no more errors than the best sequence, up to chance
    map_errors = fused["sum_product_errors"]["errors"]
    assert map_errors <= fused["viterbi_errors"]["errors"] + 3 * map_errors**0.5


@pytest.mark.parametrize("length", [4096, 777, 400_000])
def test_modes_finds_the_messages_of_a_real_recording_however_it_is_cut(length, tmp_path):
    path = recording("modes/modes1.bin")
    flow = Flow.load("modes")
    flow.set("source.path", str(path))
    flow.set("source.format", "cu8")
    flow.set("source.rate_hz", 2e6)
    flow.set("source.continuous", False)  # quiet parts were cut out
    flow.set("source.length", length)
    counts = run(flow, folder=tmp_path)["results"]["counts"]
    # readsb finds 349 in it, dump1090 284; one aircraft was on the air
    assert counts["strict_messages"] == 366
    assert counts["aircraft"] == 1
    assert counts["positions"] == 98


def test_modes_sim_finds_what_was_sent_however_it_is_cut(tmp_path):
    found = []
    for frames, length in ((20, 65_536), (4, 327_680)):
        flow = Flow.load("modes_sim")
        flow.set("air.frames", frames)
        flow.set("air.length", length)
        flow.set("air.aircraft", 40)
        flow.set("air.replies", 0.0)  # which are not taken before their address is known
        flow.set("air.snr_100km_db", 30.0)
        found.append(results(flow, tmp_path))
    assert found[0] == found[1]
    errors, counts = found[0]["errors"], found[0]["counts"]
    assert errors["sent"] > 100
    assert errors["clear_error_rate"] < 0.05
    assert errors["false_strict_messages"] == 0
    assert counts["strict_messages"] <= errors["messages"] == counts["messages"]


def test_ais_goes_from_the_air_to_nmea_and_so_does_a_recording_of_it(tmp_path):
    pytest.importorskip("pyais", reason="needs pyais: pip install 'kalvit[dev]'")
    first = Flow.load("ais")
    first.set("source.frames", 100)
    first.set("nmea.path", str(tmp_path / "live.nmea"))
    first.add("kept", "sink.recording", path=str(tmp_path / "air"))
    first.connect("source -> kept")
    first.assign("rx", ["detector", "packets"])
    counts = results(first, tmp_path)["counts"]
    assert counts["sent_packets"] > 30
    assert counts["packet_error_rate"] < 0.1
    assert counts["false_packets"] == 0

    again = Flow.load("ais_recording")
    again.set("source.path", str(tmp_path / "air.sigmf-meta"))
    again.set("source.length", 1000)
    again.set("nmea.path", str(tmp_path / "replayed.nmea"))
    replayed = results(again, tmp_path)["counts"]
    assert replayed["messages"] == counts["messages"]
    assert (tmp_path / "replayed.nmea").read_bytes() == (tmp_path / "live.nmea").read_bytes()
