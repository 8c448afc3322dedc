"""Print the commit that this change is compared with: that of the champion's release, or else the base commit.

Where neither is known (the first commit, or a machine without a login to GitHub) it is empty, and the run says so.

The champion's bundle is taken from its release into build/released, with release.json beside it, which names release
and commit. Where it cannot be had or cannot be verified, release.json says why, and the commit is trained again.
holdouts.json names the held-out tables that judged each release: the more it were, the more chance chose among them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zlib
from pathlib import Path
from typing import Any

from pipeline import chain, github, release_facts, sealed

ARCHIVE = "bundle.tar.gz"
BUNDLE_FILE = r"bundle/(heads/)?[\w-][\w.-]*"  # what a file of a bundle is called
RELEASED = Path("build/released")
PAUSES = (1, 3, 0)  # seconds after each failed download; the last one counts


def here(commit: str) -> bool:
    """Return whether this clone has a commit; where it lacks its history that is not known, and taken to be so."""
    words = ["git", "cat-file", "-e", f"{commit}^{{commit}}"]
    if subprocess.run(words, stderr=subprocess.DEVNULL, check=False).returncode == 0:
        return True
    return git("rev-parse", "--is-shallow-repository") != "false"


def git(*words: str) -> str:
    """Return git's output, stripped; an empty text where it fails."""
    return subprocess.run(["git", *words], capture_output=True, text=True, check=False).stdout.strip()


def base() -> str:
    """Return the base commit that the event gave, else the merge base with ``main`` unless that is this commit.

    A base that a force push has removed gives way to the parent of this commit, or to none.
    """
    if (given := os.environ.get("BASE_COMMIT", "")) and here(given):
        return given
    if given:
        found = git("rev-parse", "--verify", "--quiet", "HEAD^1")
        instead = f"the parent {found[:12]} takes its place" if found else "and this commit has no parent"
        github.tell(f"The base {given[:12]} is not in this repository any more (a force push?); {instead}.")
        return found
    found = git("merge-base", "HEAD", "origin/main")
    return "" if found == git("rev-parse", "HEAD") else found


def choose(champion: release_facts.Release | None, base_commit: str) -> tuple[str, str]:
    """Return the commit to compare with, and in words which one it is."""
    if champion:
        return champion.commit, f"the champion is release {champion.tag}, commit {champion.commit[:12]}"
    if base_commit:
        return base_commit, f"no release is the champion yet, so this is compared with its base {base_commit[:12]}"
    return "", "there is no release and no base, so this is the first model"


def lost(champion: release_facts.Release) -> str:
    """Return in words that a champion cannot be met: its bundle answers only with its own code."""
    return (
        f"the champion is release {champion.tag}, whose commit {champion.commit[:12]} is not in this repository any "
        "more, so that its code is not to be had. The next release that is better than the base becomes the champion"
    )


def download(tag: str, into: Path, name: str = ARCHIVE) -> Path:
    """Return a file of a release, by default the archive of its bundle, downloaded; a failed download is tried again.

    Raises:
        PipelineError: it cannot be downloaded.
    """
    words = ["--repo", github.repository(), "--pattern", name, "--dir", str(into), "--clobber"]
    for pause in PAUSES:
        try:
            github.gh("release", "download", tag, *words)
            break
        except github.PipelineError:
            if not pause:
                raise
            time.sleep(pause)
    if not (into / name).is_file():
        raise github.PipelineError(f"release {tag} has no file {name}")
    return into / name


def verify(archive: Path, one: release_facts.Release) -> str:
    """Compare a file with the facts of its release, and verify who signed it; return in words what was verified.

    Raises:
        PipelineError: it is another file, or is not signed although signatures are to be had here.
    """
    expected = (one.facts.get("files") or {}).get(archive.name)
    if hashlib.sha256(archive.read_bytes()).hexdigest() != expected:
        raise github.PipelineError(f"{archive.name} of release {one.tag} is not the file that the release's facts name")
    if not chain.signs():
        return "by the digest in the release's facts"
    if not one.is_sealed:  # else the facts themselves are signed
        sealed.attested(str(archive), one.facts)
    return f"by its digest and the signature of {sealed.signer_of(one.facts)}"


def known(one: release_facts.Release, folder: Path) -> release_facts.Release:
    """Return a release with its signed facts, if it has such; they are downloaded into a folder, and removed.

    Raises:
        PipelineError: they cannot be downloaded, or are not signed as they must be.
    """
    if not one.is_sealed or not chain.signs():
        return one
    archive = download(one.tag, folder, sealed.FACTS)
    try:
        return sealed.opened(one, archive)
    finally:
        archive.unlink()


def unpack(archive: Path, one: release_facts.Release) -> None:
    """Unpack a bundle into the folder ``bundle`` beside its archive, and compare its manifest with the facts.

    Raises:
        PipelineError: the archive holds anything but files of a bundle, or the bundle is another one.
    """
    try:
        with tarfile.open(archive) as packed:
            if strange := [it.name for it in packed if not it.isfile() or not re.fullmatch(BUNDLE_FILE, it.name)]:
                raise github.PipelineError(f"{ARCHIVE} of release {one.tag} holds {strange[0]!r}, which is no bundle's")
            for member in packed:  # by hand: extractall knows no filter before Python 3.11.4
                (archive.parent / member.name).parent.mkdir(parents=True, exist_ok=True)
                with packed.extractfile(member) or io.BytesIO() as file:
                    (archive.parent / member.name).write_bytes(file.read())
        manifest: dict[str, Any] = json.loads((archive.parent / "bundle/manifest.json").read_bytes())
    except (tarfile.TarError, zlib.error, OSError, EOFError, ValueError) as error:
        raise github.PipelineError(f"{ARCHIVE} of release {one.tag} cannot be read: {error}") from error
    found = {key: manifest.get(key) for key in ("bundle_digest", "model_digest")}
    found["commit"] = (manifest.get("provenance") or {}).get("commit")
    for key, value in found.items():
        if value != one.facts.get(key):
            known = one.facts.get(key)
            raise github.PipelineError(f"the bundle of release {one.tag} has {key} {value}, but its facts say {known}")


def take(one: release_facts.Release) -> str:
    """Take a release's bundle into build/released, and return in words whether that succeeded."""
    about = {"tag": one.tag, "commit": one.commit, "verified": "", "problem": ""}
    try:
        one = known(one, RELEASED)
        archive = download(one.tag, RELEASED)
        verified = verify(archive, one)
        unpack(archive, one)
        about["verified"] = verified
        archive.unlink()
        said = f"Its bundle is that of the release, verified {verified}"
    except github.PipelineError as error:
        shutil.rmtree(RELEASED)
        about["problem"] = str(error)
        said = f"Its commit is trained again, since its bundle was not to be had: {error}"
    RELEASED.mkdir(exist_ok=True)
    (RELEASED / "release.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return said


def main() -> None:
    """Set the outputs ``commit`` and ``base``, and say on the summary page which commit was chosen."""
    shutil.rmtree(RELEASED, ignore_errors=True)
    if not os.environ.get("GITHUB_REPOSITORY") or shutil.which("gh") is None:
        print("GitHub was not asked (that needs gh and GITHUB_REPOSITORY); make run keeps a champion of its own")
        github.output(commit="", base=os.environ.get("BASE_COMMIT", ""))
        return
    releases = release_facts.published()
    champion = release_facts.latest(releases, "champion")
    base_commit = base()
    commit, words = choose(champion, base_commit)
    if champion is not None and not here(champion.commit):
        commit, words = base_commit, f"its base, {base_commit[:12] or 'which it has not'}: {lost(champion)}"
    elif champion is not None:
        RELEASED.mkdir(parents=True)
        words += f". {take(champion)}"
    RELEASED.mkdir(parents=True, exist_ok=True)
    named = [one.facts["holdout"] for one in releases if one.facts.get("holdout")]
    (RELEASED / "holdouts.json").write_text(json.dumps(named, indent=1) + "\n", encoding="utf-8")
    github.tell(f"Compared with: {words}.")
    github.output(commit=commit, base=base_commit if os.environ.get("BASE_COMMIT") else "")


if __name__ == "__main__":
    sys.exit(github.main({"": main}))
