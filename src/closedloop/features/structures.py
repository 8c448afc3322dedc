"""Named structures of arrays that the compiled loops take, and those that the loops over telemetry share."""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import types

from closedloop.data.schema import Float64, Int64


class Readings(NamedTuple):
    """Telemetry of a fleet: machine m has the rows ``offsets[m]`` to ``offsets[m + 1] - 1``.

    ``time`` (rows) is in microseconds and rises within a machine; ``values`` has shape (sensors, rows).
    """

    offsets: Int64
    time: Int64
    values: Float64


class Part(NamedTuple):
    """The machines ``low`` to ``high - 1``, and where their features are written.

    The column of row r is ``r - shift``. With ``last_only`` only the last row of each machine is computed, and the
    column of machine m is m.
    """

    low: int
    high: int
    last_only: bool
    shift: int


class Baselines(NamedTuple):
    """Each row's own baseline, shape (sensors, columns); no columns where no family needs it."""

    centre: Float64
    spread: Float64


class Plan(NamedTuple):
    """The telemetry families of a spec as the loops read them.

    ``edges``: ascending window lengths whose sums are needed (µs), the history last; ``rolling``: for each rolling
    window its edge; ``half_lives`` (µs); ``change``: for each change the edges of its newer half and of the whole.
    ``slack`` is -1 where there is no CUSUM, ``per_sensor`` the number of features of a sensor.
    """

    edges: Int64
    rolling: Int64
    half_lives: Int64
    slack: float
    change: Int64
    period: int
    per_sensor: int


class Span(NamedTuple):
    """The machine of rows ``start`` to ``stop - 1``, computed from row ``begin``; the column of row r is ``r + to``."""

    start: int
    stop: int
    begin: int
    to: int


class Block(NamedTuple):
    """The rows ``row`` to ``row + rows - 1``, at most ``BLOCK``, written from ``column`` on."""

    row: int
    rows: int
    column: int


class Window(NamedTuple):
    """The history of one sensor at one row.

    ``first`` is the first row of each edge's window, ``weights`` (half-lives, rows back) those of the EWMAs.
    """

    row: int
    column: int
    value: Float64
    first: Int64
    weights: Float64
    centre: float
    spread: float


class Scratch(NamedTuple):
    """Memory that the blocks of one machine share.

    ``work`` holds rows of length ``BLOCK`` at constant offsets of one array, which LLVM sees not to overlap. ``sums``
    (edges, BLOCK) and ``counts`` (edges) are of the readings in each window. ``pointers`` (edges) and ``first``
    (edges, BLOCK) are first rows of windows: of the newest row that was looked at, and of each row of the block.
    ``even_from`` (BLOCK) is the row from which time steps are equal. ``table`` and ``ragged`` (half-lives, rows) are
    EWMA weights: of all windows with the same step, and of one window with any steps.
    """

    work: Float64
    sums: Float64
    counts: Int64
    pointers: Int64
    first: Int64
    even_from: Int64
    table: Float64
    ragged: Float64


def array_type(kind: types.Type, dimensions: int = 1, *, written: bool = False) -> types.Array:
    """Numba's type of a C-ordered array: read-only, unless a loop writes to it."""
    return types.Array(kind, dimensions, "C", readonly=not written)


def struct_type(structure: type[NamedTuple], *members: types.Type) -> Any:
    """Numba's type of a named structure. A call must give arrays of exactly these types, read-only or not."""
    return types.BaseTuple.from_types(members, structure)  # type: ignore[no-untyped-call]
