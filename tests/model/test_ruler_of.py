"""The ruler of another commit: it measures with its own library and its own pin."""

from __future__ import annotations

import json
import shutil

import pytest

from closedloop.data.schema import DataError
from closedloop.judge.ruler import changes, ruler
from model.common import champion
from model.common.params import load
from model.common.provenance import LIBRARY, LIBRARY_IN_COMMIT, PIN


@pytest.fixture
def work(tmp_path):
    """A worktree with this commit's library and pin."""
    without = shutil.ignore_patterns("__pycache__")
    shutil.copytree(LIBRARY, tmp_path / LIBRARY_IN_COMMIT, ignore=without)
    (tmp_path / "model").mkdir()
    shutil.copy(PIN, tmp_path / "model" / PIN.name)
    return tmp_path


@pytest.fixture
def pin():
    return json.loads(PIN.read_text())


def test_a_commit_with_the_same_library_parameters_and_pin_has_the_same_ruler(work, pin):
    params = load().raw
    assert champion.ruler_of(work, params, pin | {"local": False}) == ruler(LIBRARY, params, pin)


def test_a_commit_whose_simulator_makes_other_tables_of_the_same_part_has_another_ruler(work, pin):
    own = ruler(LIBRARY, load().raw, pin)
    (work / "model" / PIN.name).write_text(json.dumps(pin | {"fingerprint": "sha256:other"}))
    assert changes(own, champion.ruler_of(work, load().raw, pin | {"local": False})) == [
        "tables that the data pin gives"
    ]
    pin["parts"][0] |= {"seed": 8}
    (work / "model" / PIN.name).write_text(json.dumps(pin))
    assert changes(own, champion.ruler_of(work, load().raw, pin | {"local": False})) == ["parts of the data pin"]


def test_tables_that_no_commit_pins_stand_in_for_the_pin(work):
    data = {"local": True, "parts": [{"kind": "native"}], "fingerprint": "sha256:of today"}
    own = ruler(LIBRARY, load().raw, {"parts": data["parts"]})
    assert champion.ruler_of(work, load().raw, data) == own


def test_a_commit_that_pins_nothing_has_another_ruler_and_a_broken_pin_is_one_clear_line(work, pin):
    own, lock = ruler(LIBRARY, load().raw, pin), work / "model" / PIN.name
    lock.write_text("{")
    with pytest.raises(DataError, match=r"data\.lock\.json is not JSON .*; compare with another commit"):
        champion.ruler_of(work, load().raw, pin | {"local": False})
    lock.unlink()
    assert changes(own, champion.ruler_of(work, load().raw, pin | {"local": False})) == ["parts of the data pin"]
