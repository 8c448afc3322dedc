"""The registry of custom features, and the decorator ``@feature`` that fills it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from math import inf

from closedloop.data.schema import DataError, microseconds
from closedloop.features.names import label

Function = Callable[..., float]
HOURS = "hours"


@dataclass(frozen=True)
class Custom:
    """A registered function: it takes the window (t - window, t] of these sensors, and the hours if it wants them."""

    name: str
    unit: str
    window_us: int
    sensors: tuple[str, ...]
    wants_hours: bool
    function: Function

    def unfed(self, sensors: Collection[str], history_us: float) -> str | None:
        """Why a fleet with these sensors and this history goes without it; None where it does not."""
        if lacking := [sensor for sensor in self.sensors if sensor not in sensors]:
            return f"this fleet has no sensor {lacking[0]!r}"
        if self.window_us > history_us:
            window, history = label(self.window_us), label(int(history_us))
            return f"its window of {window} is longer than features.history_hours ({history})"
        return None


CUSTOM: dict[str, Custom] = {}  # by name, in the order of definition


def feature(
    name: str, *, unit: str, window_hours: float, sensors: Sequence[str] | None = None
) -> Callable[[Function], Function]:
    """Register a function of one machine's window (t - window_hours, t] as a feature at t.

    The argument names choose what the function sees. Each argument is a float64 array with one value for each
    telemetry row of the window, oldest first. A sensor's name gives its readings, NaN where missing. ``hours``, which
    must come first, gives the rows' times in hours relative to t: 0 or less, and 0 for the last one. The function
    returns one number, or NaN. Numba compiles it if it can. A fleet that lacks one of its sensors goes without it.

    A sensor whose name Python cannot have, such as ``"oil temp [°C]"``, is named in ``sensors``: the names for the
    arguments in their order, without one for ``hours``. The arguments may then be called anything.

    Raises:
        DataError: the name is taken, the window is not above 0, or the arguments are not as described.
    """

    def register(function: Function) -> Function:
        parameters = inspect.signature(function).parameters.values()
        arguments = tuple(parameter.name for parameter in parameters)
        wants_hours = arguments[:1] == (HOURS,)
        arguments = arguments[wants_hours:]
        if any(p.kind is not p.POSITIONAL_OR_KEYWORD or p.default is not p.empty for p in parameters):
            raise DataError(f"custom feature {name!r}: use plain arguments, without defaults, each a sensor's name")
        if HOURS in arguments:
            raise DataError(f"custom feature {name!r}: 'hours' comes before the sensors; make it the first argument")
        if not arguments:
            raise DataError(f"custom feature {name!r}: its arguments name no sensor; name at least one")
        seen = arguments if sensors is None else _named(name, sensors, arguments)
        if not 0 < window_hours < inf:
            raise DataError(f"custom feature {name!r}: window_hours must be above 0 and finite, not {window_hours!r}")
        if name in CUSTOM:
            raise DataError(f"custom feature {name!r} is defined twice; give one of them another name")
        CUSTOM[name] = Custom(name, unit, microseconds(window_hours), seen, wants_hours, function)
        return function

    return register


def _named(name: str, sensors: Sequence[str], arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Check the names that ``sensors`` gives to these arguments, and return them."""
    if isinstance(sensors, str):
        raise DataError(f"custom feature {name!r}: sensors must be a list of names; write sensors=[{sensors!r}]")
    if not isinstance(sensors, list | tuple) or not all(isinstance(sensor, str) for sensor in sensors):
        raise DataError(f"custom feature {name!r}: sensors must be a list of names, each a text, not {sensors!r}")
    if len(sensors) != len(arguments):
        raise DataError(
            f"custom feature {name!r}: sensors names {len(sensors)}, and the function takes {len(arguments)} "
            f"({', '.join(arguments)}); name one sensor for each, in their order"
        )
    return tuple(sensors)
