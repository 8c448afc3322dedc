"""An error in params.yaml, or in the input of a command, is one line: what, where and how to fix it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from closedloop.data.schema import DataError
from model import evaluate, validate
from model.common import cli
from model.common.params import PARAMS, load


def changed(folder: Path, pattern: str, by: str) -> Path:
    """Write the project's params.yaml with one line changed."""
    text, count = re.subn(pattern, by, PARAMS.read_text(encoding="utf-8"), count=1, flags=re.MULTILINE)
    assert count == 1
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    return folder / "params.yaml"


@pytest.mark.parametrize(
    ("pattern", "by", "says"),
    [
        (r"^seed: 7", "sed: 7", "sed is not a known section"),
        (r"^seed: 7", "", "the section seed is missing"),
        (r"^seed: 7", "seed: seven", "seed is 'seven'; it must be a whole number"),
        (r"^columns: .*", "columns: 7", "columns: is not a mapping"),
        (r"^features:", "features: [a]\nunused:", "unused is not a known section"),
        (r"detector: \w+", "detector: guess", "anomaly.detector is 'guess'; choose one of mean_chart"),
        (r"folds: \d+", "folds: many", "failure.folds is 'many'; it must be a whole number"),
        (r"folds: \d+", "folds: 1", "failure.folds is 1; it must be 2 or more"),
        (r"horizon_hours: \d+", "horizon_hours: -1", "labels.horizon_hours is -1; it must be a number above 0"),
        (r"unplanned: \d+", "unplanned: lots", "judge.costs.unplanned is 'lots'; it must be a number, 0 or more"),
        (r"planned: 2000", "planed: 2000", "judge.costs must have exactly the keys"),
        (r"floors: .*", "floors: {pr_auc: high}", "gate.floors.pr_auc is 'high'; it must be a number, 0 or more"),
        (r"^seed: 7", "seed: [", "cannot be read as YAML"),
    ],
)
def test_an_error_in_the_parameters_names_its_key(tmp_path, pattern, by, says):
    path = changed(tmp_path, pattern, by)
    with pytest.raises(DataError) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_an_error_in_the_features_is_found_before_the_tables_are_read(tmp_path):
    cli.write_json(tmp_path / "data.json", {"schema": load().schema.to_dict()})
    path = changed(tmp_path, r"(rolling:.*\n +windows_hours): .*", r"\1: [3, x]")
    with pytest.raises(DataError, match="'x' is not a number of hours above 0"):
        validate.main(["--params", str(path), "--data", str(tmp_path)])


def test_evaluate_asks_for_validated_tables(tmp_path):
    cli.write_json(tmp_path / "data.json", {"schema": load().schema.to_dict()})
    with pytest.raises(DataError, match=r"were not validated; run: python -m model\.validate"):
        evaluate.main(["--data", str(tmp_path)])


def test_a_file_that_cannot_be_written_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["command"])
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stopped:
        cli.main(lambda words: cli.write_json(tmp_path / "file" / "below.json", {}))
    assert cli.USAGE == stopped.value.code
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / 'file'}")
    assert 1 == said.count("\n")
