"""The register of custom features: what ``@feature`` keeps of each function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from closedloop.data.schema import DataError, microseconds

Function = Callable[..., float]
HOURS = "hours"


@dataclass(frozen=True)
class Custom:
    """One registered function of the window (t - window, t] of these sensors, and of the hours if it wants them."""

    name: str
    unit: str
    window_us: int
    sensors: tuple[str, ...]
    wants_hours: bool
    function: Function


CUSTOM: dict[str, Custom] = {}  # by name, in the order of definition


def feature(name: str, *, unit: str, window_hours: float) -> Callable[[Function], Function]:
    """Register a function of one machine's window (t - window_hours, t] as a feature at t.

    The argument names choose what the function sees, each a float64 array with one value for each telemetry row of
    the window, oldest first: a sensor's name gives its readings (NaN where missing); ``hours``, which comes first, the
    rows' times in hours before t (0 or less, the last one 0). It returns one number, NaN where it has none. Numba
    compiles it if it can. Where the fleet lacks one of its sensors the feature is left out.

    Raises:
        DataError: the name is taken, the window is not positive, or the arguments are not as above.
    """

    def register(function: Function) -> Function:
        parameters = inspect.signature(function).parameters.values()
        sensors = tuple(parameter.name for parameter in parameters)
        wants_hours = sensors[:1] == (HOURS,)
        sensors = sensors[wants_hours:]
        if any(p.kind is not p.POSITIONAL_OR_KEYWORD or p.default is not p.empty for p in parameters):
            raise DataError(f"custom feature {name!r}: use plain arguments, without defaults, each a sensor's name")
        if HOURS in sensors:
            raise DataError(f"custom feature {name!r}: 'hours' comes before the sensors")
        if not sensors:
            raise DataError(f"custom feature {name!r}: its arguments name no sensor")
        if not window_hours > 0:
            raise DataError(f"custom feature {name!r}: window_hours must be above 0, not {window_hours!r}")
        if name in CUSTOM:
            raise DataError(f"custom feature {name!r} is defined twice; give one of them another name")
        CUSTOM[name] = Custom(name, unit, microseconds(window_hours), sensors, wants_hours, function)
        return function

    return register
