"""What the arithmetic of one core can do: the limit that recursions are held against.

`per_number` measures how fast chains of multiply-adds run that are in registers and independent of
each other: nothing but ports and clock counts. The limit of a recursion is the time of as many
vector operations as each of its steps needs, which a row says. It supposes that every operation
takes one of the ports that multiply, which is so on Intel's; AMD's add on ports of their own, where
a perfect mix could come to more than 1.

Run it with: python -m bench.limit
"""

from __future__ import annotations

import functools
import time
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import cgutils as untyped_cgutils
from numba.extending import intrinsic

cgutils: Any = untyped_cgutils
types: Any = numba.types

CHAINS = 10  # more than latency times ports, fewer than registers
TURNS = 300_000
REPEATS = 7
WIDTHS = (32, 64)  # bytes of a vector; the better one counts


def _loop(lanes: int) -> Any:
    """A compiled loop of CHAINS multiply-adds on vectors of float64."""
    vector = ir.VectorType(ir.DoubleType(), lanes)

    @intrinsic
    def chains(typing_context: Any, turns: Any, numbers: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array = context.make_array(signature.args[1])(context, builder, arguments[1])
            base = builder.bitcast(array.data, vector.as_pointer())
            places = [
                builder.gep(base, [ir.Constant(ir.IntType(64), k)]) for k in range(CHAINS + 2)
            ]
            *starts, factor, term = [builder.load(place, align=8) for place in places]
            fma = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{lanes}f64"
            )
            registers = [cgutils.alloca_once_value(builder, start) for start in starts]
            with cgutils.for_range(builder, arguments[0]):
                for register in registers:
                    value = builder.call(fma, [builder.load(register), factor, term])
                    builder.store(value, register)
            for register, place in zip(registers, places, strict=False):  # or they are left out
                builder.store(builder.load(register), place, align=8)
            return context.get_dummy_value()

        return types.void(types.intp, numbers), generate

    @njit
    def call(turns: int, numbers: Any) -> None:
        chains(turns, numbers)

    return call


@functools.cache
def _seconds(width: int) -> float:
    """For one multiply-add of vectors of so many bytes."""
    call, numbers = _loop(width // 8), np.zeros((CHAINS + 2) * width // 8)
    call(1, numbers)
    found = []
    for _ in range(REPEATS):
        before = time.process_time()
        call(TURNS, numbers)
        found.append(time.process_time() - before)
    return min(found) / TURNS / CHAINS


def per_number(bits: int) -> float:
    """Seconds for one operation on one number of so many bits, in full vectors."""
    return min(_seconds(width) / (8 * width // bits) for width in WIDTHS)


def alone() -> float:
    """Seconds for one multiply-add of single float64 numbers."""
    return _seconds(8)


def main() -> None:
    """Print what the machine can do."""
    print(f"float32 in vectors: {2e-9 / per_number(32):.1f} GFLOP/s")
    print(f"float64 in vectors: {2e-9 / per_number(64):.1f} GFLOP/s")
    print(f"float64, one at a time: {2e-9 / alone():.1f} GFLOP/s")


if __name__ == "__main__":
    main()
