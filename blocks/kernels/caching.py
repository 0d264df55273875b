"""Machine code that is kept between processes, and never older than its sources.

numba keeps what `njit(cache=True)` has compiled beside the source file, and compiles again when
that file changes. It does not look at the other files that went into the code: kernels that call
each other, formulas that were unrolled, the form of functions called by address. So kernels take
`njit` and `cfunc` from here: what they keep bears the digest of all files of this folder, and
whether bounds are checked, and does not count where either differs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import ccallback as untyped_ccallback
from numba.core import config as untyped_config

CFunc: Any = untyped_ccallback.CFunc
config: Any = untyped_config


def digest(folder: Path) -> str:
    """SHA-256 of the Python files of a folder and their names."""
    found = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        content = path.read_bytes()
        found.update(f"{path.name} {len(content)}\n".encode() + content)
    return found.hexdigest()


_SOURCES = digest(Path(__file__).parent)


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """numba.njit with these options."""

    def decorate(function: Callable[..., Any]) -> Any:
        return _stamped(numba.njit(**options)(function))

    return decorate


def cfunc(function: Callable[..., Any], signature: Any, *, cache: bool, **options: Any) -> Any:
    """The function compiled to this signature, to be called by its address.

    numba.cfunc, but for the cache: that one has looked there before it can be stamped. Raises
    RuntimeError where `cache` is asked for and the function stands in no file.
    """
    made = CFunc(function, (signature.args, signature.return_type), locals={}, options=options)
    if cache:
        made.enable_caching()
    _stamped(made).compile()
    return made


def _stamped(made: Any) -> Any:
    kept = getattr(getattr(made, "_cache", None), "_cache_file", None)
    if kept is not None:  # there is none without cache=True, and under NUMBA_DISABLE_JIT
        kept._source_stamp = (kept._source_stamp, _SOURCES, config.BOUNDSCHECK)
    return made
