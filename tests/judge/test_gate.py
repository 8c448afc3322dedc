"""Every verdict, its order, and the mutations that must each get theirs."""

import json

import numpy as np
import pytest

from closedloop.data.schema import HOUR_US, DataError
from closedloop.judge.checks import Candidate
from closedloop.judge.gate import decide, exit_code, is_green
from closedloop.judge.truth import JudgeSettings, PredictionTable

KEYS = {
    "verdict",
    "reason",
    "inputs_digest",
    "champion",
    "challenger",
    "delta",
    "guardrails",
    "floors",
    "holdout",
    "green",
    "accepted",
    "becomes_champion",
}
HEADS = {"anomaly": {"threshold": 0.5}, "failure": {"comp1": {"threshold": 0.5}, "comp2": {"threshold": 0.5}}}
RULER = {"labels in params.yaml": '{"horizon_hours": 24}', "code of judge/": "sha256:1"}


def candidate(predictions, name="challenger", **changes) -> Candidate:
    manifest = {
        "provenance": {"commit": f"{name}-commit"},
        "model_digest": f"sha256:{name}-model",
        "heads": HEADS,
        "training": {"machines": {"hand-made": [101, 102]}},
    }
    manifest |= changes.pop("manifest", {})
    return Candidate(predictions, manifest, f"sha256:{name}-inputs", RULER, **changes)


def mutated(table: PredictionTable, rows, **columns) -> PredictionTable:
    """The table with other values in some rows."""
    copy = {name: getattr(table, name).copy() for name in ("machine", "time", "head", "score", "alarm")}
    for name, value in columns.items():
        copy[name][rows] = value
    return PredictionTable(**copy)


def without(table: PredictionTable, rows) -> PredictionTable:
    return PredictionTable(*(getattr(table, name)[~rows] for name in ("machine", "time", "head", "score", "alarm")))


@pytest.fixture(scope="module")
def good(fleet):
    return fleet.model(recall=0.85, seed=1)


@pytest.fixture(scope="module")
def ask(fleet, good):
    """Decide on a challenger against the good model."""

    def decide_on(challenger, champion="good", **keywords):
        if isinstance(challenger, PredictionTable):
            challenger = candidate(challenger)
        if isinstance(champion, str):
            champion = candidate(good, "champion")
        decision = decide(champion, challenger, fleet.truth, keywords.pop("settings", fleet.settings), **keywords)
        assert set(decision) == KEYS
        json.dumps(decision, allow_nan=False)
        return decision

    return decide_on


def test_the_first_model_becomes_the_champion(ask, good):
    decision = ask(good, champion=None)
    assert (decision["verdict"], is_green(decision), decision["becomes_champion"]) == ("first", True, True)
    assert decision["champion"] is None
    assert decision["delta"]["cost_per_machine_year"] == {"estimate": None, "low": None, "high": None}


def test_a_model_that_foresees_far_more_is_better_and_becomes_the_champion(ask, fleet):
    decision = ask(fleet.model(recall=0.95, seed=1), champion=candidate(fleet.model(recall=0.4, seed=1), "champion"))
    assert (decision["verdict"], is_green(decision), decision["becomes_champion"]) == ("better", True, True)
    assert decision["delta"]["cost_per_machine_year"]["low"] > 0
    assert "Saves" in decision["reason"]
    assert "95% confidence" in decision["reason"]
    assert "champion-commit" == decision["champion"]["commit"]
    assert decision["challenger"] == {"commit": "challenger-commit", "model_digest": "sha256:challenger-model"}


def test_a_model_that_foresees_far_less_is_worse_and_red(ask, fleet):
    decision = ask(fleet.model(recall=0.3, seed=1))
    assert (decision["verdict"], exit_code(decision), decision["becomes_champion"]) == ("worse", 1, False)
    delta = decision["delta"]["cost_per_machine_year"]
    assert f"costs {-delta['estimate']:,.0f} more" in decision["reason"]
    assert f"(at least {-delta['high']:,.0f})" in decision["reason"]
    assert "below the floor of 0.50 that the champion meets" in decision["reason"]


def test_a_tie_is_inconclusive_and_green_and_leaves_the_champion(ask, fleet):
    decision = ask(fleet.model(recall=0.85, seed=2))
    assert (decision["verdict"], exit_code(decision), decision["becomes_champion"]) == ("inconclusive", 0, False)
    assert "machines" in decision["reason"]
    assert "would decide" in decision["reason"]


def test_equal_answers_of_another_model_are_inconclusive_and_say_that_more_would_not_help(ask, good):
    decision = ask(good)
    assert decision["verdict"] == "inconclusive"
    assert "would not decide" in decision["reason"]


def test_an_inconclusive_model_waits_for_a_person_where_the_parameters_ask(ask, fleet, build):
    gate = build.params["gate"] | {"on_inconclusive": "ask"}
    settings = JudgeSettings.from_params(build.params | {"gate": gate})
    tie = fleet.model(recall=0.85, seed=2)
    assert exit_code(ask(tie, settings=settings)) == 1
    accepted = {"champion": "champion-commit", "inputs_digest": "sha256:challenger-inputs", "why": "tried on line 3"}
    decision = ask(tie, settings=settings, accepted=accepted)
    assert (exit_code(decision), decision["becomes_champion"]) == (0, True)
    assert "tried on line 3" in decision["reason"]


def test_itself_is_identical(ask, good, fleet):
    itself = candidate(good, "champion")
    assert ask(itself)["verdict"] == "identical"
    assert ask(itself)["becomes_champion"] is False
    assert is_green(ask(itself))
    same_model = candidate(good, manifest={"model_digest": "sha256:champion-model"})
    assert ask(same_model)["verdict"] == "identical"


def test_the_same_model_under_another_ruler_is_incomparable(ask, good):
    other = Candidate(
        good, candidate(good, manifest={"model_digest": "sha256:champion-model"}).manifest, "x", {"a": "b"}
    )
    assert ask(other)["verdict"] == "incomparable"


@pytest.mark.parametrize("whose", ["base", "champion"])
def test_another_ruler_is_incomparable_and_names_what_changed(ask, good, whose):
    changed = RULER | {"labels in params.yaml": '{"horizon_hours": 48}'}
    if whose == "base":
        decision = ask(good, base_ruler=changed)
    else:
        champion = candidate(good, "champion")
        decision = ask(good, champion=Candidate(good, champion.manifest, "x", changed))
    assert (decision["verdict"], exit_code(decision)) == ("incomparable", 1)
    assert "labels in params.yaml" in decision["reason"]
    assert "code of judge/" not in decision["reason"]


def test_a_champion_that_cannot_answer_is_incomparable(ask, good, fleet):
    gone = candidate(None, "champion", problem="its lock no longer installs")
    broken = candidate(mutated(good, slice(500000 % len(good.score), None), score=np.nan), "champion")
    for champion, words in ((gone, "its lock no longer installs"), (broken, "not finite")):
        decision = ask(fleet.model(seed=5), champion=champion)
        assert (decision["verdict"], exit_code(decision)) == ("incomparable", 1)
        assert words in decision["reason"]


def test_shuffled_labels_are_worse(ask, good):
    """A model trained on shuffled labels answers with the right numbers at the wrong rows."""
    rng = np.random.default_rng(0)
    table = mutated(good, slice(None))
    for head in ("comp1", "comp2"):
        mine = np.flatnonzero(table.head == head)
        moved = rng.permutation(mine)
        table.score[mine], table.alarm[mine] = table.score[moved], table.alarm[moved]
    decision = ask(table)
    assert (decision["verdict"], exit_code(decision)) == ("worse", 1)


def test_an_inverted_score_is_worse(ask, good):
    """Alarms as before, yet the probability says the opposite: only the guardrails see it."""
    failing = good.head != "anomaly"
    decision = ask(mutated(good, failing, score=1 - good.score[failing]))
    assert (decision["verdict"], exit_code(decision)) == ("worse", 1)
    assert {"brier_ratio", "calibration_excess"} <= {
        rail["name"] for rail in decision["guardrails"] if rail["holds"] is False
    }


def test_three_times_the_false_alarms_is_worse_though_no_failure_is_missed(ask, fleet, good):
    quiet, loud = (fleet.model(recall=1.0, false_alarms=rate, seed=1) for rate in (3, 20))
    decision = ask(loud, champion=candidate(quiet, "champion"))
    assert (decision["verdict"], exit_code(decision)) == ("worse", 1)
    assert "times the champion's (at least" in decision["reason"]


REFUSED = {
    "NaN predictions": (lambda t: mutated(t, 17, score=np.nan), "1 of 40,000 scores of head comp1 are not finite"),
    "an infinite score": (lambda t: mutated(t, -1, score=np.inf), "of head anomaly are not finite"),
    "no probability": (lambda t: mutated(t, 17, score=1.01), "not probabilities"),
    "a missing machine": (
        lambda t: without(t, t.machine == 7),
        "2,000 of 40,000 rows have no prediction of head comp1",
    ),
    "one missing row": (lambda t: without(t, np.arange(len(t.time)) == 9), "1 of 40,000 rows have no prediction"),
    "a row twice": (lambda t: mutated(t, 1, time=t.time[0]), "1 of 40,000 rows have more than one prediction"),
    "no anomaly head": (lambda t: without(t, t.head == "anomaly"), "has a head anomaly, but there is no prediction"),
    "a missing head": (lambda t: without(t, t.head == "comp2"), "has a head comp2, but there is no prediction of it"),
}


@pytest.mark.parametrize("mutation", REFUSED)
def test_predictions_that_cannot_be_judged_are_refused(ask, good, mutation):
    mutate, words = REFUSED[mutation]
    decision = ask(mutate(good))
    assert (decision["verdict"], exit_code(decision)) == ("refused", 1)
    assert words in decision["reason"]
    assert decision["guardrails"] == []


@pytest.mark.parametrize(
    ("heads", "words"), [(["anomaly"], "no failure head answered"), (["comp1", "comp2"], "anomaly head")]
)
def test_a_missing_metric_that_the_truth_allows_is_refused(ask, good, heads, words):
    table = without(good, ~np.isin(good.head, heads))
    decision = ask(candidate(table, manifest={"heads": {"anomaly": None, "failure": {}}}))
    assert (decision["verdict"], exit_code(decision)) == ("refused", 1)
    assert words in decision["reason"]


def test_one_head_that_the_model_does_not_claim_is_silent_not_refused(ask, good):
    table = without(good, good.head == "comp2")
    decision = ask(candidate(table, manifest={"heads": HEADS | {"failure": {"comp1": {}, "comp2": None}}}))
    assert decision["verdict"] == "worse"


def test_no_predictions_at_all_are_refused(ask):
    decision = ask(candidate(None, problem="python -m model.predict exited 2"))
    assert decision["verdict"] == "refused"
    assert "python -m model.predict exited 2" in decision["reason"]


def test_overlap_with_training_machines_is_refused(ask, good):
    decision = ask(candidate(good, manifest={"training": {"machines": {"hand-made": [3, 101]}}}))
    assert (decision["verdict"], exit_code(decision)) == ("refused", 1)
    assert "machines 3 of 20" in decision["reason"]


def test_machines_of_another_source_may_share_their_numbers(ask, good):
    assert ask(candidate(good, manifest={"training": {"machines": {"azure": [3]}}}))["verdict"] == "inconclusive"


def test_a_manifest_without_training_machines_is_refused(ask, good):
    decision = ask(candidate(good, manifest={"training": {}}))
    assert decision["verdict"] == "refused"
    assert "does not list the machines" in decision["reason"]


@pytest.mark.parametrize(("hours", "verdict"), [(499, "inconclusive"), (500, "refused"), (None, "refused")])
def test_under_the_prefix_rule_training_must_end_before_the_judged_rows(fleet, good, build, hours, verdict):
    since = build.start_us + 500 * HOUR_US
    truth = build.replace(fleet.truth, rule="prefix", since_us=since)
    training = {"machines": {"hand-made": [3]}}
    if hours is not None:
        training["until_us"] = {"hand-made": {"3": build.start_us + hours * HOUR_US}}
    challenger = candidate(good, manifest={"training": training})
    assert decide(candidate(good, "champion"), challenger, truth, fleet.settings)["verdict"] == verdict


def test_a_refusal_goes_before_everything(ask, good):
    broken = mutated(good, 17, score=np.nan)
    itself = candidate(broken, "champion")
    assert ask(itself, champion=None)["verdict"] == "refused"
    assert ask(itself, base_ruler={"a": "b"})["verdict"] == "refused"


def test_identical_goes_before_incomparable_and_incomparable_before_worse_and_first(ask, good, fleet):
    changed = {"a": "b"}
    assert ask(candidate(good, "champion"), base_ruler=changed)["verdict"] == "identical"
    assert ask(fleet.model(recall=0.2), base_ruler=changed)["verdict"] == "incomparable"
    assert ask(good, champion=None, base_ruler=changed)["verdict"] == "incomparable"


ACCEPTED = {"champion": "champion-commit", "inputs_digest": "sha256:challenger-inputs", "why": "quieter nights"}


def test_an_accepted_model_is_green_and_becomes_the_champion_and_keeps_its_verdict(ask, fleet):
    decision = ask(fleet.model(recall=0.3, seed=1), accepted=ACCEPTED)
    assert (
        decision["verdict"],
        exit_code(decision),
        decision["accepted"],
        decision["becomes_champion"],
    ) == ("worse", 0, True, True)
    assert "quieter nights" in decision["reason"]


@pytest.mark.parametrize(
    "stale", [{"champion": "an older commit"}, {"inputs_digest": "sha256:other"}, {"champion": None}]
)
def test_a_stale_acceptance_has_no_effect_and_says_so(ask, fleet, stale):
    decision = ask(fleet.model(recall=0.3, seed=1), accepted=ACCEPTED | stale)
    assert (
        decision["verdict"],
        exit_code(decision),
        decision["accepted"],
        decision["becomes_champion"],
    ) == ("worse", 1, False, False)
    assert "has no effect" in decision["reason"]


def test_a_refusal_cannot_be_accepted(ask, good):
    decision = ask(mutated(good, 17, score=np.nan), accepted=ACCEPTED)
    assert (decision["verdict"], exit_code(decision), decision["accepted"]) == ("refused", 1, False)


def test_a_floor_that_the_champion_misses_too_does_not_make_it_worse(ask, fleet, build):
    settings = JudgeSettings.from_params(
        build.params | {"gate": build.params["gate"] | {"floors": {"event_recall": 0.5}}}
    )
    low = candidate(fleet.model(recall=0.3, seed=1), "champion")
    decision = ask(fleet.model(recall=0.3, seed=2), champion=low, settings=settings)
    assert decision["verdict"] == "inconclusive"
    assert [floor["holds"] for floor in decision["floors"]] == [False]


def test_a_floor_that_only_the_champion_meets_makes_it_worse_though_nothing_else_does(ask, fleet, good, build):
    gate = build.params["gate"] | {"floors": {"f1": 0.0}}
    tie = fleet.model(recall=0.85, seed=2)
    base = ask(tie, settings=JudgeSettings.from_params(build.params | {"gate": gate}))
    mine, theirs = base["floors"][0]["estimate"], base["floors"][0]["champion"]
    worst, best = sorted(((mine, tie), (theirs, good)), key=lambda pair: pair[0])
    for line in ((mine + theirs) / 2, best[0]):  # a figure on the line meets it
        settings = JudgeSettings.from_params(build.params | {"gate": gate | {"floors": {"f1": line}}})
        champion, challenger = candidate(best[1], "champion"), candidate(worst[1], "champion")
        assert ask(worst[1], champion=champion, settings=settings)["verdict"] == "worse"
        assert ask(best[1], champion=challenger, settings=settings)["verdict"] == "inconclusive"
    assert base["verdict"] == "inconclusive"


@pytest.mark.parametrize("has_champion", [True, False])
def test_a_floor_holds_on_the_side_where_its_figure_is_better(ask, fleet, good, build, has_champion):
    """``false_alarms_per_machine_year: 5`` must not hold at 15, nor ``brier: 0.01`` be missed at 0.003."""
    few, many = fleet.model(recall=0.85, false_alarms=1, seed=3), fleet.model(recall=0.85, false_alarms=30, seed=3)

    def floor_of(table, name, limit):
        gate = build.params["gate"] | {"floors": {name: limit}}
        settings = JudgeSettings.from_params(build.params | {"gate": gate})
        champion = candidate(few, "champion") if has_champion else None
        decision = ask(table, champion=champion, settings=settings)
        return decision["floors"][0], decision

    floor, decision = floor_of(many, "false_alarms_per_machine_year", 5)
    assert (floor["holds"], decision["verdict"]) == (False, "worse")
    assert "above the floor of 5.00" in decision["reason"]
    for name, limit in (("false_alarms_per_machine_year", 20), ("brier", 0.2), ("event_recall", 0.5)):
        floor, decision = floor_of(good, name, limit)
        assert floor["holds"], (name, floor)
        assert "the floor of" not in decision["reason"]


def test_a_floor_on_a_figure_that_does_not_exist_is_refused(ask, good, build):
    settings = JudgeSettings.from_params(build.params | {"gate": build.params["gate"] | {"floors": {"recal": 0.5}}})
    with pytest.raises(DataError, match=r"gate\.floors\.recal: no such figure; choose one of"):
        ask(good, settings=settings)


@pytest.mark.parametrize("size", [{"machines": 4, "per_machine": 4}, {"machines": 9, "per_machine": 1}])
def test_with_too_few_machines_or_failures_nothing_is_judged(build, size):
    small = build.fleet(**size)
    champion, challenger = small.model(recall=1.0, seed=1), small.model(recall=0.0, seed=2)
    first = decide(None, candidate(challenger), small.truth, small.settings)
    second = decide(candidate(champion, "champion"), candidate(challenger), small.truth, small.settings)
    assert (first["verdict"], second["verdict"]) == ("first", "inconclusive")
    for decision in (first, second):
        assert f"{size['machines']} machines" in decision["reason"]
        assert "at least 5 machines and 10 failures" in decision["reason"]
        assert {None} == {floor["holds"] for floor in decision["floors"]}
    assert second["delta"]["cost_per_machine_year"] == {"estimate": None, "low": None, "high": None}


def test_one_machine_decides_nothing_and_no_number_is_invented(build):
    fleet = build.fleet(machines=1, per_machine=8)
    gate = build.params["gate"] | {"minimum_machines": 1, "minimum_failures": 1, "floors": {}}
    settings = JudgeSettings.from_params(build.params | {"gate": gate})
    champion, challenger = (candidate(fleet.model(recall, seed=1), str(recall)) for recall in (0.5, 1.0))
    decision = decide(champion, challenger, fleet.truth, settings)
    assert decision["verdict"] == "inconclusive"
    assert "from any amount to any amount" in decision["reason"]
    assert "would decide" not in decision["reason"]


def test_a_fleet_without_failures_is_judged_on_its_anomalies(build):
    fleet = build.fleet(supervised=False)
    champion, challenger = (
        candidate(fleet.model(recall, seed=1), n) for recall, n in ((0.9, "champion"), (0.2, "other"))
    )
    worse = decide(champion, challenger, fleet.truth, fleet.settings)
    better = decide(challenger, champion, fleet.truth, fleet.settings)
    assert (worse["verdict"], better["verdict"]) == ("worse", "better")
    assert "anomaly event_recall is" in worse["reason"]


def test_a_fleet_without_any_truth_is_not_judged(build):
    fleet = build.fleet(supervised=False)
    truth = build.replace(fleet.truth, anomalies=None)
    decision = decide(candidate(fleet.model(), "champion"), candidate(fleet.model(seed=9)), truth, fleet.settings)
    assert decision["verdict"] == "inconclusive"
    assert "Not judged" in decision["reason"]


def test_the_gate_changes_nothing_it_is_given(ask, good):
    before = [getattr(good, name).copy() for name in ("machine", "time", "head", "score", "alarm")]
    ask(good)
    for name, old in zip(("machine", "time", "head", "score", "alarm"), before, strict=True):
        np.testing.assert_array_equal(old, getattr(good, name))
