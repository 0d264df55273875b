"""Arithmetic on arrays, as numba kernels: arrays in, arrays written.

A kernel module is imported when something in it is used, so that the supervisor and `kalvit check`,
which make blocks and run none, do without numba (0.2 s and 100 MB).
"""

from __future__ import annotations

import sys
from importlib.util import LazyLoader, find_spec, module_from_spec
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    """The kernel module of this name, whose code runs at the first use of anything in it."""
    whole = f"{__name__}.{name}"
    spec = find_spec(whole) if not name.startswith("_") else None
    if spec is None or spec.loader is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    spec.loader = LazyLoader(spec.loader)
    module = module_from_spec(spec)
    sys.modules[whole] = module
    globals()[name] = module
    spec.loader.exec_module(module)
    return module
