"""Convert dataclasses of arrays and numbers to named arrays and back, and refuse any other form."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from closedloop.heads.trees import Forest

# all other arrays are one-dimensional float64
FORMS: dict[str, tuple[type[np.generic], int]] = {
    "components": (np.float64, 2),
    "feature": (np.int32, 1),
    "left": (np.int32, 1),
    "roots": (np.int32, 1),
    "missing_left": (np.uint8, 1),
    "quantiles": (np.float64, 2),
    "edges": (np.float64, 2),
    "counts": (np.int64, 2),
    "covariance": (np.float64, 3),
    "day_machine": (np.int64, 1),
    "day_means": (np.float64, 2),
    "error_counts": (np.int64, 1),
    "day_number": (np.int32, 1),
    "week_covariance": (np.float64, 3),
}


def to_arrays(item: Any) -> dict[str, NDArray[Any]]:
    """The fields by name; a number becomes an array of one element, a forest its own fields; None is left out."""
    arrays: dict[str, NDArray[Any]] = {}
    for field in fields(item):
        if (value := getattr(item, field.name)) is None:
            continue
        arrays |= to_arrays(value) if isinstance(value, Forest) else {field.name: np.atleast_1d(np.asarray(value))}
    return arrays


def pop_fields(arrays: dict[str, NDArray[Any]], kind: type[Any], without: str | None = None) -> Any:
    """The inverse of :func:`to_arrays`; the arrays that it uses are removed from ``arrays``.

    The last field may be left ``without`` a value.

    Raises:
        ValueError: an array is missing, or is of another type or number of dimensions.
    """
    values: list[Any] = []
    for field in fields(kind):
        if field.name == without:
            continue
        if field.type == "Forest":
            values.append(pop_fields(arrays, Forest))
        elif field.type == "float":
            number = pop_array(arrays, field.name, np.float64)
            if number.shape != (1,):
                raise ValueError(f"{field.name!r} is not one number")
            values.append(float(number[0]))
        elif field.type == "Float64 | None" and field.name not in arrays:
            values.append(None)
        else:
            values.append(pop_array(arrays, field.name, *FORMS.get(field.name, (np.float64, 1))))
    return kind(*values)


def pop_array(arrays: dict[str, NDArray[Any]], name: str, dtype: type[np.generic], dimensions: int = 1) -> NDArray[Any]:
    """Remove one array from ``arrays`` and return it.

    Raises:
        ValueError: it is missing, or is of another type or number of dimensions.
    """
    array = arrays.pop(name, None)
    if array is None:
        raise ValueError(f"{name!r} is missing")
    if array.dtype != dtype or array.ndim != dimensions:
        raise ValueError(f"{name!r} is not an array of {np.dtype(dtype).name} in {dimensions} dimension(s)")
    return array.copy()  # arrays from a file are read-only, and numba would compile everything again for them


def nothing_left(arrays: dict[str, NDArray[Any]]) -> None:
    """Raise ValueError where an array remains unused."""
    if arrays:
        raise ValueError(f"{min(arrays)!r:.80} is unknown")
