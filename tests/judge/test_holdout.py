"""The tables that judge: whose rows are kept, from when on, and where training ended."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from closedloop.data.schema import HOUR_US, Schema, Tables
from closedloop.judge.holdout import holdout, last_times
from closedloop.judge.split import split

HISTORY_US = 7 * HOUR_US


@pytest.mark.parametrize("rule", ["fleet", "unit", "prefix"])
def test_each_judged_machine_keeps_one_history_before_its_first_judged_row(
    rule: str, schema: Schema, random_fleet: Callable[..., Tables]
) -> None:
    tables = random_fleet(schema, machines=12, rows=60, sampling="gaps")
    parts = split(tables, "s", "x", rule, HOUR_US, HISTORY_US)
    kept, judged_from = holdout(tables, parts, HISTORY_US)
    expected = {}
    for machine in np.unique(tables.machine[parts.judged]).tolist():
        mine = tables.machine == machine
        expected[str(machine)] = first = int(tables.time[mine & parts.judged].min())
        rows = mine & (tables.time > first - HISTORY_US)
        assert kept.time[kept.machine == machine].tolist() == tables.time[rows].tolist()
        np.testing.assert_array_equal(kept.values[:, kept.machine == machine], tables.values[:, rows])
    assert judged_from == expected
    assert sorted(map(int, judged_from)) == np.unique(kept.machine).tolist()
    assert kept.failures is not None
    assert set(kept.failures.machine.tolist()) <= {int(machine) for machine in judged_from}


def test_the_last_training_row_of_each_machine_is_told(schema: Schema, random_fleet: Callable[..., Tables]) -> None:
    tables = random_fleet(schema, machines=4, rows=30, sampling="gaps")
    rows = split(tables, "s", "x", "prefix", HOUR_US, HISTORY_US, 0.5).training
    expected = {str(m): int(tables.time[rows & (tables.machine == m)].max()) for m in range(1, 5)}
    assert last_times(tables, rows) == expected
