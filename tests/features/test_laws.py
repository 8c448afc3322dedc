"""The laws of the feature kernel: what a feature may know, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closedloop.data.schema import HOUR_US, Events, Schema, Tables
from closedloop.features import kernel
from closedloop.features.baseline import Levels
from closedloop.features.kernel import Features, compute, iter_machines
from closedloop.features.registry import CUSTOM
from closedloop.features.spec import Constants, FeatureSpec

Fleet = Callable[..., Tables]
HISTORY_HOURS = max(12, *(item.window_us // HOUR_US + 1 for item in CUSTOM.values()))
PARAMS = {
    "history_hours": HISTORY_HOURS,
    "rolling": {"windows_hours": [0.5, 3, 12]},
    "trend": {"half_lives_hours": [2, 6], "cusum_slack": 0.5},
    "shift": {"steps": 8, "weight": 0.5},
    "level": {"half_lives_hours": [2, 6]},
    "change": {"windows_hours": [5, 12]},
    "errors": {"windows_hours": [3, 12]},
}
law = settings(max_examples=25, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
kinds = st.fixed_dictionaries(
    {
        "seed": seeds,
        "machines": st.integers(1, 3),
        "rows": st.sampled_from([1, 5, 60, 400]),
        "sampling": st.sampled_from(["even", "even", "gaps", "jitter"]),
        "missing": st.sampled_from([0.0, 0.0, 0.01, 0.3]),
    }
)
minutes = st.sampled_from([60, 60, 10])


def constants(schema: Schema, seed: int) -> Constants:
    """Baselines with all kinds of trust: none, some, nearly all."""
    rng = np.random.default_rng(seed)
    shape = (len(schema.models) + 1, len(schema.sensors))
    trusts = rng.choice([0.0, 0.3, 0.95], (2, *shape))
    known = len(schema.models) + 2, 2 * len(schema.sensors)  # the first machine alone was trained on
    norms = rng.uniform(95, 105, known), rng.uniform(5, 15, known), rng.choice([0.0, 0.5, 30.0], known)
    levels = Levels((1,), *norms, rng.uniform(0.02, 0.5, known[1]), rng.uniform(0.0, 20.0, known[1]))
    return Constants(rng.uniform(95, 105, shape), rng.uniform(5, 15, shape), *trusts, levels)


def run(tables: Tables, schema: Schema, seed: int, last_only: bool = False) -> Features:
    return compute(tables, FeatureSpec.from_params(PARAMS, schema), constants(schema, seed), schema, last_only)


def cut(tables: Tables, keep: np.ndarray, **changes: object) -> Tables:
    """The tables with these telemetry rows only."""
    columns = {"machine": tables.machine[keep], "time": tables.time[keep]}
    return replace(tables, **columns, values=np.ascontiguousarray(tables.values[:, keep]), **changes)


def only(events: Events, keep: np.ndarray) -> Events:
    return Events(events.machine[keep], events.time[keep], events.code[keep])


@law
@given(kind=kinds, minutes=minutes)
def test_the_future_leaves_the_past_bit_equal(kind, minutes, schema_of, fleet: Fleet) -> None:
    schema = schema_of(minutes)
    tables = fleet(schema, **kind)
    rng = np.random.default_rng(kind["seed"])
    now = int(rng.choice(tables.time))
    past = tables.time <= now
    values = np.where(past, tables.values, rng.choice([np.nan, -1e9, 7.0], tables.values.shape))

    def other_future(events: Events) -> Events:
        new = only(fleet(schema, **(kind | {"seed": kind["seed"] ^ 1})).errors, slice(None))
        both = [np.concatenate(pair) for pair in ((events.machine, new.machine), (events.time, new.time))]
        code = np.concatenate((events.code, new.code % 2))
        keep = np.append(events.time <= now, new.time > now)
        return Events.of(both[0][keep], both[1][keep], code[keep])

    perturbed = replace(
        tables, values=values, errors=other_future(tables.errors), maint=other_future(tables.maint), failures=None
    )
    expected = run(tables, schema, kind["seed"]).X[:, past]
    assert expected.tobytes() == run(perturbed, schema, kind["seed"]).X[:, past].tobytes()
    assert expected.tobytes() == run(cut(perturbed, past), schema, kind["seed"]).X.tobytes()


@law
@given(kind=kinds, minutes=minutes)
def test_a_window_of_the_history_gives_the_bits_of_the_fleet(kind, minutes, schema_of, fleet: Fleet) -> None:
    schema = schema_of(minutes)
    tables = fleet(schema, **kind)
    features = run(tables, schema, kind["seed"])
    for row in np.random.default_rng(kind["seed"]).integers(0, len(tables.time), 6).tolist():
        machine, now = int(tables.machine[row]), int(tables.time[row])
        since = now - HISTORY_HOURS * HOUR_US

        def inside(events: Events, since: int = since, now: int = now) -> Events:
            return only(events, (events.time > since) & (events.time <= now))

        maint = only(tables.maint.slice(machine), tables.maint.slice(machine).time <= now)
        newest = [np.flatnonzero(maint.code == code)[-1:] for code in range(len(schema.components))]
        window = cut(
            tables.select(np.array([machine])),
            (tables.time[tables.machine == machine] > since) & (tables.time[tables.machine == machine] <= now),
            errors=inside(tables.errors.slice(machine)),
            maint=only(maint, np.sort(np.concatenate(newest))),
            failures=None,
        )
        answer = run(window, schema, kind["seed"], last_only=True)
        assert features.X[:, row].tobytes() == answer.X[:, 0].tobytes()
        assert features.history_hours[row] == answer.history_hours[0]


@pytest.mark.parametrize("history_hours", range(HISTORY_HOURS, HISTORY_HOURS + 26))
def test_rows_whose_history_just_fills_are_no_exception(history_hours: int, schema: Schema, fleet: Fleet) -> None:
    """Rows are computed in blocks; wherever the history fills, in a block or at its edge, the bits are the same."""
    tables = fleet(schema, machines=1, rows=2 * history_hours + 60)
    spec = FeatureSpec.from_params(PARAMS | {"history_hours": history_hours}, schema)
    frozen = constants(schema, history_hours)
    features = compute(tables, spec, frozen, schema)
    for row in range(max(history_hours - 26, 0), history_hours + 8):
        past = cut(tables, np.arange(max(row - history_hours + 1, 0), row + 1))
        assert features.X[:, row].tobytes() == compute(past, spec, frozen, schema, last_only=True).X.tobytes()


@pytest.mark.parametrize("change", range(244, 249))
def test_a_change_of_the_sampling_period_is_no_exception(change: int, schema: Schema, fleet: Fleet) -> None:
    """Hourly rows turn half-hourly, so that their windows are even again near where a block of rows begins."""
    tables, history_hours = fleet(schema, machines=1, rows=720), HISTORY_HOURS + 5
    tables = cut(tables, np.arange(330))
    steps = np.where(np.arange(330) < change, HOUR_US, HOUR_US // 2)
    tables = replace(tables, time=tables.time[0] + np.cumsum(steps))
    spec = FeatureSpec.from_params(PARAMS | {"history_hours": history_hours}, schema)
    frozen = constants(schema, change)
    features = compute(tables, spec, frozen, schema)
    for row in range(290, 330):
        past = cut(tables, np.flatnonzero((np.arange(330) <= row) & (np.arange(330) > row - 2 * history_hours)))
        assert features.X[:, row].tobytes() == compute(past, spec, frozen, schema, last_only=True).X.tobytes()


@law
@given(kind=kinds)
def test_the_order_of_the_input_does_not_matter(kind, schema: Schema, fleet: Fleet) -> None:
    tables = fleet(schema, **kind)
    rng = np.random.default_rng(kind["seed"])

    def mixed(events: Events) -> Events:
        order = rng.permutation(len(events.time))
        return Events.of(events.machine[order], events.time[order], events.code[order])

    order, by_id = rng.permutation(len(tables.time)), rng.permutation(len(tables.machine_ids))
    shuffled = Tables.of(
        tables.machine[order],
        tables.time[order],
        tables.values[:, order],
        mixed(tables.errors),
        mixed(tables.maint),
        None,
        (tables.machine_ids[by_id], tables.machine_model[by_id], tables.machine_age[by_id]),
    )
    assert run(tables, schema, kind["seed"]).X.tobytes() == run(shuffled, schema, kind["seed"]).X.tobytes()


@law
@given(kind=kinds)
def test_whatever_else_is_in_the_batch_changes_nothing(kind, schema: Schema, fleet: Fleet) -> None:
    tables = fleet(schema, **kind)
    together = run(tables, schema, kind["seed"])
    for machine in np.unique(tables.machine):
        alone = run(tables.select(np.array([machine])), schema, kind["seed"])
        assert together.X[:, tables.machine == machine].tobytes() == alone.X.tobytes()
    last = run(tables, schema, kind["seed"], last_only=True)
    ends = tables.bounds()[1][1:] - 1
    assert together.X[:, ends].tobytes() == last.X.tobytes()
    assert tables.time[ends].tolist() == last.time.tolist()


@pytest.mark.parametrize("rows_worth_a_task", [1, 250, 20_000])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_and_streaming_change_nothing(
    threads: int, rows_worth_a_task: int, schema: Schema, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "ROWS_WORTH_A_TASK", rows_worth_a_task)
    tables = fleet(schema, machines=7, sampling="gaps", missing=0.01)
    spec, frozen = FeatureSpec.from_params(PARAMS, schema), constants(schema, 0)
    expected = compute(tables, spec, frozen, schema, threads=1)
    whole = compute(tables, spec, frozen, schema, threads=threads)
    last = compute(tables, spec, frozen, schema, last_only=True, threads=threads)
    parts = [
        replace(part, X=part.X.copy(), history_hours=part.history_hours.copy())
        for part in iter_machines(tables, spec, frozen, schema, threads=threads)
    ]
    assert expected.X.tobytes() == whole.X.tobytes()
    assert expected.X[:, tables.bounds()[1][1:] - 1].tobytes() == last.X.tobytes()
    assert expected.X.tobytes() == np.hstack([part.X for part in parts]).tobytes()
    assert expected.history_hours.tolist() == np.concatenate([part.history_hours for part in parts]).tolist()
    assert tables.time.tolist() == np.concatenate([part.time for part in parts]).tolist()


def test_read_only_arrays_of_a_request_are_taken_as_they_are(schema: Schema, fleet: Fleet) -> None:
    tables = fleet(schema)
    expected = run(tables, schema, 0).X.tobytes()
    for column in (tables.time, tables.values, tables.errors.time, tables.errors.code, tables.maint.code):
        column.flags.writeable = False
    assert expected == run(tables, schema, 0).X.tobytes()


def test_no_telemetry_gives_no_features(schema: Schema, fleet: Fleet) -> None:
    empty = cut(fleet(schema), np.zeros(0, np.int64))
    for last_only in (False, True):
        assert (len(FeatureSpec.from_params(PARAMS, schema).names), 0) == run(empty, schema, 0, last_only).X.shape
    spec = FeatureSpec.from_params(PARAMS, schema)
    assert list(iter_machines(empty, spec, constants(schema, 0), schema)) == []
