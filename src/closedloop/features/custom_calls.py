"""Custom features over every window: compiled with numba where it can, else called from Python."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import config, njit, types
from numba.core import cgutils
from numba.core.errors import NumbaError
from numba.extending import intrinsic, overload

from closedloop.data.schema import HOUR_US, DataError, Float64, Int64
from closedloop.features.registry import CUSTOM, Custom, Function
from closedloop.features.structures import Part, array_type, struct_type

MAX_COMPILED_SENSORS = 4

Window = tuple[Float64, ...]


def bind(
    custom: Custom, sensors: tuple[str, ...], offsets: Int64, time: Int64, values: Float64
) -> Callable[[Part, Float64], None]:
    """One custom feature bound to the telemetry of a fleet: ``run(part, out)`` writes it to ``out``.

    ``run`` raises DataError where the function raised or did not return a number.
    """
    function, driver, places = _prepared(custom, sensors)
    readings = values.view()
    readings.flags.writeable = False
    columns = tuple([readings[place] for place in places])

    def run(part: Part, out: Float64) -> None:
        hours = np.empty(_longest(offsets, part.low, part.high)) if custom.wants_hours else None
        try:
            driver(function, columns, hours, custom.window_us, part, offsets, time, out)
        except Exception as error:
            raise DataError(
                f"custom feature {custom.name!r} raised {type(error).__name__}: {error}. It must cope with any window"
                " from one row up, and with NaN, and must not write to its arguments"
            ) from error

    return run


@cache
def _prepared(custom: Custom, sensors: tuple[str, ...]) -> tuple[int | Function, Callable[..., None], tuple[int, ...]]:
    """The function or its address, the loop that calls it for each window, and the places of its sensors."""
    function, _ = compiled(custom)
    driver = _driver(len(custom.sensors), custom.wants_hours) if isinstance(function, int) else _each_window
    return function, driver, tuple(sensors.index(name) for name in custom.sensors)


def _longest(offsets: Int64, low: int, high: int) -> int:
    """The number of rows of the longest of the machines low to high - 1."""
    if high == low + 1:
        return int(offsets[high] - offsets[low])
    return int(np.diff(offsets[low : high + 1]).max(initial=0))


def slow(names: tuple[str, ...]) -> list[str]:
    """The custom features among these that numba refused, each with the reason: Python calls them row by row."""
    reasons = {name: compiled(CUSTOM[name])[1] for name in names}
    return [f"{name}: {reason}" for name, reason in reasons.items() if reason]


@cache
def compiled(custom: Custom) -> tuple[int | Function, str]:
    """The compiled function's address; or, where numba refused it, the function itself and the reason."""
    if config.DISABLE_JIT:  # type: ignore[attr-defined]  # NUMBA_DISABLE_JIT=1: to debug, or to measure coverage
        return custom.function, ""
    if len(custom.sensors) > MAX_COMPILED_SENSORS:
        return custom.function, f"more than {MAX_COMPILED_SENSORS} sensors"
    signature = types.float64(*_window_types(len(custom.sensors), custom.wants_hours))
    try:
        # bounds are checked: an index outside the window would read the machine's other rows
        cached = Path(custom.function.__code__.co_filename).is_file()
        jit = njit([signature], cache=cached, nogil=True, boundscheck=True)(custom.function)
    except NumbaError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return custom.function, next((line for line in lines if not line.startswith("Failed in")), lines[0])
    result: Any = jit.get_compile_result(signature)
    _KEPT.append(jit)
    return result.library.get_pointer_to_function(result.fndesc.llvm_func_name), ""


_KEPT: list[Any] = []  # compiled code lives as long as its dispatcher


def _window_types(sensors: int, wants_hours: bool) -> list[Any]:
    """Numba's types of the arguments of a custom function."""
    return [array_type(types.float64, written=True)] * wants_hours + [array_type(types.float64)] * sensors


@cache
def _driver(sensors: int, wants_hours: bool) -> Callable[..., None]:
    """``_each_window``, compiled for functions of this many sensors, which it calls by address."""
    hours, readings = _window_types(1, True)
    signature = types.void(
        types.int64,
        types.UniTuple(readings, sensors),  # type: ignore[no-untyped-call]
        hours if wants_hours else types.none,
        types.int64,
        struct_type(Part, types.int64, types.int64, types.boolean, types.int64),
        *(array_type(types.int64), array_type(types.int64), array_type(types.float64, written=True)),
    )
    return njit([signature], cache=True, nogil=True)(_each_window)


def _each_window(
    function: int | Function,
    columns: Window,
    hours: Float64 | None,
    window_us: int,
    part: Part,
    offsets: Int64,
    time: Int64,
    out: Float64,
) -> None:
    """Call the function on the window of each row of a part. ``hours`` is memory for the longest window."""
    for m in range(part.low, part.high):
        first = offsets[m]
        for r in range(offsets[m + 1] - 1 if part.last_only else first, offsets[m + 1]):
            while time[first] <= time[r] - window_us:
                first += 1
            column = m if part.last_only else r - part.shift
            window = _cut(columns, first, r + 1)
            if hours is None:
                out[column] = _call(function, window)
            else:
                for q in range(first, r + 1):
                    hours[q - first] = (time[q] - time[r]) / HOUR_US
                out[column] = _call(function, (hours[: r + 1 - first], *window))


def _cut(columns: Window, low: int, high: int) -> Window:
    """The readings of rows low to high - 1."""
    return tuple(column[low:high] for column in columns)


def _call(function: Any, window: Window) -> float:
    """The function's answer; compiled, the function is an address."""
    return function(*window)


@overload(_cut)
def _cut_compiled(columns, low, high):  # type: ignore[no-untyped-def]  # numba compares the names with the lambdas'
    return {
        1: lambda columns, low, high: (columns[0][low:high],),
        2: lambda columns, low, high: (columns[0][low:high], columns[1][low:high]),
        3: lambda columns, low, high: (columns[0][low:high], columns[1][low:high], columns[2][low:high]),
        4: lambda columns, low, high: (
            columns[0][low:high],
            columns[1][low:high],
            columns[2][low:high],
            columns[3][low:high],
        ),
    }[len(columns)]


@overload(_call)
def _call_compiled(function, window):  # type: ignore[no-untyped-def]
    return lambda function, window: _call_address(function, window)  # type: ignore[call-arg]


@intrinsic
def _call_address(typing_context: Any, address: Any, window: Any) -> Any:
    """Call a compiled function by address. Passing the function itself makes an answer take 1.6 times as long."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, kinds = signature.return_type, signature.args[1].types
        pointer = context.call_conv.get_function_type(result, kinds).as_pointer()
        function = builder.inttoptr(arguments[0], pointer)
        values = cgutils.unpack_tuple(builder, arguments[1])  # type: ignore[no-untyped-call]
        status, answer = context.call_conv.call_function(builder, function, result, kinds, values)
        with cgutils.if_unlikely(builder, status.is_error):  # type: ignore[no-untyped-call]
            context.call_conv.return_status_propagate(builder, status)
        return answer

    return types.float64(address, window), generate
