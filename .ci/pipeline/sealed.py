"""What a release is, from what nobody can edit: its signed facts, or else the artifacts of main's own run.

``facts.json`` has commit, tag, image, verdict and the digest of every file of the release, and is attested by
release.yml at ``main``. A release without that signature (an older one, or of a private repository whose plan keeps
none) is compared with what its run on ``main`` has uploaded. Where neither is to be had it is refused.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from pipeline import chain, github, release_facts, tags

FACTS = "facts.json"
SIGNER = ".github/workflows/release.yml"
SIGNER_OF_FORMAT_1 = ".github/workflows/promote.yml"  # the name of that workflow when format 1 was written
ARTIFACT = "release"  # what the job that builds a release uploads
SAME = ("commit", "image", "bundle_digest", "model_digest")  # what must not differ between two files of facts


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in a folder but the facts."""
    found = sorted(path for path in folder.iterdir() if path.name != FACTS)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def checked(folder: Path) -> dict[str, Any]:
    """Return the facts in a folder, after comparing the digest of every other file there with them.

    Raises:
        PipelineError: a file is missing, was changed or was added.
    """
    if not (folder / FACTS).is_file():
        raise github.PipelineError(f"{folder} has no {FACTS}, so nothing shows what it is; fetch or gather a release")
    known: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    compare(digests(folder), known["files"])
    return known


def compare(found: dict[str, str], expected: dict[str, str]) -> None:
    """Raise PipelineError where the digests of files are not as expected; it names the files."""
    if found != expected:
        differ = sorted(name for name in found.keys() | expected if found.get(name) != expected.get(name))
        raise github.PipelineError(
            f"{', '.join(differ)}: not as gathered for the release; run the whole workflow again"
        )


def signer_of(known: dict[str, Any]) -> str:
    """Return the workflow that signed a release, by the format of its facts."""
    return SIGNER_OF_FORMAT_1 if known.get("closedloop") == 1 else SIGNER


def attested(subject: str, known: dict[str, Any]) -> None:
    """Raise PipelineError where a subject has no attestation of the release workflow at main for that commit."""
    here = github.repository()
    who = ["--repo", here, "--signer-workflow", f"{here}/{signer_of(known)}", "--source-ref", chain.MAIN]
    what = ["--source-digest", known["commit"], "--deny-self-hosted-runners"]
    github.gh("attestation", "verify", subject, *who, *what)


def verify(folder: Path, tag: str, of_this_run: bool) -> str:
    """Verify all files of a release in a folder; return in words what that rests on.

    Raises:
        PipelineError: a file was changed, or nothing shows that main made the release.
    """
    known = checked(folder)
    sealed = known.get("closedloop", 1) >= release_facts.SEALED
    if sealed and known["tag"] != tag:
        raise github.PipelineError(f"these are the files of {known['tag']}, and not of {tag}")
    if not chain.signs():
        if of_this_run:
            return "not signed, since attestations are not available here: the digests are those of this run"
        return of_run(folder, known, tag)
    attested(f"oci://{known['image']}", known)
    if sealed:
        attested(str(folder / FACTS), known)
        return f"image and facts were signed by {signer_of(known)} for commit {known['commit'][:12]} of main"
    attested(str(folder / "bundle.tar.gz"), known)
    return of_run(folder, known, tag)


def of_run(folder: Path, known: dict[str, Any], tag: str) -> str:
    """Compare the files of a release with the artifacts of the run of main that made it; return that in words.

    Raises:
        PipelineError: there is no such run, its artifacts have expired, or a file differs.
    """
    commit, refused = known["commit"], f"release {tag} is refused: no signature covers its files, and "
    if not of_main(commit):
        raise github.PipelineError(f"{refused}its commit {commit[:12]} is not one of main")
    runs = github.objects(f"actions/workflows/ci.yml/runs?head_sha={commit}&branch=main", "workflow_runs")
    # A pull request from a fork's branch main, and a run by hand on a tag main, have that name of a branch too.
    runs = [
        one for one in runs if one["event"] == "push" and one["head_repository"]["full_name"] == github.repository()
    ]
    made = [one for one in runs if f"r{one['run_number']}-{one['head_sha'][:9]}" == tag]
    if not made:
        raise github.PipelineError(f"{refused}no run of main made it")
    kept = github.objects(f"actions/runs/{made[0]['id']}/artifacts?name={ARTIFACT}", "artifacts")
    if not [one for one in kept if not one["expired"]]:
        raise github.PipelineError(
            f"{refused}the artifacts of its run have expired, so nothing can be compared. Restore its commit by a pull "
            f"request instead (git revert, or its tree), and main releases it anew"
        )
    with tempfile.TemporaryDirectory() as there:
        words = ["--repo", github.repository(), "--name", ARTIFACT, "--dir", there]
        github.gh("run", "download", str(made[0]["id"]), *words)
        compare(digests(folder), digests(Path(there)))
        own = release_facts.today(json.loads(Path(there, FACTS).read_text(encoding="utf-8")))
    if strange := [key for key in SAME if known.get(key) != own.get(key)]:
        raise github.PipelineError(f"{refused}its {', '.join(strange)} differ from those of its run")
    return f"every file has the digest that run {made[0]['run_number']} of main gave it"


def of_main(commit: str) -> bool:
    """Return whether a commit is one of the branch main; a tag of that name does not count."""
    here = f"repos/{github.repository()}"
    head = json.loads(github.gh("api", f"{here}/git/ref/heads/main"))["object"]["sha"]
    status = json.loads(github.gh("api", f"{here}/compare/{commit}...{head}"))["status"]
    return status in ("ahead", "identical")


def refuse_moved_tag(one: release_facts.Release) -> None:
    """Refuse a release whose tag in git names another commit than its own.

    Raises:
        PipelineError: the tag was moved, or is gone.
    """
    tags.refuse_moved(one.tag, tags.there(one.tag), one.commit)


def refuse_other_facts(one: release_facts.Release, content: bytes) -> None:
    """Refuse facts that are not those of the release's moves: another attempt of its run has signed facts too.

    Raises:
        PipelineError: the chain names another file.
    """
    expected = one.facts.get("facts")
    if expected and hashlib.sha256(content).hexdigest() != expected:
        raise github.PipelineError(f"{FACTS} of release {one.tag} is not the file that was signed as served")


def opened(one: release_facts.Release, archive: Path) -> release_facts.Release:
    """Return a release with the facts of its file ``archive`` (facts.json), verified, in place of those of its text.

    Raises:
        PipelineError: it is not signed as it must be, or is of another release.
    """
    content = archive.read_bytes()
    known = json.loads(content)
    refuse_other_facts(one, content)
    if known["tag"] != one.tag or known["commit"] != one.commit:
        raise github.PipelineError(f"{FACTS} of release {one.tag} is of {known['tag']}, commit {known['commit'][:12]}")
    attested(str(archive), known)
    moved = {key: one.facts.get(key) for key in (*chain.TITLES, "number")}  # what came after the facts were signed
    return release_facts.Release(one.tag, one.text, known | moved)
