"""An error in the input of a command is one line: what, where and how to fix it. Those in params.yaml: test_slips."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from closedloop.data.schema import DataError
from model import evaluate, validate
from model.common import cli
from model.common.params import PARAMS, ParamsError, load, parse


def changed(folder: Path, pattern: str, by: str) -> Path:
    """Write the reference fleet's params.yaml with one line changed."""
    text, count = re.subn(pattern, by, PARAMS.read_text(encoding="utf-8"), count=1, flags=re.MULTILINE)
    assert count == 1
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    return folder / "params.yaml"


def test_an_error_in_the_features_is_found_before_the_tables_are_read(tmp_path):
    cli.write_json(tmp_path / "data.json", {"schema": load().schema.to_dict()})
    path = changed(tmp_path, r"(rolling:.*\n +windows_hours): .*", r"\1: [3, x]")
    with pytest.raises(DataError, match="is 'x'; it must be a number of hours above 0"):
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


@pytest.mark.parametrize(
    ("loop", "says"),
    [
        ({"untouched_share": 1.0}, "untouched_share"),
        ({"untouched_share": -0.1}, "untouched_share"),
        ({"untouched": 0.1}, "untouched"),
    ],
)
def test_a_wrong_share_of_untouched_machines_is_named(loop, says):
    with pytest.raises(ParamsError, match=says):
        parse(load().raw | {"loop": loop})


def test_no_machine_is_untouched_unless_a_share_is_set():
    assert 0.0 == load().untouched_share
    assert 0.05 == parse(load().raw | {"loop": {"untouched_share": 0.05}}).untouched_share
