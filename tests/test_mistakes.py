"""What a user does wrong, and what the command line says to it.

Each mistake gives at most six lines, no traceback and exit code 2, and names the place.
"""

import json
import os
import resource
import socket
import struct
import subprocess
import sys
import wave
from pathlib import Path

import pytest

from pipeline import catalogue, cli
from pipeline.block import Block

KALVIT = [sys.executable, "-m", "pipeline"]
FLOW = """\
name = "mine"

[blocks.symbols]
use = "source.random_symbols"
frames = 40

[blocks.channel]
use = "channel.isi"
taps = [1.0, 0.5]
snr_db = 8.0

[blocks.detector]
use = "detector.viterbi"
taps = [1.0, 0.5]

[blocks.errors]
use = "sink.error_rate"

[edges]
data = ["symbols -> channel -> detector -> errors"]
"""
PATH = '"symbols -> channel -> detector -> errors"'
VITERBI = 'use = "detector.viterbi"\ntaps = [1.0, 0.5]'

#: In the flow file: what it is, what was there, what stands there instead, what is said.
IN_A_FLOW = [
    ("no TOML", 'name = "mine"', "name = mine", ["mine.toml:1:", "no TOML", "needs quotes"]),
    (
        "unclosed text",
        'use = "channel.isi"',
        'use = "channel.isi',
        ["mine.toml:8:", "no TOML", "ends with its quote"],
    ),
    ("no name", 'name = "mine"', "", ["mine.toml:", "needs a name", 'name = "my_flow"']),
    ("name with a capital", '"mine"', '"Mine"', ["mine.toml:1:", "'Mine'", "small letters"]),
    ("unknown table", "[edges]", "[edgs]", ["mine.toml:19:", "'edgs'", "did you mean 'edges'"]),
    ("no use", 'use = "channel.isi"', "", ["mine.toml:7:", "'channel' has no `use`"]),
    (
        "unknown block",
        "detector.viterbi",
        "detector.viterby",
        ["mine.toml:13:", "no block named 'detector.viterby'", "did you mean 'detector.viterbi'"],
    ),
    (
        "unknown parameter",
        "snr_db",
        "snr",
        ["mine.toml:10:", "channel.isi", "no parameter 'snr'", "did you mean 'snr_db'"],
    ),
    (
        "parameter of the wrong type",
        "snr_db = 8.0",
        'snr_db = "8.0"',
        ["mine.toml:10:", "snr_db = '8.0' dB", "must be a number"],
    ),
    (
        "parameter out of range",
        "frames = 40",
        "length = 0",
        ["mine.toml:5:", "length = 0 symbols", "at least 1"],
    ),
    (
        "missing parameter",
        VITERBI,
        'use = "detector.viterbi"',
        ["mine.toml:12:", "parameter 'taps' is missing", "impulse response"],
    ),
    (
        "taps empty",
        VITERBI,
        'use = "detector.viterbi"\ntaps = []',
        ["mine.toml:14:", "taps has 0 items", "at least 1 item"],
    ),
    (
        "taps all zero",
        VITERBI,
        'use = "detector.viterbi"\ntaps = [0.0, 0.0]',
        ["mine.toml:14:", "taps are all 0"],
    ),
    (
        "noise variance 0",
        VITERBI,
        'use = "detector.sum_product"\ntaps = [1.0, 0.5]\nnoise_var = 0.0',
        ["mine.toml:15:", "noise_var = 0.0 V^2", "above 0.0"],
    ),
    (
        "choice that does not exist",
        "snr_db = 8.0",
        'noise = "cauchy"',
        ["mine.toml:10:", "noise = 'cauchy'", "'gaussian', 'poisson', 'none'"],
    ),
    (
        "dtypes that do not match",
        VITERBI,
        'use = "detector.viterbi"\ntaps = [1.0, 0.5]\nmodulation = "qpsk"',
        ["mine.toml:12:", "'samples' is float32", "expected complex64"],
    ),
    (
        "symbols of two alphabets",
        "frames = 40",
        'modulation = "qpsk"',
        ["mine.toml:", "errors (sink.error_rate)", "must come from one alphabet"],
    ),
    (
        "missing block between",
        PATH,
        '"symbols -> channel -> errors"',
        ["mine.toml:12:", "detector (detector.viterbi) has no input", "channel -> detector"],
    ),
    (
        "field that nothing writes",
        PATH,
        '"symbols -> detector -> errors", "symbols -> channel"',
        ["mine.toml:12:", "reads 'samples'", "nothing before it writes", "connect channel"],
    ),
    (
        "edge to an unknown block",
        PATH,
        '"symbols -> chanel -> detector -> errors"',
        ["mine.toml:20:", "no block 'chanel'", "did you mean 'channel'"],
    ),
    (
        "edge without an arrow",
        PATH,
        '"symbols, channel"',
        ["mine.toml:20:", "cannot read the edge", "a -> b"],
    ),
    (
        "two inputs",
        PATH,
        '"symbols -> channel -> detector -> errors", "symbols -> detector"',
        ["mine.toml:20:", "detector has two inputs"],
    ),
    (
        "cycle",
        PATH,
        '"detector -> channel -> detector -> errors"',
        ["mine.toml:20:", "channel -> detector -> channel", "circle"],
    ),
    (
        "edge out of a sink",
        PATH,
        '"symbols -> channel -> errors -> detector"',
        ["mine.toml:20:", "leaves errors (sink.error_rate)", "ends its branch"],
    ),
    (
        "truth read by a detector",
        VITERBI,
        'use = "detector.viterbi"\ntaps = [1.0, 0.5]\nreads = { samples = "sent" }',
        ["mine.toml:15:", "'sent' of symbols", "truth", "genie = true"],
    ),
    (
        "field written twice",
        PATH,
        '"symbols -> channel -> detector -> twice -> errors"]\n[blocks.twice]\n'
        'use = "detector.viterbi"\ntaps = [1.0]\n[workers]\nrx = ["twice"',
        ["mine.toml:21:", "twice (detector.viterbi) writes 'symbols'", "detector before it"],
    ),
    (
        "field renamed that is not there",
        VITERBI,
        'use = "detector.viterbi"\ntaps = [1.0, 0.5]\nreads = { sample = "samples" }',
        ["mine.toml:15:", "reads no field 'sample'", "did you mean 'samples'"],
    ),
    (
        "worker with an unknown block",
        "[edges]",
        '[workers]\nrx = ["detektor"]\n[edges]',
        ["mine.toml:20:", "'detektor'", "did you mean 'detector'"],
    ),
    (
        "address within one worker",
        f"[{PATH}]",
        '["symbols -> channel", { path = "channel -> detector", via = "tcp://127.0.0.1:5555" }, '
        '"detector -> errors"]',
        ["mine.toml:20:", "tcp://127.0.0.1:5555", "both ends run in worker 'main'"],
    ),
    (
        "address that is none",
        f"[{PATH}]",
        '["symbols -> channel", { path = "channel -> detector", via = "127.0.0.1" }, '
        '"detector -> errors"]',
        ["mine.toml:20:", "'127.0.0.1'", "tcp://127.0.0.1:5555"],
    ),
    (
        "another host",
        "[edges]",
        '[workers]\nrx = { blocks = ["detector"], host = "b" }\n[edges]',
        ["mine.toml:20:", "another host", "not built yet"],
    ),
]

#: On the command line, in a folder with mine.toml and broken.py.
ON_THE_COMMAND_LINE = [
    (["rnu", "mine.toml"], ["kalvit", "'rnu'", "'run'", "--help"]),
    (["run"], ["kalvit run", "FLOW", "--help"]),
    (["run", "mine.toml", "--frmes", "3"], ["kalvit run", "--frmes", "--frames"]),
    (["run", "mine.toml", "more"], ["kalvit run", "more", "--help"]),
    (["run", "mine.toml", "--frames", "few"], ["--frames", "'few'", "whole number"]),
    (["run", "mine.toml", "--frames", "-3"], ["--frames", "'-3'", "at least 0"]),
    (["run", "mine.toml", "--frames", "1.5"], ["--frames", "'1.5'", "whole number"]),
    (["run", "mine.toml", "--seconds", "nan"], ["--seconds", "'nan'", "at least 0"]),
    (["run", "mine.toml", "--seconds", "inf"], ["--seconds", "'inf'", "number of seconds"]),
    (["run", "mine.toml", "--seed", "one"], ["--seed", "'one'", "whole number"]),
    (["run", "mine.toml", "--seed", "9" * 30], ["mine.toml", "seed", "below 2^63"]),
    (["run", "isi_viterby"], ["no flow named 'isi_viterby'", "did you mean 'isi_viterbi'"]),
    (["run", "mine"], ["no flow named 'mine'", "path", ".toml"]),
    (["run", "min.toml"], ["min.toml: no such file", "did you mean 'mine.toml'"]),
    (["run", "."], [".: cannot be read", "directory"]),
    (["run", "mine.toml", "--set", "snr_db=3"], ["'snr_db=3'", "BLOCK.PARAMETER=VALUE"]),
    (["run", "mine.toml", "--set", "canal.snr_db=3"], ["mine", "'canal'", "channel"]),
    (["run", "mine.toml", "--set", "channel.snr=3"], ["channel.snr", "did you mean 'snr_db'"]),
    (["run", "mine.toml", "--set", "channel.snr_db=hi"], ["channel.snr_db", "hi is no TOML"]),
    (["run", "mine.toml", "--set", "channel.snr_db="], ["channel.snr_db=", "no value"]),
    (["run", "mine.toml", "--set"], ["--set", "argument"]),
    (["run", "mine.toml", "--worker", "detector"], ["'detector'", "NAME=BLOCK,BLOCK"]),
    (["run", "mine.toml", "--worker", "rx=detektor"], ["'detektor'", "did you mean 'detector'"]),
    (
        ["run", "mine.toml", "--worker", "a=detector", "--worker", "b=detector"],
        ["--worker b=detector", "'detector' is in --worker a=detector already"],
    ),
    (["run", "mine.toml", "--json", "none/a.json"], ["none/a.json", "no directory"]),
    (["run", "mine.toml", "--json", "."], ["--json .", "is a directory"]),
    (["run", "mine.toml", "--blocks", "none.py"], ["none.py", "no such Python file"]),
    (["run", "mine.toml", "--blocks", "broken.py"], ["broken.py:3:", "'('"]),
    (["run", "mine.toml", "--blocks", "blockless.py"], ["blockless.py", "defines no block"]),
    (["run", "mine.toml", "--blocks", "failing.py"], ["failing.py:2:", "ZeroDivisionError"]),
    (["check", "none.toml"], ["none.toml: no such file"]),
    (["show", "detector.viterby"], ["'detector.viterby'", "did you mean 'detector.viterbi'"]),
    (["show", "viterbi"], ["no flow or block named 'viterbi'", "'detector.viterbi'"]),
    (["show", "zzz"], ["no flow or block named 'zzz'", "kalvit list"]),
    (["list", "flow"], ["'flow'", "did you mean 'flows'"]),
    (["list", "colours"], ["'colours'", "flows and blocks and models"]),
    (["stop"], ["no flow is running"]),
    (["status", "isi_viterbi-abcdef"], ["no run named 'isi_viterbi-abcdef'", "no flow is running"]),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to work in: no other run is seen from it, and none sees its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KALVIT_RUNS", str(tmp_path / "runs"))
    (tmp_path / "mine.toml").write_text(FLOW)
    (tmp_path / "broken.py").write_text("x = 1\ny = 2\nz = f(1\n")
    (tmp_path / "blockless.py").write_text("x = 1\n")
    (tmp_path / "failing.py").write_text("x = 0\ny = 1 / x\n")
    sockets = Path("/tmp") / f"kalvit-test-{os.getpid()}"  # noqa: S108 (socket paths are short)
    sockets.mkdir(mode=0o700, exist_ok=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(sockets))
    yield tmp_path
    left = list((sockets / "kalvit").glob("*")) if (sockets / "kalvit").exists() else []
    assert not left, f"a mistake left {left} behind"
    (sockets / "kalvit").rmdir() if (sockets / "kalvit").exists() else None
    sockets.rmdir()


@pytest.fixture
def kalvit(folder, monkeypatch, capfd):
    """The command in this process: returns its exit code, standard output and error."""

    def call(*argv):
        monkeypatch.setattr(sys, "argv", ["kalvit", *argv])
        code = cli.run_app()
        return code, *capfd.readouterr()

    return call


def assert_told(code, out, err, said):
    assert code == 2, err
    assert out == ""
    assert err.startswith("error: ")
    assert "Traceback" not in err
    assert err.endswith("\n")
    assert len(err.splitlines()) <= 6, err
    for part in said:
        assert part in err


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [case[1:] for case in IN_A_FLOW],
    ids=[case[0] for case in IN_A_FLOW],
)
def test_mistakes_in_a_flow_file_are_named_with_their_line(kalvit, folder, old, new, said):
    assert FLOW.count(old) == 1
    (folder / "mine.toml").write_text(FLOW.replace(old, new))
    assert_told(*kalvit("run", "mine.toml"), said)
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("argv", "said"), ON_THE_COMMAND_LINE, ids=[" ".join(argv) for argv, _ in ON_THE_COMMAND_LINE]
)
def test_mistakes_on_the_command_line_are_named(kalvit, folder, argv, said):
    assert_told(*kalvit(*argv), said)
    assert not (folder / "runs").exists()


def test_flow_file_that_is_no_text_is_named_with_its_line(kalvit, folder):
    (folder / "mine.toml").write_bytes(b'name = "mine"\ndoc = "\xff"\n')
    assert_told(*kalvit("check", "mine.toml"), ["mine.toml:2:", "UTF-8"])


# Blocks of one's own

OWN = """\
from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int8

from pipeline.block import Block, param
from pipeline.frame import Array

class Decided(NamedTuple):
    symbols: Int8[Array, "*word time"]

class Own(Block, name="detector.own"):
    gain: float = param(default=1.0, doc="factor")

    def process(self, samples: Float32[Array, "*word time"]) -> Decided:
        return Decided(np.sign(samples).astype(np.int8))
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("def process", "def proces", ["mine.toml:13:", "Own has no method `process`"]),
        ("Float32, Int8", "Float32", ["mine.toml:13:", "annotation in Decided", "'Int8'"]),
        ("gain: float", "gain: flot", ["mine.toml:13:", "annotation in Own", "'flot'"]),
        ("gain: float", "gain: np.ndarray", ["mine.toml:13:", "numpy.ndarray", "use numbers"]),
        ('Float32[Array, "*word time"]', "float", ["'samples' is annotated float", "Float32["]),
        (": Float32[Array", ", x: Float32[Array", ["argument 'samples' has no annotation"]),
        (") -> Decided", ") -> int", ["mine.toml:13:", "returns int", "NamedTuple"]),
        (", doc=", ", dox=", ["own.py:15: TypeError", "'dox'"]),
        ('"detector.own"', '"Own"', ["own.py: block name 'Own'", "'detector.mine'"]),
        ('"detector.own"', '"detector.viterbi"', ["own.py: there is a block named", "another"]),
        (", name=", ", nam=", ["own.py:14: TypeError"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_in_a_block_are_named(kalvit, folder, monkeypatch, old, new, said):
    monkeypatch.setattr(Block, "registry", dict(Block.registry))
    monkeypatch.setattr(catalogue, "_files", {})
    (folder / "own.py").write_text(OWN.replace(old, new, 1))
    (folder / "mine.toml").write_text(FLOW.replace(VITERBI, 'use = "detector.own"'))
    assert_told(*kalvit("check", "mine.toml", "--blocks", "own.py"), said)


def test_a_block_that_was_not_loaded_is_named_with_the_way_to_load_it(kalvit, folder):
    (folder / "mine.toml").write_text(FLOW.replace(VITERBI, 'use = "own.block"'))
    assert_told(*kalvit("check", "mine.toml"), ["mine.toml:13:", "'own.block'", "--blocks FILE"])


# Recordings


def replay(folder, path, **parameters):
    """A flow that plays back a recording."""
    more = "".join(f"{name} = {json.dumps(value)}\n" for name, value in parameters.items())
    (folder / "replay.toml").write_text(
        f'name = "replay"\n[blocks.tape]\nuse = "source.recording"\npath = "{path}"\n{more}'
        '[blocks.end]\nuse = "sink.null"\n[edges]\ndata = ["tape -> end"]\n'
    )


def test_missing_recording_is_named(kalvit, folder):
    replay(folder, "none.cf32")
    assert_told(
        *kalvit("run", "replay.toml"), ["replay.toml:2:", "none.cf32", "No such file or directory"]
    )


def test_empty_recording_is_named(kalvit, folder):
    (folder / "tape.cf32").touch()
    replay(folder, "tape.cf32")
    assert_told(*kalvit("run", "replay.toml"), ["replay.toml:", "tape.cf32 is empty"])


def test_recording_of_an_unknown_format_is_named_with_the_known_ones(kalvit, folder):
    (folder / "tape.bin").write_bytes(b"12345678")
    replay(folder, "tape.bin")
    assert_told(*kalvit("run", "replay.toml"), ["replay.toml:", "tape.bin", "format", "cf32"])


def test_recording_that_ends_inside_a_sample_is_named(kalvit, folder):
    (folder / "tape.cf32").write_bytes(bytes(8 * 10 + 3))
    replay(folder, "tape.cf32")
    assert_told(*kalvit("run", "replay.toml"), ["replay.toml:", "tape.cf32", "83 bytes"])


def test_truncated_wav_is_named_with_both_lengths(kalvit, folder):
    with wave.open("tape.wav", "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(2000))
    whole = (folder / "tape.wav").read_bytes()
    (folder / "tape.wav").write_bytes(whole[:-500])
    replay(folder, "tape.wav")
    assert_told(
        *kalvit("run", "replay.toml"), ["replay.toml:", "tape.wav was cut short", "2000", "1500"]
    )


def test_file_that_is_no_wav_is_named(kalvit, folder):
    (folder / "tape.wav").write_bytes(struct.pack("<100h", *range(100)))
    replay(folder, "tape.wav")
    assert_told(*kalvit("run", "replay.toml"), ["replay.toml:", "tape.wav is no WAV file"])


def sigmf(folder, data=bytes(800), **changed):
    (folder / "tape.sigmf-data").write_bytes(data)
    about = {"core:datatype": "cf32_le", "core:version": "1.2.0", "core:sample_rate": 1e6}
    meta = {"global": about | changed, "captures": [{"core:sample_start": 0}], "annotations": []}
    (folder / "tape.sigmf-meta").write_text(json.dumps(meta))


def test_sigmf_of_the_wrong_length_is_named(kalvit, folder):
    sigmf(folder, bytes(803))
    replay(folder, "tape.sigmf-meta")
    assert_told(*kalvit("run", "replay.toml"), ["replay.toml:", "tape.sigmf-data", "803 bytes"])


def test_sigmf_that_does_not_match_its_digest_is_named(kalvit, folder):
    sigmf(folder, **{"core:sha512": "0" * 128})
    replay(folder, "tape.sigmf-meta", verify=True)
    assert_told(*kalvit("run", "replay.toml"), ["replay.toml:", "tape.sigmf-data", "SHA-512"])


def test_sigmf_without_its_data_is_named(kalvit, folder):
    sigmf(folder)
    (folder / "tape.sigmf-data").unlink()
    replay(folder, "tape.sigmf-meta")
    assert_told(*kalvit("run", "replay.toml"), ["replay.toml:", "tape.sigmf-data"])


def record(folder, **parameters):
    """A flow that records what a channel gives."""
    more = "".join(f"{name} = {json.dumps(value)}\n" for name, value in parameters.items())
    tape = f'use = "sink.recording"\n{more}'
    (folder / "record.toml").write_text(
        FLOW.replace('use = "sink.error_rate"\n', tape).replace('"mine"', '"record"')
    )


def test_recording_over_an_existing_one_is_refused(kalvit, folder):
    (folder / "tape.sigmf-data").touch()
    record(folder, path="tape")
    assert_told(
        *kalvit("run", "record.toml"), ["record.toml:", "tape.sigmf-data exists", "overwrite"]
    )


def test_recording_into_a_missing_folder_is_refused(kalvit, folder):
    record(folder, path="none/tape")
    assert_told(*kalvit("run", "record.toml"), ["record.toml:", "no folder", "none"])


# What only shows when the workers start, in processes of their own


def in_a_process(*argv, **options):
    done = subprocess.run(
        [*KALVIT, *argv], capture_output=True, text=True, timeout=60, check=False, **options
    )
    return done.returncode, done.stdout, done.stderr


def test_port_that_is_taken_is_named(folder):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        address = f"tcp://127.0.0.1:{holder.getsockname()[1]}"
        edge = f'{{ path = "channel -> detector", via = "{address}" }}'
        flow = FLOW.replace(f"[{PATH}]", f'["symbols -> channel", {edge}, "detector -> errors"]')
        (folder / "mine.toml").write_text(flow)
        told = in_a_process("run", "mine.toml", "--worker", "rx=detector")
    assert_told(*told, [address, "Address already in use", "choose another port"])


def test_full_disk_while_recording_is_named(folder):
    record(folder, path="tape")
    # a limit on the size of files stands for a disk that is full; 40 frames are 160 kB
    most = 100_000
    told = in_a_process(
        "run", "record.toml",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
    )  # fmt: skip
    code, out, err = told
    assert_told(code, "", err, ["errors", "cannot write", "tape.sigmf-data", "File too large"])
    assert "Traceback" not in out


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ("mine.toml", ["mine.toml", "KALVIT_RUNS"]),  # a file
        ("mine.toml/runs", ["mine.toml", "KALVIT_RUNS"]),
        ("/proc/kalvit", ["/proc/kalvit", "KALVIT_RUNS"]),  # where even root can make nothing
    ],
)
def test_results_that_cannot_be_written_are_named_with_the_way_out(kalvit, monkeypatch, runs, said):
    monkeypatch.setenv("KALVIT_RUNS", runs)
    assert_told(*kalvit("run", "mine.toml"), said)


def test_sockets_that_cannot_be_made_are_named_with_the_way_out(kalvit, folder, monkeypatch):
    deep = folder / ("d" * 120)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    assert_told(*kalvit("run", "mine.toml"), ["107 bytes", "XDG_RUNTIME_DIR"])


def test_source_that_ends_inside_a_sample_is_named(folder):
    replay(folder, "-", format="cf32")
    told = in_a_process("run", "replay.toml", input="12345")
    code, out, err = told
    assert_told(code, "", err, ["tape", "standard input ends inside a sample"])
    assert "Traceback" not in out
