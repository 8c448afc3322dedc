"""A champion of the simulator is none for a fleet of one's own; every other champion is one."""

from __future__ import annotations

import json

import pytest

from model import evaluate
from model.common import champion, commits, provenance

SIMULATED = {"kind": "simulator", "profile": "default", "machines": 2, "days": 3, "seed": 4}
FILES = {"kind": "files", "location": "data/a", "files": []}
LOG = {"kind": "log", "location": "az://c/log", "versions": {"requests": 1}}


@pytest.mark.parametrize(
    ("pinned", "parts", "local", "begins"),
    [
        ([SIMULATED], [FILES], False, True),
        ([SIMULATED, SIMULATED], [FILES, LOG], False, True),
        ([SIMULATED], [SIMULATED | {"seed": 5}], False, False),
        ([SIMULATED], [SIMULATED, LOG], False, False),
        ([SIMULATED, LOG], [LOG], False, False),
        ([FILES], [LOG], False, False),
        ([FILES], [SIMULATED], False, False),
        ([SIMULATED], [FILES], True, False),
        ([], [FILES], False, False),
    ],
)
def test_whether_a_fleet_of_ones_own_begins(monkeypatch, pinned, parts, local, begins):
    monkeypatch.setattr(provenance, "git", lambda *_: json.dumps({"parts": pinned}))
    monkeypatch.setattr(commits, "asked", lambda _: "c0ffee")
    monkeypatch.setattr(champion, "of_commit", lambda *_: "the champion")
    data = {"parts": parts, "local": local, "source": "any", "holdout_fingerprint": ""}
    assert begins == champion.begins("c0ffee", data)
    if not local:
        assert (champion.Met(None, None) if begins else "the champion") == evaluate.the_champion(data, "", None)


@pytest.mark.parametrize("text", [None, "{", "[]", "{}", '{"parts": 1}', '{"parts": ["x"]}'])
def test_a_commit_without_a_pin_that_can_be_read_is_compared_with(monkeypatch, text):
    monkeypatch.setattr(provenance, "git", lambda *_: text)
    assert not champion.begins("c0ffee", {"parts": [FILES], "local": False})
