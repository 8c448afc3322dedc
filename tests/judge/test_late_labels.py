"""Labels from reports that come late, out of order, in part or never."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from closedloop.data.marks import NOTHING_REPORTED, Marks
from closedloop.data.schema import HOUR_US, Events, MachineWindow, Tables
from closedloop.judge.episodes import FALSE, TRUE, UNKNOWN, Rules
from closedloop.judge.labels import known_until, labels, matured, with_delay
from closedloop.judge.metrics import judge
from closedloop.judge.outcomes import of_failures
from closedloop.judge.truth import Grid, JudgeSettings, PredictionTable, Truth
from random_fleets import make_schema

SCHEMA = make_schema()
START_US = 1_420_092_000_000_000
HOURS, HORIZON = 30, 4
WORN, SOUND, NO_FINDING = 0, 1, -1


def us(hour: float) -> int:
    return START_US + round(hour * HOUR_US)


def events(rows: list[tuple[float, int]], finding: list[int] | None = None) -> Events:
    when = np.array([us(hour) for hour, _ in rows], np.int64)
    code = np.array([code for _, code in rows], np.int16)
    found = None if finding is None else np.array(finding, np.int16)
    return Events.of(np.ones(len(rows), np.int64), when, code, found)


def machine(maint=(), failures=(), until: float | None = None, findings=None, hours: int = 10) -> MachineWindow:
    time = START_US + np.arange(hours) * HOUR_US
    mark = None if until is None else us(until)
    return MachineWindow(
        1, time, np.zeros((1, hours)), Events.empty(), events(list(maint), findings), events(list(failures)), 0, 1.0,
        mark,
    )  # fmt: skip


def shown(label: np.ndarray) -> str:
    return "".join("?01"[value + 1] for value in label[0].tolist())


@pytest.mark.parametrize(
    ("case", "maint", "failures", "until", "findings", "expected"),
    [
        ("a mark at the last row is as good as none", [], [], 9, None, "000000????"),
        ("rows after the mark less the horizon are unknown", [], [], 6, None, "000???????"),
        ("a mark after the last row makes the last rows known", [], [], 13, None, "0000000000"),
        ("one hour less, and the last row is not", [], [], 12, None, "000000000?"),
        ("without a mark silence is not health", [], [], -1e6, None, "??????????"),
        ("a failure is known before any mark vouches for it", [], [(7, 0)], 2, None, "???1111???"),
        ("a replacement without a finding censors", [(5, 0)], [], 20, [NO_FINDING], "0????00000"),
        ("found worn: the failure that an alarm foresaw", [(5, 0)], [], 20, [WORN], "0111100000"),
        ("found worn after the mark: still known", [(5, 0)], [], 2, [WORN], "?1111?????"),
        ("found sound: no failure was prevented", [(5, 0)], [], 20, [SOUND], "0000000000"),
        ("found sound vouches for nothing after the mark", [(5, 0)], [], 6, [SOUND], "000???????"),
        ("found sound and a failure after it: it fails", [(3, 0)], [(5, 0)], 20, [SOUND], "0111100000"),
        ("the repair of a failure prevented none, worn or not", [(7, 0)], [(5, 0)], 20, [WORN], "01111??000"),
        ("nor does a repair that found it sound know better", [(7, 0)], [(5, 0)], 20, [SOUND], "01111??000"),
        ("the next replacement counts again", [(2, 0), (7, 0)], [(1, 0)], 20, [WORN, WORN], "1?01111000"),
        ("one without a finding beside one found sound", [(5, 0), (6, 0)], [], 20, [SOUND, NO_FINDING], "00????0000"),
        ("one found worn beside one without", [(5, 0), (6, 0)], [], 20, [NO_FINDING, WORN], "0?11110000"),
        ("another component's finding is not this one's", [(5, 1)], [], 20, [WORN], "0000000000"),
    ],
)
def test_label(case: str, maint, failures, until, findings, expected: str, schema) -> None:
    found = labels(machine(maint, failures, until, findings), schema, HORIZON * HOUR_US)
    assert expected == shown(found), case


def test_nothing_reported_is_a_mark_before_every_row_and_does_not_overflow(schema) -> None:
    window = replace(machine(), until=NOTHING_REPORTED)
    assert "?" * 10 == shown(labels(window, schema, HORIZON * HOUR_US))
    assert not matured(window).any()


# --- laws: a world, reporters who tell of it late, and what is known at some hour ------------------------------------


@dataclass(frozen=True)
class Report:
    """What arrives at an hour: an event (its table, hour, component and finding), or a mark (``table`` is "until")."""

    arrives: float
    table: str
    hour: float
    code: int = 0
    finding: int = NO_FINDING


hours = st.integers(0, 2 * HOURS).map(lambda half: half / 2)
delays = st.one_of(st.just(0.0), st.floats(0, 40))
event = st.builds(
    lambda table, hour, code, finding, delay: Report(hour + delay, table, hour, code, finding),
    st.sampled_from(["failures", "maint"]), hours, st.integers(0, 1), st.sampled_from([NO_FINDING, WORN, SOUND]),
    delays,
)  # fmt: skip
mark = st.builds(lambda hour, delay: Report(hour + delay, "until", hour), hours, delays)
worlds = st.lists(st.one_of(event, event, mark), max_size=12).map(
    lambda reports: list({(report.table, report.hour, report.code): report for report in reports}.values())
)


def told(reports: list[Report]) -> np.ndarray:
    """The labels of a machine of which these reports have arrived, in this order."""
    maint = [report for report in reports if report.table == "maint"]
    until = max((report.hour for report in reports if report.table == "until"), default=-1e6)
    window = machine(
        [(report.hour, report.code) for report in maint],
        [(report.hour, report.code) for report in reports if report.table == "failures"],
        until,
        [report.finding for report in maint],
        HOURS,
    )
    return labels(window, SCHEMA, HORIZON * HOUR_US)


@given(worlds, st.floats(0, 2 * HOURS))
def test_no_label_before_its_arrival_and_none_without_ground(reports: list[Report], now: float) -> None:
    arrived = [report for report in reports if report.arrives <= now]
    label = told(arrived)
    reach = max((report.hour for report in arrived if report.table == "until"), default=-1e6)
    for c, row in np.ndindex(label.shape):
        ahead = [r for r in arrived if r.code == c and r.table != "until" and row < r.hour <= row + HORIZON]
        if label[c, row] == 1:
            assert any(r.table == "failures" or r.finding == WORN for r in ahead)  # somebody has said so
        elif label[c, row] == 0:
            assert row + HORIZON <= reach  # somebody vouches for the whole horizon
            assert not any(r.table == "failures" for r in ahead)


@given(worlds, st.randoms(use_true_random=False))
def test_the_order_of_delivery_does_not_matter(reports: list[Report], random) -> None:
    mixed = list(reports)
    random.shuffle(mixed)
    assert np.array_equal(told(reports), told(mixed))


@given(worlds, event)
def test_a_late_failure_changes_only_the_rows_that_it_may(reports: list[Report], late: Report) -> None:
    late = replace(late, table="failures")
    before, after = told(reports), told([*reports, late])
    c, row = np.nonzero(before != after)
    assert (c == late.code).all()
    ahead = (row < late.hour) & (late.hour <= row + HORIZON)
    assert (after[c[ahead], row[ahead]] == 1).all()
    # Beside its own horizon it makes the next replacement a repair, whose finding then says nothing.
    repair = min(
        (r.hour for r in reports if r.table == "maint" and r.code == late.code and r.hour >= late.hour), default=-1e6
    )
    beside = (row < repair) & (repair <= row + HORIZON)
    assert (ahead | beside).all()
    assert (after[c[beside & ~ahead], row[beside & ~ahead]] == -1).all()


@given(worlds, mark)
def test_a_later_mark_only_makes_unknown_rows_healthy(reports: list[Report], later: Report) -> None:
    before, after = told(reports), told([*reports, later])
    changed = before != after
    assert (before[changed] == -1).all()
    assert (after[changed] == 0).all()


@given(worlds, st.floats(0, 2 * HOURS))
def test_where_marks_are_honest_no_known_label_is_ever_revised(reports: list[Report], now: float) -> None:
    """A mark is honest where it arrives after every event that it covers."""
    honest = []
    for report in reports:
        covered = [r.arrives for r in reports if r.table != "until" and r.hour <= report.hour]
        honest.append(replace(report, arrives=max([report.arrives, *covered])) if report.table == "until" else report)
    # A finding revises what was censored; a failure makes of a finding a repair: both are known to the mark already.
    early = told([report for report in honest if report.arrives <= now])
    final = told(honest)
    healthy = early == 0
    assert (final[healthy] == 0).all()


@given(worlds)
def test_reported_in_full_it_is_as_if_it_lay_in_a_file(reports: list[Report]) -> None:
    events_ = [report for report in reports if report.table != "until"]
    plain = [replace(report, finding=NO_FINDING) for report in events_]
    in_file = machine(
        [(r.hour, r.code) for r in plain if r.table == "maint"],
        [(r.hour, r.code) for r in plain if r.table == "failures"],
        hours=HOURS,
    )
    full = told([*plain, Report(0, "until", HOURS - 1)])
    assert np.array_equal(labels(in_file, SCHEMA, HORIZON * HOUR_US), full)


# --- tables -----------------------------------------------------------------------------------------------------------


def marked(tables: Tables, *hour: float) -> Tables:
    ids = np.unique(tables.machine)[: len(hour)]
    return replace(tables, marks=Marks.of(ids, np.array([us(one) for one in hour], np.int64)))


def test_marks_are_in_the_fingerprint_and_their_absence_is_as_before(random_fleet, schema) -> None:
    plain = random_fleet(schema)
    one, other = marked(plain, 3, 4), marked(plain, 3, 5)
    assert 3 == len({plain.fingerprint(), one.fingerprint(), other.fingerprint()})
    nothing = replace(plain.maint, finding=np.full(len(plain.maint.time), -1, np.int16))
    assert plain.fingerprint() == replace(plain, maint=nothing).fingerprint()
    assert plain.fingerprint() != replace(plain, maint=replace(nothing, finding=nothing.finding + 1)).fingerprint()


def test_a_machine_that_no_mark_names_is_unknown(random_fleet, schema) -> None:
    first, second, _ = marked(random_fleet(schema), 1e5).windows()
    assert (us(1e5), NOTHING_REPORTED) == (first.until, second.until)
    assert (labels(second, schema, HOUR_US) != 0).all()
    assert (labels(first, schema, HOUR_US) == 0).any()


def test_selected_machines_keep_their_marks(random_fleet, schema) -> None:
    tables = marked(random_fleet(schema), 1, 2, 3)
    assert [us(2)] == tables.select(np.array([2])).marks.until.tolist()
    assert tables.marks is tables.rows(tables.time > 0).marks


def test_a_delay_matures_what_nobody_vouched_for_and_takes_nothing_back(random_fleet, schema) -> None:
    tables = random_fleet(schema)
    ids, offsets = tables.bounds()
    last = tables.time[offsets[1:] - 1]
    late = replace(tables, marks=Marks.of(ids[:2], np.array([NOTHING_REPORTED, last[1]])))
    found = with_delay(late, 5 * HOUR_US)
    assert [last[0] - 5 * HOUR_US, last[1], last[2] - 5 * HOUR_US] == found.marks.at(ids).tolist()
    assert with_delay(late, None) is late
    assert with_delay(tables, HOUR_US) is tables


def test_rows_that_are_cut_off_take_their_marks_with_them(random_fleet, schema) -> None:
    tables = random_fleet(schema)
    ids, offsets = tables.bounds()
    cut = tables.time[offsets[:-1] + 20]
    kept = tables.rows(tables.time <= np.repeat(cut, np.diff(offsets)))
    in_full = replace(kept, marks=Marks.of(ids, tables.time[offsets[1:] - 1]))
    for one, other in zip(kept.windows(), known_until(in_full, cut).windows(), strict=True):
        assert np.array_equal(labels(one, schema, HORIZON * HOUR_US), labels(other, schema, HORIZON * HOUR_US))
    assert known_until(kept, cut) is kept


# --- figures ----------------------------------------------------------------------------------------------------------

SETTINGS = JudgeSettings(
    Rules(12 * HOUR_US, 24 * HOUR_US, 2 * HOUR_US, 96 * HOUR_US),
    {"unplanned": 10000.0, "planned": 2000.0, "false_alarm": 250.0, "missed_anomaly": 1000.0},
    {},
)
YEAR = 8760


def fleet(schema, failures=(), maint=(), findings=None, until: float | None = None) -> Tables:
    """One machine with a row each hour of a thousand."""
    window = machine(maint, failures, hours=1000)
    tables = Tables.of(
        np.ones(1000, np.int64), window.time, np.zeros((len(schema.sensors), 1000)), Events.empty(),
        events(list(maint), findings), window.failures, (np.array([1]), np.array([0], np.int16), np.array([1.0])),
    )  # fmt: skip
    return tables if until is None else marked(tables, until)


def alarms(*hour: int) -> PredictionTable:
    time = START_US + np.arange(1000) * HOUR_US
    alarm = np.isin(np.arange(1000), hour)
    answer = (alarm.astype(float), alarm)
    silent = (np.zeros(1000), np.zeros(1000, bool))
    return PredictionTable.of(np.ones(1000, np.int64), time, {"comp1": answer, "comp2": silent})


def figures(schema, tables: Tables, *hour: int) -> dict:
    return judge(alarms(*hour), Truth(tables, schema, "fleet"), SETTINGS)["failure"]


@pytest.mark.parametrize(
    ("case", "facts", "kinds"),
    [
        ("nothing was reported: neither true nor false", {"until": -1e6}, [UNKNOWN]),
        ("nobody vouches for the horizon yet", {"until": 520}, [UNKNOWN]),
        ("vouched for, and nothing happened", {"until": 524}, [FALSE]),
        ("it failed", {"until": 600, "failures": [(510, 0)]}, [TRUE]),
        ("it failed, and the mark says no more than that", {"until": 510, "failures": [(510, 0)]}, [TRUE]),
        ("it was replaced: nobody knows", {"until": 600, "maint": [(510, 0)]}, [UNKNOWN]),
        ("it was replaced and found worn", {"until": 600, "maint": [(510, 0)], "findings": [WORN]}, [TRUE]),
        ("it was replaced though sound", {"until": 600, "maint": [(510, 0)], "findings": [SOUND]}, [FALSE]),
    ],
)
def test_an_alarm_at_hour_500_is_judged_by_what_is_known(case, facts, kinds, schema) -> None:
    grid = Grid.of(Truth(fleet(schema, **facts), schema, "fleet"), SETTINGS)
    alarm = np.arange(1000) == 500
    assert kinds == of_failures(alarm, grid, 0, SETTINGS.rules)[0].kind.tolist(), case


def test_late_truth_revises_earlier_figures(schema) -> None:
    """The failure at hour 510 is reported after its machine was said to be complete, so a false alarm becomes true."""
    early, late = fleet(schema, until=600), fleet(schema, [(510, 0)], until=600)
    before, after = figures(schema, early, 500), figures(schema, late, 500)
    assert before["event_recall"] is None
    assert before["false_alarms_per_machine_year"] == pytest.approx(YEAR / 601)
    assert (1.0, 0.0) == (after["event_recall"], after["false_alarms_per_machine_year"])
    assert after["cost_per_machine_year"] == pytest.approx(2000 * YEAR / 601)


def test_time_for_which_nobody_vouches_does_not_dilute_the_rates(schema) -> None:
    whole, half = (figures(schema, fleet(schema, until=until), 100) for until in (999, 499))
    assert half["false_alarms_per_machine_year"] == pytest.approx(2 * whole["false_alarms_per_machine_year"])


def test_failures_of_which_no_mark_tells_are_no_event_yet(schema) -> None:
    found = figures(schema, fleet(schema, [(200, 0), (700, 0)], until=400))
    assert found["by_component"]["comp1"]["failures"] == 1


def test_a_mark_at_the_last_row_gives_the_figures_of_tables_without_marks(schema) -> None:
    facts = {"failures": [(200, 0), (990, 1), (1010, 0)], "maint": [(300, 0), (995, 1)]}
    plain, in_full = (figures(schema, fleet(schema, **facts, until=until), 190, 350, 985) for until in (None, 999))
    assert plain == in_full
