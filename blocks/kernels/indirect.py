"""Functions that compiled code calls through their address.

A kernel that takes a function as an argument would be compiled anew for each, in every process,
since numba does not keep such code. A kernel that takes an address is compiled once: which function
stands there may differ from call to call, as long as it has the form that `call_...` says.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from numba import cfunc, types
from numba.core import config as untyped_config
from numba.extending import intrinsic

config: Any = untyped_config
_VECTOR = types.Array(types.float64, 1, "C")
_MATRIX = types.Array(types.float64, 2, "C")

#: The forms of a model's functions; kernels/state_space.py says what they do.
FORMS = {
    "advance": types.void(_VECTOR, types.float64, _VECTOR, _VECTOR),
    "linearise": types.void(_VECTOR, types.float64, _VECTOR, _VECTOR, _MATRIX),
    "noise": types.void(types.float64, _VECTOR, _MATRIX),
    "observe": types.void(_VECTOR, _VECTOR, _VECTOR),
    "observe_linearised": types.void(_VECTOR, _VECTOR, _VECTOR, _MATRIX),
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
    try:
        made = cfunc(FORMS[form], cache=True)(plain)
    except RuntimeError:  # typed in at a prompt: there is no file beside which to keep it
        made = cfunc(FORMS[form])(plain)
    _kept.append(made)
    return made.address


def _call(form: str) -> Any:
    """Typing and code of a call through an address."""
    wanted = FORMS[form]
    signature = types.void(types.intp, *wanted.args)

    def lower(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = context.get_value_type(types.FunctionType(wanted).ftype)
        builder.call(builder.inttoptr(values[0], pointer), values[1:])
        return context.get_dummy_value()

    return signature, lower


if config.DISABLE_JIT:

    def _directly(function: Callable[..., None], *arguments: Any) -> None:
        function(*arguments)

    call_advance = call_linearise = call_noise = call_observe = _directly
    call_observe_linearised = _directly

else:

    @intrinsic
    def call_advance(typing, address, state, interval, parameters, out):  # type: ignore[no-untyped-def]
        """Call the function of the form `advance` at this address."""
        return _call("advance")

    @intrinsic
    def call_linearise(typing, address, state, interval, parameters, out, jacobian):  # type: ignore[no-untyped-def]
        """Call the function of the form `linearise` at this address."""
        return _call("linearise")

    @intrinsic
    def call_noise(typing, address, interval, parameters, out):  # type: ignore[no-untyped-def]
        """Call the function of the form `noise` at this address."""
        return _call("noise")

    @intrinsic
    def call_observe(typing, address, state, parameters, out):  # type: ignore[no-untyped-def]
        """Call the function of the form `observe` at this address."""
        return _call("observe")

    @intrinsic
    def call_observe_linearised(typing, address, state, parameters, out, jacobian):  # type: ignore[no-untyped-def]
        """Call the function of the form `observe_linearised` at this address."""
        return _call("observe_linearised")
