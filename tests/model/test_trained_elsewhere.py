"""A model that a platform trained is judged like any other, where it is of this commit and of the pinned places."""

from __future__ import annotations

import json
import shutil

import pytest

from closedloop.data.schema import DataError
from model import retrain
from model.common import cli, data_pin, provenance

COMMIT = "0" * 40  # of the tiny bundle, whose tables have the fingerprint sha256:0
DELTA = {
    "kind": "delta",
    "location": "az://fleet/tables",
    "tables": {"telemetry": {"path": "PdM_telemetry", "version": 3}},
}


@pytest.fixture
def handed(tmp_path, tiny_bundle, monkeypatch):
    """A folder as the platform hands it over, in an empty folder to work in."""
    folder = tmp_path / "trained"
    shutil.copytree(tiny_bundle, folder / "bundle")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(provenance, "commit", lambda: COMMIT)
    return folder


def test_the_bundle_takes_the_place_of_the_one_that_would_be_trained(handed, tmp_path):
    for left in ("bundle", "ablations"):
        (tmp_path / "build" / left).mkdir(parents=True)
        (tmp_path / "build" / left / "of-another-model").touch()
    retrain.take_over(handed, {"fingerprint": "sha256:0"})
    assert {path.name for path in cli.BUNDLE.iterdir()} == {path.name for path in (handed / "bundle").iterdir()}
    assert not (tmp_path / "build/ablations").exists()


@pytest.mark.parametrize(
    ("commit", "fingerprint", "said"),
    [
        ("1" * 40, "sha256:0", f"commit {COMMIT} trained this bundle, and this is {'1' * 40}"),
        (COMMIT, "sha256:1", "its bundle learned from other tables than its data.lock.json names"),
    ],
)
def test_a_bundle_of_another_commit_or_other_tables_is_refused(handed, monkeypatch, commit, fingerprint, said):
    monkeypatch.setattr(provenance, "commit", lambda: commit)
    with pytest.raises(cli.RefusedError, match=said):
        retrain.take_over(handed, {"fingerprint": fingerprint})
    assert not cli.BUNDLE.exists()


def test_a_bundle_that_was_changed_is_refused(handed):
    part = next((handed / "bundle/heads").iterdir())
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    with pytest.raises(DataError):
        retrain.take_over(handed, {"fingerprint": "sha256:0"})
    assert not cli.BUNDLE.exists()


def write_pin(folder, *parts):
    folder.mkdir(exist_ok=True)
    (folder / "data.lock.json").write_text(json.dumps({"fingerprint": "", "parts": parts}))


def test_newer_versions_of_the_pinned_tables_are_taken_and_no_other_place(tmp_path, monkeypatch):
    monkeypatch.setattr(data_pin.pin_rules, "check", lambda pin: [])
    newer = DELTA | {"tables": {"telemetry": {"path": "PdM_telemetry", "version": 9}}}
    write_pin(tmp_path / "a", newer)
    assert retrain.handed_over(tmp_path / "a", {"parts": [DELTA]}) == [newer]
    for parts in ([DELTA | {"location": "az://evil/tables"}], [DELTA, DELTA], [], [DELTA | {"kind": "files"}]):
        write_pin(tmp_path / "b", *parts)
        with pytest.raises(cli.RefusedError, match=r"its data\.lock\.json names other places than this commit's"):
            retrain.handed_over(tmp_path / "b", {"parts": [DELTA]})
