"""The judge knows a machine by its name: who is held out, whose answers these are, who was trained on."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from closedloop.data.schema import HOUR_US, DataError, Events, Schema, Tables
from closedloop.judge.checks import Candidate, overlap
from closedloop.judge.episodes import Rules
from closedloop.judge.holdout import holdout, last_times
from closedloop.judge.split import held_out, split
from closedloop.judge.truth import Grid, JudgeSettings, PredictionTable, Truth, align

SCHEMA = Schema(("volt",), (), (), (), 60, ((0.0, 400.0),), "text")
NAMES = tuple(f"press {n:02}" for n in range(30))
RULES = Rules.of({"episode_gap_hours": 12, "minimum_lead_hours": 2, "neutral_hours": 96}, 24)
SETTINGS = JudgeSettings(RULES, dict.fromkeys(("unplanned", "planned", "false_alarm", "missed_anomaly"), 1.0), {})


def fleet(names, hours=4):
    machine = np.repeat(np.arange(len(names)), hours)
    time = np.tile(np.arange(hours) * HOUR_US, len(names))
    described = np.empty(0, np.int64), np.empty(0, np.int16), np.empty(0)
    values = machine[None].astype(float)
    return Tables.of(machine, time, values, Events.empty(), Events.empty(), None, described, names=names)


@pytest.mark.parametrize("name", ["Pump A/7", "泵 2", "007"])
def test_the_hash_takes_the_name(name):
    share = int.from_bytes(hashlib.sha256(f"salt:plant:{name}".encode()).digest()[:8]) / 2**64
    assert [share >= 0.7] == held_out(np.array([name], object), "plant", "salt").tolist()


def test_a_whole_number_hashes_as_text_as_it_does_as_a_number():
    """So a fleet of numbers that is declared as text has the same holdout."""
    numbers = np.arange(1, 200)
    texts = numbers.astype(str).astype(object)
    assert held_out(numbers, "plant", "salt").tolist() == held_out(texts, "plant", "salt").tolist()


def test_another_machine_moves_nobody_into_or_out_of_the_holdout():
    few = fleet(NAMES[5:])
    kept = {}
    for tables in (few, fleet(NAMES)):
        parts = split(tables, "plant", "salt", "unit", HOUR_US, HOUR_US)
        chosen, since = holdout(tables, parts, 2 * HOUR_US)
        assert set(since) == set(chosen.named(np.unique(chosen.machine)).tolist())
        assert set(last_times(tables, parts.training)) == set(tables.named(parts.training_machines).tolist())
        kept[tables.names] = set(since)
    assert kept[few.names] == kept[NAMES] & set(few.names)
    assert kept[few.names]


def test_answers_are_paired_by_name_whatever_their_order_and_whoever_else_answers():
    truth = Truth(fleet(NAMES[10:20]), SCHEMA, "plant")
    grid = Grid.of(truth, SETTINGS)
    everyone = fleet(NAMES)
    order = np.random.default_rng(0).permutation(len(everyone.time))
    machine, time = everyone.named(everyone.machine)[order], everyone.time[order]
    table = PredictionTable.of(machine, time, {"anomaly": (everyone.values[0][order], np.zeros(len(order), bool))})
    found = align(table, grid)["anomaly"]
    assert (0, 0) == (found.missing, found.twice)
    assert np.repeat(np.arange(10, 20), 4).astype(float).tolist() == found.score.tolist()
    numbers = replace(table, machine=everyone.machine[order])
    with pytest.raises(DataError, match="predictions: machines have numbers, and in the judged tables names"):
        align(numbers, grid)


def test_a_machine_that_trained_and_judges_is_named():
    truth = Truth(fleet(NAMES[10:20]), SCHEMA, "plant")
    grid = Grid.of(truth, SETTINGS)
    manifest = {"training": {"machines": {"plant": [*NAMES[:10], "press 15"], "other": ["press 16"]}}}
    (said,) = overlap(Candidate(None, manifest, ""), grid, truth)
    assert "it was trained on machines that judge it (machines press 15 of 10)" == said
    manifest["training"]["machines"]["plant"].pop()
    assert [] == overlap(Candidate(None, manifest, ""), grid, truth)
