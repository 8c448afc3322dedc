"""The operating curve: each point is what the judge says of that threshold, and what a person reads off it."""

import numpy as np
import pytest

from closedloop.judge import operating
from closedloop.judge.metrics import assess, judge
from closedloop.judge.operating import BUDGETS, anomaly_curve, curves, failure_curve, read
from closedloop.judge.outcomes import of_anomalies, of_failures
from closedloop.judge.truth import Aligned, Grid, PredictionTable, align


def heads_with_noise(build, noise):
    """Heads of a middling model, on their grid."""
    fleet = build.fleet(machines=6, hours=1500)
    rng = np.random.default_rng(3)
    table = fleet.model(recall=0.7, seed=1)
    score = np.clip(table.score + rng.normal(0, noise, len(table.score)), 0, 1)
    table = PredictionTable(table.machine, table.time, table.head, score, score >= 0.5)
    grid = Grid.of(fleet.truth, fleet.settings)
    return fleet, table, grid, align(table, grid)


@pytest.fixture(scope="module")
def seen(build):
    return heads_with_noise(build, 0.1)


@pytest.mark.parametrize("part", ["failure", "anomaly"])
def test_each_point_is_what_the_judge_says_of_that_threshold(seen, part):
    fleet, _, grid, heads = seen
    curve = curves(heads, grid, fleet.settings.rules, fleet.truth.schema)[part]
    for at in (0, len(curve.threshold) // 3, -1):
        cut = {
            name: Aligned(head.score, head.score >= curve.threshold[at], head.absent, head.twice)
            for name, head in heads.items()
        }
        figures = assess(cut, grid, fleet.settings, fleet.truth.schema).metrics[part]
        assert pytest.approx(figures["event_recall"]) == curve.event_recall[at]
        assert pytest.approx(figures["false_alarms_per_machine_year"]) == curve.false_alarms[at]


def test_a_curve_runs_from_silence_to_an_alarm_at_every_row(seen):
    fleet, _, grid, heads = seen
    for curve in curves(heads, grid, fleet.settings.rules, fleet.truth.schema).values():
        assert (np.diff(curve.threshold) < 0).all()
        assert (curve.threshold[0], curve.event_recall[0], curve.false_alarms[0]) == (np.inf, 0.0, 0.0)
        assert curve.event_recall[-1] == 1.0
        assert (np.diff(curve.event_recall) > 0).all()
        assert (np.diff(curve.false_alarms)[1:] > 0).all()  # no point is beaten in both by another one


@pytest.mark.parametrize("part", ["failure", "anomaly"])
def test_within_the_budgets_no_threshold_of_all_does_better(build, part, monkeypatch):
    """The judge is asked for every score that occurs; between two of them nothing changes."""
    budgets = (0.0, 1.0, 2.0, 30.0, 60.0)
    monkeypatch.setattr(operating, "BUDGETS", budgets)
    fleet, _, grid, heads = heads_with_noise(build, 0.2)
    rules, names = fleet.settings.rules, ["anomaly"] if part == "anomaly" else fleet.truth.schema.components
    curve = curves(heads, grid, rules, fleet.truth.schema)[part]
    best, false_alarms = dict.fromkeys(budgets, 0.0), 0.0
    for threshold in np.unique(np.concatenate([heads[name].score for name in names]))[::-1]:
        if part == "anomaly":
            judged = of_anomalies(heads["anomaly"].score >= threshold, grid, rules)
        else:
            alarms = [heads[name].score >= threshold for name in names]
            judged = [one for c, alarm in enumerate(alarms) for one in of_failures(alarm, grid, c, rules)]
        recall = sum(one.detected for one in judged) / sum(len(one.lead_hours) for one in judged)
        false_alarms = sum(one.false_alarms for one in judged) / grid.years.sum()
        best = {budget: max(known, recall * (false_alarms <= budget)) for budget, known in best.items()}
        if false_alarms > 2 * max(budgets):
            break
    assert false_alarms > 2 * max(budgets)
    assert best == {budget: curve.recall_at(budget) for budget in budgets}
    assert len(set(best.values())) > 2


def test_a_curve_is_read_at_the_best_threshold_that_stays_within_the_budget(seen):
    fleet, _, grid, heads = seen
    curve = failure_curve(heads, grid, fleet.settings.rules, fleet.truth.schema)
    for budget in (0.0, 1.0, 5.0, 1e9):
        allowed = curve.false_alarms <= budget
        assert curve.event_recall[allowed].max() == curve.recall_at(budget)
        assert allowed[curve.best_at(budget)]
    assert {f"{budget:g}": curve.recall_at(budget) for budget in BUDGETS} == read(curve)


def test_the_figures_carry_it(seen):
    fleet, table, grid, heads = seen
    metrics = judge(table, fleet.truth, fleet.settings)
    for part, curve in curves(heads, grid, fleet.settings.rules, fleet.truth.schema).items():
        assert read(curve) == metrics[part]["event_recall_at"]
        assert list(metrics[part]["event_recall_at"]) == ["1", "1.5", "2", "5"]


def test_the_failures_of_a_missing_head_count_as_missed(seen):
    fleet, _, grid, heads = seen
    alone = {name: head for name, head in heads.items() if name != "comp2"}
    curve = failure_curve(alone, grid, fleet.settings.rules, fleet.truth.schema)
    comp1 = sum(len(of_one[0]) for of_one in grid.failures)
    assert pytest.approx(comp1 / grid.failure_count) == curve.event_recall[-1]


def test_one_score_for_all_rows_is_silence_or_an_alarm_at_every_row(seen):
    fleet, _, grid, heads = seen
    flat = {"anomaly": Aligned(np.ones(len(grid.time)), heads["anomaly"].alarm, heads["anomaly"].absent, 0)}
    curve = anomaly_curve(flat, grid, fleet.settings.rules)
    assert curve.threshold.tolist() == [np.inf, 1.0]
    assert curve.recall_at(5.0) == 0.0


def test_where_nothing_can_be_read_there_is_no_curve(seen, build):
    fleet, _, grid, heads = seen
    rules, schema = fleet.settings.rules, fleet.truth.schema
    score = heads["comp1"].score.copy()
    score[3] = np.nan
    broken = heads | {"comp1": Aligned(score, heads["comp1"].alarm, heads["comp1"].absent, 0)}
    assert failure_curve(broken, grid, rules, schema) is None
    assert failure_curve({}, grid, rules, schema) is None
    assert anomaly_curve({}, grid, rules) is None
    assert read(None) == {"1": None, "1.5": None, "2": None, "5": None}
    quiet = build.fleet(machines=6, hours=1500, supervised=False)
    bare = build.replace(quiet.truth, anomalies=None)
    nothing = Grid.of(bare, quiet.settings)
    assert curves(heads, nothing, rules, schema) == {"failure": None, "anomaly": None}
