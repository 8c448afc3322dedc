"""Ship what a run of ``main`` trained: decide, gather, draft, verify, publish. release.yml says in which order.

Releases are the truth (release_facts.py); everything here can run again and comes to the same end.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tarfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import github, release_facts

BUILD = Path("build")
FILES = BUILD / "release"
FACTS = FILES / "facts.json"
ENVIRONMENTS = ("staging", "production")
# What the manifests call the image; a copy that was renamed calls it otherwise.
NAME: str = tomllib.loads((github.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
# What says of itself which image it is (the setting IMAGE) must be told the same.
SETTING_LINE = re.compile(rf"^(\s*(?:- )?name: IMAGE\n\s*value: ){re.escape(NAME)}$", re.MULTILINE)
IMAGE_LINE = re.compile(rf"^(\s*(?:- )?image: )[\"']?{re.escape(NAME)}(?::[\w.-]+)?[\"']?$", re.MULTILINE)
SIGNER = ".github/workflows/release.yml"


@dataclass(frozen=True)
class Decision:
    """What this run of release.yml does, and each thing it does not, with the reason."""

    ship: bool
    staging: bool
    production: bool
    sign: bool
    notes: tuple[str, ...]


def decide(
    known: list[release_facts.Release],
    commit: str,
    behind: Callable[[str, str], bool],
    held_by: str | None,
    deploy_to: str,
    can_sign: bool,
) -> Decision:
    """Whether this commit still is the one to ship, where to, and whether it can be signed.

    Raises:
        LineError: ``deploy_to`` names no environment of ours.
    """
    targets = set(deploy_to.replace(",", " ").split())
    if strange := targets - set(ENVIRONMENTS):
        raise github.LineError(
            f"DEPLOY_TO names {', '.join(sorted(strange))}; it may name {' and '.join(ENVIRONMENTS)}"
        )
    notes = []
    if held_by:
        notes.append(f"Nothing ships: {held_by}. After that, run this workflow again.")
    elif newer := release_facts.overtaken(known, commit, behind):
        held_by = newer.tag
        notes.append(f"Nothing left to ship: release {newer.tag} is of this commit or of a newer one.")
    notes += [f"Skipped: {it}. The variable DEPLOY_TO does not name it." for it in ENVIRONMENTS if it not in targets]
    if not can_sign:
        notes.append(
            "Skipped: attestations. GitHub keeps none for a private repository without Enterprise Cloud; set the "
            "variable ATTESTATIONS to true where yours does. Instead, digests are compared within this run alone: that "
            "shows that what was built is what is deployed, and proves nothing to anyone else."
        )
    ship = not held_by
    return Decision(
        ship, ship and "staging" in targets, ship and "production" in targets, ship and can_sign, tuple(notes)
    )


def protected(environment: dict[str, Any]) -> bool:
    """Whether an environment, as the API describes it, has any rule of protection."""
    return bool(environment.get("protection_rules"))


def refuse_unprotected() -> None:
    """Ask GitHub for the environment ``production``.

    Raises:
        LineError: it has no rule, or there is none of that name.
    """
    path = f"repos/{github.repository()}/environments/production"
    mend = "add a reviewer or a branch rule: Settings → Environments → production"
    try:
        found = json.loads(github.gh("api", path))
    except github.LineError as error:
        raise github.LineError(f"production is refused: its environment cannot be read ({error}); {mend}") from error
    if not protected(found):
        raise github.LineError(f"production is refused: its environment has no protection rule; {mend}")


def plan() -> None:
    """Decide, and say it on the run's page."""
    can_sign = os.environ.get("PRIVATE") == "false" or os.environ.get("ATTESTATIONS") == "true"
    deploy_to = os.environ.get("DEPLOY_TO", "")
    commit = github.setting("GITHUB_SHA")
    done = decide(
        release_facts.published(), commit, release_facts.is_ancestor, release_facts.holder(), deploy_to, can_sign
    )
    if done.production:
        refuse_unprotected()
    github.tell("\n".join(["### What ships", "", *(f"- {note}" for note in done.notes or ("Everything.",))]))
    github.output(ship=done.ship, staging=done.staging, production=done.production, sign=done.sign)


def hold() -> None:
    """Stop where a rollback began after the plan was made. Raises LineError."""
    if held_by := release_facts.holder():
        raise github.LineError(f"nothing ships: {held_by}")
    print("no rollback waits for anyone")


def pack(folder: Path, target: Path) -> None:
    """An archive of a folder whose bytes depend on nothing but names and contents."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                entry = tarfile.TarInfo(path.relative_to(folder.parent).as_posix())
                entry.size, entry.mode = path.stat().st_size, 0o644
                with path.open("rb") as stream:
                    archive.addfile(entry, stream)
    with target.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as stream:
        stream.write(buffer.getvalue())


def with_digest(manifest: str, image: str) -> str:
    """Rendered manifests with our image named by its digest.

    Raises:
        LineError: they name no image of ours.
    """
    for line, what in ((IMAGE_LINE, "image"), (SETTING_LINE, "setting IMAGE with the value")):
        manifest, count = line.subn(lambda found: found[1] + image, manifest)
        if not count:
            raise github.LineError(f"a rendered manifest has no {what} `{NAME}`, so the digest has no place")
    return manifest


def gather() -> None:
    """Put everything that a release holds into build/release."""
    image = github.setting("IMAGE_BY_DIGEST")
    decision = json.loads((BUILD / "decision.json").read_text(encoding="utf-8"))
    manifest = json.loads((BUILD / "bundle/manifest.json").read_text(encoding="utf-8"))
    shutil.rmtree(FILES, ignore_errors=True)
    FILES.mkdir(parents=True)
    pack(BUILD / "bundle", FILES / "bundle.tar.gz")
    card = BUILD / "report/card.md"
    shutil.copy(card if card.exists() else BUILD / "bundle/card.md", FILES / "card.md")
    shutil.copy(BUILD / "report/index.html", FILES / "report.html")
    shutil.copy("requirements/serve.txt", FILES / "serve.txt")
    shutil.copy(BUILD / "sbom.json", FILES / "sbom.json")
    for wheel in (BUILD / "wheel").glob("*.whl"):
        shutil.copy(wheel, FILES)
    for path in sorted((BUILD / "manifests").glob("*.yaml")):
        text = with_digest(path.read_text(encoding="utf-8"), image)
        (FILES / f"manifests-{path.name}").write_text(text, encoding="utf-8")
    known = {
        "commit": github.setting("GITHUB_SHA"),
        "image": image,
        "bundle_digest": manifest["bundle_digest"],
        "model_digest": manifest["model_digest"],
        "verdict": decision["verdict"],
        "becomes_reference": decision["becomes_reference"],
        "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(FILES.iterdir())},
        "served": None,
        "reference": None,
        "withdrawn": None,
    }
    FACTS.write_text(json.dumps(known, indent=1), encoding="utf-8")
    github.output(tag=tag())


def tag() -> str:
    """The release's name: the run's number, so that they sort, and the commit."""
    return f"r{github.setting('GITHUB_RUN_NUMBER')}-{github.setting('GITHUB_SHA')[:9]}"


def checked() -> dict[str, Any]:
    """The facts in build/release, after every file's digest was compared with them.

    Raises:
        LineError: a file is missing, is another one, or is one too many; or the commit is not this run's.
    """
    known: dict[str, Any] = json.loads(FACTS.read_text(encoding="utf-8"))
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in FILES.iterdir() if path != FACTS}
    if found != known["files"]:
        differ = sorted(name for name in found.keys() | known["files"] if found.get(name) != known["files"].get(name))
        raise github.LineError(f"{', '.join(differ)}: not what was gathered; run the whole workflow again")
    return known


def notes(known: dict[str, Any], reason: str) -> str:
    """The text of a release."""
    short = known["image"].rpartition("@")[2]
    lines = [
        f"Verdict: **{known['verdict']}**. {reason}",
        "",
        f"Image: `{known['image']}`",
        "",
        f"`gh attestation verify oci://{known['image']} --repo {github.repository()}` says who built {short[:19]}.",
        "",
        f"[The run]({github.run_url()}) holds every log. The block below is read by the line; do not edit it.",
        "",
        release_facts.block(known),
    ]
    return "\n".join(lines)


def draft() -> None:
    """Make the draft, or make it again."""
    known = checked()
    decision = json.loads((BUILD / "decision.json").read_text(encoding="utf-8"))
    name = tag()
    for one in github.objects("releases?per_page=100"):
        if one["tag_name"] == name and one["draft"]:
            github.gh("api", "--method", "DELETE", f"repos/{github.repository()}/releases/{one['id']}")
    paths = [str(path) for path in sorted(FILES.iterdir()) if path != FACTS]
    words = [
        "--repo",
        github.repository(),
        "--draft",
        "--target",
        known["commit"],
        "--title",
        name,
        "--notes-file",
        "-",
    ]
    github.gh("release", "create", name, *paths, *words, stdin=notes(known, decision["reason"]))
    github.tell(f"Drafted release {name}: {len(paths)} files.")


def signed() -> None:
    """Verify image and bundle before a deployment: signed by this workflow file, for this commit.

    Where nothing can be signed the digests of the run are what is left, and ``checked`` compares them.
    """
    known = checked()
    if os.environ.get("SIGNED") != "true":
        github.tell("Not verified: attestations are not available here. The digests are those of this run.")
        return
    subjects = [f"oci://{known['image']}", str(FILES / "bundle.tar.gz")]
    for subject in subjects:
        verify(subject, known["commit"])
    github.tell(f"Verified: image and bundle were signed by {SIGNER} for commit {known['commit'][:12]}.")


def verify(subject: str, commit: str) -> None:
    """Raises LineError where no attestation of release.yml for that commit names the subject."""
    who = [
        "--repo",
        github.repository(),
        "--signer-workflow",
        f"{github.repository()}/{SIGNER}",
        "--source-digest",
        commit,
    ]
    github.gh("attestation", "verify", subject, *who, "--deny-self-hosted-runners")


def publish() -> None:
    """Publish the draft; from this moment it is what is served, and the reference where the verdict says so."""
    known = checked()
    moment = release_facts.now()
    known |= {"served": moment, "reference": moment if known["becomes_reference"] else None}
    decision = json.loads((BUILD / "decision.json").read_text(encoding="utf-8"))
    release_facts.edit(tag(), notes(known, decision["reason"]), "--draft=false", "--latest")
    kept = "it is the reference too" if known["reference"] else "the reference stays"
    github.tell(f"Published {tag()}: it is what is served, and {kept}.")


if __name__ == "__main__":
    verbs = {"plan": plan, "hold": hold, "gather": gather, "draft": draft, "verify": signed, "publish": publish}
    sys.exit(github.main(verbs))
