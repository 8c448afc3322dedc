"""A release's notes say in plain words what it changes for those who call the service."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline import changes, interface, release, release_facts

from .test_release import Repository, gathered

GOLDEN = Path(__file__).resolve().parents[1] / "golden/manifest.json"
DOCUMENT: dict[str, Any] = {
    "paths": {
        "/score": {"post": {"responses": {"200": {}}, "parameters": [{"in": "header", "name": "X", "schema": {}}]}}
    },
    "components": {"schemas": {"Answer": {"properties": {"score": {"type": "number", "description": "how odd"}}}}},
}


def manifest(**other: Any) -> dict[str, Any]:
    return json.loads(GOLDEN.read_text(encoding="utf-8")) | other


def test_the_same_model_changes_nothing_for_anyone() -> None:
    assert ["The model is the same one: the same request gets the same scores."] == list(
        changes.of_model(manifest(), manifest(training={}))
    )


def test_features_names_history_thresholds_and_alarms_are_told() -> None:
    now = copy.deepcopy(manifest(model_digest="sha256:other", history_hours=96.0))
    now["features"]["names"] = [*now["features"]["names"][1:], "mine"]
    now["schema"]["sensors"]["sound"] = [0.0, 1.0]
    now["schema"]["components"] = now["schema"]["components"][:-1]
    now["heads"]["anomaly"]["threshold"] = 4.0
    del now["heads"]["failure"]["comp4"]
    assert [
        "The model is another one: the same request gets other scores.",
        "New features: `mine`.",
        "Gone features: `pressure_mean_3h`.",
        "New sensors that a request may name: `sound`.",
        "Gone components that a request may name: `comp4`.",
        "A request needs 96 hours of history, not 72.",
        "Alarm thresholds: anomaly 3.766 → 4.",
        "Gone alarms: `comp4`.",
    ] == list(changes.of_model(manifest(), now))


def test_a_long_list_is_cut() -> None:
    assert changes.named([str(n) for n in range(20)]).endswith("`7` and 12 more")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda it: None, ["The interface is the same."]),
        (lambda it: it["components"]["schemas"]["Answer"]["properties"]["score"].update(description="x"),
         ["The interface is the same."]),
        (lambda it: it["paths"].update({"/new": {"get": {}}}), ["New in the interface: `GET /new`."]),
        (lambda it: it["paths"]["/score"]["post"].pop("parameters"),
         ["Gone in the interface: `POST /score: header X`."]),
        (lambda it: it["components"]["schemas"]["Answer"].update(required=["score"]),
         ["Changed in the interface: `Answer.score`."]),
        (lambda it: it["components"]["schemas"]["Answer"]["properties"]["score"].update(type="string"),
         ["Changed in the interface: `Answer.score`."]),
    ],
)  # fmt: skip
def test_the_interface_is_compared_as_it_binds_callers(change: Any, says: list[str]) -> None:
    now = copy.deepcopy(DOCUMENT)
    change(now)
    assert says == list(changes.of_interface(DOCUMENT, now))


@pytest.fixture
def repo(tmp_path: Path, root: Path) -> Repository:
    return Repository(tmp_path, root, release.NAME)


def with_bundle(repo: Repository, **other: Any) -> None:
    """This run's bundle has a whole manifest, and the service describes itself."""
    gathered(repo)
    path = repo.work / "build/bundle/manifest.json"
    path.write_text(json.dumps(manifest(**other)))
    (repo.work / "build/openapi.json").write_text(json.dumps(DOCUMENT))
    assert repo.run("release", "gather", IMAGE_BY_DIGEST="x@sha256:" + "1" * 64).returncode == 0


def text(repo: Repository) -> str:
    return str(repo.state["api"]["releases"][0]["body"])


def test_the_first_release_is_said_to_be_one_and_the_words_stay_when_it_is_published(repo: Repository) -> None:
    with_bundle(repo)
    for command in ("draft", "publish"):
        done = repo.run("release", command)
        assert done.returncode == 0, done.stderr
        assert f"{changes.TITLE}\n\n- This is the first release.\n\nImage: " in text(repo)
    assert release_facts.facts(text(repo)) is not None


def test_the_next_one_is_compared_with_what_is_served(repo: Repository) -> None:
    with_bundle(repo, model_digest="sha256:older")
    old = {name: (repo.work / "build/release" / name).read_bytes() for name in ("bundle.tar.gz", "openapi.json")}
    files = {name: hashlib.sha256(content).hexdigest() for name, content in old.items()}
    repo.release("r1", repo.commits[1], served="2026-01-01", files=files)
    repo.state["assets"]["r1"] = {n: {"base64": base64.b64encode(content).decode()} for n, content in old.items()}
    repo.keep()
    with_bundle(repo)
    assert repo.run("release", "draft").returncode == 0
    told = re.findall(r"^- (.+)$", text(repo), re.MULTILINE)
    assert ["Compared with r1, which is served.", "The model is another one: the same request gets other scores.",
            "The interface is the same."] == told  # fmt: skip


def test_where_it_cannot_be_compared_the_notes_say_so_and_the_release_goes_on(repo: Repository) -> None:
    repo.release("r1", repo.commits[1], served="2026-01-01")
    with_bundle(repo)
    assert repo.run("release", "draft").returncode == 0
    assert "- What it changes is not known: the served release cannot be compared (" in text(repo)


def test_the_service_describes_itself_with_this_runs_bundle(
    tiny_bundle: Path, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("src", "model", "score"):
        (tmp_path / name).symlink_to(root / name)
    (tmp_path / "build").mkdir()
    (tmp_path / "build/bundle").symlink_to(tiny_bundle)
    monkeypatch.chdir(tmp_path)
    interface.main()
    found = changes.facts(json.loads(interface.DOCUMENT.read_text(encoding="utf-8")))
    assert {"POST /score", "POST /feedback", "GET /version"} <= set(found)
    (tmp_path / "score").unlink()  # a restored release may have no such code
    (tmp_path / "score").mkdir()
    (tmp_path / "score/__init__.py").touch()
    interface.main()
    assert not interface.DOCUMENT.exists()
