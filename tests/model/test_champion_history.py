"""The held-out tables begin early enough for the champion too, whose features may look back further."""

from __future__ import annotations

import json

import pytest
import yaml

from closedloop.data.schema import HOUR_US
from model.common import champion, cli, commits, provenance

LOCAL = {"local": True, "source": "plant"}


def keep(monkeypatch, folder, content):
    """Make a file the manifest of the champion that this machine keeps."""
    monkeypatch.setattr(cli, "CHAMPIONS", folder)
    bundle = folder / "plant" / "bundle"
    bundle.mkdir(parents=True)
    (bundle / "manifest.json").write_text(content)


def test_the_history_of_this_machines_champion_is_in_its_manifest(tmp_path, monkeypatch):
    assert champion.history_us(LOCAL) == 0
    keep(monkeypatch, tmp_path, json.dumps({"history_hours": 36.5}))
    assert champion.history_us(LOCAL) == 36.5 * HOUR_US


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"history_hours": null}'])
def test_a_manifest_without_a_history_is_left_to_the_comparison(tmp_path, monkeypatch, content):
    keep(monkeypatch, tmp_path, content)
    assert champion.history_us(LOCAL) == 0


@pytest.mark.parametrize("named", ["CHAMPION_COMMIT", "BASE_COMMIT"])
def test_the_history_of_a_commits_model_is_in_its_parameters(monkeypatch, named):
    raw = {"features": {"history_hours": 48}}
    said = {("show", "abc:model/params.yaml"): yaml.safe_dump(raw)}
    monkeypatch.setattr(commits, "asked", lambda variable: "abc" if variable == named else None)
    monkeypatch.setattr(provenance, "git", lambda *words: said.get(words))
    assert champion.history_us({"local": False, "source": "plant"}) == 48 * HOUR_US
    said.clear()  # the commit is older than the template
    assert champion.history_us({"local": False, "source": "plant"}) == 0


def test_how_often_the_held_out_tables_have_judged_is_counted_and_unknown_where_github_was_not_asked(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(champion, "RELEASED", tmp_path)
    assert {"holdout": "sha256:a", "releases": None} == champion.looks("sha256:a")
    (tmp_path / "holdouts.json").write_text('["sha256:a", "sha256:b", "sha256:a"]')
    assert [2, 1, 0] == [champion.looks(f"sha256:{name}")["releases"] for name in "abc"]
