"""Finding blocks and flows by name: own ones, other packages' and those in a user's file."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
import toy_blocks

import blocks
from pipeline import catalogue
from pipeline.block import Block
from pipeline.errors import FlowError, KalvitError
from pipeline.flow import Flow

register = toy_blocks.register

PLUGIN = """
BLOCKS = {
    "detector.other": "plugin_blocks.inner.other:Other",
    "detector.broken": "plugin_blocks.inner.broken:Broken",
    "detector.heavy": "plugin_blocks.inner.heavy:Heavy",
    "detector.gone": "plugin_blocks.inner.gone:Gone",
    "detector.misnamed": "plugin_blocks.inner.other:Other",
    "detector.absent": "plugin_blocks.inner.other:Absent",
    "sink.nosink": "plugin_blocks.inner.other:NoSink",
}
LIST = ["detector.other"]
WRONG = {
    "detector.viterbi": "plugin_blocks.inner.other:Other",
    "Other": "plugin_blocks.inner.other:Other",
    "detector.x": "plugin_blocks.inner.other",
    3: "a:b",
}
"""
OTHER = '''
from pipeline.block import Block

class Other(Block, name="detector.other"):
    """Decides otherwise.

    More.
    """
    def process(self) -> None: ...

class NoSink(Block, name="sink.nosink"):
    def process(self) -> None: ...
'''


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A package with blocks and flows; returns a function that installs its entry points."""
    inner = tmp_path / "plugin_blocks" / "inner"
    inner.mkdir(parents=True)
    (inner.parent / "__init__.py").write_text(PLUGIN)
    (inner / "__init__.py").write_text("")
    (inner / "other.py").write_text(OTHER)
    (inner / "broken.py").write_text("from pipeline.block import NoSuchThing")
    (inner / "heavy.py").write_text("import torch")
    (inner.parent / "lone.toml").write_text('name = "lone"\n[blocks.end]\nuse = "sink.null"')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(Block, "registry", dict(Block.registry))
    real = catalogue.entry_points

    def install(*entries: tuple[str, str]) -> None:
        points = [EntryPoint("plugin", value, group) for group, value in entries]
        monkeypatch.setattr(
            catalogue,
            "entry_points",
            lambda group: [*points_of(points, group), *real(group=group)],
        )
        catalogue._catalogue.cache_clear()

    yield install
    catalogue._catalogue.cache_clear()
    for name in [name for name in sys.modules if name.startswith("plugin_blocks")]:
        del sys.modules[name]


def points_of(points, group):
    return [point for point in points if point.group == group]


def test_the_projects_own_blocks_are_listed():
    names = catalogue.names()
    assert names.items() >= blocks.CATALOGUE.items()
    assert catalogue.flows()["isi_viterbi"].name == "isi_viterbi.toml"
    assert catalogue.problems() == ()


def test_listing_imports_no_block():
    code = (
        "import sys; from pipeline import catalogue\n"
        "lines = [catalogue.one_line(name) for name in catalogue.names()]\n"
        "assert all(lines), lines\n"
        "loaded = [m for m in sys.modules if m.split('.')[0] in ('torch', 'numba', 'matplotlib')]\n"
        "loaded += [m for m in sys.modules if m.startswith('blocks.')]\n"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_block_is_imported_when_it_is_found():
    assert catalogue.find("sink.null").name == "sink.null"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("detector.viterbi_", r"no block named 'detector.viterbi_'; did you mean 'detector.vite"),
        ("q", r"no block named 'q'; `kalvit list blocks` lists them"),
    ],
)
def test_an_unknown_block_is_refused_with_the_nearest_name(name, error):
    with pytest.raises(FlowError, match=error):
        catalogue.find(name)


def test_the_first_docstring_line_is_found_without_an_import(plugin):
    plugin(("kalvit.blocks", "plugin_blocks:BLOCKS"))
    assert catalogue.one_line("detector.other") == "Decides otherwise."
    assert "plugin_blocks.inner" not in sys.modules
    for name in ("sink.nosink", "detector.gone", "detector.broken", "no.such"):
        assert catalogue.one_line(name) == ""


def test_the_first_docstring_line_of_a_defined_block_is_its_own(register):
    assert catalogue.one_line("source.toy") == "Zeros, as samples and as symbols."
    assert catalogue.one_line("encoder.toy") == ""
    assert catalogue.names()["source.toy"] == "toy_blocks:ToySource"
    assert catalogue.find("source.toy") is toy_blocks.ToySource


def test_other_packages_add_blocks_and_flows(plugin):
    plugin(("kalvit.blocks", "plugin_blocks:BLOCKS"), ("kalvit.flows", "plugin_blocks"))
    assert catalogue.find("detector.other").__doc__.startswith("Decides otherwise.")
    assert list(Flow.load("lone").blocks) == ["end"]
    assert catalogue.flows()["lone"].name == "lone.toml"
    assert "isi_viterbi" in catalogue.flows()
    assert catalogue.problems() == ()


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("detector.gone", r"'detector.gone' is listed, but its module plugin_blocks.inner.gone is "
         r"missing; install the package that brings it again"),
        ("detector.broken", r"'detector.broken' cannot be used: importing plugin_blocks.inner.bro"),
        ("detector.misnamed", r'is no block of that name; write\n    class Other\(Block, name="de'),
        ("detector.absent", r"is no block of that name"),
        ("sink.nosink", r"block 'sink.nosink' is no Sink; derive NoSink from pipeline.block.Sink"),
    ],
)  # fmt: skip
def test_a_listed_block_that_cannot_be_had_says_why(plugin, name, error):
    plugin(("kalvit.blocks", "plugin_blocks:BLOCKS"))
    with pytest.raises(KalvitError, match=error):
        catalogue.find(name)


def test_a_missing_package_is_named_with_what_to_install(plugin, monkeypatch):
    plugin(("kalvit.blocks", "plugin_blocks:BLOCKS"))
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(KalvitError, match=r"'detector.heavy' cannot be used: .*torch.*; install it "
                                          r"with: pip install 'kalvit\[train\]'"):  # fmt: skip
        catalogue.find("detector.heavy")
    heavy = sys.modules["plugin_blocks.inner"].__path__[0] + "/heavy.py"
    with open(heavy, "w") as file:
        file.write("import no_such_package.inner")
    with pytest.raises(KalvitError, match=r"; install it with: pip install no_such_package$"):
        catalogue.find("detector.heavy")


def test_a_faulty_package_leaves_the_rest_alone(plugin):
    plugin(
        ("kalvit.blocks", "plugin_blocks:WRONG"),
        ("kalvit.blocks", "plugin_blocks:LIST"),
        ("kalvit.blocks", "no_such_package:BLOCKS"),
        ("kalvit.flows", "no_such_package"),
        ("kalvit.flows", "plugin_blocks.inner.other"),
    )
    assert catalogue.names()["detector.viterbi"] == "blocks.detector.viterbi:Viterbi"
    assert "detector.other" not in catalogue.names()
    problems = "\n".join(catalogue.problems())
    for text in (
        "'detector.viterbi' of plugin: there is a block of this name already",
        "'Other' of plugin: expected 'role.name': 'module:Class'",
        "'detector.x' of plugin: expected",
        "3 of plugin: expected",
        "blocks of plugin: TypeError: plugin_blocks:LIST is no dict",
        "blocks of plugin: ModuleNotFoundError: No module named 'no_such_package'",
        "flows of plugin: no_such_package is no package",
        "flows of plugin: plugin_blocks.inner.other is no package",
    ):
        assert text in problems
    with pytest.raises(FlowError, match=r"no block named 'detector.zzz'.* \(left out: "):
        catalogue.find("detector.zzz")


def test_two_flows_of_one_name_are_a_problem(plugin):
    plugin(("kalvit.flows", "plugin_blocks"))
    folder = catalogue.flows()["lone"].parent
    (folder / "isi_viterbi.toml").write_text('name = "isi_viterbi"')
    catalogue._catalogue.cache_clear()
    assert catalogue.flows()["isi_viterbi"].parent != folder
    assert "there is a flow named 'isi_viterbi' already" in catalogue.problems()[0]


# A user's own file


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A function that writes a user's file; what it defines is forgotten after the test."""
    monkeypatch.setattr(Block, "registry", dict(Block.registry))
    monkeypatch.setattr(catalogue, "_files", {})

    def write(text: str, name: str = "mine.py"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


GAIN = '''
from __future__ import annotations
from typing import NamedTuple
from jaxtyping import Float32
from pipeline.block import Block, param
from pipeline.frame import Array

class Scaled(NamedTuple):
    scaled: Float32[Array, "time"]

class Gain(Block, name="frontend.mine"):
    """Samples times a gain."""
    gain: float = param(default=2.0, doc="factor")
    def process(self, samples: Float32[Array, "time"]) -> Scaled:
        return Scaled(samples * self.gain)
'''


def test_a_users_file_adds_its_blocks(own, register):
    path = own(GAIN)
    catalogue.load_file(path)
    catalogue.load_file(path)
    assert catalogue.loaded_files() == (path.resolve(),)
    assert catalogue.find("frontend.mine")().gain == 2.0
    assert catalogue.one_line("frontend.mine") == "Samples times a gain."
    flow = Flow("own")
    flow.add("start", "source.toy")
    flow.add("gain", "frontend.mine", gain=3.0)
    flow.connect("start -> gain")
    assert flow.check().blocks["gain"].block.gain == 3.0


def test_files_of_one_name_in_two_folders_are_two(own, tmp_path):
    (tmp_path / "inner").mkdir()
    catalogue.load_file(own(GAIN))
    catalogue.load_file(own(GAIN.replace("frontend.mine", "frontend.yours"), "inner/mine.py"))
    assert catalogue.find("frontend.mine").__module__ != catalogue.find("frontend.yours").__module__


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", r'mine.py: it defines no block; .*\n    class Gain\(Block, name="frontend.gain"\)'),
        ("from blocks.sink.null import Null", r"mine.py: it defines no block"),
        (GAIN.replace("frontend.mine", "mine"), r"mine.py: block name 'mine' must be ROLE.NAME"),
        (GAIN.replace("frontend.mine", "sink.null"), r"there is a block named 'sink.null' already"),
        (GAIN + "\nx = 1 +", r"mine.py:17: invalid syntax"),
        (GAIN + "\ndef f():\n    return 1 / 0\nf()\n", r"mine.py:18: ZeroDivisionError: division"),
        ("import no_such_package", r"mine.py:1: ModuleNotFoundError: .*; install it with: pip ins"),
        (GAIN + "\nimport sys; sys.exit(3)", r"mine.py:17: SystemExit: 3"),
    ],
)
def test_a_faulty_file_is_refused_and_leaves_nothing_behind(own, text, error):
    path = own(text)
    before, modules = dict(Block.registry), set(sys.modules)
    with pytest.raises(KalvitError, match=error):
        catalogue.load_file(path)
    assert Block.registry == before
    assert catalogue.loaded_files() == ()
    assert not [name for name in set(sys.modules) - modules if name.startswith("mine_")]


def test_a_file_that_is_not_there_is_named(own, tmp_path):
    for path in (tmp_path / "none.py", tmp_path, own("x = 1", "mine.txt")):
        with pytest.raises(KalvitError, match=rf"{path.name}: no such Python file"):
            catalogue.load_file(path)
