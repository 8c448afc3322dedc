"""Square roots two at a time, for the compiled loops: half the time of one by one, and the same bits.

Numba's cache notices no change in here. There is none to make: a square root has one right answer.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload


def two_roots(a: float, b: float) -> tuple[float, float]:
    """The square roots of both, as IEEE 754 rounds them everywhere."""
    return math.sqrt(a), math.sqrt(b)


@overload(two_roots)
def _two_roots_compiled(a, b):  # type: ignore[no-untyped-def]  # numba compares the names with the lambda's
    return lambda a, b: _packed_roots(a, b)  # type: ignore[call-arg]


@intrinsic
def _packed_roots(typing_context: Any, a: Any, b: Any) -> Any:
    """Both roots by one instruction, which LLVM would not choose for a processor that it does not know."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pair = ir.Constant(ir.VectorType(ir.DoubleType(), 2), ir.Undefined)
        for k, value in enumerate(arguments):
            pair = builder.insert_element(pair, value, ir.IntType(32)(k))
        kind, name = ir.FunctionType(pair.type, [pair.type]), "llvm.sqrt.v2f64"
        function = cgutils.get_or_insert_function(builder.module, kind, name)  # type: ignore[no-untyped-call]
        roots = builder.call(function, [pair])
        each = [builder.extract_element(roots, ir.IntType(32)(k)) for k in range(2)]
        return context.make_tuple(builder, signature.return_type, each)

    return types.UniTuple(types.float64, 2)(a, b), generate  # type: ignore[no-untyped-call]
