"""One container group of Azure serves a release, or what it served before; a fake az records what it is asked."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from failing_program import FailingProgram

OLD, NEW = ("ghcr.io/o/r@sha256:" + one * 64 for one in "ab")
SETTINGS = {
    "ACI_RESOURCE_GROUP": "g",
    "ACI_SUBNET": "/subscriptions/s/subnets/one",
    "ACI_TOKENS": '{"press": {"token": "aaaaaaaaaaaaaaaa", "scopes": ["score"]}}',
    "LOG_SINK": "az://requests/fleet",
    "AZURE_STORAGE_SAS_TOKEN": "sig=secret",
}


class Fake(FailingProgram):
    """An az with one container group, and the call at which the network goes down."""

    def __init__(self) -> None:
        super().__init__()
        self.group: dict[str, Any] | None = None
        self.bad: set[str] = set()  # images that do not serve
        self.refused: dict[str, int] = {}  # images that `az container create` refuses, and its exit code
        self.down = False  # what ran before is gone then

    def answer(self, command: list[str]) -> tuple[int, Any]:
        if command[1:3] == ["container", "show"]:
            return (3, None) if self.group is None else (0, self.group)
        if command[1:3] == ["container", "create"]:
            path = Path(command[command.index("--file") + 1])
            assert path.stat().st_mode & 0o077 == 0  # it holds secrets
            made = yaml.safe_load(path.read_text())
            image = made["properties"]["containers"][0]["properties"]["image"]
            if code := self.refused.get(image):
                if self.down and self.group is not None:
                    self.group = {**self.group, "provisioningState": "Failed"}
                return code, "(ResourceRequestsOverRegionQuota) no cores"
            boxes = [{"name": one["name"], **one["properties"]} for one in made["properties"]["containers"]]
            self.group = {
                **made,
                "containers": boxes,
                "ipAddress": {"ip": "10.0.0.4"},
                "provisioningState": "Succeeded",
            }
            return 0, self.group
        assert command[1:3] == ["resource", "tag"]
        assert "--is-incremental" in command
        assert self.group is not None
        key, _, value = command[command.index("--tags") + 1].partition("=")
        self.group["tags"][key] = value
        return 0, None

    def open(self, url: str, timeout: float) -> io.BytesIO:
        assert self.group is not None
        image = self.group["containers"][0]["image"]
        if image in self.bad:
            raise OSError("refused")
        return io.BytesIO(json.dumps({"model_digest": f"model of {image}"}).encode())

    @property
    def serves(self) -> tuple[str, str]:
        assert self.group is not None
        return self.group["containers"][0]["image"], self.group["tags"].get("served", "")


Start = Callable[[Fake, str], int]


@pytest.fixture
def start(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Deploy a release's image by the program, against a fake."""
    spec = importlib.util.spec_from_file_location("aci_script", root / "platforms/azureml/aci.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "PAUSES_SECONDS", (0,))
    monkeypatch.chdir(tmp_path)
    Path("build/release").mkdir(parents=True)
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)

    def run(fake: Fake, image: str) -> int:
        facts = {"image": image, "model_digest": f"model of {image}"}
        Path("build/release/facts.json").write_text(json.dumps(facts))
        with monkeypatch.context() as patch:
            patch.setattr("subprocess.run", fake.run)
            patch.setattr("urllib.request.urlopen", fake.open)
            code: int = script.main()
            return code

    return run


def replaced(start: Start) -> Fake:
    fake = Fake()
    assert start(fake, OLD) == 0
    fake.calls.clear()
    return fake


def test_a_group_runs_the_digest_with_a_sink_that_outlives_it(start: Start) -> None:
    fake = Fake()
    assert start(fake, NEW) == 0
    assert fake.serves == (NEW, NEW)
    assert fake.group is not None
    box = fake.group["containers"][0]
    given = {one["name"]: one for one in box["environmentVariables"]}
    assert given["LOG_VOLUME"]["value"] == "ephemeral"
    assert given["AZURE_STORAGE_SAS_TOKEN"] == {"name": "AZURE_STORAGE_SAS_TOKEN", "secureValue": "sig=secret"}
    assert fake.group["properties"]["ipAddress"]["type"] == "Private"
    assert not any("secret" in word or "0123456789abcdef" in word for call in fake.calls for word in call)
    calls = len(fake.calls)
    assert start(fake, NEW) == 0
    assert [call[2] for call in fake.calls[calls:]] == ["show"]


@pytest.mark.parametrize("after", [False, True])
def test_stopped_at_any_call_the_next_run_completes(start: Start, after: bool) -> None:
    whole = replaced(start)
    assert start(whole, NEW) == 0
    assert len(whole.calls) >= 4
    for at in range(1, len(whole.calls) + 1):
        fake = replaced(start)
        fake.dies, fake.after = at, after
        assert start(fake, NEW) == 1, whole.calls[at - 1]
        fake.dies = 0
        assert start(fake, NEW) == 0, whole.calls[at - 1]
        assert fake.serves == (NEW, NEW)


@pytest.mark.parametrize("after", [False, True])
def test_a_release_that_does_not_serve_gives_way_wherever_that_was_stopped(
    start: Start, after: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = replaced(start)
    whole.bad.add(NEW)
    assert start(whole, NEW) == 1
    assert f"{OLD} runs again" in capsys.readouterr().err
    assert whole.serves == (OLD, OLD)
    for at in range(1, len(whole.calls) + 1):
        fake = replaced(start)
        fake.bad.add(NEW)
        fake.dies, fake.after = at, after
        assert start(fake, NEW) == 1
        fake.dies = 0
        assert start(fake, NEW) == 1
        assert fake.serves == (OLD, OLD), whole.calls[at - 1]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("LOG_SINK", "/log", "nothing outlives a container group"),
        ("LOG_SINK", "", "LOG_SINK is not set"),
        ("ACI_SUBNET", "", "ACI_SUBNET is not set"),
        ("ACI_TOKENS", "", "ACI_TOKENS is not set"),
    ],
)
def test_a_wrong_setting_replaces_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, said: str
) -> None:
    fake = replaced(start)
    monkeypatch.setenv(name, value)
    assert start(fake, NEW) == 1
    assert said in capsys.readouterr().err
    assert fake.serves == (OLD, OLD)
    assert fake.calls == []


def test_an_image_without_a_digest_is_refused(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(Fake(), "ghcr.io/o/r:latest") == 1
    assert "has no digest" in capsys.readouterr().err


@pytest.mark.parametrize("code", [1, 3])
@pytest.mark.parametrize(("down", "said"), [(False, f"{OLD} still runs"), (True, f"{OLD} runs again")])
def test_a_group_that_azure_refuses_gives_way_to_what_was_served(
    start: Start, capsys: pytest.CaptureFixture[str], code: int, down: bool, said: str
) -> None:
    """Exit code 3 is not only said of a group that is not there: here it is the resource group, or the subnet."""
    fake = replaced(start)
    fake.refused, fake.down = {NEW: code}, down
    assert start(fake, NEW) == 1
    err = capsys.readouterr().err
    assert "az container create: " in err
    assert "smoke test" not in err
    assert said in err
    assert fake.serves == (OLD, OLD)
    assert fake.group is not None
    assert fake.group["provisioningState"] == "Succeeded"


def test_a_mark_that_is_refused_is_an_error(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake()
    real = fake.answer
    monkeypatch.setattr(fake, "answer", lambda command: (3, None) if command[1] == "resource" else real(command))
    assert start(fake, NEW) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "facts.json is missing"),
        ("no JSON", "cannot be read"),
        ("[]", "cannot be read"),
        ("{}", "does not say 'image'"),
        ('{"image": "a"}', "does not say 'model_digest'"),
    ],
)
def test_without_a_whole_release_one_line_says_how_to_fetch_one(
    start: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str | None, said: str
) -> None:
    real = Path.read_text

    def read_text(path: Path, **words: str) -> str:
        if path.name != "facts.json":
            return real(path, **words)
        if content is None:
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return content

    monkeypatch.setattr(Path, "read_text", read_text)
    fake = Fake()
    assert start(fake, NEW) == 1
    err = capsys.readouterr().err
    assert said in err
    assert "make release-fetch RELEASE=tag" in err
    assert fake.calls == []
