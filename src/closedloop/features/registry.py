"""The register of custom features: what ``@feature`` keeps of each function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from closedloop.data.schema import HOUR_US, DataError

CUSTOM: dict[str, Custom] = {}


@dataclass(frozen=True)
class Custom:
    """One registered function: its arguments are sensors and, if it wants them, ``hours``."""

    name: str
    unit: str
    window_us: int
    arguments: tuple[str, ...]
    function: Callable[..., float]


def feature(name: str, *, unit: str, window_hours: float) -> Callable[[Callable[..., float]], Callable[..., float]]:
    """Register a function of one machine's window (t - window_hours, t] as a feature at t.

    The argument names choose what the function sees, each a float64 array with one value for each telemetry row of
    the window, oldest first: a sensor's name gives its readings (NaN where missing), ``hours`` the rows' times in hours
    before t (≤ 0, the last one 0). It returns one number, NaN where it has none.

    Raises:
        DataError: the name is taken, the window is not positive, or the function has no usable arguments.
    """

    def register(function: Callable[..., float]) -> Callable[..., float]:
        parameters = inspect.signature(function).parameters.values()
        arguments = tuple(p.name for p in parameters)
        if any(p.kind is not p.POSITIONAL_OR_KEYWORD or p.default is not p.empty for p in parameters):
            raise DataError(f"custom feature {name!r}: use plain arguments, each the name of a sensor or 'hours'")
        if not set(arguments) - {"hours"}:
            raise DataError(f"custom feature {name!r}: its arguments name no sensor")
        if not window_hours > 0:
            raise DataError(f"custom feature {name!r}: window_hours must be above 0, not {window_hours!r}")
        if name in CUSTOM:
            raise DataError(f"custom feature {name!r} is defined twice; give one of them another name")
        CUSTOM[name] = Custom(name, unit, round(window_hours * HOUR_US), arguments, function)
        return function

    return register
