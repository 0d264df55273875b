"""The catalogue: finds blocks and flows by their short names, importing only what is used.

Packages add blocks through the entry-point group `kalvit.blocks`, where each entry point is a
dict from short name to "module:Class", and flows through `kalvit.flows`, where each names a
package whose folder holds TOML files. The project's own stand there like any other.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from functools import cache
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from pipeline.block import Block, Sink, Source, Trainer
from pipeline.errors import FlowError, KalvitError, did_you_mean

BLOCK_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
_KINDS: dict[str, type[Block]] = {"source": Source, "sink": Sink, "trainer": Trainer}
_EXTRAS = {"torch": "train"}
_files: dict[Path, tuple[str, ...]] = {}  # users' own files -> the blocks they define


def find(name: str) -> type[Block]:
    """The block class of this name, imported now if it was not yet.

    Raises FlowError for an unknown name, with the nearest one, and KalvitError where the block's
    module cannot be imported, with what to install.
    """
    target = _catalogue()[0].get(name)
    if target is not None:
        cls = _import(name, target)
    elif name in Block.registry:
        cls = Block.registry[name]
    else:
        hint = did_you_mean(name, names())
        if not hint:
            hint = "; `kalvit list blocks` lists them, and --blocks FILE loads your own"
        if _catalogue()[2]:
            hint += f" (left out: {_catalogue()[2][0]})"
        raise FlowError(f"no block named {name!r}{hint}")
    base = _KINDS.get(name.split(".")[0])
    if base is not None and not issubclass(cls, base):
        raise KalvitError(
            f"block {name!r} is no {base.__name__}; derive {cls.__name__} from "
            f"pipeline.block.{base.__name__}, or give it another name"
        )
    return cls


def names() -> dict[str, str]:
    """Short name -> "module:Class" of every block, without importing their modules.

    Blocks that a user's own file or this program has defined are among them.
    """
    own = {
        name: f"{cls.__module__}:{cls.__qualname__}"
        for name, cls in Block.registry.items()
        if name not in _catalogue()[0]
    }
    return {**_catalogue()[0], **own}


def flows() -> dict[str, Path]:
    """Ready flows: name -> file."""
    return dict(_catalogue()[1])


def problems() -> tuple[str, ...]:
    """What other packages tried to add and could not, in words; for `kalvit doctor`."""
    return _catalogue()[2]


def one_line(name: str) -> str:
    """First docstring line of a block, without importing its module; "" if there is none."""
    module, _, qualname = names().get(name, "").partition(":")
    cls = Block.registry.get(name)
    if cls is not None and cls.__module__ == module:
        doc = cls.__dict__.get("__doc__") or ""
    else:
        doc = _docstring(module, qualname)
    return doc.strip().partition("\n")[0].strip()


def load_file(path: Path) -> None:
    """Import a user's own Python file, whose blocks are then found by their names.

    Runs the code in it: it is for files that the user names on the command line, never for one
    named in a flow. A file that was loaded already is left alone. Raises KalvitError for a file
    that cannot be read or run, defines no block, or uses a name that the catalogue has.
    """
    where = str(path)
    path = path.resolve()
    if path in _files:
        return
    if path.suffix != ".py" or not path.is_file():
        raise KalvitError(f"{where}: no such Python file; blocks are loaded from a .py file")
    module_name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise KalvitError(f"{where}: Python cannot import it")
    before = dict(Block.registry)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # annotations are looked up there
    try:
        spec.loader.exec_module(module)
        new = tuple(name for name, cls in Block.registry.items() if before.get(name) is not cls)
        _check_new(where, new, before, module_name)
    except BaseException as error:
        del sys.modules[module_name]
        Block.registry.clear()
        Block.registry.update(before)
        if isinstance(error, (KalvitError, KeyboardInterrupt)):
            raise
        raise KalvitError(_blame(where, path, error)) from error
    _files[path] = new


def loaded_files() -> tuple[Path, ...]:
    """The users' own files loaded so far; workers load the same."""
    return tuple(_files)


def _check_new(
    where: str, new: tuple[str, ...], before: dict[str, type[Block]], module_name: str
) -> None:
    own = [name for name in new if Block.registry[name].__module__ == module_name]
    if not own:
        raise KalvitError(
            f"{where}: it defines no block; a block is a class such as\n"
            '    class Gain(Block, name="frontend.gain")'
        )
    for name in own:
        if not BLOCK_NAME.fullmatch(name):
            raise KalvitError(
                f"{where}: block name {name!r} must be ROLE.NAME in small letters, digits and _, "
                "such as 'detector.mine'"
            )
        if name in before or name in _catalogue()[0]:
            raise KalvitError(
                f"{where}: there is a block named {name!r} already; give this one another name"
            )


def _blame(where: str, path: Path, error: BaseException) -> str:
    """Where in a user's file an error arose, and what it says."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{where}:{error.lineno}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    place = f"{where}:{lines[-1]}" if lines else where
    text = str(error).partition("\n")[0]
    return f"{place}: {type(error).__name__}: {text}" + install_hint(error)


@cache
def _catalogue() -> tuple[dict[str, str], dict[str, Path], tuple[str, ...]]:
    """Blocks, flows, and what could not be added, from all installed packages."""
    blocks: dict[str, str] = {}
    ready: dict[str, Path] = {}
    wrong: list[str] = []
    for entry in _entries("kalvit.blocks"):
        try:
            added = entry.load()
            if not isinstance(added, dict):
                raise TypeError(f"{entry.value} is no dict")
        except Exception as error:  # another package's fault must not stop this one
            wrong.append(f"blocks of {_origin(entry)}: {type(error).__name__}: {error}")
            continue
        for name, target in added.items():
            proper = isinstance(name, str) and BLOCK_NAME.fullmatch(name)
            if not proper or not isinstance(target, str) or target.count(":") != 1:
                wrong.append(f"{name!r} of {_origin(entry)}: expected 'role.name': 'module:Class'")
            elif blocks.setdefault(name, target) != target:
                wrong.append(f"{name!r} of {_origin(entry)}: there is a block of this name already")
    for entry in _entries("kalvit.flows"):
        spec = _spec(entry.value)
        folders = (spec.submodule_search_locations if spec else None) or []
        if not folders:
            wrong.append(f"flows of {_origin(entry)}: {entry.value} is no package")
        for folder in folders:
            for file in sorted(Path(folder).glob("*.toml")):
                if ready.setdefault(file.stem, file) != file:
                    wrong.append(f"{file}: there is a flow named {file.stem!r} already")
    return dict(sorted(blocks.items())), dict(sorted(ready.items())), tuple(wrong)


def _entries(group: str) -> list[EntryPoint]:
    """Entry points of a group, each once, the project's own first."""
    found = {(entry.name, entry.value): entry for entry in entry_points(group=group)}
    return [found[key] for key in sorted(found, key=lambda key: (key[0] != "kalvit", key))]


def _origin(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.name


def _import(name: str, target: str) -> type[Block]:
    module_name, _, qualname = target.partition(":")
    try:
        cls = getattr(importlib.import_module(module_name), qualname, None)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name == missing or module_name.startswith(missing + "."):
            raise KalvitError(
                f"block {name!r} is listed, but its module {module_name} is missing; install "
                "the package that brings it again"
            ) from error
        raise KalvitError(f"block {name!r} cannot be used: {error}{install_hint(error)}") from error
    except ImportError as error:
        raise KalvitError(
            f"block {name!r} cannot be used: importing {module_name} failed: {error}"
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, Block) and cls.name == name):
        raise KalvitError(
            f"block {name!r} is listed as {target}, which is no block of that name; write\n"
            f'    class {qualname}(Block, name="{name}")'
        )
    return cls


def install_hint(error: BaseException) -> str:
    """What to install against an error, if that would help."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    package = error.name.partition(".")[0]
    if package in _EXTRAS:
        package = f"'kalvit[{_EXTRAS[package]}]'"
    return f"; install it with: pip install {package}"


def _spec(module: str) -> importlib.machinery.ModuleSpec | None:
    """Where a module stands, found without importing it or the packages around it."""
    first, *inner = module.split(".")
    try:
        spec = importlib.util.find_spec(first)
    except (ImportError, ValueError):
        return None
    whole = first
    for part in inner:
        if spec is None or spec.submodule_search_locations is None:
            return None
        whole += "." + part
        spec = PathFinder.find_spec(whole, list(spec.submodule_search_locations))
    return spec


def _docstring(module: str, qualname: str) -> str:
    spec = _spec(module) if module else None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return ""
    try:
        tree = ast.parse(Path(spec.origin).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == qualname:
            return ast.get_docstring(node) or ""
    return ""


__all__ = [
    "find",
    "flows",
    "install_hint",
    "load_file",
    "loaded_files",
    "names",
    "one_line",
    "problems",
]
