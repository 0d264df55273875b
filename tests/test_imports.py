"""Imports run one way, and what is slow, dangerous or noisy stays where it belongs.

Read from the source, not by importing: a rule holds for code that no test reaches, too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
ROLES = ("source", "encoder", "channel", "frontend", "detector", "decoder", "tracker", "trainer",
         "sink")  # fmt: skip
SHIPPED = ("pipeline", "blocks", "flows")
TESTING = ("bench", "tests", *(path.stem for path in (ROOT / "tests").glob("*.py")))
HEAVY = ("torch", "safetensors", "scipy", "matplotlib", "numba", "pandas", "sigmf")
PICKLING = ("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib")
UNSAFE_CALLS = ("eval", "exec", "compile", "__import__")
UNSAFE_METHODS = ("send_pyobj", "recv_pyobj", "torch.load", "torch.save", "yaml.load")


class Import(NamedTuple):
    """One import: the whole dotted name, where, and whether it runs with the module."""

    module: str
    line: int
    at_once: bool


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def imports_of(path: Path) -> tuple[Import, ...]:
    """All imports of a file, with relative ones resolved."""
    found: list[Import] = []

    def visit(node: ast.AST, at_once: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                package = path.relative_to(ROOT).parts[: -node.level]
                module = ".".join([*package, *([module] if module else [])])
            # 'from blocks import fields' may name a module: both readings count
            found.extend(
                Import(f"{module}.{alias.name}", node.lineno, at_once) for alias in node.names
            )
        inner = at_once and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if isinstance(node, ast.If) and dotted(node.test).endswith("TYPE_CHECKING"):
            inner = False  # never runs
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):  # no expression
                visit(child, inner)

    visit(tree_of(path), True)
    return tuple(found)


def files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def offences(
    paths: Iterator[Path], forbidden: Callable[[Path, Import], bool], rule: str
) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{found.line} imports {found.module}; {rule}"
        for path in paths
        for found in imports_of(path)
        if forbidden(path, found)
    ]


def dotted(node: ast.AST) -> str:
    """The name that an expression such as `torch.load` or `print` is, or nothing."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def assert_none(found: list[str]) -> None:
    assert not found, "\n" + "\n".join(found)


def test_pipeline_knows_no_block_and_no_flow() -> None:
    assert_none(
        offences(
            files("pipeline"),
            lambda path, found: within(found.module, "blocks", "flows"),
            "the runtime finds blocks and flows by entry points only",
        )
    )


def test_blocks_know_no_flow() -> None:
    assert_none(
        offences(
            files("blocks"),
            lambda path, found: within(found.module, "flows"),
            "flows join blocks, not the other way round",
        )
    )


def test_nobody_imports_bench_or_tests() -> None:
    assert_none(
        offences(
            files(*SHIPPED),
            lambda path, found: within(found.module, *TESTING),
            "what is shipped needs neither bench nor tests",
        )
    )


def test_roles_do_not_import_each_other() -> None:
    def forbidden(path: Path, found: Import) -> bool:
        own = path.relative_to(ROOT).parts[1]
        return own in ROLES and within(
            found.module, *(f"blocks.{role}" for role in ROLES if role != own)
        )

    assert_none(
        offences(
            files(*(f"blocks/{role}" for role in ROLES)),
            forbidden,
            "what two roles share lies in blocks/ itself, in kernels, models or training",
        )
    )


def test_what_roles_share_imports_no_role() -> None:
    def forbidden(path: Path, found: Import) -> bool:
        own = path.relative_to(ROOT).parts[1]
        return own not in ROLES and within(found.module, *(f"blocks.{role}" for role in ROLES))

    assert_none(offences(files("blocks"), forbidden, "a shared module does not know who shares it"))


@pytest.mark.parametrize(
    ("folder", "allowed"),
    [
        ("kernels", ("numpy", "numba", "llvmlite", "blocks.kernels")),
        ("models", ("torch", "blocks.models", "blocks.kernels")),  # names and sizes of layers
        ("training", ("torch", "numpy", "numba", "blocks.training", "blocks.kernels")),
    ],
)
def test_arithmetic_imports_nothing_but_its_library(folder: str, allowed: tuple[str, ...]) -> None:
    standard = set(sys.stdlib_module_names)

    def forbidden(path: Path, found: Import) -> bool:
        module = found.module
        return not (module.split(".")[0] in standard or within(module, *allowed))

    assert_none(
        offences(
            files(f"blocks/{folder}"),
            forbidden,
            f"blocks/{folder} imports the standard library and {', '.join(allowed)} only",
        )
    )


def test_torch_stays_with_what_learns() -> None:
    learning = {"models", "training", "trainer"}

    def forbidden(path: Path, found: Import) -> bool:
        in_learning = learning & set(path.relative_to(ROOT).parts[1:2])
        return not in_learning and (
            (within(found.module, "torch") and found.at_once)
            or within(found.module, "blocks.models", "blocks.training")
        )

    assert_none(
        offences(
            files(*SHIPPED),
            forbidden,
            "torch takes seconds and 200 MB, and a receiver in the field has none; learned "
            "blocks run exported arrays in kernels",
        )
    )


def test_the_runtime_imports_nothing_heavy_at_once() -> None:
    assert_none(
        offences(
            files("pipeline"),
            lambda path, found: found.at_once and within(found.module, *HEAVY),
            "import it inside the function that needs it: `kalvit --help` must answer at once",
        )
    )


def test_blocks_import_scipy_and_matplotlib_only_when_needed() -> None:
    assert_none(
        offences(
            files("blocks"),
            lambda path, found: (
                found.at_once and within(found.module, "scipy", "matplotlib", "sigmf", "pandas")
            ),
            "import it inside the function that needs it: every worker would pay for it",
        )
    )


def test_pyplot_is_never_used() -> None:
    assert_none(
        offences(
            files(*SHIPPED),
            lambda path, found: within(found.module, "matplotlib.pyplot", "matplotlib.pylab"),
            "draw on a matplotlib.figure.Figure: pyplot keeps state and wants a display",
        )
    )


def test_the_catalogue_imports_no_block() -> None:
    assert_none(
        offences(
            iter([ROOT / "blocks" / "__init__.py"]),
            lambda path, found: not within(found.module, "__future__", "typing"),
            "it names classes; `kalvit list blocks` must not load them",
        )
    )


def test_nothing_is_pickled() -> None:
    assert_none(
        offences(
            files(*SHIPPED, "bench"),
            lambda path, found: within(found.module, *PICKLING),
            "unpickling runs what the bytes say; use the wire, safetensors or JSON",
        )
    )


def test_no_call_runs_what_data_says() -> None:
    found = []
    for path in files(*SHIPPED, "bench"):
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.Call):
                continue
            called = dotted(node.func)
            pickles = any(
                word.arg == "allow_pickle" and getattr(word.value, "value", True) is not False
                for word in node.keywords
            )
            if (
                called in UNSAFE_CALLS
                or any(called == name or called.endswith("." + name) for name in UNSAFE_METHODS)
                or pickles
            ):
                where = f"{path.relative_to(ROOT)}:{node.lineno}"
                found.append(f"{where} calls {called}; data must never be run as code")
    assert_none(found)


def test_only_the_command_line_prints() -> None:
    found = []
    for path in files(*SHIPPED):
        if path.is_relative_to(ROOT / "pipeline" / "cli"):
            continue
        for node in ast.walk(tree_of(path)):
            name = dotted(node)
            if name in ("print", "pprint", "sys.stdout", "sys.__stdout__"):
                where = f"{path.relative_to(ROOT)}:{node.lineno}"  # type: ignore[attr-defined]
                found.append(f"{where} uses {name}; only pipeline/cli prints")
    assert_none(found)


def test_tests_are_no_package() -> None:
    found = [str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("__init__.py")]
    assert not found, f"{found}: tests/blocks would stand in for blocks"
