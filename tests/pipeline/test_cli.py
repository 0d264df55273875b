"""The command line, in this process where that is enough, and in a terminal where it matters."""

import importlib.metadata
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import EntryPoint

import pytest

from blocks import CATALOGUE
from pipeline import catalogue, cli, doctor, rundir
from pipeline.block import Block
from pipeline.cli import running
from pipeline.draw import draw_mermaid, draw_text
from pipeline.flow import Flow

KALVIT = [sys.executable, "-m", "pipeline"]
COMMANDS = ("run", "check", "show", "list", "tune", "status", "swap", "stop", "models", "doctor")
FLOW = """\
name = "toy"
doc = '''
What it is.
More of it.
'''

[blocks.symbols]
use = "source.random_symbols"
length = 100
frames = 50

[blocks.channel]
use = "channel.awgn"
snr_db = 3.0

[blocks.detector]
use = "detector.viterbi"
taps = [1.0]

[blocks.errors]
use = "sink.error_rate"

[edges]
data = ["symbols -> channel -> detector -> errors"]
"""
OWN_BLOCK = '''\
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int8

from pipeline.block import Block
from pipeline.frame import Array


class Decided(NamedTuple):
    symbols: Int8[Array, "*word time"]


class Signs(Block, name="detector.signs"):
    """The sign of each sample."""

    def process(self, samples: Float32[Array, "*word time"]) -> Decided:
        return Decided(np.where(samples < 0, -1, 1).astype(np.int8))
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with toy.toml, in which runs of its own begin and end."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.toml").write_text(FLOW)
    sockets = tmp_path.parent / "s"  # short: a socket path has 107 bytes
    sockets.mkdir(mode=0o700, exist_ok=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(sockets))
    monkeypatch.delenv("KALVIT_RUNS", raising=False)
    return tmp_path


@pytest.fixture
def kalvit(folder, monkeypatch, capfd):
    """The command in this process: returns its exit code, standard output and error."""
    monkeypatch.setattr(Block, "registry", dict(Block.registry))  # a test may load its own
    monkeypatch.setattr(catalogue, "_files", {})

    def call(*argv):
        monkeypatch.setattr(sys, "argv", ["kalvit", *argv])
        code = cli.run_app()
        return code, *capfd.readouterr()

    return call


def modules_after(*argv):
    """Modules that a fresh process has imported once the command has ended."""
    program = (
        "import sys; from pipeline import cli; sys.argv = ['kalvit', *sys.argv[1:]]; "
        "code = cli.run_app(); print(); print(*sys.modules); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *argv], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


# Help


def test_help_imports_nothing_that_computes():
    heavy = {"torch", "numba", "pydantic.fields", "numpy", "scipy", "matplotlib", "zmq"}
    assert not heavy & modules_after("--help")


def test_listing_blocks_imports_neither_torch_nor_numba_nor_a_block():
    found = modules_after("list", "blocks")
    assert not {"torch", "numba", "matplotlib"} & found
    assert not any(name.startswith("blocks.") for name in found)


@pytest.mark.parametrize("command", ["check", "show"])
def test_looking_at_a_flow_imports_no_kernel(command):
    assert not {"torch", "numba", "matplotlib"} & modules_after(command, "isi_viterbi")


def test_help_names_every_command_with_a_whole_sentence(kalvit):
    for argv in ((), ("--help",), ("-h",)):
        code, out, err = kalvit(*argv)
        assert (code, err) == (0, "")
        for command in COMMANDS:
            (line,) = [line for line in out.splitlines() if line.split()[:1] == [command]]
            assert line.endswith(".")
            assert "..." not in line


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_text_for_each_argument(kalvit, command):
    code, out, _ = kalvit(command, "--help")
    assert code == 0
    for line in out.splitlines():
        if line.startswith("  --") and "--help" not in line:
            assert len(line.split("  ")) > 2, line


def test_version_is_that_of_the_distribution(kalvit):
    code, out, _ = kalvit("--version")
    assert (code, out) == (0, f"kalvit {importlib.metadata.version('kalvit')}\n")


def test_packages_add_commands_by_entry_points(kalvit, folder, monkeypatch):
    (folder / "toy_command.py").write_text(
        "import typer\n\ndef greet(name: str, loud: bool = False) -> None:\n"
        '    """Say hello."""\n    print(f"hello {name}")\n    raise typer.Exit(3)\n'
    )
    monkeypatch.syspath_prepend(str(folder))
    entry = EntryPoint("greet", "toy_command:greet", "kalvit.commands")
    monkeypatch.setattr(
        importlib.metadata,
        "entry_points",
        lambda group: [entry] if group == "kalvit.commands" else [],
    )
    assert "greet   Say hello." in kalvit("--help")[1]
    assert kalvit("greet", "you")[:2] == (3, "hello you\n")
    assert kalvit("greet")[0] == 2


# Looking at flows and blocks


def test_list_shows_flows_and_blocks_with_a_line_each(kalvit):
    kinds = ("flows", "blocks", "models")
    flows, blocks, models = (kalvit("list", kind)[1] for kind in kinds)
    said = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in flows.splitlines())
    assert said["isi_viterbi"] == (
        "BPSK over a channel with four taps, detected by the Viterbi algorithm."
    )
    assert [line.split()[0] for line in blocks.splitlines()] == sorted(catalogue.names())
    told = {line.split()[0] for line in blocks.splitlines() if len(line.split()) > 1}
    assert told >= set(CATALOGUE)  # other tests' blocks may say nothing of themselves
    indented = [line.strip() for line in kalvit("list")[1].splitlines()]
    expected = zip(kinds, (flows, blocks, models), strict=True)
    assert indented == [line for kind, out in expected for line in (kind, *out.splitlines())]


def test_show_draws_a_flow_as_text_or_mermaid(kalvit):
    flow = Flow.load("toy.toml")
    flow.assign("rx", ["detector"])
    options = ("show", "toy.toml", "--worker", "rx=detector")
    assert kalvit(*options) == (0, draw_text(flow.check()) + "\n", "")
    assert kalvit(*options, "--mermaid") == (0, draw_mermaid(flow.check()) + "\n", "")


def test_show_prints_the_card_of_a_block(kalvit):
    code, out, _ = kalvit("show", "channel.awgn")
    assert code == 0
    for part in ("channel.awgn: The symbols plus", "snr_db", "[dB]", "reads", "sent", "writes"):
        assert part in out


def test_show_survives_a_terminal_without_the_characters_it_draws_with(folder):
    done = subprocess.run(
        [*KALVIT, "show", "toy.toml"], capture_output=True, check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"detector" in done.stdout


def test_check_says_which_worker_runs_what(kalvit):
    code, out, err = kalvit("check", "toy.toml", "--worker", "rx=detector")
    assert (code, err) == (0, "")
    assert "toy is ready to run: 4 blocks" in out
    assert "workers main: symbols, channel, errors; rx: detector" in out


def test_a_reader_that_has_seen_enough_ends_it_without_a_word(folder):
    with subprocess.Popen(
        [*KALVIT, "list", "blocks"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 128 + signal.SIGPIPE


# Running


def test_run_prints_and_writes_its_summary(kalvit, folder):
    (folder / "own.py").write_text(OWN_BLOCK)
    (folder / "toy.toml").write_text(
        FLOW.replace('"detector.viterbi"\ntaps = [1.0]', '"detector.signs"')
    )
    code, out, err = kalvit(
        "run", "toy.toml", "--blocks", "own.py", "--worker", "rx=detector", "--seed", "5",
        "--frames", "20", "--json", "a.json",
    )  # fmt: skip
    assert (code, err) == (0, "")
    found = json.loads((folder / "a.json").read_text())
    (runs,) = (folder / "runs").iterdir()
    assert found == json.loads((runs / "summary.json").read_text())
    assert (found["flow"], found["seed"], found["frames"]) == ("toy", 5, 20)
    assert set(found["latency_us"]) == {"p50", "p99", "p999"}
    assert list(found["blocks"]) == ["symbols", "channel", "detector", "errors"]
    assert all(block["frames"] == 20 for block in found["blocks"].values())
    assert set(found["blocks"]["detector"]) == {"frames", "busy_s", "us_per_frame"}
    edge = found["edges"]["channel->detector"]
    assert (edge["frames"], edge["lost"], edge["dropped"]) == (22, 0, 0)  # start and end, too
    assert edge["bytes"] > 20 * 100 * 4
    assert found["results"]["errors"]["symbols"] == 2000
    assert "toy: 20 frames in" in out
    assert "errors: symbol error rate" in out
    assert f"picture: runs/{runs.name}/errors.png" in out
    assert (runs / "errors.png").read_bytes().startswith(b"\x89PNG")
    assert not list((folder.parent / "s" / "kalvit").iterdir())


def wait_until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
    return found


def test_a_running_flow_tells_its_status_and_stops_when_asked(kalvit, folder):
    endless = [*KALVIT, "run", "toy.toml", "--set", "symbols.frames=0", "--set", "symbols.rate=200"]
    with subprocess.Popen(endless, stdout=subprocess.PIPE, text=True) as process:
        try:
            (name,) = wait_until(rundir.running)

            def status():
                code, out, _ = kalvit("status")
                return out if code == 0 and "  detector  " in out else ""

            told = wait_until(status)
            assert told.startswith(f"{name}: ")
            assert "worker main: process" in told
            assert kalvit("stop", name)[:2] == (0, f"{name} is stopping\n")
            assert process.wait(30) == 0
            assert "toy: " in process.stdout.read()
        finally:
            process.kill()
    assert kalvit("status")[0] == 2


def in_a_terminal(argv, until=b"", keys=b"", **env):
    """Exit code and output of a command in a terminal; `keys` are typed once `until` is seen."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", COLUMNS="70", LINES="20", **env)
        os.execv(argv[0], argv)  # noqa: S606
    output = b""
    try:
        while True:
            output += os.read(terminal, 65536)
            if keys and until in output:
                os.write(terminal, keys)
                keys = b""
    except OSError:  # its other end is closed
        pass
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), output.decode()


def test_in_a_terminal_a_live_table_is_shown_and_taken_away(folder):
    code, out = in_a_terminal(
        [*KALVIT, "run", "toy.toml", "--seconds", "1", "--set", "symbols.frames=0",
         "--set", "symbols.rate=200"],
        NO_COLOR="1",
    )  # fmt: skip
    assert code == 0
    assert "us/frame p50" in out
    assert "━" in out
    assert "s left" in out
    assert "\x1b[3" not in out.replace("\x1b[3A", "")  # no colours
    live, _, final = out.rpartition("\x1b[?25h")  # the cursor comes back
    assert "\x1b[?25l" in live
    assert "\x1b" not in final.split("toy: ")[1]
    assert "summary: runs/toy-" in final


def test_ctrl_c_leaves_a_summary_and_a_clean_terminal(folder):
    code, out = in_a_terminal(
        [*KALVIT, "run", "toy.toml", "--set", "symbols.frames=0", "--set", "symbols.rate=200"],
        until=b"detector", keys=b"\x03",
    )  # fmt: skip
    assert code == 128 + signal.SIGINT
    assert "Traceback" not in out
    final = out.rpartition("\x1b[?25h")[2]
    assert "\x1b[?25l" not in final
    assert ", interrupted" in final
    assert "summary: runs/toy-" in final


def test_without_a_terminal_plain_lines_tell_how_far_a_run_is(capsys, monkeypatch):
    monkeypatch.setattr(running.Screen, "FIRST_S", -1.0)
    blocks = {"detector": {"frames": 5, "busy_s": 0.1, "us_per_frame": {"p50": 1, "p99": 2}}}
    summary = {
        "run": "toy-1", "frames": 5, "seconds": 1.0, "frames_per_s": 5.0, "left": None,
        "latency_us": {"p50": 1.0, "p99": 2.0, "p999": 3.0}, "blocks": blocks, "edges": {},
        "models": {}, "results": {"errors": {"symbol_error_rate": 0.5}},
    }  # fmt: skip
    with running.Screen(4.0) as screen:
        screen.show(summary)
    (line,) = capsys.readouterr().out.splitlines()
    assert line == (
        "1.0 s, 25 %, 3 s left, 5 frames, 5 frames/s, latency p50 1 us, p99 2 us, p99.9 3 us; "
        "errors: symbol error rate 0.5"
    )


# Doctor


def test_doctor_names_versions_folders_and_nothing_wrong(kalvit):
    code, out, _ = kalvit("doctor")
    assert code == 0, out
    for part in ("kalvit 0", "numpy ", "libzmq ", "threads", "results go to", "isi_viterbi"):
        assert part in out


def test_doctor_says_how_to_get_what_is_missing(kalvit, monkeypatch):
    version = doctor._version
    monkeypatch.setattr(
        doctor, "_version", lambda name: "" if name in ("numba", "torch") else version(name)
    )
    code, out, _ = kalvit("doctor")
    assert code == 1
    assert "! numba is not installed: pip install numba" in out
    assert "- torch is not installed; needed to train learned blocks: pip install" in out


def test_doctor_names_a_place_where_nothing_can_be_written(kalvit, folder, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: "blocks" in str(path))
    monkeypatch.setenv("KALVIT_RUNS", str(folder / "none" / "runs"))
    code, out, _ = kalvit("doctor")
    assert code == 1
    assert f"! {folder} cannot be written to; set KALVIT_RUNS" in out
