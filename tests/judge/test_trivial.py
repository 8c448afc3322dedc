"""A first model must be worth more than none, and no model may do proven harm."""

from dataclasses import replace

import numpy as np
import pytest

from closedloop.judge.gate import decide
from closedloop.judge.truth import JudgeSettings, PredictionTable, Truth

from .test_gate import candidate

SMALL = {"machines": 3, "per_machine": 4}  # too small to be judged


def verdict(fleet, table: PredictionTable, champion: PredictionTable | None = None, settings=None) -> tuple[str, str]:
    met = None if champion is None else candidate(champion, "champion")
    decision = decide(met, candidate(table), fleet.truth, settings or fleet.settings)
    return decision["verdict"], decision["reason"]


def changed(table: PredictionTable, seed: int, how: str) -> PredictionTable:
    """The model made worthless in one way; its failure heads never alarm but where ``alarming`` says so."""
    rng = np.random.default_rng(seed)
    failure, score = table.head != "anomaly", table.score.copy()
    if how == "inverted":
        score[failure] = 0.99 * (1 - score[failure])
    elif how in ("random", "alarming"):
        score[failure] = rng.uniform(0, 0.6 if how == "alarming" else 0.2, failure.sum())
    elif how == "constant":
        score[failure] = 0.01
    alarm = np.where(failure, (score >= 0.59) & (how == "alarming"), table.alarm & False)
    return PredictionTable(table.machine, table.time, table.head, score, alarm)


@pytest.mark.parametrize("how", ["inverted", "random", "alarming", "constant"])
def test_a_first_model_of_no_use_is_worse(fleet, build, how):
    """With the floors of the template, and with none: then alarms at random may still cost less than silence."""
    bare = JudgeSettings.from_params(build.params | {"gate": build.params["gate"] | {"floors": {}}})
    for settings in (fleet.settings, *([] if how == "alarming" else [bare])):
        for seed in range(5):
            found, reason = verdict(fleet, changed(fleet.model(seed=seed), seed, how), settings=settings)
            assert found == "worse", reason
            assert reason.startswith("There is no champion yet, and this model is of no use: ")
    if how in ("random", "constant"):
        assert "it saves nothing against a model that never alarms" in reason


def test_floors_decide_without_a_champion(fleet):
    found, reason = verdict(fleet, fleet.model(recall=0.3, seed=2))
    assert found == "worse"
    assert "failure event_recall is 0.25, below the floor of 0.50" in reason


@pytest.mark.parametrize("machines", [1, 2, 3, 4])
def test_an_inverted_model_is_worse_however_small_the_holdout(build, machines):
    small = build.fleet(machines=machines, per_machine=6)
    for seed in range(10):
        good = small.model(recall=0.9, seed=seed)
        bad = changed(good, seed, "inverted")
        assert verdict(small, good)[0] == "first"
        for champion in (None, good):
            found, reason = verdict(small, bad, champion)
            assert found == "worse", reason
            assert "scores are lower before failures than at other times" in reason


def test_too_little_is_no_proof(build):
    """Scores that say nothing, or the same everywhere, are harmless; the share of false reds stays below the rate."""
    small = build.fleet(**SMALL)
    red = sum(verdict(small, changed(small.model(seed=s), s, "random"))[0] == "worse" for s in range(60))
    assert red <= 6  # of 60 at one in 60 (error_rate / 3): the chance of more is below 1 in 10,000
    for seed in range(5):
        assert verdict(small, changed(small.model(seed=seed), seed, "constant"))[0] == "first"


def test_a_model_that_costs_more_than_silence_is_worse_in_a_small_holdout(build):
    small = build.fleet(machines=4, per_machine=1)
    found, reason = verdict(small, small.model(recall=0.9, false_alarms=900, seed=1))
    assert found == "worse"
    assert "more for each machine-year than a model that never alarms" in reason


def test_anomalies_count_where_nobody_wrote_down_failures(build):
    fleet = build.fleet(supervised=False)
    good = fleet.model(recall=0.9, seed=1)
    upside_down = replace(good, score=1 - good.score, alarm=np.zeros(len(good.alarm), bool))
    assert verdict(fleet, good)[0] == "first"
    found, reason = verdict(fleet, upside_down)
    assert found == "worse"
    assert "anomaly scores are lower in anomalies than at other times" in reason
    unknown = build.replace(fleet.truth, anomalies=None)
    assert decide(None, candidate(upside_down), unknown, fleet.settings)["verdict"] == "first"


def test_very_large_scores_are_ranked_like_small_ones(build):
    """An anomaly score has no upper limit, so that a sum of them may be too large for a float64."""
    small = build.fleet(machines=4, supervised=False)
    good = small.model(recall=0.9, seed=1)
    upside_down = replace(good, score=1 - good.score, alarm=np.zeros(len(good.alarm), bool))
    for factor in (1.0, 1e-300, 1e308):
        by_head = np.where(good.head == "anomaly", factor, 1.0)
        assert verdict(small, replace(good, score=good.score * by_head))[0] == "first"
        assert verdict(small, replace(upside_down, score=upside_down.score * by_head))[0] == "worse"


def test_components_that_fail_together_are_one_event(build):
    """Where their heads say the same, two ranks are no more proof than one."""
    failed = build.events(*[(m, h, c) for m in (1, 2, 3) for h in (300, 700, 1100, 1500) for c in (0, 1)])
    truth = Truth(build.tables(3, 2000, failed), build.schema, "hand-made", None, build.start_us)
    fleet = build.replace(build.fleet(**SMALL), truth=truth)
    table, red = fleet.model(), 0
    for seed in range(100):
        said, score = np.repeat(np.random.default_rng(seed).uniform(0, 0.2, 300), 20), table.score.copy()
        for name in ("comp1", "comp2"):
            score[table.head == name] = said
        red += verdict(fleet, replace(table, score=score, alarm=table.alarm & False))[0] == "worse"
    assert red <= 6  # of 100 at one in 60
