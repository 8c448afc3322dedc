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
from numpy.typing import NDArray

from closedloop.data.schema import DataError, Events, Float64, Int64, Schema, Tables
from closedloop.features.apply import apply
from closedloop.features.compiled import fleet
from closedloop.features.registry import CUSTOM
from closedloop.features.spec import Constants, FeatureSpec


@dataclass(frozen=True, eq=False)
class Features:
    """One column of ``X`` (features, columns) for each telemetry row, or for each machine's last row.

    ``history_hours`` is how much of the history the row's window holds: at most ``history_hours`` of the params.
    """

    machine: Int64
    time: Int64
    X: Float64
    history_hours: Float64


@dataclass(frozen=True, eq=False)
class Plan:
    """A feature spec as the arrays the loops read.

    ``edges``: ascending window lengths whose sums are needed (µs), the history last; ``rolling``: for each rolling
    window its edge; ``change``: for each change the edges of its newer half and of the whole; ``sizes``: error codes,
    components, models, custom features, sampling period (µs). ``slack`` is -1 where there is no trend family.
    """

    edges: Int64
    rolling: Int64
    half_lives: Int64
    slack: float
    change: Int64
    error_windows: Int64
    sizes: Int64


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
    longest = int(np.diff(offsets).max())
    free = [(np.empty(len(spec.names) * longest), np.empty(longest)) for _ in range(workers + 1)]

    def one(m: int, buffers: tuple[Float64, Float64]) -> Features:
        low, high = int(offsets[m]), int(offsets[m + 1])
        X = buffers[0][: len(spec.names) * (high - low)].reshape(len(spec.names), high - low)
        history = buffers[1][: high - low]
        run(m, m + 1, low, X, history)
        return Features(tables.machine[low:high], tables.time[low:high], X, history)

    with ThreadPoolExecutor(workers) as pool:
        running: deque[tuple[Future[Features], tuple[Float64, Float64]]] = deque()
        for m in range(len(ids)):
            buffers = free.pop()
            running.append((pool.submit(one, m, buffers), buffers))
            if not free:
                done, used = running.popleft()
                yield done.result()
                free.append(used)
        for done, _ in running:
            yield done.result()


def _workers(threads: int | None, rows: int, machines: int) -> int:
    """Threads worth their start: one for a request, never more than machines."""
    if rows < 20_000 and threads is None:
        return 1
    return max(1, min(threads or os.cpu_count() or 1, machines))


def _runner(
    tables: Tables, ids: Int64, offsets: Int64, spec: FeatureSpec, constants: Constants, schema: Schema, last_only: bool
) -> Callable[[int, int, int, Float64, Float64], None]:
    """The compiled loops bound to these tables: ``run(low, high, shift, X, history)``."""
    plan, compiled = _plan(spec, schema), _compiled()
    model = np.full(len(ids), len(schema.models), np.int64)
    age = np.full(len(ids), np.nan)
    if len(tables.machine_ids):
        at = np.minimum(np.searchsorted(tables.machine_ids, ids), len(tables.machine_ids) - 1)
        known = tables.machine_ids[at] == ids
        described = known & (tables.machine_model[at] >= 0)
        model[described] = tables.machine_model[at[described]]
        age[known] = tables.machine_age[at[known]]

    def of(events: Events) -> tuple[Int64, Int64, NDArray[np.int16]]:
        ends = (events.machine.searchsorted(ids), events.machine.searchsorted(ids, side="right"))
        return np.array(ends), events.time, events.code

    fixed = (
        offsets,
        tables.time,
        np.ascontiguousarray(tables.values),
        model,
        age,
        *of(tables.errors),
        *of(tables.maint),
        plan.edges,
        plan.rolling,
        plan.half_lives,
        plan.slack,
        plan.change,
        plan.error_windows,
        plan.sizes,
        constants.location,
        constants.scale,
        constants.location_trust,
        constants.scale_trust,
    )

    customs = [CUSTOM[name] for name in spec.custom]
    first_custom = spec.names.index(spec.custom[0]) if customs else 0

    def run(low: int, high: int, shift: int, X: Float64, history: Float64) -> None:
        compiled(low, high, last_only, *fixed, shift, X, history)
        for f, custom in enumerate(customs, first_custom):
            rows = (low, high, last_only)
            apply(custom, schema.sensors, rows, offsets, tables.time, tables.values, shift, X[f])

    return run


@lru_cache(maxsize=64)
def _plan(spec: FeatureSpec, schema: Schema) -> Plan:
    edges = sorted({spec.history_us, *spec.rolling_us, *spec.change_us, *(us // 2 for us in spec.change_us)})
    codes = len(schema.errors) if spec.error_windows_us is not None else 0
    per_sensor = (
        2 * len(spec.rolling_us) + len(spec.half_lives_us) + len(spec.change_us) + (spec.cusum_slack is not None)
    )
    expected = (
        len(schema.sensors) * per_sensor
        + len(spec.custom)
        + codes * (len(spec.error_windows_us or ()) + 1)
        + len(schema.components)
        + 1
        + len(schema.models)
    )
    if expected != len(spec.names):
        raise DataError(f"features: the spec names {len(spec.names)}, this schema gives {expected}; train again")

    def ints(values: object, shape: tuple[int, ...]) -> Int64:
        return np.array(values, np.int64).reshape(shape)

    return Plan(
        edges=ints(edges, (-1,)),
        rolling=ints([edges.index(us) for us in spec.rolling_us], (-1,)),
        half_lives=ints(spec.half_lives_us, (-1,)),
        slack=-1.0 if spec.cusum_slack is None else spec.cusum_slack,
        change=ints([(edges.index(us // 2), edges.index(us)) for us in spec.change_us], (-1, 2)),
        error_windows=ints(spec.error_windows_us or (), (-1,)),
        sizes=ints([codes, len(schema.components), len(schema.models), len(spec.custom), schema.period_us], (-1,)),
    )


@cache
def _compiled() -> Callable[..., None]:
    """``fleet`` for exactly one signature, compiled at the first use or read from numba's cache.

    Inputs may be read-only (they come from a request or a bundle), and a second signature would compile again.
    """

    def array(kind: types.Type, dimensions: int = 1) -> types.Array:
        return types.Array(kind, dimensions, "C", readonly=True)

    i1, i2, f1, f2 = array(types.int64), array(types.int64, 2), array(types.float64), array(types.float64, 2)
    events = (i2, i1, array(types.int16))
    plan = (i1, i1, i1, types.float64, i2, i1, i1)
    out = (types.Array(types.float64, 2, "C"), types.Array(types.float64, 1, "C"))
    signature = types.void(
        *(types.int64, types.int64, types.boolean, i1, i1, f2, i1, f1, *events, *events, *plan, f2, f2, f2, f2),
        *(types.int64, *out),
    )
    return njit([signature], cache=True, nogil=True, error_model="numpy")(fleet)
