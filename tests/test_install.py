"""What is shipped: the wheel is complete, and runs in an environment that has nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("pipeline", "blocks", "flows")


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command away from the checkout, with nothing of it on the path."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTHON", "KALVIT", "VIRTUAL_ENV", "COV_"))
    }
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=250
    )


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    succeeded(
        run(
            sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT,
            folder=folder,
        )
    )  # fmt: skip
    (built,) = folder.glob("kalvit-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scripts folder of a new environment with the wheel and what it depends on, no extras."""
    folder = tmp_path_factory.mktemp("environment")
    succeeded(run(sys.executable, "-m", "venv", folder / "venv", folder=folder))
    scripts = folder / "venv" / "bin"
    pip = (scripts / "python", "-m", "pip")
    pinned = ("--constraint", ROOT / "constraints.txt")
    probe = run(*pip, "download", "--no-deps", *pinned, "msgpack", folder=folder)
    if probe.returncode:
        pytest.skip(f"needs a package registry; pip said {probe.stderr.strip().splitlines()[-1:]}")
    succeeded(run(*pip, "install", "--no-compile", *pinned, wheel, folder=folder))
    return scripts


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    expected = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name[0] != "."
    }
    held = set(zipfile.ZipFile(wheel).namelist())
    shipped = {name for name in held if name.startswith(tuple(f"{p}/" for p in PACKAGES))}
    assert shipped == expected
    assert "flows/isi_viterbi.toml" in shipped
    assert any(name.endswith("/licenses/LICENSE") for name in held)


def test_the_wheel_installs_only_its_packages(wheel: Path) -> None:
    folders = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in folders if not name.endswith(".dist-info")} == set(PACKAGES)


def test_a_flow_runs_in_an_empty_environment_without_torch(installed: Path, tmp_path: Path) -> None:
    which = run(
        installed / "python", "-c", "import pipeline; print(pipeline.__file__)", folder=tmp_path
    )
    assert Path(succeeded(which)).is_relative_to(installed.parent)
    assert run(installed / "python", "-c", "import torch", folder=tmp_path).returncode != 0

    assert "isi_viterbi" in succeeded(run(installed / "kalvit", "list", "flows", folder=tmp_path))
    succeeded(
        run(
            installed / "kalvit", "run", "isi_viterbi", "--frames", "5", "--json", "out.json",
            folder=tmp_path,
        )
    )  # fmt: skip
    summary = json.loads((tmp_path / "out.json").read_text())
    assert summary["flow"] == "isi_viterbi"
    assert summary["frames"] == 5
    assert summary["results"]
