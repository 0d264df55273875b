"""Functions that compiled code calls through their address.

A kernel that takes a function as an argument would be compiled anew for each, in every process,
since numba does not keep such code. A kernel that takes an address is compiled once: which function
stands there may differ from call to call, as long as it has the form that `call_...` says. Nothing
can check that while it runs, so `address_of` compiles to the form and `call_...` refuses arguments
of other types: arrays that are not float64, or of which the numbers do not lie side by side.

Such a function cannot raise: numba prints the error, and the caller goes on with what was written
until then. Division by zero gives infinity or NaN, at which filters stop.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import numba
from numba.core import config as untyped_config
from numba.core import errors as untyped_errors
from numba.extending import intrinsic

from blocks.kernels.caching import cfunc

config: Any = untyped_config
errors: Any = untyped_errors
types: Any = numba.types
_VECTOR = types.Array(types.float64, 1, "C")
_MATRIX = types.Array(types.float64, 2, "C")
_STATE = {"state": _VECTOR}
_MOVED = {**_STATE, "interval": types.float64, "parameters": _VECTOR, "out": _VECTOR}
_SEEN = {**_STATE, "parameters": _VECTOR, "out": _VECTOR}

#: The arguments of a model's functions, by form; motions.py and observations.py say what they do.
FORMS: dict[str, dict[str, Any]] = {
    "advance": _MOVED,
    "linearise": {**_MOVED, "jacobian": _MATRIX},
    "noise": {"interval": types.float64, "parameters": _VECTOR, "out": _MATRIX},
    "observe": _SEEN,
    "observe_linearised": {**_SEEN, "jacobian": _MATRIX},
}
_kept: list[Any] = []  # compiled functions must outlive their addresses


@cache
def address_of(function: Callable[..., None], form: str) -> Any:
    """Where the compiled function stands; under NUMBA_DISABLE_JIT the function itself.

    Raises numba.TypingError for what numba cannot compile to this form.
    """
    plain = getattr(function, "py_func", function)
    if config.DISABLE_JIT:
        return plain
    signature = types.void(*FORMS[form].values())
    try:
        made = cfunc(plain, signature, cache=True, error_model="numpy")
    except RuntimeError:  # typed in at a prompt: there is no file beside which to keep it
        made = cfunc(plain, signature, cache=False, error_model="numpy")
    _kept.append(made)
    return made.address


def _call(form: str) -> Callable[..., None]:
    """What calls the function of this form at an address, from compiled code."""
    if config.DISABLE_JIT:
        return lambda function, *arguments: function(*arguments)
    wanted = tuple(FORMS[form].values())

    def declare(typing: Any, address: Any, *given: Any) -> Any:
        if given != wanted:
            raise errors.TypingError(f"call_{form} takes {wanted}, but is given {given}")

        def lower(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            kind = context.get_value_type(types.FunctionType(types.void(*wanted)).ftype)
            builder.call(builder.inttoptr(values[0], kind), values[1:])
            return context.get_dummy_value()

        return types.void(types.intp, *wanted), lower

    # numba asks for the names of the arguments
    names = ("typing", "address", *FORMS[form])
    declare.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    )
    declare.__name__ = f"call_{form}"
    made: Callable[..., None] = intrinsic(declare)
    return made


call_advance = _call("advance")
call_linearise = _call("linearise")
call_noise = _call("noise")
call_observe = _call("observe")
call_observe_linearised = _call("observe_linearised")
