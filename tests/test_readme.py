"""Everything that README.md shows is run."""

import json
import re
import shlex
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from pipeline import catalogue, cli
from pipeline.block import Block
from pipeline.local import run

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
FRAMES = 40  # of runs that would go on for longer


def blocks(language):
    return [text for found, text in BLOCKS if found == language]


def commands():
    """Command lines that begin with `kalvit`, without their comments."""
    lines = "".join(blocks("sh")).replace("\\\n", "").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("kalvit ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files that README shows: blocks that begin with a comment of their name."""
    folder = tmp_path_factory.mktemp("readme")
    for language, ending in (("toml", ".toml"), ("python", ".py")):
        for text in blocks(language):
            name = re.match(r"# (\w+\.\w+)\n", text)
            if name:
                assert name[1].endswith(ending)
                (folder / name[1]).write_text(text, encoding="utf-8")
    noise = np.random.default_rng(1).integers(120, 136, 2 * 16384 * (FRAMES + 1), dtype=np.uint8)
    (folder / "modes1.bin").write_bytes(noise.tobytes())  # in the place of a recording
    for name in ("tigrisat.wav", "aprs.wav"):
        with wave.open(str(folder / name), "wb") as file:
            file.setparams((1, 2, 48_000, 0, "NONE", ""))
            file.writeframes(noise[: 2 * 4096 * (FRAMES + 1)].tobytes())
    line = "1457996400.2,8D40621D58C382D690C8AC2863A7\n"
    (folder / "messages.csv").write_text(line * 100 * (FRAMES + 1))
    return folder


def forget_blocks(monkeypatch):
    """Let blocks that a test loads from a file be known for that test only."""
    monkeypatch.setattr(Block, "registry", dict(Block.registry))
    monkeypatch.setattr(catalogue, "_files", {})


@pytest.fixture
def kalvit(folder, monkeypatch, capfd):
    forget_blocks(monkeypatch)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("KALVIT_RUNS", str(folder / "runs"))
    sockets = folder.parent / "s"
    sockets.mkdir(mode=0o700, exist_ok=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(sockets))

    def call(*argv):
        monkeypatch.setattr(sys, "argv", ["kalvit", *argv])
        code = cli.run_app()
        out, err = capfd.readouterr()
        assert (code, err) == (0, "")
        return out

    return call


def test_readme_shows_what_this_test_looks_for():
    assert len(commands()) >= 10
    assert {language for language, _ in BLOCKS} == {"sh", "text", "toml", "python", "json"}


@pytest.mark.parametrize("argv", commands(), ids=" ".join)
def test_commands_do_what_they_should(kalvit, argv):
    command, *rest = argv[1:]
    if rest == ["modes_live"]:  # tests/test_mode_s_samples.py runs it, at ports that are free
        command = "check"
    if command == "run":
        rest += ["--frames", str(FRAMES)]  # the last one counts
    if command == "tune":
        rest += ["--frames", "1", "--seeds", "1"]
    out = kalvit(command, *rest)
    assert out
    if command == "run":
        assert f"{FRAMES} frames in" in out or f"{2 * FRAMES} frames in" in out


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    lines = [line for text in blocks("sh") for line in text.splitlines()]
    targets = {line.split()[1] for line in lines if line.startswith("make ")}
    targets |= set(re.findall(r"`make (\w+)", README))
    assert {"demo", "test", "lint"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_drawing_is_that_of_the_flow(kalvit):
    (drawing,) = blocks("text")
    assert drawing == kalvit("show", "isi_viterbi")


SCRIPTS = [text for text in blocks("python") if not text.startswith("# ")]


@pytest.mark.parametrize("script", SCRIPTS, ids=["flow", "block"])
def test_scripts_run(script, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_sweep_finds_fewer_errors_at_a_higher_snr(capsys):
    (script,) = [text for text in blocks("python") if "sweep" in text]
    exec(script, {})  # noqa: S102 (our own README)
    rates = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
    assert len(rates) == 3
    assert rates[0] > rates[1] > rates[2]


def test_the_block_of_ones_own_loses_to_the_viterbi_algorithm(folder, monkeypatch):
    forget_blocks(monkeypatch)
    catalogue.load_file(folder / "my_blocks.py")
    results = run(folder / "compare.toml", frames=60)["results"]
    rate = {name: result["symbol_error_rate"] for name, result in results.items()}
    assert 0.0 < rate["viterbi_errors"] < rate["feedback_errors"] < 0.5


def test_the_summary_has_the_keys_that_are_shown():
    (text,) = blocks("json")
    shown, real = json.loads(text), run("isi_viterbi", frames=2)
    assert set(shown) == set(real)
    assert set(shown["latency_us"]) == set(real["latency_us"])
    for table, name in (("blocks", "detector"), ("edges", "channel->detector")):
        assert set(shown[table][name]) == set(real[table][name])
    assert set(shown["results"]["errors"]) == set(real["results"]["errors"])


def test_folders_that_are_named_exist():
    named = re.findall(r"^\| `([\w/]+)`", README, re.MULTILINE)
    assert len(named) >= 6
    for folder in named:
        assert (ROOT / folder).is_dir(), folder
