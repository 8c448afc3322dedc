"""What is verified of a release before it is applied: the real programs against releases that were tampered with.

The rules are GitHub's: docs.github.com, "Verifying attestations with the GitHub CLI" (signer workflow, source ref and
digest), "Immutable releases" (title and notes can still be edited), REST "Artifact attestations" and "Workflow runs".
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import chain, release, release_facts, sealed

from .test_release import IMAGE, Repository, cluster, kubectl_of

PROVENANCE = "https://slsa.dev/provenance/v1"
MOVE = chain.TYPE
SUBJECT = "sha256:" + hashlib.sha256(chain.SUBJECT).hexdigest()
OPTIONS = {"OVERLAY": "aks", "PRIVATE": "false"}


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def manifest(kind: str, mark: str) -> str:
    meta = {"name": "score", "namespace": "n", "annotations": {"release": mark}}
    return json.dumps({"apiVersion": "apps/v1", "kind": kind, "metadata": meta, "spec": {"replicas": 2}}) + "\n"


class Site:
    """A repository with two sealed releases, r1-… and r2-…, each served and champion in its turn."""

    def __init__(self, repo: Repository) -> None:
        self.repo = repo
        self.file = kubectl_of(repo)
        repo.environment |= OPTIONS | {"CLUSTER": str(self.file)}
        repo.state["attested"] = []
        self.tags = [f"r{n}-{repo.commits[n][:9]}" for n in (1, 2)]
        for n in (1, 2):
            self.made(n)

    def made(self, n: int) -> None:
        """Publish a release as release.yml does, with GitHub's signatures in their places."""
        repo, commit = self.repo, self.repo.commits[n]
        here = repo.work / "build/release"
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir(parents=True)
        (here / "manifests-aks.yaml").write_text(manifest("StatefulSet", str(n)))
        (here / "bundle.tar.gz").write_text(f"bundle {n}")
        known = {"closedloop": 3, "tag": self.tags[n - 1], "commit": commit, "image": image(n), "verdict": "better"}
        known |= {"bundle_digest": f"b{n}", "model_digest": f"m{n}", "becomes_champion": True}
        known["files"] = sealed.digests(here)
        (here / "facts.json").write_text(json.dumps(known))
        (repo.work / "build/decision.json").write_text(json.dumps({"reason": "Saves."}))
        self.sign(f"sha256:{sha((here / 'facts.json').read_bytes())}", commit=commit)
        self.sign(image(n).partition("@")[2], commit=commit)
        self.artifacts(n, here)
        repo.state["api"][f"git/ref/tags/{self.tags[n - 1]}"] = {"object": {"sha": commit, "type": "commit"}}
        repo.keep()
        for command in ("draft", "publish"):
            done = repo.run("release", command, GITHUB_SHA=commit, GITHUB_RUN_NUMBER=str(n))
            assert done.returncode == 0, done.stderr
        self.sign_move(commit)

    def artifacts(self, n: int, folder: Path) -> None:
        """What the API says of the run that made a release, and of what it uploaded."""
        commit, api = self.repo.commits[n], self.repo.state["api"]
        here = {"full_name": "someone/fleet"}
        run = {"id": 100 + n, "run_number": n, "head_sha": commit, "event": "push", "head_repository": here}
        api[f"compare/{commit}...{self.repo.commits[2]}"] = {"status": "ahead"}
        api[f"actions/workflows/ci.yml/runs?head_sha={commit}&branch=main"] = {"workflow_runs": [run]}
        api[f"actions/runs/{100 + n}/artifacts?name=release"] = {"artifacts": [{"name": "release", "expired": False}]}
        files = {path.name: {"base64": base64.b64encode(path.read_bytes()).decode()} for path in folder.iterdir()}
        self.repo.state["assets"][str(100 + n)] = files
        self.repo.keep()

    def sign(self, *digests: str, commit: str, **other: Any) -> None:
        of_main = {"signer": "release.yml", "ref": "refs/heads/main", "type": PROVENANCE}
        self.repo.state["attested"].append(of_main | {"digests": list(digests), "commit": commit} | other)
        self.repo.keep()

    def sign_move(self, commit: str, signer: str = "release.yml") -> None:
        folder = self.repo.work / "build/move"
        record = json.loads((folder / "move.json").read_text())
        digests = [f"sha256:{line.split()[0]}" for line in (folder / "subjects.txt").read_text().splitlines()]
        self.sign(*digests, commit=commit, type=MOVE, predicate=record, signer=signer)

    # --- what everyone who may write here can do ---

    def page(self, n: int) -> dict[str, Any]:
        found: dict[str, Any] = next(
            one for one in self.repo.state["api"]["releases"] if one["tag_name"] == self.tags[n - 1]
        )
        return found

    def edit(self, n: int, **facts: Any) -> None:
        """Edit the block in a release's text."""
        page = self.page(n)
        known = release_facts.facts(page["body"])
        assert known is not None
        page["body"] = release_facts.replaced(page["body"], known | facts)

    def upload(self, n: int, name: str, content: str | None) -> None:
        """Replace an asset, or delete it."""
        files, page = self.repo.state["assets"][self.tags[n - 1]], self.page(n)
        page["assets"] = [one for one in page["assets"] if one["name"] != name]
        if content is None:
            del files[name]
        else:
            files[name] = {"base64": base64.b64encode(content.encode()).decode()}
            page["assets"].append({"name": name, "digest": f"sha256:{sha(content.encode())}"})

    def asset(self, n: int, name: str) -> str:
        return base64.b64decode(self.repo.state["assets"][self.tags[n - 1]][name]["base64"]).decode()

    def forge(self, n: int, **facts: Any) -> str:
        """Replace manifests by a DaemonSet, with facts that agree; return the digest of the facts file."""
        evil = manifest("DaemonSet", "evil")
        self.upload(n, "manifests-aks.yaml", evil)
        known = json.loads(self.asset(n, "facts.json"))
        known["files"]["manifests-aks.yaml"] = sha(evil.encode())
        self.upload(n, "facts.json", json.dumps(known | facts))
        self.edit(n, files=known["files"], **facts)
        return f"sha256:{sha(self.asset(n, 'facts.json').encode())}"

    def objects(self) -> dict[str, Any]:
        found: dict[str, Any] = cluster(self.file)["objects"] if self.file.exists() else {}
        return found


def image(n: int) -> str:
    return f"registry.invalid/someone/fleet@sha256:{str(n) * 64}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Site:
    return Site(Repository(tmp_path_factory.mktemp("site"), root, release.NAME))


@pytest.fixture
def site(made: Site) -> Iterator[Site]:
    before = copy.deepcopy(made.repo.state)
    made.file.unlink(missing_ok=True)
    yield made
    made.repo.state = before
    made.repo.keep()
    (made.repo.folder / "summary").unlink(missing_ok=True)


def applied(site: Site, n: int = 2, **extra: str) -> str:
    """Fetch a release and apply it as rollback.yml does; return the error, or an empty text."""
    site.repo.keep()
    fetched = site.repo.run("deploy", "fetch", RELEASE=site.tags[n - 1], **extra)
    if fetched.returncode:
        return fetched.stderr
    done = site.repo.run("deploy", "apply", RELEASE=site.tags[n - 1], **extra)
    return done.stderr if done.returncode else ""


def test_a_sealed_release_is_verified_and_applied(site: Site) -> None:
    before = len(site.repo.calls("attestation", "verify"))  # of the notes of the second release
    assert applied(site) == ""
    assert site.objects()["StatefulSet/score"]["metadata"]["annotations"] == {"release": "2"}
    calls = [" ".join(call["words"]) for call in site.repo.calls("attestation", "verify")[before:]]
    provenance = [call for call in calls if MOVE not in call]
    assert len(provenance) == 2
    for call in provenance:
        assert "--signer-workflow someone/fleet/.github/workflows/release.yml" in call
        assert "--source-ref refs/heads/main" in call
        assert f"--source-digest {site.repo.commits[2]}" in call


Tamper = Callable[[Site], Any]
DIGEST_2 = image(2).partition("@")[2]
TAMPERED: dict[str, tuple[Tamper, str]] = {
    "manifests": (
        lambda site: site.upload(2, "manifests-aks.yaml", manifest("DaemonSet", "evil")),
        "not as gathered",
    ),
    "manifests and text": (lambda site: site.forge(2), "no attestation that was asked for"),
    "bundle": (lambda site: site.upload(2, "bundle.tar.gz", "evil"), "not as gathered"),
    "a file added": (
        lambda site: site.upload(2, "manifests-prod.yaml", manifest("DaemonSet", "x")),
        "not as gathered",
    ),
    "a file removed": (lambda site: site.upload(2, "bundle.tar.gz", None), "not as gathered"),
    "facts removed": (lambda site: site.upload(2, "facts.json", None), "has no facts.json"),
    "facts of format 2": (
        lambda site: (site.forge(2, closedloop=2), site.upload(2, "facts.json", None)),
        "has no facts.json",
    ),
    "facts that say format 2": (lambda site: site.forge(2, closedloop=2), "no attestation"),
    "signed by a branch": (
        lambda site: site.sign(site.forge(2), commit=site.repo.commits[2], ref="refs/heads/topic"),
        "no attestation",
    ),
    "signed by a tag called main": (
        lambda site: site.sign(site.forge(2), commit=site.repo.commits[2], ref="refs/tags/main"),
        "no attestation",
    ),
    "signed by another workflow": (
        lambda site: site.sign(site.forge(2), commit=site.repo.commits[2], signer="retrain.yml"),
        "no attestation",
    ),
    "signed by a fork": (
        lambda site: site.sign(site.forge(2), commit=site.repo.commits[2], repository="evil/fleet"),
        "no attestation",
    ),
    "signed for another commit": (
        lambda site: site.sign(site.forge(2), commit=site.repo.commits[0]),
        "no attestation",
    ),
    "signed as another kind": (
        lambda site: site.sign(site.forge(2), commit=site.repo.commits[2], type=MOVE),
        "no attestation",
    ),
    "an older release renamed": (
        lambda site: site.repo.state["assets"].update({site.tags[1]: site.repo.state["assets"][site.tags[0]]}),
        "these are the files of",
    ),
    "the tag moved": (
        lambda site: site.repo.state["api"].update({f"git/ref/tags/{site.tags[1]}": {"object": {"sha": "e" * 40}}}),
        "its tag was moved",
    ),
    "the tag gone": (lambda site: site.repo.state["api"].pop(f"git/ref/tags/{site.tags[1]}"), "its tag is gone"),
    "files of an earlier attempt of its run, which no move names": (
        lambda site: site.sign(site.forge(2), commit=site.repo.commits[2]),
        "is not the file that was signed as served",
    ),
    "another image": (
        lambda site: (site.forge(2, image=IMAGE), site.sign("sha256:" + "1" * 64, commit="e" * 40)),
        "no attestation",
    ),
    "the image's signature gone": (
        lambda site: site.repo.state.update(
            attested=[one for one in site.repo.state["attested"] if one["digests"] != [DIGEST_2]]
        ),
        "no attestation",
    ),
    "a move deleted": (
        lambda site: site.repo.state["attested"].remove(
            next(one for one in site.repo.state["attested"] if one["type"] == MOVE)
        ),
        "what is served cannot be told",
    ),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_a_release_that_was_tampered_with_is_refused_before_anything_is_applied(site: Site, how: str) -> None:
    tamper, says = TAMPERED[how]
    tamper(site)
    assert says in applied(site)
    assert site.objects() == {}


@pytest.mark.parametrize("how", ["manifests", "manifests and text", "signed by a branch", "facts removed"])
def test_what_was_served_is_verified_too_before_it_is_applied_again(site: Site, how: str) -> None:
    TAMPERED[how][0](site)
    site.repo.keep()
    done = site.repo.run("deploy", "served")
    assert done.returncode == 1
    assert TAMPERED[how][1] in done.stderr
    assert site.objects() == {}


def test_after_a_rollout_that_failed_what_was_served_last_is_applied_again(site: Site) -> None:
    done = site.repo.run("deploy", "served")
    assert done.returncode == 0, done.stderr
    assert site.objects()["StatefulSet/score"]["metadata"]["annotations"] == {"release": "2"}
    assert "rollout status statefulset/score --namespace n --timeout=10m" in cluster(site.file)["calls"]
    assert "was applied again" in site.repo.summary()
    lost = site.repo.run("deploy", "served", OVERLAY="gke")
    assert "the release has manifests for: aks" in lost.stderr


# --- what is served and the champion ---


def standing(site: Site) -> dict[str, str]:
    """The releases that are served and the champion, by the pipeline's own reading."""
    site.repo.keep()
    done = site.repo.run("champion")
    assert done.returncode == 0, done.stderr
    applied = site.repo.run("deploy", "served")
    assert applied.returncode == 0, applied.stderr
    served = site.objects()["StatefulSet/score"]["metadata"]["annotations"]["release"]
    return {"champion": site.repo.outputs()["commit"], "served": served}


@pytest.mark.parametrize("how", ["text", "draft", "withdrawn", "a record of a branch", "a record of another workflow"])
def test_no_edit_moves_what_is_served_or_the_champion(site: Site, how: str) -> None:
    later = "2099-01-01T00:00:00.000000Z"
    if how == "text":
        site.edit(1, served=later, champion=later)
    elif how == "draft":
        site.page(2)["draft"] = True
    elif how == "withdrawn":
        site.edit(2, withdrawn={"at": later, "why": "evil"})
    else:
        last = [one for one in site.repo.state["attested"] if one["type"] == MOVE][-1]["predicate"]
        facts = {"commit": site.repo.commits[1], "image": image(1), "facts": ""}
        moves = [chain.move(site.tags[0], facts, title, later) for title in ("served", "champion")]
        record = {"version": 1, "before": chain.digest(last), "at": later, "run": "x", "moves": moves}
        other: dict[str, str] = {"ref": "refs/heads/topic"} if how.endswith("branch") else {"signer": "retrain.yml"}
        site.sign(SUBJECT, commit=site.repo.commits[1], type=MOVE, predicate=record, **other)
    assert standing(site) == {"champion": site.repo.commits[2], "served": "2"}


def test_a_rollback_is_a_signed_move_and_the_withdrawn_release_stays_so(site: Site) -> None:
    done = site.repo.run("rollback", "move", RELEASE=site.tags[0], REASON="too hot")
    assert done.returncode == 0, done.stderr
    site.edit(1, served="2026-01-01")  # the text moves nothing, before the signature and after it
    assert standing(site)["served"] == "2"
    site.sign_move(site.repo.commits[2], signer="rollback.yml")
    assert standing(site) == {"champion": site.repo.commits[1], "served": "1"}
    site.edit(2, withdrawn=None)
    site.repo.keep()
    again = site.repo.run("rollback", "hold", RELEASE=site.tags[1], REASON="back")
    assert "was withdrawn (too hot)" in again.stderr


def test_a_release_that_is_published_but_not_signed_as_served_is_not_served(site: Site) -> None:
    """The run died between the two jobs; running its failed jobs again signs the move."""
    site.repo.state["attested"].pop()
    assert standing(site) == {"champion": site.repo.commits[1], "served": "1"}


def test_the_first_record_takes_over_what_the_texts_say(site: Site) -> None:
    """As in a repository that has become public, whose releases were not signed before."""
    facts = [one for one in site.repo.state["attested"] if one["digests"][0] in facts_of(site)]
    site.repo.state["attested"] = []
    site.repo.keep()
    done = site.repo.run("rollback", "move", RELEASE=site.tags[0], REASON="hot")
    assert done.returncode == 0, done.stderr
    site.sign_move(site.repo.commits[2], signer="rollback.yml")
    site.repo.state["attested"] += facts
    site.edit(2, champion="2099-01-01")
    assert standing(site) == {"champion": site.repo.commits[1], "served": "1"}


def facts_of(site: Site) -> dict[str, str]:
    """What a release's files and image are attested by: the digests, with the release's tag."""
    found = {f"sha256:{sha(site.asset(n, 'facts.json').encode())}": site.tags[n - 1] for n in (1, 2)}
    return found | {image(n).partition("@")[2]: site.tags[n - 1] for n in (1, 2)}


@pytest.mark.parametrize("how", ["as it is", "as of format 2"])
def test_where_every_move_was_deleted_the_texts_are_not_believed(site: Site, how: str) -> None:
    """Whoever may write can delete attestations, in a workflow of a branch: docs.github.com/rest/repos/attestations."""
    site.repo.state["attested"] = [one for one in site.repo.state["attested"] if one["type"] != MOVE]
    site.edit(1, served="2099-01-01", **({"closedloop": 2} if how == "as of format 2" else {}))
    site.repo.keep()
    for command in (["deploy", "served"], ["champion"], ["release", "decide"]):
        done = site.repo.run(*command)
        assert done.returncode == 1, command
        assert "no move is signed, and 2 releases are" in done.stderr
        assert "TEXTS_UNTIL" in done.stderr
    assert site.objects() == {}


def test_a_first_release_whose_move_was_not_signed_is_not_served_yet(site: Site) -> None:
    of_first = [digest for digest, tag in facts_of(site).items() if tag == site.tags[0]]
    site.repo.state["attested"] = [one for one in site.repo.state["attested"] if one["digests"][0] in of_first]
    site.repo.state["api"]["releases"] = [site.page(1)]
    site.repo.keep()
    done = site.repo.run("deploy", "served")
    assert "no release was served before" in done.stderr


def test_a_new_chain_begins_on_the_day_that_a_reviewed_commit_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not chain.begins_anew()
    for day, begins in (("2000-01-01", False), ("2999-01-01", True)):
        monkeypatch.setattr(chain, "TEXTS_UNTIL", day)
        assert chain.begins_anew() is begins


def test_where_github_cannot_tell_the_moves_nothing_is_read_from_the_texts(site: Site) -> None:
    site.repo.state["refuse"] = {f"api repos/someone/fleet/attestations/{SUBJECT}": "HTTP 502: bad gateway"}
    site.repo.keep()
    done = site.repo.run("deploy", "served")
    assert done.returncode == 1
    assert "HTTP 502" in done.stderr
    assert site.repo.run("champion").returncode == 1
    assert site.repo.run("release", "decide", PRIVATE="").returncode == 1


def test_records_that_repeat_what_stands_hold_without_the_oldest(monkeypatch: pytest.MonkeyPatch, site: Site) -> None:
    moves = [one["predicate"]["moves"] for one in site.repo.state["attested"] if one["type"] == MOVE]
    newest = chain.held([{"moves": moves[-1]}])
    assert newest[site.tags[0]]["champion"] is not None
    assert newest[site.tags[1]]["champion"] > newest[site.tags[0]]["champion"]


# --- a draft ---


def test_a_draft_that_was_changed_is_not_published(site: Site) -> None:
    assert site.repo.run("deploy", "fetch", RELEASE=site.tags[1]).returncode == 0
    page = site.page(2)
    page["draft"] = True
    page["assets"][0]["digest"] = "sha256:" + "e" * 64
    site.repo.keep()
    done = site.repo.run("release", "publish", GITHUB_RUN_NUMBER="2")
    assert done.returncode == 1
    assert f"{page['assets'][0]['name']}: not as gathered" in done.stderr
    assert not site.repo.calls("release", "edit")[2:]


def test_where_two_drafts_have_the_tag_none_is_published(site: Site) -> None:
    """`gh release edit` takes a tag, and would publish either."""
    assert site.repo.run("deploy", "fetch", RELEASE=site.tags[1]).returncode == 0
    site.page(2)["draft"] = True
    site.repo.state["api"]["releases"].append(site.page(2) | {"id": 9, "assets": []})
    site.repo.keep()
    done = site.repo.run("release", "publish", GITHUB_RUN_NUMBER="2")
    assert done.returncode == 1
    assert "is one of 2" in done.stderr
    assert not site.repo.calls("release", "edit")[2:]


# --- where nothing is signed ---

UNSIGNED = {"PRIVATE": "true", "ATTESTATIONS": ""}


@pytest.fixture
def private(site: Site) -> Site:
    site.repo.state["attested"] = []
    return site


def test_without_signatures_a_release_is_compared_with_the_artifacts_of_its_run_on_main(private: Site) -> None:
    assert applied(private, **UNSIGNED) == ""
    assert "run 2 of main gave it" in private.repo.summary()


@pytest.mark.parametrize(
    ("key", "answer", "says"),
    [
        ("", {}, "manifests-aks.yaml: not as gathered"),
        ("compare/{}...{}", {"status": "diverged"}, "is not one of main"),
        ("actions/workflows/ci.yml/runs?head_sha={}&branch=main", {"workflow_runs": []}, "no run of main made it"),
        ("actions/runs/102/artifacts?name=release", {"artifacts": [{"expired": True}]}, "have expired"),
        ("actions/runs/102/artifacts?name=release", {"artifacts": []}, "have expired"),
    ],
)
def test_without_signatures_what_cannot_be_compared_is_refused(
    private: Site, key: str, answer: dict[str, Any], says: str
) -> None:
    private.forge(2)
    private.repo.state["api"][key.format(*[private.repo.commits[2]] * 2)] = answer
    assert says in applied(private, **UNSIGNED)
    assert private.objects() == {}


@pytest.mark.parametrize(
    "other",
    [
        {"event": "pull_request", "head_repository": {"full_name": "evil/fleet"}},
        {"event": "workflow_dispatch"},
        {"event": "push", "head_repository": {"full_name": "evil/fleet"}},
    ],
)
def test_a_run_of_another_branch_called_main_made_no_release(private: Site, other: dict[str, Any]) -> None:
    """docs.github.com/rest/actions/workflow-runs: `branch` is a name; a fork's main and a tag main have it too."""
    key = f"actions/workflows/ci.yml/runs?head_sha={private.repo.commits[2]}&branch=main"
    private.repo.state["api"][key]["workflow_runs"][0] |= other
    assert "no run of main made it" in applied(private, **UNSIGNED)
    assert private.objects() == {}


def test_runs_and_artifacts_beyond_the_first_page_are_found(private: Site) -> None:
    api, commit = private.repo.state["api"], private.repo.commits[2]
    runs = api[f"actions/workflows/ci.yml/runs?head_sha={commit}&branch=main"]["workflow_runs"]
    runs[:0] = [runs[0] | {"id": n, "run_number": 900 + n} for n in range(40)]
    kept = api["actions/runs/102/artifacts?name=release"]["artifacts"]
    kept[:0] = [{"name": "release", "expired": True}] * 40
    assert applied(private, **UNSIGNED) == ""


def test_what_is_not_signed_is_not_released_by_a_run_that_was_started_by_hand(site: Site) -> None:
    commit = site.repo.commit({"model.py": "4\n"})
    site.repo.state["api"]["git/ref/heads/main"] = {"object": {"sha": commit}}
    site.repo.keep()
    for event, released in (("workflow_dispatch", "false"), ("push", "true")):
        done = site.repo.run("release", "decide", GITHUB_SHA=commit, GITHUB_EVENT_NAME=event, **UNSIGNED)
        assert done.returncode == 0, done.stderr
        assert site.repo.outputs()["release"] == released


def test_a_release_from_before_the_seal_is_compared_with_its_run_although_its_image_is_signed(site: Site) -> None:
    """Format 2 signed image and bundle, and not the manifests."""
    site.repo.state["attested"] = [one for one in site.repo.state["attested"] if one["type"] != MOVE]
    for digest in (DIGEST_2, f"sha256:{sha(b'bundle 2')}"):
        site.sign(digest, commit=site.repo.commits[2])
    site.upload(2, "facts.json", None)
    site.edit(2, closedloop=2)
    assert applied(site) == ""
    evil = manifest("DaemonSet", "evil")
    site.upload(2, "manifests-aks.yaml", evil)
    site.edit(2, files={"manifests-aks.yaml": sha(evil.encode()), "bundle.tar.gz": sha(b"bundle 2")})
    site.file.unlink()
    assert "manifests-aks.yaml: not as gathered" in applied(site)
    assert site.objects() == {}


# --- the newest move ---
# Attestations can be deleted (docs.github.com/rest/repos/attestations), and the text of a release stays editable
# (docs.github.com/code-security/concepts/supply-chain-security/immutable-releases).


def checked(site: Site) -> str:
    done = site.repo.run("notices", "head")
    assert done.returncode in (0, 1)
    return done.stderr


def grow_old(site: Site) -> None:
    """The moves are of an earlier year: in the texts, and in the chain that was signed."""
    for one in site.repo.state["api"]["releases"]:
        one["body"] = re.sub(r"\b20\d\d-", "2020-", one["body"])
    before = None
    for one in site.repo.state["attested"]:
        if one["type"] == chain.TYPE:
            record = json.loads(re.sub(r"\b20\d\d-", "2020-", json.dumps(one["predicate"]))) | {"before": before}
            one["predicate"], before = record, chain.digest(record)
    site.repo.keep()


def newest(site: Site) -> dict[str, Any]:
    found: dict[str, Any] = [one for one in site.repo.state["attested"] if one["type"] == chain.TYPE][-1]
    return found


def test_with_every_move_signed_the_daily_check_is_green(site: Site) -> None:
    assert checked(site) == ""


def test_the_newest_move_of_served_is_deleted_and_noticed(site: Site) -> None:
    site.repo.state["attested"].remove(newest(site))
    grow_old(site)
    told = checked(site)
    assert f"no signed move says what the text of {site.tags[1]} (served 2020-" in told
    assert "someone has deleted the newest move" in told


def test_a_text_that_was_edited_to_hide_it_is_not_enough(site: Site) -> None:
    site.repo.state["attested"].remove(newest(site))
    site.edit(2, served=None, champion=None)
    site.repo.keep()
    assert f"the text of {site.tags[1]} (served )" in checked(site)


def test_the_move_of_a_rollback_is_deleted_and_noticed(site: Site) -> None:
    done = site.repo.run("rollback", "move", RELEASE=site.tags[0], REASON="hot")
    assert done.returncode == 0, done.stderr
    grow_old(site)  # and nothing was signed
    assert f"{site.tags[0]} (served 2020-" in checked(site)


def test_a_move_that_is_about_to_be_signed_is_no_fault(site: Site) -> None:
    assert site.repo.run("rollback", "move", RELEASE=site.tags[0], REASON="hot").returncode == 0
    assert "no signed move" not in checked(site)
