"""Features of a fleet, of a request or of one machine, through the same compiled loops."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise

import numpy as np
from numba import njit, types

from closedloop.data.schema import DataError, Float64, Int64, Schema, Tables
from closedloop.features.apply import bind
from closedloop.features.compiled import Plan, telemetry
from closedloop.features.events import events, locate
from closedloop.features.medians import baselines
from closedloop.features.registry import CUSTOM
from closedloop.features.shifts import SHIFTS, shifts
from closedloop.features.spec import Constants, FeatureSpec

ROWS_WORTH_A_TASK = 20_000  # a task costs 50 µs, so that machines of few rows share one
_OTHERS = "features: the baselines or the telemetry are not those of {} sensors; train again"


@dataclass(frozen=True, eq=False)
class Features:
    """One column of ``X`` (features, columns) for each telemetry row, or for each machine's last row.

    ``history_hours`` is how much of the history the row's window holds: at most ``history_hours`` of the params.
    """

    machine: Int64
    time: Int64
    X: Float64
    history_hours: Float64


def compute(
    tables: Tables,
    spec: FeatureSpec,
    constants: Constants,
    schema: Schema,
    last_only: bool = False,
    threads: int | None = None,
) -> Features:
    """Features at every telemetry row, or with ``last_only`` at the last row of each machine.

    The result does not depend on ``threads`` (by default the machine's processors).

    Raises:
        DataError: the spec's features are not the ones that this code and schema give.
    """
    ids, offsets = tables.bounds()
    rows = offsets[1:] - 1 if last_only else slice(None)
    machine, time = tables.machine[rows], tables.time[rows]
    X, history = np.empty((len(spec.names), len(time))), np.empty(len(time))
    run = _runner(tables, ids, offsets, spec, constants, schema, last_only)
    workers = _workers(threads, len(tables.time), len(ids))
    if workers == 1:
        run(0, len(ids), 0, X, history)
    else:
        parts = np.searchsorted(offsets, np.linspace(0, len(tables.time), 4 * workers + 1)).tolist()

        def part(bounds: tuple[int, int]) -> None:
            run(*bounds, 0, X, history)

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(part, pairwise(parts)))
    return Features(machine, time, X, history)


def iter_machines(
    tables: Tables, spec: FeatureSpec, constants: Constants, schema: Schema, threads: int | None = None
) -> Iterator[Features]:
    """Features machine by machine, in order of the id, through reused buffers.

    What is yielded is overwritten after the next step: copy what you keep.
    """
    ids, offsets = tables.bounds()
    if not len(ids):
        return
    run = _runner(tables, ids, offsets, spec, constants, schema, last_only=False)
    workers = _workers(threads, len(tables.time), len(ids))
    # whole machines, at least one for each task
    parts = [0]
    while parts[-1] < len(ids):
        end = int(np.searchsorted(offsets, offsets[parts[-1]] + ROWS_WORTH_A_TASK, side="right")) - 1
        parts.append(max(end, parts[-1] + 1))
    most = int(np.diff(offsets[parts]).max())
    free = [(np.empty(len(spec.names) * most), np.empty(most)) for _ in range(workers + 1)]

    def several(bounds: tuple[int, int], buffers: tuple[Float64, Float64]) -> list[Features]:
        made, used = [], 0
        for m in range(*bounds):
            low, high = int(offsets[m]), int(offsets[m + 1])
            own = slice(used, used := used + high - low)
            X = buffers[0][len(spec.names) * own.start : len(spec.names) * own.stop].reshape(len(spec.names), -1)
            run(m, m + 1, low, X, buffers[1][own])
            made.append(Features(tables.machine[low:high], tables.time[low:high], X, buffers[1][own]))
        return made

    with ThreadPoolExecutor(workers) as pool:
        running: deque[tuple[Future[list[Features]], tuple[Float64, Float64]]] = deque()
        for bounds in pairwise(parts):
            buffers = free.pop()
            running.append((pool.submit(several, bounds, buffers), buffers))
            if not free:
                done, used = running.popleft()
                yield from done.result()
                free.append(used)
        for done, _ in running:
            yield from done.result()


def _workers(threads: int | None, rows: int, machines: int) -> int:
    """Threads worth their start: one for a request, never more than machines."""
    if rows < 20_000 and threads is None:
        return 1
    return max(1, min(threads or os.cpu_count() or 1, machines))


def _runner(
    tables: Tables, ids: Int64, offsets: Int64, spec: FeatureSpec, constants: Constants, schema: Schema, last_only: bool
) -> Callable[[int, int, int, Float64, Float64], None]:
    """The compiled loops bound to these tables: ``run(low, high, shift, X, history)``."""
    fixed = _fixed(spec, constants, schema)
    find, baseline_loops, telemetry_loops, shift_loops, event_loops = _compiled()
    if len(tables.values) != len(schema.sensors):
        raise DataError(_OTHERS.format(len(schema.sensors)))
    plan, knots, happened, errors, maint = fixed.plan, fixed.knots, fixed.happened, tables.errors, tables.maint
    values = np.ascontiguousarray(tables.values)
    model, age = np.empty(len(ids), np.int64), np.empty(len(ids))
    error_bounds, maint_bounds = np.empty((2, len(ids)), np.int64), np.empty((2, len(ids)), np.int64)
    described = (tables.machine_ids, tables.machine_model, tables.machine_age, len(schema.models), model, age)
    find(ids, *described, errors.machine, error_bounds, maint.machine, maint_bounds)
    customs = [bind(CUSTOM[name], schema.sensors, offsets, tables.time, values) for name in spec.custom]

    def run(low: int, high: int, shift: int, X: Float64, history: Float64) -> None:
        rows = (low, high, last_only, offsets, tables.time)
        own = np.empty((2, len(values), X.shape[1] if fixed.based else 0))
        centre, spread = own
        if fixed.based:
            window = (spec.history_us, fixed.enough)
            baseline_loops(*rows, values, model, *fixed.frozen, *window, shift, centre, spread)
        telemetry_loops(*rows, values, plan, shift, centre, spread, X, history)
        if len(knots):
            course = (knots, spec.shift_weight, schema.period_us)
            shift_loops(*rows, values, *course, shift, centre, spread, fixed.shifted, X)
        own_errors, own_maint = (error_bounds, errors.time, errors.code), (maint_bounds, maint.time, maint.code)
        event_loops(*rows, model, age, *own_errors, *own_maint, *happened, shift, X)
        for f, custom in enumerate(customs, fixed.first - len(customs)):
            custom(low, high, last_only, shift, X[f])

    return run


@dataclass(frozen=True, eq=False)
class _Fixed:
    """What the loops need beside the tables: the same for every request.

    ``knots`` are the ages (µs) of the shifts' knots, ``shifted`` is the first of their features and ``first`` the first
    of the events'. ``happened`` are the windows of errors (µs), the history (µs) and the sizes that
    :func:`~closedloop.features.events.events` asks for; ``enough`` is the readings in half of the history, and
    ``based`` says that some family stands on a baseline.
    """

    plan: Plan
    knots: Int64
    shifted: int
    first: int
    happened: tuple[Int64, int, tuple[int, int, int, int]]
    frozen: tuple[Float64, Float64, Float64, Float64]
    enough: int
    based: bool


@lru_cache(maxsize=64)
def _fixed(spec: FeatureSpec, constants: Constants, schema: Schema) -> _Fixed:
    plan, sensors, models = _plan(spec, schema), len(schema.sensors), len(schema.models)
    if constants.location.shape != (models + 1, sensors):
        raise DataError(_OTHERS.format(sensors))
    shifted = sensors * plan.per_sensor
    first = shifted + (sensors * len(SHIFTS) if spec.shift_steps else 0) + len(spec.custom)
    codes = len(schema.errors) if spec.error_windows_us is not None else 0
    steps = range(spec.shift_steps + 1) if spec.shift_steps else ()
    knots = np.array([spec.history_us * k // spec.shift_steps for k in steps], np.int64)
    windows = np.array(spec.error_windows_us or (), np.int64)
    return _Fixed(
        plan,
        knots,
        shifted,
        first,
        (windows, spec.history_us, (first, codes, len(schema.components), models)),
        (constants.location, constants.scale, constants.location_trust, constants.scale_trust),
        -(-spec.history_us // (2 * schema.period_us)),
        plan.slack >= 0 or len(plan.half_lives) > 0 or len(knots) > 0,
    )


def _plan(spec: FeatureSpec, schema: Schema) -> Plan:
    edges = sorted({spec.history_us, *spec.rolling_us, *spec.change_us, *(us // 2 for us in spec.change_us)})
    cusum = spec.cusum_slack is not None
    per_sensor = 2 * len(spec.rolling_us) + len(spec.half_lives_us) + cusum + len(spec.change_us)
    expected = (
        len(schema.sensors) * (per_sensor + (len(SHIFTS) if spec.shift_steps else 0))
        + len(spec.custom)
        + (0 if spec.error_windows_us is None else len(schema.errors) * (len(spec.error_windows_us) + 1))
        + len(schema.components)
        + 1
        + len(schema.models)
    )
    if expected != len(spec.names):
        raise DataError(f"features: the spec names {len(spec.names)}, this schema gives {expected}; train again")
    return Plan(
        edges=np.array(edges),
        rolling=np.array([edges.index(us) for us in spec.rolling_us], np.int64),
        half_lives=np.array(spec.half_lives_us, np.int64),
        slack=-1.0 if spec.cusum_slack is None else spec.cusum_slack,
        change=np.array([(edges.index(us // 2), edges.index(us)) for us in spec.change_us], np.int64).reshape(-1, 2),
        period=schema.period_us,
        per_sensor=per_sensor,
    )


@cache
def _compiled() -> list[Callable[..., None]]:
    """The loops for exactly one signature each, compiled at the first use or read from numba's cache.

    Inputs may be read-only (they come from a request or a bundle), and a second signature would compile again.
    """

    def array(kind: types.Type, dimensions: int = 1) -> types.Array:
        return types.Array(kind, dimensions, "C", readonly=True)

    i1, i2, f1, f2 = array(types.int64), array(types.int64, 2), array(types.float64), array(types.float64, 2)
    i2_own, i1_own = types.Array(types.int64, 2, "C"), types.Array(types.int64, 1, "C")
    rows = (types.int64, types.int64, types.boolean, i1, i1)
    members = (i1_own, i1_own, i1_own, types.float64, i2_own, types.int64, types.int64)
    plan = types.NamedTuple(members, Plan)  # type: ignore[no-untyped-call]
    out, history = types.Array(types.float64, 2, "C"), types.Array(types.float64, 1, "C")
    own = (types.int64, out, out)
    happened = (i2, i1, array(types.int16))
    sizes = types.UniTuple(types.int64, 4)  # type: ignore[no-untyped-call]
    ids, codes = array(types.int64), array(types.int16)
    found = types.Array(types.int64, 2, "C")
    described = (ids, codes, f1, types.int64, i1_own, history)
    signatures = (
        (locate, types.void(ids, *described, ids, found, ids, found)),
        (baselines, types.void(*rows, f2, i1, f2, f2, f2, f2, types.int64, types.int64, *own)),
        (telemetry, types.void(*rows, f2, plan, *own, out, history)),
        (shifts, types.void(*rows, f2, i1, types.float64, types.int64, *own, types.int64, out)),
        (events, types.void(*rows, i1, f1, *happened, *happened, i1, types.int64, sizes, types.int64, out)),
    )
    return [njit([sig], cache=True, nogil=True, error_model="numpy")(function) for function, sig in signatures]
