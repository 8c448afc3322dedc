"""The number of a release comes from what it changes for callers, and none is given twice.

semver.org; docs.github.com/code-security/concepts/supply-chain-security/immutable-releases: title and notes of a
published release can still be changed, its tag and files cannot.
"""

from __future__ import annotations

import copy
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pipeline import chain, changes, github, numbers, release, release_facts

from .test_changes import DOCUMENT, manifest, text, with_bundle
from .test_release import Repository

OLD = changes.Side(manifest(), DOCUMENT)


@pytest.fixture
def repo(tmp_path: Path, root: Path) -> Repository:
    return Repository(tmp_path, root, release.NAME)


def document(change: Any) -> dict[str, Any]:
    made = copy.deepcopy(DOCUMENT)
    change(made)
    return made


def answer(made: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = made["components"]["schemas"]["Answer"]
    return found


def schema(**other: Any) -> dict[str, Any]:
    return manifest(schema=manifest()["schema"] | other)


@pytest.mark.parametrize(
    ("new", "which"),
    [
        (changes.Side(manifest(bundle_digest="sha256:x"), DOCUMENT), numbers.FIXES),
        (changes.Side(manifest(model_digest="sha256:x"), DOCUMENT), numbers.ADDS),
        (changes.Side(manifest(training={"fingerprint": "sha256:x"}), DOCUMENT), numbers.ADDS),
        (changes.Side(schema(models=["model1", "new", *manifest()["schema"]["models"]]), DOCUMENT), numbers.FIXES),
        (changes.Side(manifest(history_hours=96.0), DOCUMENT), numbers.BREAKS),
        (changes.Side(manifest(history_hours=1.0), DOCUMENT), numbers.FIXES),
        (changes.Side(schema(sensors={"a": [0, 1]}), DOCUMENT), numbers.BREAKS),
        (changes.Side(schema(components=manifest()["schema"]["components"][:-1]), DOCUMENT), numbers.BREAKS),
        (changes.Side(manifest(heads=manifest()["heads"] | {"failure": {}}), DOCUMENT), numbers.BREAKS),
        (changes.Side(manifest(), None), numbers.BREAKS),
        (changes.Side(schema(machine_id="text"), DOCUMENT), numbers.BREAKS),
    ],
)  # fmt: skip
def test_the_part_that_rises_is_what_the_bundles_say(
    monkeypatch: pytest.MonkeyPatch, new: changes.Side, which: int
) -> None:
    monkeypatch.setattr(changes, "of_release", lambda one: OLD)
    monkeypatch.setattr(changes, "here", lambda now: new)
    assert which == numbers.since(release_facts.Release("r1", "", {}), Path())[0]


@pytest.mark.parametrize(
    ("change", "which"),
    [
        (lambda it: it["info"].update(version="9") if "info" in it else None, numbers.FIXES),
        (lambda it: it["paths"].update({"/new": {"get": {}}}), numbers.ADDS),
        (lambda it: it["paths"]["/score"]["post"]["responses"].update({"429": {}}), numbers.ADDS),
        (lambda it: it["paths"]["/score"]["post"]["responses"].pop("200"), numbers.BREAKS),
        (lambda it: answer(it)["properties"].update(more={}), numbers.ADDS),
        (lambda it: answer(it).update(required=["more"], properties=answer(it)["properties"] | {"more": {}}),
         numbers.BREAKS),
        (lambda it: it["components"]["schemas"].update(New={"required": ["a"], "properties": {"a": {}}}), numbers.ADDS),
        (lambda it: answer(it)["properties"].pop("score"), numbers.BREAKS),
        (lambda it: answer(it)["properties"]["score"].update(type="string"), numbers.BREAKS),
        (lambda it: answer(it).update(required=["score"]), numbers.BREAKS),
        (lambda it: answer(it).update(additionalProperties=False), numbers.BREAKS),
        (lambda it: it["paths"]["/score"]["post"]["parameters"][0].update(required=True), numbers.BREAKS),
        (lambda it: it["paths"]["/score"]["post"].update(requestBody={"content": {"a/b": {}}}), numbers.ADDS),
        (lambda it: it["paths"].pop("/score"), numbers.BREAKS),
    ],
)  # fmt: skip
def test_the_part_that_rises_is_what_the_interface_says(
    monkeypatch: pytest.MonkeyPatch, change: Any, which: int
) -> None:
    monkeypatch.setattr(changes, "of_release", lambda one: OLD)
    monkeypatch.setattr(changes, "here", lambda now: changes.Side(manifest(), document(change)))
    assert which == numbers.since(release_facts.Release("r1", "", {}), Path())[0]


def post(it: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = it["paths"]["/score"]["post"]
    return found


def fields(it: dict[str, Any], **those: Any) -> None:
    answer(it)["properties"].update(those)


BODY = {"content": {"a/b": {"schema": {"$ref": "#/x"}}}}
ASKS = {"get": {"parameters": [{"in": "query", "name": "q", "required": True}]}}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (lambda it: post(it).update(requestBody=BODY),
         lambda it: post(it).update(requestBody=BODY | {"required": True})),
        (lambda it: post(it)["responses"].update({"200": BODY}), lambda it: post(it)["responses"].update({"200": {}})),
        (lambda it: None, lambda it: post(it).update(security=[{"key": []}])),
        (lambda it: None, lambda it: it.update(security=[{"key": []}])),
        (lambda it: None, lambda it: answer(it).update(required=["other"])),
        (lambda it: fields(it, o={"properties": {"title": {"type": "number"}}}),
         lambda it: fields(it, o={"properties": {"title": {"type": "string"}}})),
        (lambda it: fields(it, **{"oil heat": {"a": 1, "type": "number"}}),
         lambda it: fields(it, **{"oil heat": {"a": 1, "maximum": 3, "type": "number"}})),
        (lambda it: None, lambda it: (fields(it, **{"oil heat": {}}), answer(it).update(required=["oil heat"]))),
        (lambda it: it["paths"].update({"/m:go": {"get": {}}}), lambda it: it["paths"].update({"/m:go": ASKS})),
    ],
)  # fmt: skip
def test_an_interface_that_asks_or_promises_otherwise_is_another_one(
    monkeypatch: pytest.MonkeyPatch, before: Any, after: Any
) -> None:
    old, new = document(before), document(lambda it: (before(it), after(it)))
    monkeypatch.setattr(changes, "of_release", lambda one: changes.Side(manifest(), old))
    monkeypatch.setattr(changes, "here", lambda now: changes.Side(manifest(), new))
    assert numbers.BREAKS == numbers.since(release_facts.Release("r1", "", {}), Path())[0]


def known(*found: tuple[str, str, str, str]) -> list[release_facts.Release]:
    """Releases by tag, number, the time they were served, and the reason they were withdrawn for."""
    return [
        release_facts.Release(
            tag, "", {"number": number, "served": at, "withdrawn": {"at": at, "why": why} if why else None}
        )
        for tag, number, at, why in found
    ]


@pytest.mark.parametrize(
    ("there", "kinds", "expected"),
    [
        ((), {}, "1.0.0"),
        ((("r1", "", "2026", ""),), {"r1": numbers.FIXES}, "1.0.0"),  # of before numbers
        ((("r1", "1.2.3", "2026", ""),), {"r1": numbers.FIXES}, "1.2.4"),
        ((("r1", "1.2.3", "2026", ""),), {"r1": numbers.ADDS}, "1.3.0"),
        ((("r1", "1.2.3", "2026", ""),), {"r1": numbers.BREAKS}, "2.0.0"),
        ((("r2", "1.10.0", "2026-02", ""), ("r1", "1.9.0", "2026-01", "")), {"r2": numbers.FIXES}, "1.10.1"),
        # After a rollback the withdrawn number is not given again, and what is new since it counts too.
        ((("r2", "2.0.0", "2026-02", "bad"), ("r1", "1.9.0", "2026-03", "")),
         {"r1": numbers.FIXES, "r2": numbers.BREAKS}, "3.0.0"),
        ((("r2", "1.9.1", "2026-02", "bad"), ("r1", "1.9.0", "2026-03", "")),
         {"r1": numbers.ADDS, "r2": numbers.FIXES}, "1.10.0"),
        ((("r9", "5.0.0", "", ""), ("r1", "1.2.3", "2026", "")), {"r1": numbers.FIXES}, "1.2.4"),  # never served
        ((("own", "7.0.0", "2027", ""), ("r1", "1.2.3", "2026", "")), {"r1": numbers.FIXES}, "1.2.4"),  # run again
        ((("r2", "1000000000.0.0", "2027", ""), ("r1", "999999999.0.0", "2026", "")), {"r2": numbers.BREAKS},
         "1000000001.0.0"),
        ((("r1", "1.2", "2026", ""),), {"r1": numbers.FIXES}, "1.0.0"),
    ],
)  # fmt: skip
def test_the_next_number(
    monkeypatch: pytest.MonkeyPatch,
    there: tuple[tuple[str, str, str, str], ...],
    kinds: dict[str, int],
    expected: str,
) -> None:
    monkeypatch.setattr(numbers, "since", lambda one, now: (kinds[one.tag], one.tag))
    assert expected == numbers.given(known(*there), Path(), "own")[0]


def test_what_cannot_be_compared_counts_as_another_interface(repo: Repository) -> None:
    repo.release("r1", repo.commits[1], served="2026-01-01", number="1.4.1")
    with_bundle(repo)
    for command in ("draft", "publish"):
        assert repo.run("release", command).returncode == 0
    assert "Release **2.0.0**: r1 cannot be compared (" in text(repo)


def test_a_bundle_that_is_cut_off_cannot_be_read(tmp_path: Path) -> None:
    archive = tmp_path / "bundle.tar.gz"
    (tmp_path / "manifest.json").write_text(json.dumps(os.urandom(40_000).hex()))
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(tmp_path / "manifest.json", "bundle/manifest.json")
    archive.write_bytes(archive.read_bytes()[:-5000])
    with pytest.raises(github.PipelineError, match="cannot be read"):
        changes.manifest(archive)


def published(repo: Repository, run: str) -> str:
    """Release what is gathered as that run of main; return its tag."""
    tag = f"r{run}-{repo.commits[2][:9]}"
    facts = repo.work / "build/release/facts.json"
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"tag": tag}))
    repo.state["api"][f"git/ref/tags/{tag}"] = {"object": {"sha": repo.commits[2]}}
    repo.keep()
    for command in ("draft", "publish"):
        done = repo.run("release", command, GITHUB_RUN_NUMBER=run)
        assert done.returncode == 0, done.stderr
    return tag


def test_title_text_and_facts_have_it_and_the_tag_does_not(repo: Repository) -> None:
    with_bundle(repo)
    first = published(repo, "4")
    assert f"1.0.0 ({first})" == repo.state["api"]["releases"][0]["name"]
    assert "Release **1.0.0**: it is the first release that has a number." in text(repo)
    with_bundle(repo, model_digest="sha256:other")
    second = published(repo, "5")
    assert f"1.1.0 ({second})" == repo.state["api"]["releases"][0]["name"]
    assert f"Release **1.1.0**: since {first}, the model is another one." in text(repo)
    assert ["1.1.0", "1.0.0"] == [repo.facts(tag)["number"] for tag in (second, first)]
    done = repo.run("rollback", "move", RELEASE=first, REASON="slept")
    assert done.returncode == 0, done.stderr
    assert "1.0.0" == repo.facts(first)["number"]


def test_a_number_is_signed_with_the_move_and_no_text_changes_it() -> None:
    facts = {"commit": "c", "image": "i", "facts": "f", "number": "1.2.3"}
    moves = [chain.move("r1", facts, "served", "2026"), chain.move("r2", facts | {"number": ""}, "served", "2027")]
    del moves[1]["number"]  # as a record of before numbers
    held = chain.held([{"moves": moves}])
    assert ("1.2.3", "") == (held["r1"]["number"], held["r2"]["number"])
    assert "1.2.3" == chain.held([{"moves": chain.titles(held)}])["r1"]["number"]
