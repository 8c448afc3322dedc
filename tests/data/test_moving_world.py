"""A world that moves: before the day everything is as it was, and after it only what moves."""

import numpy as np
import pytest

from closedloop.data.schema import HOUR_US
from closedloop.data.simulate import DEVIATION, ERRORS_OF, SENSORS, START_US, STEP, Move, simulate

MACHINES, DAYS, FROM_DAY = 40, 120, 60
HOURS, FROM_HOUR = 24 * DAYS, 24 * FROM_DAY
MOVE = Move(FROM_DAY, level=(1.0, 0.0, -0.5, 0.0), wear=(1.0, -1.0, 1.0, 1.0), code=(3, 0, 0, 4, 1))


@pytest.fixture(scope="module")
def still(schema):
    return simulate("default", MACHINES, DAYS, 5, schema)


@pytest.fixture(scope="module")
def moved(schema):
    return simulate("default", MACHINES, DAYS, 5, schema, MOVE)


def rows(made):
    return made.tables.values.reshape(len(SENSORS), MACHINES, HOURS)


def test_a_world_that_does_not_move_is_the_same_bit_for_bit(schema, still):
    assert simulate("default", MACHINES, DAYS, 5, schema, Move(FROM_DAY)).tables.fingerprint() == (
        still.tables.fingerprint()
    )


def test_nothing_before_the_day_changes_and_no_failure_and_no_visit_at_all(still, moved):
    np.testing.assert_array_equal(rows(still)[:, :, :FROM_HOUR], rows(moved)[:, :, :FROM_HOUR])
    for name in ("failures", "maint"):
        one, other = (getattr(made.tables, name) for made in (still, moved))
        np.testing.assert_array_equal([one.machine, one.time, one.code], [other.machine, other.time, other.code])


def test_levels_move_by_so_many_deviations(still, moved):
    change = np.median((rows(moved) - rows(still))[:, :, FROM_HOUR:], axis=(1, 2))
    np.testing.assert_allclose(change, DEVIATION * MOVE.level, atol=1e-6)


def test_wear_that_begins_after_the_day_shows_the_other_way(still, moved):
    wear = still.anomalies[still.anomalies["leads_to_failure"] & (still.anomalies["sensor"] == "rotate")]
    hours = [
        (wear[name].dt.tz_localize(None).to_numpy("datetime64[us]").astype(np.int64) - START_US) // HOUR_US
        for name in ("start", "end")
    ]
    changed = (rows(moved) - rows(still))[SENSORS.index("rotate")]
    seen = set()
    for machine, first, last, severity in zip(wear["machineID"], *hours, wear["severity"], strict=True):
        expected = -2 * severity * STEP[SENSORS.index("rotate")] if first >= FROM_HOUR else 0.0
        assert changed[machine - 1, last] == pytest.approx(expected, abs=2e-6)
        seen.add(first >= FROM_HOUR)
    assert seen == {True, False}


def test_errors_keep_their_hours_and_get_new_codes(still, moved):
    def keyed(made):
        errors = made.tables.errors
        return sorted(zip(errors.machine.tolist(), errors.time.tolist(), errors.code.tolist(), strict=True))

    begins = START_US + FROM_HOUR * HOUR_US
    expected = {(m, time, MOVE.code[code] if time >= begins else code) for m, time, code in keyed(still)}
    assert sorted(expected) == keyed(moved)
    assert {MOVE.code[code] for code in ERRORS_OF[0]} != set(ERRORS_OF[0])
