"""A release on Azure ML: stopped or refused at any call, it is completed, or what was served before is served again."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from azure.ai.ml import MLClient
from azure.ai.ml.constants._common import LROConfigurations
from azure.core.credentials import AccessToken
from azure.core.pipeline.transport import HttpTransport

from platforms.azureml import deploy, rollout, smoke

from .conftest import release
from .fake import ROOT, Azure

pytestmark = pytest.mark.filterwarnings("ignore")  # the SDK's own
TARGETS = ("managed", "kubernetes", "server")
SETTINGS = {
    "AZURE_SUBSCRIPTION_ID": "s",
    "AZUREML_RESOURCE_GROUP": "g",
    "AZUREML_WORKSPACE": "w",
    "LOG_SINK": "az://requests/fleet",
    "LOG_AZURE_ACCOUNT": "store",
}
Run = Callable[[Azure, str], int | None]


@pytest.fixture
def run(here: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the program against a fake: its exit code, None where it was killed."""
    current: list[Azure] = []
    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", lambda self, request, **_: current[-1].send(request))
    monkeypatch.setattr("urllib.request.urlopen", lambda request, timeout: current[-1].open(request, timeout))
    monkeypatch.setattr(LROConfigurations, "POLL_INTERVAL", 0)
    monkeypatch.setattr(HttpTransport, "sleep", lambda self, seconds: None, raising=False)
    for module in (rollout, smoke):
        monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(deploy, "AzureCliCredential", lambda: "az")
    monkeypatch.setattr(deploy, "MLClient", one_client)
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)

    def go(azure: Azure, target: str) -> int | None:
        current.append(azure)
        monkeypatch.setenv("AZUREML_TARGET", target)
        try:
            code = deploy.main()
        except BaseException:  # the SDK polls in a thread: when that is killed, the caller sees something else
            if not azure.dead:
                raise
            return None
        return None if azure.dead else code

    return go


@cache
def one_client(*words: str, enable_telemetry: bool) -> Any:
    """The SDK's client, which holds nothing between runs and takes long to make."""
    credential = SimpleNamespace(get_token=lambda *scopes, **_: AccessToken("t", 1 << 40))
    return MLClient(credential, *words[1:], enable_telemetry=enable_telemetry)


def served(azure: Azure, name: str = "closedloop") -> str:
    """The model that has all of an endpoint's traffic; empty where none has."""
    endpoint = f"onlineEndpoints/{name}"
    shares = {each: share for each, share in azure.traffic(endpoint).items() if share}
    assert sum(shares.values()) in (0, 100)
    return azure.model(f"{endpoint}/deployments/{next(iter(shares))}") if shares else ""


def deployments(azure: Azure) -> list[str]:
    return [azure.model(place) for place in azure.there if "/deployments/" in place]


def replaced(here: Path, run: Run, target: str) -> Azure:
    """Azure with the first release served, and the second one in build/release."""
    azure = Azure()
    release(here)
    assert run(azure, target) == 0
    release(here, "2", image="ghcr.io/someone/fleet@sha256:" + "b" * 64)
    azure.again()
    return azure


@pytest.mark.parametrize("target", TARGETS)
def test_a_release_is_tested_before_it_gets_traffic_and_the_one_before_goes(here: Path, run: Run, target: str) -> None:
    azure = Azure()
    assert run(azure, target) == 0
    assert served(azure) == "model 1"
    release(here, "2", image="ghcr.io/someone/fleet@sha256:" + "b" * 64)
    azure.again()
    assert run(azure, target) == 0
    assert (served(azure), deployments(azure)) == ("model 2", ["model 2"])
    assert set(azure.served) == {"model 1", "model 2"}
    calls = [call for call in azure.calls if call.startswith("ask")]
    made = next(at for at, call in enumerate(azure.calls) if call.startswith("PUT onlineEndpoints/closedloop/dep"))
    moved = [at for at, call in enumerate(azure.calls) if call == "PUT onlineEndpoints/closedloop"]
    assert made < azure.calls.index(calls[0]) < moved[0]


def test_a_second_run_changes_nothing(run: Run) -> None:
    azure = Azure()
    assert run(azure, "managed") == 0
    azure.again()
    assert run(azure, "managed") == 0
    assert [call for call in azure.calls if call.split()[0] in ("PUT", "DELETE", "PATCH")] == []


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("first", [True, False], ids=["first", "next"])
@pytest.mark.parametrize("target", TARGETS)
def test_killed_at_any_call_the_next_run_completes(here: Path, run: Run, target: str, first: bool, after: bool) -> None:
    start = Azure() if first else replaced(here, run, target)
    whole = deepcopy(start)
    assert run(whole, target) == 0
    allowed = {"", "model 1"} if first else {"model 1", "model 2"}
    for at, call in enumerate(whole.calls, 1):
        azure = deepcopy(start)
        azure.dies, azure.after = at, after
        assert run(azure, target) is None, call
        assert served(azure) in allowed, call
        azure.again()
        assert run(azure, target) == 0, call
        assert (served(azure), deployments(azure)) == (served(whole), deployments(whole)), call


@pytest.mark.parametrize("target", TARGETS)
def test_refused_once_at_any_call_it_returns_or_goes_on(here: Path, run: Run, target: str) -> None:
    start = replaced(here, run, target)
    whole = deepcopy(start)
    assert run(whole, target) == 0
    ended = set()
    for at, call in enumerate(whole.calls, 1):
        azure = deepcopy(start)
        azure.refuses = at
        code = run(azure, target)
        ended.add((code, served(azure)))
        azure.again()
        assert run(azure, target) == 0, call
        assert (served(azure), deployments(azure)) == ("model 2", ["model 2"]), call
    # what is served is the old one until all was tested; only then can a deployment that is no longer needed be left
    assert ended <= {(0, "model 2"), (1, "model 1"), (1, "model 2")}
    assert (1, "model 1") in ended


@pytest.mark.parametrize("fault", ["bad", "broken"])
@pytest.mark.parametrize("target", TARGETS)
def test_a_release_that_fails_leaves_what_was_served_wherever_it_is_killed(
    here: Path, run: Run, target: str, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    start = replaced(here, run, target)
    getattr(start, fault).add("model 2")
    whole = deepcopy(start)
    assert run(whole, target) == 1
    said = capsys.readouterr().err
    assert "is served again" in said
    assert ("smoke test" if fault == "bad" else "did not start") in said
    assert (served(whole), deployments(whole)) == ("model 1", ["model 1"])
    assert "model 2" not in whole.served  # it never had traffic
    for at, call in enumerate(whole.calls, 1):
        azure = deepcopy(start)
        azure.dies = at
        assert run(azure, target) is None
        azure.again()
        assert run(azure, target) == 1, call
        assert (served(azure), deployments(azure)) == ("model 1", ["model 1"]), call


def test_what_fails_only_with_the_traffic_goes_back(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    azure = Azure()
    assert run(azure, "managed") == 0
    release(here, "2")
    azure.again()
    real = azure.answer

    def answer(name: str, path: str, headers: dict[str, str], fail: Any) -> Any:
        meets = real(name, path, headers, fail)
        return meets if "azureml-model-deployment" in headers else fail(502, "the gateway does not like it")

    monkeypatch.setattr(azure, "answer", answer)
    assert run(azure, "managed") == 1
    assert (served(azure), deployments(azure)) == ("model 1", ["model 1"])


def test_feedback_gets_an_endpoint_of_its_own_where_the_first_passes_on_one_route(here: Path, run: Run) -> None:
    azure = Azure(one_route=True)
    assert run(azure, "managed") == 0
    assert (served(azure), served(azure, "closedloop-feedback")) == ("model 1", "model 1")
    routes = [
        one["properties"]["inferenceConfig"]["scoringRoute"]["path"]
        for place, one in azure.there.items()
        if place.startswith("environments/")
    ]
    assert sorted(routes) == ["/feedback", "/score"]
    azure.again()
    release(here, "2")
    azure.one_route = False  # the gateway has changed: the endpoint that is there still follows
    assert run(azure, "managed") == 0
    assert served(azure, "closedloop-feedback") == "model 2"
    release(here)
    plain = Azure()
    assert run(plain, "managed") == 0
    assert "onlineEndpoints/closedloop-feedback" not in plain.there


def test_an_endpoint_that_was_made_by_hand_keeps_what_it_serves(here: Path, run: Run) -> None:
    """Without our tag, what has the traffic is what is served."""
    azure = Azure()
    assert run(azure, "managed") == 0
    azure.there["onlineEndpoints/closedloop"]["tags"] = {"owner": "us"}
    release(here, "2")
    azure.again()
    azure.bad.add("model 2")
    assert run(azure, "managed") == 1
    assert served(azure) == "model 1"
    azure.bad.clear()
    assert run(azure, "managed") == 0
    tags = azure.there["onlineEndpoints/closedloop"]["tags"]
    assert (served(azure), tags["owner"], set(tags)) == ("model 2", "us", {"owner", "served"})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("LOG_SINK", "", "the log needs an object store"),
        ("LOG_SINK", "/log", "the log needs an object store"),
        ("AZUREML_TARGET", "aks", "choose among managed, kubernetes, server"),
        ("AZUREML_WORKSPACE", "", "AZUREML_WORKSPACE is not set"),
        ("AZUREML_IMAGE", "press.azurecr.io/fleet@sha256:1", "write the name alone"),
        ("AZUREML_WORKSPACE", "other", "there is no such workspace: AZURE_SUBSCRIPTION_ID=s, AZUREML_RESOURCE_GROUP=g"),
        ("AZUREML_ENDPOINT", "my endpoint", "write 3 to 23 small letters"),
        ("AZUREML_ENDPOINT", "the-fleet-of-the-north-x", "write 3 to 23 small letters"),  # -feedback has no room
    ],
)
def test_a_wrong_setting_is_named_before_anything_is_made(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, said: str
) -> None:
    azure = Azure()
    monkeypatch.setenv(name, value)
    target = value if name == "AZUREML_TARGET" else "managed"
    assert run(azure, target) == 1
    assert said in capsys.readouterr().err
    assert "onlineEndpoints/closedloop" not in azure.there


def test_a_secret_of_the_sink_is_named_and_never_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZUREML_SINK_SECRET", "https://vault.vault.azure.net/secrets/sink")
    monkeypatch.setenv("AZUREML_IMAGE", "press.azurecr.io/fleet")
    azure = Azure()
    assert run(azure, "managed") == 0
    (one,) = (found["properties"] for place, found in azure.there.items() if "/deployments/" in place)
    given = one["environmentVariables"]
    assert given["AZURE_STORAGE_SAS_TOKEN"] == "${{" + "keyvault:https://vault.vault.azure.net/secrets/sink}}"
    assert (given["AUTH"], given["LOG_VOLUME"], given["LOG_SINK"]) == ("platform", "ephemeral", "az://requests/fleet")
    image = azure.there[one["environmentId"].removeprefix(ROOT + "/")]["properties"]["image"]
    assert image == "press.azurecr.io/fleet@sha256:" + "a" * 64


def failed(azure: Azure, place: str) -> None:
    azure.there[place]["properties"]["provisioningState"] = "Failed"


@pytest.mark.parametrize("fault", ["", "bad"])
def test_an_endpoint_whose_last_change_failed_keeps_what_it_serves(here: Path, run: Run, fault: str) -> None:
    """Azure calls an endpoint failed that still serves, such as after a change of its network."""
    azure = replaced(here, run, "managed")
    failed(azure, "onlineEndpoints/closedloop")
    azure.there["onlineEndpoints/closedloop"]["tags"]["owner"] = "us"
    real = azure.put
    azure.put = lambda place, body: (seen.append(served(azure)), real(place, body))[1]  # type: ignore[method-assign]
    seen: list[str] = []
    azure.bad.update({"model 2"} if fault else ())
    assert run(azure, "managed") == bool(fault)
    assert set(seen) <= {"model 1", "model 2"}
    assert (served(azure), deployments(azure)) == (("model 1", ["model 1"]) if fault else ("model 2", ["model 2"]))
    assert azure.there["onlineEndpoints/closedloop"]["tags"]["owner"] == "us"


def test_a_served_deployment_that_azure_calls_failed_is_fixed_in_place(here: Path, run: Run) -> None:
    azure = Azure()
    assert run(azure, "managed") == 0
    failed(azure, next(place for place in azure.there if "/deployments/" in place))
    azure.again()
    assert run(azure, "managed") == 0
    assert served(azure) == "model 1"
    assert [call for call in azure.calls if call.startswith("DELETE")] == []


def test_why_azure_refused_is_said_where_no_container_ran(
    here: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A quota ends a deployment that is there already; its logs are refused, and would not say it."""
    azure = replaced(here, run, "managed")
    azure.broken.add("model 2")
    real = azure.arm

    def arm(method: str, place: str, body: Any) -> tuple[int, Any, dict[str, str]]:
        if place.lower().endswith("/getlogs"):
            return 400, {"error": {"code": "UserError", "message": "the container is not up, try later"}}, {}
        status, said, headers = real(method, place, body)
        if place.startswith("operations/") and said["status"] == "Failed":
            said["error"] = {"code": "OutOfQuota", "message": "Not enough quota available for Standard_DS3_v2"}
        return status, said, headers

    monkeypatch.setattr(azure, "arm", arm)
    assert run(azure, "managed") == 1
    said = capsys.readouterr().err
    assert "Not enough quota available for Standard_DS3_v2" in said
    assert "the container is not up" in said
    assert "is served again" in said
    assert (served(azure), deployments(azure)) == ("model 1", ["model 1"])


def test_an_answer_that_breaks_off_gives_the_traffic_back(
    here: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    azure = replaced(here, run, "managed")
    real = azure.answer

    class Broken:
        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            return

        status = 200

        def read(self) -> bytes:
            raise http.client.IncompleteRead(b"{")

    def answer(name: str, path: str, headers: dict[str, str], fail: Any) -> Any:
        return real(name, path, headers, fail) if "azureml-model-deployment" in headers else Broken()

    monkeypatch.setattr(azure, "answer", answer)
    assert run(azure, "managed") == 1
    assert (served(azure), deployments(azure)) == ("model 1", ["model 1"])


def test_a_run_that_fails_leaves_what_another_one_has_served_meanwhile(
    here: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    azure = replaced(here, run, "managed")
    azure.bad.add("model 2")
    real = azure.answer

    def answer(name: str, path: str, headers: dict[str, str], fail: Any) -> Any:
        endpoint = azure.there["onlineEndpoints/closedloop"]
        old = next(place for place in azure.there if "/deployments/" in place and azure.model(place) == "model 1")
        other = deepcopy(azure.there[old])
        other["tags"]["commit"], other["name"] = "3" * 40, "other"
        azure.there["onlineEndpoints/closedloop/deployments/other"] = other
        endpoint["properties"]["traffic"], endpoint["tags"]["served"] = {"other": 100}, "other"
        if old.rpartition("/")[2] != "other":
            del azure.there[old]
        monkeypatch.setattr(azure, "answer", real)
        return real(name, path, headers, fail)

    monkeypatch.setattr(azure, "answer", answer)
    assert run(azure, "managed") == 1
    assert "other is served again" in capsys.readouterr().err
    assert (served(azure), deployments(azure)) == ("model 3", ["model 3"])


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("facts.json", "{}", "does not say 'image'"),
        ("facts.json", "no JSON", "cannot be read"),
        ("facts.json", "[]", "cannot be read"),
        ("bundle.tar.gz", "no archive", "cannot be read"),
        ("facts.json", None, "facts.json is missing; fetch a release: make release-fetch"),
    ],
)
def test_a_release_that_is_not_whole_is_one_clear_line(
    here: Path, run: Run, capsys: pytest.CaptureFixture[str], file: str, content: str | None, said: str
) -> None:
    path = here / "build/release" / file
    path.unlink() if content is None else path.write_text(content)
    assert run(Azure(), "managed") == 1
    err = capsys.readouterr().err
    assert said in err
    assert "make release-fetch" in err
