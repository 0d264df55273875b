"""Arithmetic on arrays, as numba kernels: arrays in, arrays written.

A kernel module is imported when something in it is used, so that the supervisor and `kalvit check`,
which make blocks and run none, do without numba (0.2 s and 100 MB).
"""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec
from threading import RLock
from types import ModuleType
from typing import Any


class _Unread(ModuleType):
    """A module whose code runs at the first use of anything in it.

    In place of importlib.util.LazyLoader, whose modules run when `import` asks for `__spec__`;
    there Python drops whatever is raised, Ctrl-C too, and goes on with half a module.
    """

    def __getattribute__(self, name: str) -> Any:
        own = super().__getattribute__
        spec = own("__spec__")
        if name == "__spec__":
            return spec
        with spec.loader_state["lock"]:
            if type(self) is _Unread and not spec.loader_state["begun"]:
                spec.loader_state["begun"] = True  # the module looks at itself meanwhile
                try:
                    spec.loader.exec_module(self)
                    object.__setattr__(self, "__class__", ModuleType)
                except AttributeError as error:  # of which `import` makes "cannot import name"
                    raise ImportError(f"{spec.name}: {error}", name=spec.name) from error
                finally:
                    spec.loader_state["begun"] = False
        return own(name)


def __getattr__(name: str) -> ModuleType:
    """The kernel module of this name, whose code runs at the first use of anything in it."""
    whole = f"{__name__}.{name}"
    spec = find_spec(whole) if not name.startswith("_") else None
    if spec is None or spec.loader is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    spec.loader_state = {"lock": RLock(), "begun": False}
    module = module_from_spec(spec)
    module.__class__ = _Unread
    sys.modules[whole] = module
    globals()[name] = module
    return module
