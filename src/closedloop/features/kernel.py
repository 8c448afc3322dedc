"""Features of a fleet, of a request or of one machine, through the same compiled loops."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from closedloop.data.schema import DataError, Float64, Int16, Int64, Schema, Tables
from closedloop.features.baseline import Levels
from closedloop.features.compiled import telemetry
from closedloop.features.custom_calls import bind
from closedloop.features.events import Described, Happened, Layout, events, locate
from closedloop.features.levels import Norms, levels
from closedloop.features.medians import Frozen, baselines
from closedloop.features.names import SHIFTS
from closedloop.features.registry import CUSTOM
from closedloop.features.shifts import Courses, shifts
from closedloop.features.spec import Constants, FeatureSpec, code_digest
from closedloop.features.structures import Baselines, Part, Plan, Readings, array_type, struct_type

ROWS_WORTH_A_TASK = 20_000  # a task costs 50 µs, so machines of few rows share one
_OTHERS = "features: the baselines or the telemetry are not those of {} sensors; train again"


@dataclass(frozen=True, eq=False)
class Features:
    """Features, shape (features, columns): one column for each telemetry row, or for each machine's last row.

    ``history_hours`` is how much history each column's window holds, at most ``features.history_hours`` of the params.
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

    The result does not depend on ``threads``, which is the number of processors by default.

    Raises:
        DataError: this code and schema give other features than the spec names.
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
    """Yield features machine by machine, in order of the id, through reused buffers.

    The arrays are overwritten after the next step: copy what you keep.
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
    """How many threads to start: one for a request, and never more than there are machines."""
    if rows < 20_000 and threads is None:
        return 1
    return max(1, min(threads or os.cpu_count() or 1, machines))


def _runner(
    tables: Tables, ids: Int64, offsets: Int64, spec: FeatureSpec, constants: Constants, schema: Schema, last_only: bool
) -> Callable[[int, int, int, Float64, Float64], None]:
    """The compiled loops bound to these tables: ``run(low, high, shift, X, history)``."""
    fixed = _fixed(spec, constants, schema)
    write = _compiled()
    if len(tables.values) != len(schema.sensors):
        raise DataError(_OTHERS.format(len(schema.sensors)))
    errors, maint = tables.errors, tables.maint
    readings = offsets, tables.time, np.ascontiguousarray(tables.values)
    machines = ids, tables.machine_ids, tables.machine_model, tables.machine_age
    happened = errors.machine, errors.time, errors.code, maint.machine, maint.time, maint.code
    customs = [bind(CUSTOM[name], schema.sensors, *readings) for name in spec.custom]
    trained = _trained(tables, ids, constants)

    def run(low: int, high: int, shift: int, X: Float64, history: Float64) -> None:
        write(low, high, last_only, shift, *readings, *machines, *happened, trained, fixed, X, history)
        for f, custom in enumerate(customs, fixed.layout.first - len(customs)):
            custom(Part(low, high, last_only, shift), X[f])

    return run


def _trained(tables: Tables, ids: Int64, constants: Constants) -> Int64:
    """The row of each machine among those whose level is known, -1 where it is not."""
    if constants.levels is None:
        return np.full(len(ids), -1)
    return constants.levels.rows_of(tables.named(ids).tolist())


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    """The array as one that cannot be written to, as the compiled loops take their inputs."""
    view = array[:]
    view.setflags(write=False)
    return view


class Fixed(NamedTuple):
    """What the loops need beside the tables: the same for every request.

    ``courses`` have no edges where the shift family is off; ``based`` says that some family needs a baseline.
    """

    plan: Plan
    frozen: Frozen
    courses: Courses
    layout: Layout
    norms: Norms
    based: bool


@lru_cache(maxsize=64)
def _fixed(spec: FeatureSpec, constants: Constants, schema: Schema) -> Fixed:
    """What a spec, a bundle's baselines and a schema fix for all tables."""
    plan, sensors, models = _plan(spec, schema), len(schema.sensors), len(schema.models)
    if constants.location.shape != (models + 1, sensors):
        raise DataError(_OTHERS.format(sensors))
    shifted = sensors * plan.per_sensor
    first = shifted + (sensors * len(SHIFTS) if spec.shift_steps else 0) + len(spec.custom)
    codes = len(schema.errors) if spec.error_windows_us is not None else 0
    steps = range(spec.shift_steps + 1) if spec.shift_steps else ()
    edges = np.array([spec.history_us * k // spec.shift_steps for k in steps], np.int64)
    windows = np.array(spec.error_windows_us or (), np.int64)
    half = -(-spec.history_us // (2 * schema.period_us))  # readings in half of the history
    frozen = Frozen(
        _read_only(constants.location),
        _read_only(constants.scale),
        _read_only(constants.location_trust),
        _read_only(constants.scale_trust),
        spec.history_us,
        half,
    )
    return Fixed(
        plan,
        frozen,
        Courses(_read_only(edges), spec.shift_weight, schema.period_us, shifted),
        Layout(_read_only(windows), spec.history_us, first, codes, len(schema.components), models),
        _norms(spec, constants, schema),
        plan.slack >= 0 or len(plan.half_lives) > 0 or len(edges) > 0,
    )


def _norms(spec: FeatureSpec, constants: Constants, schema: Schema) -> Norms:
    """The levels as the loop reads them, without a feature where the family is off."""
    models, features = len(schema.models), len(schema.sensors) * len(spec.level_us)
    nothing = np.ones((models + 1, 0))
    known = constants.levels or Levels((), nothing, nothing, nothing, nothing[0], nothing[0])
    known.check(models, features)
    return Norms(
        _read_only(known.location),
        _read_only(known.scale),
        _read_only(known.doubt),
        _read_only(known.gain),
        _read_only(known.single),
        _read_only(np.array(spec.level_us, np.int64)),
        _read_only(np.array([_share(us, spec.history_us, schema.period_us) for us in spec.level_us])),
        spec.history_us,
        len(spec.names) - features,
    )


def _share(half_life_us: int, history_us: int, period_us: int) -> float:
    """The variance of the mean of a whole history of independent readings, in squares of theirs; below 1."""
    weights = 0.5 ** (np.arange(max(2, history_us // period_us)) * period_us / half_life_us)
    return float((weights**2).sum() / weights.sum() ** 2)


def _plan(spec: FeatureSpec, schema: Schema) -> Plan:
    """The spec's telemetry families as the loops read them."""
    edges = sorted({spec.history_us, *spec.rolling_us, *spec.change_us, *(us // 2 for us in spec.change_us)})
    cusum = spec.cusum_slack is not None
    per_sensor = 2 * len(spec.rolling_us) + len(spec.half_lives_us) + cusum + len(spec.change_us)
    expected = (
        len(schema.sensors) * (per_sensor + (len(SHIFTS) if spec.shift_steps else 0) + len(spec.level_us))
        + len(spec.custom)
        + (0 if spec.error_windows_us is None else len(schema.errors) * (len(spec.error_windows_us) + 1))
        + len(schema.components)
        + 1
        + len(schema.models)
    )
    if expected != len(spec.names):
        raise DataError(f"features: the spec names {len(spec.names)}, this schema gives {expected}; train again")
    change = [(edges.index(us // 2), edges.index(us)) for us in spec.change_us]
    return Plan(
        edges=_read_only(np.array(edges)),
        rolling=_read_only(np.array([edges.index(us) for us in spec.rolling_us], np.int64)),
        half_lives=_read_only(np.array(spec.half_lives_us, np.int64)),
        slack=-1.0 if spec.cusum_slack is None else spec.cusum_slack,
        change=_read_only(np.array(change, np.int64).reshape(-1, 2)),
        period=schema.period_us,
        per_sensor=per_sensor,
    )


def _loops(key: int) -> Callable[..., None]:
    """All loops over the tables as one function, whose entry in numba's cache depends on ``key``.

    The structures are made inside of it. If Python passed them, an answer would take a tenth longer: each array in a
    structure needs a read-only view of its own, and each structure a look-up of its type.
    """

    def write(
        low: int,
        high: int,
        last_only: bool,
        shift: int,
        offsets: Int64,
        time: Int64,
        values: Float64,
        ids: Int64,
        machine_ids: Int64,
        machine_model: Int16,
        machine_age: Float64,
        error_machine: Int64,
        error_time: Int64,
        error_code: Int16,
        maint_machine: Int64,
        maint_time: Int64,
        maint_code: Int16,
        trained: Int64,
        fixed: Fixed,
        X: Float64,
        history_hours: Float64,
    ) -> None:
        _ = key
        part, readings = Part(low, high, last_only, shift), Readings(offsets, time, values)
        happened, models = Happened(error_time, error_code, maint_time, maint_code), fixed.layout.models
        known = Described(ids, machine_ids, machine_model, machine_age, models, error_machine, maint_machine)
        machines = locate(part, known)
        columns = X.shape[1] if fixed.based else 0
        own = Baselines(np.empty((len(values), columns)), np.empty((len(values), columns)))
        if fixed.based:
            baselines(part, readings, machines.model, fixed.frozen, own)
        telemetry(part, readings, fixed.plan, own, X, history_hours)
        if len(fixed.courses.edges) > 0:
            shifts(part, readings, fixed.courses, own, X)
        if fixed.norms.location.shape[1] > 0:
            new = len(fixed.norms.location) - 1 - models + machines.model
            row_of = np.where(trained[low:high] < 0, new, trained[low:high])
            levels(part, readings, fixed.norms, row_of, X)
        events(part, readings, machines, happened, fixed.layout, X)

    return write


@cache
def _compiled() -> Callable[..., None]:
    """The loops for exactly one signature, compiled at the first use or read from numba's cache.

    Numba's cache notices a change of this file only, so the digest of the package is made part of its key. Inputs are
    typed as read-only, since those of a request or a bundle are, and a second signature would compile again.
    """
    i, f = types.int64, types.float64
    ints, floats, codes, tables = array_type(i), array_type(f), array_type(types.int16), array_type(f, 2)
    X, history = array_type(f, 2, written=True), array_type(f, written=True)
    fixed = struct_type(
        Fixed,
        struct_type(Plan, ints, ints, ints, f, array_type(i, 2), i, i),
        struct_type(Frozen, tables, tables, tables, tables, i, i),
        struct_type(Courses, ints, f, i, i),
        struct_type(Layout, ints, i, i, i, i, i),
        struct_type(Norms, tables, tables, tables, floats, floats, ints, floats, i, i),
        types.boolean,
    )
    key = int(code_digest().removeprefix("sha256:")[:15], 16)
    part, readings = (i, i, types.boolean, i), (ints, ints, tables)
    machines, events_of = (ints, ints, codes, floats), (ints, ints, codes)
    signature = types.void(*part, *readings, *machines, *events_of, *events_of, ints, fixed, X, history)
    return njit([signature], cache=True, nogil=True, error_model="numpy")(_loops(key))
