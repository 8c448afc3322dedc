"""What the gate tells a person, word for word: each sentence carries the numbers of the decision it explains."""

import numpy as np
import pytest

from closedloop.judge.checks import Candidate
from closedloop.judge.gate import decide
from closedloop.judge.truth import JudgeSettings, PredictionTable

HEADS = {"anomaly": {}, "failure": {"comp1": {}, "comp2": {}}}


def candidate(predictions, name, **changes) -> Candidate:
    manifest = {
        "provenance": {"commit": f"{name}-commit"},
        "model_digest": f"sha256:{name}",
        "heads": HEADS,
        "training": {"machines": {"hand-made": [900]}},
    } | changes
    return Candidate(predictions, manifest, f"sha256:inputs-of-{name}")


def against(fleet, champion, challenger, settings=None, **keywords):
    """The decision on two tables of answers."""
    models = candidate(champion, "champion"), candidate(challenger, "challenger")
    return decide(*models, fleet.truth, settings or fleet.settings, **keywords)


def delta_of(decision):
    return decision["delta"]["cost_per_machine_year"]


def test_better(fleet):
    decision = against(fleet, fleet.model(recall=0.4, seed=1), fleet.model(recall=0.95, seed=1))
    delta = delta_of(decision)
    assert decision["reason"] == (
        f"Saves {delta['estimate']:,.0f} for each machine-year against the champion "
        f"(at least {delta['low']:,.0f}, with 95% confidence), and no guardrail is broken."
    )


def test_worse_gives_each_reason_once_in_order(fleet):
    champion, challenger = fleet.model(recall=0.85, seed=1), fleet.model(recall=0.3, false_alarms=40, seed=1)
    decision = against(fleet, champion, challenger)
    delta, rails = delta_of(decision), {rail["name"]: rail for rail in decision["guardrails"]}
    said = {
        "false_alarm_ratio": "its false alarms are {estimate:.2f} times the champion's",
        "brier_ratio": "its Brier score is {estimate:.2f} times the champion's",
        "calibration_excess": "its calibration error exceeds the champion's by {estimate:.2f} of the failures seen",
        "segment_cost_ratio:model1": "model1 costs {estimate:.2f} times as much as with the champion",
        "segment_cost_ratio:model2": "model2 costs {estimate:.2f} times as much as with the champion",
    }
    broken = [
        words.format(**rails[name]) + " (at least {low:.2f}, limit {limit:.2f})".format(**rails[name])
        for name, words in said.items()
        if rails[name]["holds"] is False
    ]
    floors = [
        f"failure {floor['name'][8:]} is {floor['estimate']:.2f}, below the floor of {floor['limit']:.2f}"
        " that the champion meets"
        for floor in decision["floors"]
        if not floor["holds"]
    ]
    assert len(broken) >= 4
    assert len(floors) >= 1
    cost = f"it costs {-delta['estimate']:,.0f} more for each machine-year (at least {-delta['high']:,.0f})"
    assert decision["reason"] == f"Worse than the champion: {'; '.join([cost, *broken, *floors])}."


def test_a_ratio_to_nothing_is_any_number_without_a_bound(fleet):
    decision = against(
        fleet, fleet.model(recall=0.9, false_alarms=0, seed=1), fleet.model(recall=0.9, false_alarms=40, seed=1)
    )
    assert "its false alarms are any number times the champion's (limit 1.10)" in decision["reason"]


@pytest.mark.parametrize(("seeds", "word"), [((1, 2), "costs"), ((2, 1), "saves")])
def test_inconclusive_says_what_fits_and_what_would_decide(fleet, seeds, word):
    decision = against(fleet, *(fleet.model(recall=0.85, seed=seed) for seed in seeds))
    delta = delta_of(decision)
    assert decision["verdict"] == "inconclusive"
    found = decision["reason"].split(" would decide.")[0].split("about ")[-1]
    machines = int(found.split(" machines")[0].replace(",", ""))
    events = round(machines * decision["holdout"]["failures"] / 20)
    assert machines > 20
    assert decision["reason"] == (
        f"Neither is proven better. The challenger {word} about {abs(delta['estimate']):,.0f} for each machine-year,"
        f" but the 20 held-out machines allow any saving from {delta['low']:,.0f} to {delta['high']:,.0f}."
        f" If the difference is real, about {machines:,} machines ({events:,} failures) would decide."
    )


def test_the_word_follows_the_sign_in_any_currency(fleet, build):
    cheap = {name: cost / 1e6 for name, cost in fleet.settings.costs.items()}
    settings = build.replace(fleet.settings, costs=cheap)
    decision = against(fleet, *(fleet.model(recall=0.85, seed=seed) for seed in (2, 1)), settings)
    assert 0 < delta_of(decision)["estimate"] < 1
    assert "The challenger saves about 0 for each machine-year" in decision["reason"]


def test_inconclusive_counts_anomalies_where_nothing_fails(build):
    fleet = build.fleet(supervised=False)
    decision = against(fleet, fleet.model(recall=0.8, seed=1), fleet.model(recall=0.85, seed=1))
    assert decision["verdict"] == "inconclusive"
    assert decision["reason"].endswith(" anomalies) would decide.")
    assert not [rail for rail in decision["guardrails"] if rail["name"] in ("brier_ratio", "calibration_excess")]


def test_a_tie_says_that_no_number_of_machines_would_decide(fleet):
    table = fleet.model(seed=1)
    assert against(fleet, table, table)["reason"] == (
        "Neither is better: both cost the same on the held-out machines, and more such machines would not decide."
    )


def test_one_machine_allows_any_saving(build):
    fleet = build.fleet(machines=1, per_machine=8)
    gate = build.params["gate"] | {"minimum_machines": 1, "minimum_failures": 1, "floors": {}}
    settings = JudgeSettings.from_params(build.params | {"gate": gate})
    decision = against(fleet, fleet.model(0.5, seed=1), fleet.model(1.0, seed=1), settings)
    delta = delta_of(decision)
    assert decision["reason"] == (
        f"Neither is proven better. The challenger saves about {delta['estimate']:,.0f} for each machine-year,"
        " but the 1 held-out machines allow any saving from any amount to any amount."
    )


def test_first(fleet, build):
    alone = candidate(fleet.model(seed=1), "challenger")
    first = decide(None, alone, fleet.truth, fleet.settings)
    assert first["reason"] == "There is no champion yet, so this model becomes the champion."
    small = build.fleet(machines=4)
    assert decide(None, candidate(small.model(), "x"), small.truth, small.settings)["reason"] == (
        "There is no champion yet, so this model becomes the champion. 4 machines and 16 failures are held out;"
        " it takes at least 5 machines and 10 failures to judge a model."
    )


def test_not_judged(build):
    small = build.fleet(machines=9, per_machine=1)
    assert against(small, small.model(), small.model(seed=3))["reason"] == (
        "Not judged. 9 machines and 9 failures are held out;"
        " it takes at least 5 machines and 10 failures to judge a model."
    )


@pytest.mark.parametrize(("machines", "failures", "judged"), [(5, 10, True), (5, 11, False), (6, 10, False)])
def test_exactly_the_least_numbers_are_enough(build, machines, failures, judged):
    fleet = build.fleet(machines=5, per_machine=2)
    gate = build.params["gate"] | {"minimum_machines": machines, "minimum_failures": failures}
    settings = JudgeSettings.from_params(build.params | {"gate": gate})
    decision = against(fleet, fleet.model(seed=1), fleet.model(seed=2), settings)
    assert decision["holdout"]["failures"] == 10
    assert decision["reason"].startswith("Not judged.") is not judged


def test_identical(fleet):
    table = fleet.model(seed=1)
    itself, other = candidate(table, "champion"), candidate(table, "challenger", model_digest="sha256:champion")
    same = "so there is nothing to compare."
    for challenger, words in (
        (itself, "Made from the same inputs as the champion"),
        (other, "The same model as the champion, judged by the same ruler"),
    ):
        decision = decide(itself, challenger, fleet.truth, fleet.settings)
        assert (decision["verdict"], decision["reason"]) == ("identical", f"{words}, {same}")


def test_two_models_without_a_digest_are_not_the_same_model(fleet):
    models = (candidate(fleet.model(seed=seed), str(seed), model_digest=None) for seed in (1, 2))
    assert decide(*models, fleet.truth, fleet.settings)["verdict"] == "inconclusive"


def test_incomparable(fleet):
    table = fleet.model(seed=1)
    champion, challenger = candidate(table, "champion"), candidate(table, "challenger")
    changed = decide(champion, challenger, fleet.truth, fleet.settings, base_ruler={"a": "1", "b": "2"})
    assert changed["reason"] == (
        "The ruler changed (a, b), so the two models cannot be compared."
        " A code owner can accept the challenger (make accept WHY=…); then it is the new champion."
    )
    assert (changed["champion"], changed["challenger"]) == (champion.name, challenger.name)
    gone = Candidate(None, champion.manifest, champion.inputs_digest, problem="it no longer builds")
    assert decide(gone, challenger, fleet.truth, fleet.settings)["reason"] == (
        "The champion cannot answer for these tables: it no longer builds."
        " A code owner can accept the challenger (make accept WHY=…); then it is the new champion."
    )


def test_every_fault_of_the_champion_is_named(fleet):
    table = fleet.model(seed=1)
    score = table.score.copy()
    score[[3, 50_000]] = np.nan
    broken = PredictionTable(table.machine, table.time, table.head, score, table.alarm)
    assert against(fleet, broken, table)["reason"].startswith(
        "The champion cannot answer for these tables: 1 of 40,000 scores of head comp1 are not finite numbers;"
        " 1 of 40,000 scores of head comp2 are not finite numbers. "
    )


def test_refused_names_every_fault(fleet):
    table = fleet.model(seed=1)
    score = table.score.copy()
    score[[3, 50_000]] = np.nan
    broken = PredictionTable(table.machine, table.time, table.head, score, table.alarm)
    trained = {"machines": {"hand-made": [7, 901]}}
    decision = decide(None, candidate(broken, "challenger", training=trained), fleet.truth, fleet.settings)
    assert decision["reason"] == (
        "The challenger cannot be judged: 1 of 40,000 scores of head comp1 are not finite numbers;"
        " 1 of 40,000 scores of head comp2 are not finite numbers;"
        " it was trained on machines that judge it (machines 7 of 20);"
        " the truth has 80 failures, but no failure head answered, so there is no PR-AUC."
    )


ACCEPTED = {"champion": "champion-commit", "inputs_digest": "sha256:inputs-of-challenger", "why": "quieter nights"}


@pytest.mark.parametrize(
    ("accepted", "says"),
    [
        (ACCEPTED, " Accepted by a code owner: quieter nights."),
        (ACCEPTED | {"why": ""}, " Accepted by a code owner: no reason given."),
        (
            ACCEPTED | {"champion": "other"},
            " model/accepted.json was written for another champion or other inputs, so it has no effect.",
        ),
    ],
)
def test_acceptance_is_told_after_the_reason(fleet, accepted, says):
    models = fleet.model(recall=0.85, seed=1), fleet.model(recall=0.3, seed=1)
    plain, told = against(fleet, *models), against(fleet, *models, accepted=accepted)
    assert told["reason"] == plain["reason"] + says


@pytest.mark.parametrize(("recalls", "verdict"), [((0.4, 0.95), "better"), ((None, 0.9), "first")])
def test_what_needs_no_acceptance_is_not_touched_by_one(fleet, recalls, verdict):
    old, new = (None if recall is None else fleet.model(recall=recall, seed=1) for recall in recalls)
    champion = None if old is None else candidate(old, "champion")
    models = champion, candidate(new, "challenger")
    plain = decide(*models, fleet.truth, fleet.settings)
    told = decide(*models, fleet.truth, fleet.settings, accepted=ACCEPTED | {"champion": champion and champion.commit})
    assert (plain["verdict"], plain["accepted"], plain) == (verdict, False, told)


def test_a_proven_saving_does_not_excuse_a_broken_guardrail(fleet):
    """Worse goes before better: half of the failures were missed, and now none is, at ten times the false alarms."""
    quiet, loud = fleet.model(recall=0.4, false_alarms=3, seed=1), fleet.model(recall=1.0, false_alarms=30, seed=1)
    decision = against(fleet, quiet, loud)
    assert delta_of(decision)["low"] > 0
    assert decision["verdict"] == "worse"
    assert decision["reason"].startswith("Worse than the champion: its false alarms are ")
