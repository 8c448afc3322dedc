"""The files between training, judging and releasing keep their form: tests/golden holds one of each."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from closedloop.heads.bundle import write
from closedloop.heads.manifest import parse
from closedloop.judge.metrics import judge
from closedloop.judge.truth import PredictionTable

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def make():
    """tests/golden/make.py."""
    spec = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def golden(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


def same(expected: Any, found: Any) -> bool:
    """Whether two values are equal, numbers to nine digits, since the last bits of a sum differ between libraries."""
    if isinstance(expected, dict):
        return set(expected) == set(found) and all(same(expected[key], found[key]) for key in expected)
    if isinstance(expected, list):
        return len(expected) == len(found) and all(map(same, expected, found))
    return found == (pytest.approx(expected, rel=1e-9) if isinstance(expected, float) else expected)


def form(value: Any) -> Any:
    """Return the keys of a JSON value at all depths, without its content."""
    return {key: form(child) for key, child in value.items()} if isinstance(value, dict) else None


def test_predictions_are_written_and_read_as_before(make, tmp_path):
    stored = PredictionTable.read(GOLDEN / "predictions.parquet")
    fresh = make.blurred(make.truth(), 0.4, 2)
    fresh.write(tmp_path / "predictions.parquet")
    again = PredictionTable.read(tmp_path / "predictions.parquet")
    for column in ("machine", "time", "head", "score", "alarm"):
        np.testing.assert_array_equal(getattr(stored, column), getattr(again, column))


def test_the_judge_gives_the_golden_figures(make):
    found = judge(PredictionTable.read(GOLDEN / "predictions.parquet"), make.truth(), make.settings())
    assert same(golden("metrics.json"), found)


def test_the_gate_gives_the_golden_decision(make):
    found = make.verdict(make.truth(), PredictionTable.read(GOLDEN / "predictions.parquet"))
    assert same(golden("decision.json"), found)


def test_the_golden_manifest_is_read_and_a_new_one_has_its_form(trained, tmp_path):
    parse((GOLDEN / "manifest.json").read_bytes())
    write(trained.bundle, tmp_path / "bundle")
    expected, found = golden("manifest.json"), json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert list(expected) == list(found)
    for part in ("heads", "training", "schema"):
        assert set(expected[part]) == set(found[part])
    assert set(form(expected["files"])["card.md"]) == set(form(found["files"])["card.md"])
