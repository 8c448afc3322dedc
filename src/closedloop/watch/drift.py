"""Has the world moved: two weeks of a fleet, one after the other, against the drift reference of a bundle.

Something has moved where both weeks show it in the same direction. In each week all tests together raise a false alarm
at most with the probability ``FALSE_ALARMS_PER_LOOK``, so that a year of weekly looks has at most 52 times as many.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from closedloop.data.machines import Id
from closedloop.data.schema import Float64, Int64, Schema, Tables
from closedloop.heads.drift_reference import DriftReference, Weeks
from closedloop.heads.drift_reference_fit import DAY_US, clusters_of, day_means, error_counts, shares
from closedloop.watch import drift_tests

LOOK_DAYS = 7
WEEK_US = LOOK_DAYS * DAY_US
FALSE_ALARMS_PER_LOOK = 0.01  # over all tests together; 52 looks: at most 0.52 a year, even if looks repeat each other
MINIMUM_MACHINES = 5  # machines are what is independent: of fewer nothing can be said
MINIMUM_WEEKS = 6  # in the drift reference, to know how much weeks differ
MINIMUM_DAYS = 20  # machine-days of a look
LEAST_SHARE = 0.005  # of readings, below which more or fewer missing ones are of no consequence


@dataclass(frozen=True)
class DriftTest:
    """One test of one look.

    ``subject`` is a sensor, ``anomaly score``, an error code or ``all sensors``; ``kind`` says what may have moved:
    ``level`` (KS on machine-day means), ``step`` (the level since the last weeks of training), ``distribution`` (χ² on
    bins), ``missing``, ``rate`` or ``together`` (the classifier). ``before`` and ``now`` are the figure in training and
    in the look, ``effect`` the size of the difference (KS distance; difference of levels; χ² over what chance gives;
    share; ratio of rates; area under the curve). ``moved`` says whether this look alone rejects that nothing moved.
    """

    subject: str
    kind: str
    before: float | None
    now: float | None
    effect: float
    p: float
    moved: bool = False


@dataclass(frozen=True)
class Look:
    """One week: its first and last telemetry (microseconds UTC), what it held, its tests, and what was too little."""

    start_us: int
    end_us: int
    machines: int
    machine_days: float
    tests: list[DriftTest]
    too_little: list[str]


@dataclass(frozen=True)
class Drift:
    """The verdict: ``moved``, ``steady`` or ``too little data``; the tests that both looks reject, and who is new."""

    verdict: str
    moved: list[DriftTest]
    new_machines: list[Id]
    new_names: list[str]
    looks: list[Look]

    def to_dict(self) -> dict[str, Any]:
        """The verdict as JSON."""
        return asdict(self) | {
            "look_days": LOOK_DAYS,
            "false_alarms_per_look": FALSE_ALARMS_PER_LOOK,
            "false_alarms_per_year": 52 * FALSE_ALARMS_PER_LOOK,
        }


def look(drift_reference: DriftReference, tables: Tables, score: Float64 | None, schema: Schema) -> Look:
    """DriftTest one week.

    ``tables`` holds the week's rows alone, ``score`` the anomaly score of each row where the model has one.
    """
    known = np.unique(drift_reference.day_machine)
    rows = np.isin(tables.machine, known)
    tables, score = tables.select(known), None if score is None else score[rows]
    machines = len(tables.bounds()[0])
    days = len(tables.time) * schema.period_us / DAY_US
    start, end = (int(tables.time.min()), int(tables.time.max())) if len(tables.time) else (0, 0)
    weeks, too_little = drift_reference.weeks, []
    if weeks is None or weeks.weeks < MINIMUM_WEEKS:
        there = "none" if weeks is None else f"{weeks.weeks:.0f}"
        too_little.append(
            f"the model learned from {there} whole weeks, and {MINIMUM_WEEKS} are needed to tell how weeks differ: "
            "retrain on a longer time"
        )
    if machines < MINIMUM_MACHINES or days < MINIMUM_DAYS:
        too_little.append(
            f"{machines} machines of the drift reference with {days:.0f} machine-days, "
            f"{MINIMUM_MACHINES} and {MINIMUM_DAYS} are needed"
        )  # fmt: skip
    if weeks is None or too_little:
        return Look(start, end, machines, days, [], too_little)
    values = [*tables.values, *([] if score is None else [score])]
    names = [*schema.sensors, *([] if score is None else ["anomaly score"])]
    tests = _levels(drift_reference, weeks, tables, values, names, schema, too_little)
    tests += _distributions(drift_reference, weeks, tables, values, names)
    tests += _missing(drift_reference, weeks, tables, schema)
    tests += _rates(drift_reference, weeks, tables, schema)
    rejected = drift_tests.benjamini_hochberg(np.array([test.p for test in tests]), FALSE_ALARMS_PER_LOOK)
    of_consequence = [test.kind != "missing" or test.effect >= LEAST_SHARE for test in tests]
    found = [
        DriftTest(**{**asdict(test), "moved": bool(reject and counts)})
        for test, reject, counts in zip(tests, rejected, of_consequence, strict=True)
    ]
    return Look(start, end, machines, days, found, too_little)


def _gone(drift_reference: DriftReference, tables: Tables) -> float:
    """By how much the machines that are left say less of all of them than the drift reference did; 0 where all are.

    The mean of G machines drawn from N differs from that of all by the variance of the mean of N, times N / G - 1.
    """
    return len(np.unique(drift_reference.day_machine)) / len(tables.bounds()[0]) - 1


def decide(looks: Sequence[Look], new_machines: Iterable[Id] = (), new_names: Iterable[str] = ()) -> Drift:
    """The verdict on two looks, the older one first.

    New machines, machine models and codes are named and are no drift: the model warns of them in its answers, and its
    next training learns them.
    """
    moved: list[DriftTest] = []
    if len(looks) > 1:
        earlier = {(test.subject, test.kind): test for test in looks[-2].tests}
        for test in looks[-1].tests:
            before = earlier.get((test.subject, test.kind))
            if test.moved and before is not None and before.moved and _direction(test) == _direction(before):
                moved.append(test)
    enough = len(looks) > 1 and all(one.tests for one in looks[-2:])
    verdict = "moved" if moved else "steady" if enough else "too little data"
    return Drift(verdict, moved, list(new_machines), sorted(new_names), list(looks))


def _direction(test: DriftTest) -> int:
    """1 where the figure rose, -1 where it fell; 0 where the test has no direction."""
    if test.before is None or test.now is None or test.kind in ("distribution", "together"):
        return 0
    return int(np.sign(test.now - test.before))


def _levels(
    drift_reference: DriftReference, weeks: Weeks, tables: Tables, values: list[Float64], names: list[str],
    schema: Schema, too_little: list[str],
) -> list[DriftTest]:  # fmt: skip
    """The tests of each column's level, and of all columns together."""
    week = weeks.day_number.astype(np.int64) // LOOK_DAYS
    machine, _, means = day_means(tables, values, schema)
    tests: list[DriftTest] = []
    together = np.zeros((len(values), len(week))), np.zeros((len(values), len(machine)))
    for c, (name, now) in enumerate(zip(names, means, strict=True)):
        before, after, of_before, of_now = drift_tests.centred(
            drift_reference.day_means[c], drift_reference.day_machine, now, machine
        )
        known = len(np.unique(machine[of_now]))
        if known < MINIMUM_MACHINES or len(after) < MINIMUM_DAYS:
            too_little.append(f"{name}: {known} machines that the drift reference knows, {MINIMUM_MACHINES} are needed")
            continue
        distance, p = drift_tests.kolmogorov_smirnov(before, week[of_before], after)
        usual = float(np.nanmean(drift_reference.day_means[c]))
        tests.append(DriftTest(name, "level", usual, usual + float(after.mean() - before.mean()), distance, p))
        if stepped := drift_tests.step(before, week[of_before], after, int(tables.time.min()) / WEEK_US):
            moved_to = usual + float(after.mean())
            tests.append(DriftTest(name, "step", moved_to - stepped[0], moved_to, abs(stepped[0]), stepped[1]))
        together[0][c, of_before], together[1][c, of_now] = before, after
    if sum(test.kind == "level" for test in tests) > 1:
        shared = np.isin(drift_reference.day_machine, machine), np.isin(machine, drift_reference.day_machine)
        area, p = drift_tests.classifier(
            together[0][:, shared[0]], drift_reference.day_machine[shared[0]], week[shared[0]],
            together[1][:, shared[1]], machine[shared[1]],
        )  # fmt: skip
        tests.append(DriftTest("all sensors", "together", 0.5, area, area, p))
    return tests


def _distributions(
    drift_reference: DriftReference, weeks: Weeks, tables: Tables, values: list[Float64], names: list[str]
) -> list[DriftTest]:
    """The tests of each column's bins."""
    clusters, gone, tests = clusters_of(tables), _gone(drift_reference, tables), []
    for c, (name, value) in enumerate(zip(names, values, strict=True)):
        if np.isnan(value).all():
            continue
        counts, _ = shares(value, drift_reference.edges[c], clusters)
        covariance = weeks.week_covariance[c] * (1 + 1 / weeks.weeks) + drift_reference.covariance[c] * gone
        effect, p = drift_tests.rao_scott(drift_reference.counts[c], counts, covariance, weeks.weeks)
        tests.append(DriftTest(name, "distribution", None, None, effect, p))
    return tests


def _missing(drift_reference: DriftReference, weeks: Weeks, tables: Tables, schema: Schema) -> list[DriftTest]:
    """The tests of each sensor's share of missing readings."""
    clusters, tests = clusters_of(tables), []
    rows = np.bincount(clusters).astype(np.float64)
    for c, (name, value) in enumerate(zip(schema.sensors, tables.values, strict=True)):
        gone: Float64 = np.bincount(clusters, np.isnan(value)).astype(np.float64)
        before, now = float(drift_reference.missing[c]), float(gone.sum() / rows.sum())
        p = drift_tests.share_test(before, gone, rows, float(weeks.week_missing[c]), weeks.weeks)
        tests.append(DriftTest(name, "missing", before, now, abs(now - before), p))
    return tests


def _rates(drift_reference: DriftReference, weeks: Weeks, tables: Tables, schema: Schema) -> list[DriftTest]:
    """The tests of each error's rate for each machine-day."""
    counts: Int64 = error_counts(tables, len(schema.errors))
    days: Float64 = np.diff(tables.bounds()[1]) * schema.period_us / DAY_US
    tests = []
    for code, name in enumerate(schema.errors):
        total, dispersion = int(drift_reference.error_counts[code]), float(weeks.week_errors[code])
        p = drift_tests.poisson(
            total, drift_reference.machine_days, counts[:, code], days, dispersion, _gone(drift_reference, tables)
        )
        before, now = total / drift_reference.machine_days, float(counts[:, code].sum() / days.sum())
        tests.append(DriftTest(name, "rate", before, now, now / before if before else float(now > 0), p))
    return tests


def in_words(found: Drift) -> str:
    """The verdict in one sentence."""
    if found.moved:
        said = "; ".join(describe(test) for test in found.moved)
    elif found.verdict == "steady":
        said = f"two weeks look like the training tables; {len(found.looks[-1].tests)} tests"
    else:
        reasons = [reason for one in found.looks for reason in one.too_little]
        said = "; ".join(dict.fromkeys(reasons)) or "two weeks are needed"
    if found.new_machines:
        said += f"; {len(found.new_machines)} new machine{'s' * (len(found.new_machines) > 1)}"
    if found.new_names:
        said += f"; not in the schema: {', '.join(found.new_names)}"
    return said


def describe(test: DriftTest) -> str:
    """What a test found, in a few words."""
    if test.kind == "level":
        return f"{test.subject} went from {test.before:.4g} to {test.now:.4g} (KS distance {test.effect:.2f})"
    if test.kind == "step":
        return f"{test.subject} went from {test.before:.4g} in the last weeks of training to {test.now:.4g}"
    if test.kind == "distribution":
        return f"{test.subject} is distributed otherwise (χ² is {test.effect:.0f} times what chance gives)"
    if test.kind == "missing":
        return f"{test.subject} lacks {test.now:.1%} of its readings, before {test.before:.1%}"
    if test.kind == "rate":
        return f"{test.subject} comes {test.now:.3g} times a machine-day, before {test.before:.3g}"
    return f"a classifier tells this week from earlier ones (area under the curve {test.effect:.2f})"
