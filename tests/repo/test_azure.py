"""``make azure`` completes after it died at any call, and makes nothing twice; a fake az records what it is asked."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from failing_program import FailingProgram

KEYS = ("--name", "--identity-name", "--storage-account", "--registry", "--role", "--scope")


class Fake(FailingProgram):
    """An az, and a gh: what is there, what was asked and made, and the call at which the network goes down."""

    def __init__(self) -> None:
        super().__init__()
        self.there: dict[str, dict[str, Any]] = {}
        self.made: list[str] = []

    def answer(self, command: list[str]) -> tuple[int, Any]:
        program, *words = command
        head = [word for at, word in enumerate(words) if not any(each.startswith("--") for each in words[: at + 1])]
        flags = {word: words[at + 1] for at, word in enumerate(words[:-1]) if word.startswith("--")}
        key = " ".join([*head[:-1], *(flags[name] for name in KEYS if name in flags)])
        if program == "gh":
            return 0, {"use_default": True, "sub_claim_prefix": "repo:o@1/r@2"}
        if head == ["account", "show"]:
            return 0, {"id": "subscription", "tenantId": "tenant"}
        if head[-1] == "show":
            return (0, self.there[key]) if key in self.there else (3, None)
        if head[-1] == "list":
            return 0, [self.there[key]] if key in self.there else []
        if head[-1] == "create":
            self.made.append(key)
            fields = {name: f"{name} of {key}" for name in ("id", "clientId", "principalId")}
            self.there[key] = fields | {
                "oidcIssuerProfile": {"issuerUrl": "https://issuer"},
                "identityProfile": {"kubeletidentity": {"objectId": "the nodes"}},
                "loginServer": f"{flags['--name']}.azurecr.io" if "--name" in flags else "",
                "flags": flags,
            }
            return 0, self.there[key]
        assert head == ["group", "delete"]
        self.there.clear()
        return 0, None


Start = Callable[..., int]


@pytest.fixture
def start(root: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Run the script's command against a fake."""
    spec = importlib.util.spec_from_file_location("azure_script", root / "k8s/azure/azure.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setenv("GITHUB_REPOSITORY", "O/r")
    monkeypatch.setenv("AZURE_REGISTRY", "press")

    def run(fake: Fake, *words: str) -> int:
        with monkeypatch.context() as patch:
            patch.setattr("subprocess.run", fake.run)
            patch.setattr("sys.argv", ["azure.py", *words])
            code: int = script.main()
            return code

    return run


def test_it_makes_each_thing_once_and_says_what_to_set(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    fake = Fake()
    assert start(fake, "up") == 0
    said = capsys.readouterr().out
    assert "AZURE_CLIENT_ID=clientId of identity closedloop-deploy" in said
    assert "azureClientId: clientId of identity closedloop-log" in said
    subjects = [each["flags"]["--subject"] for each in fake.there.values() if "--subject" in each["flags"]]
    assert "repo:o@1/r@2:environment:production" in subjects  # as GitHub says that they begin
    assert "system:serviceaccount:closedloop:score" in subjects
    assert "IMAGE_CACHE=press.azurecr.io/o/r" in said
    pulls = [each["flags"] for each in fake.there.values() if each["flags"].get("--role") == "AcrPull"]
    assert [(each["--assignee-object-id"], each["--scope"]) for each in pulls] == [("the nodes", "id of acr press")]
    made = list(fake.made)
    assert start(fake, "up") == 0
    assert fake.made == made


def test_it_completes_after_it_died_at_any_call(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    whole = Fake()
    assert start(whole, "up") == 0
    assert len(whole.calls) > 25
    for at in range(1, len(whole.calls) + 1):
        for after in (False, True):  # before it is carried out, and after
            fake = Fake()
            fake.dies, fake.after = at, after
            assert start(fake, "up") == 1, whole.calls[at - 1]
            assert "run it again" in capsys.readouterr().err
            assert start(fake, "up") == 0, whole.calls[at - 1]
            assert fake.there == whole.there
            assert sorted(fake.made) == sorted(whole.made), whole.calls[at - 1]


def test_a_dry_run_makes_nothing(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    fake = Fake()
    assert start(fake, "up", "--dry-run") == 0
    assert capsys.readouterr().out.count("would make") >= 12
    assert fake.made == []


def test_it_is_taken_down_only_by_who_repeats_its_name(
    start: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = Fake()
    start(fake, "up")
    assert start(fake, "down") == 1
    assert "log of every request" in capsys.readouterr().err
    assert fake.there
    monkeypatch.setenv("CONFIRM", "closedloop")
    assert start(fake, "down") == 0
    assert not fake.there
