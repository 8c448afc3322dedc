"""Release the bundle that a run of ``main`` trained: decide, gather, draft, verify, publish, as release.yml orders.

Every command can be run again with the same result. What a release says of itself is defined in release_facts.py, what
is verified of it in sealed.py, and how it becomes the served one in chain.py.
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

from pipeline import chain, changes, environments, github, numbers, product, release_facts, sealed, tags

BUILD = Path("build")
FILES = BUILD / "release"
FACTS = FILES / sealed.FACTS
ENVIRONMENTS = ("staging", "production")
# The image's name in the manifests; `make rename` changes it.
NAME: str = tomllib.loads((github.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
# The service reports its image from the setting IMAGE, so that must be the same digest.
SETTING_LINE = re.compile(rf"^(\s*(?:- )?name: IMAGE\n\s*value: ){re.escape(NAME)}$", re.MULTILINE)
IMAGE_LINE = re.compile(rf"^(\s*(?:- )?image: )[\"']?{re.escape(NAME)}(?::[\w.-]+)?[\"']?$", re.MULTILINE)


@dataclass(frozen=True)
class Decision:
    """What this run of release.yml does; ``notes`` says what it skips and why."""

    release: bool
    staging: bool
    production: bool
    sign: bool
    notes: tuple[str, ...]


def decision(
    known: list[release_facts.Release],
    commit: str,
    behind: Callable[[str, str], bool],
    held_by: str | None,
    deploy_to: str,
    can_sign: bool,
) -> Decision:
    """Return whether this commit is to be released, where to, and whether that can be signed.

    Raises:
        PipelineError: ``deploy_to`` names an environment that release.yml does not have.
    """
    targets = set(deploy_to.replace(",", " ").split())
    if strange := targets - set(ENVIRONMENTS):
        raise github.PipelineError(
            f"DEPLOY_TO names {', '.join(sorted(strange))}; it may name {' and '.join(ENVIRONMENTS)}"
        )
    notes = []
    if held_by:
        notes.append(f"Nothing is released: {held_by}.")
    elif newer := release_facts.overtaken(known, commit, behind):
        held_by = newer.tag
        notes.append(f"Nothing to release: {newer.tag} is the release of this commit or of a newer one.")
    notes += [f"Skipped: {it}. The variable DEPLOY_TO does not name it." for it in ENVIRONMENTS if it not in targets]
    if not can_sign:
        notes.append(
            "Skipped: attestations. GitHub keeps them for a private repository on Enterprise Cloud only; set the "
            "variable ATTESTATIONS to true where yours does. Instead, digests are compared within this run: that shows "
            "that what is deployed is what was built, and proves nothing to anyone else."
        )
    go = not held_by
    return Decision(go, go and "staging" in targets, go and "production" in targets, go and can_sign, tuple(notes))


def decide() -> None:
    """Set the outputs of the job ``decide``, and say on the summary page what is skipped."""
    deploy_to = os.environ.get("DEPLOY_TO", "")
    commit = github.setting("GITHUB_SHA")
    held_by, signs = release_facts.holder(), chain.signs()
    held_by = held_by and f"{held_by}. After that, run the workflow of the push again"
    if not (held_by or signs) and os.environ.get("GITHUB_EVENT_NAME") == "workflow_dispatch":
        held_by = "what is not signed is compared with the run of a push later, and this one was started by hand"
    known, told = release_facts.published(), (deploy_to, signs)
    by_hand = os.environ.get("GITHUB_EVENT_NAME") == "workflow_dispatch"  # then it is released anyway
    if not (held_by or by_hand or release_facts.overtaken(known, commit, release_facts.is_ancestor)):
        held_by = product.unchanged(release_facts.latest(known, "served"), commit) or None
    done = decision(known, commit, release_facts.is_ancestor, held_by, *told)
    used = {"staging": done.staging, "production": done.production, "mlflow": os.environ.get("MLFLOW_TRACKING_URI")}
    environments.refuse_unguarded([name for name, is_used in used.items() if is_used and done.release])
    if done.release and (why := tags.newer(on_its_way=True) or tags.reserve()):
        done = decision(known, commit, release_facts.is_ancestor, why, *told)
    github.tell("\n".join(["### What is released", "", *(f"- {note}" for note in done.notes or ("Everything.",))]))
    github.output(release=done.release, staging=done.staging, production=done.production, sign=done.sign)


def hold(on_its_way: bool = False) -> None:
    """Stop this release where a rollback has begun since it was decided; set ``go``: whether no newer one is released.

    Raises:
        PipelineError: a rollback waits for a person, or has withdrawn this release.
    """
    if held_by := release_facts.holder():
        raise github.PipelineError(f"nothing is released: {held_by}")
    refuse_withdrawn(tags.own())
    later = tags.newer(on_its_way)
    github.tell(f"Skipped: {later}. Nothing more is deployed." if later else "No rollback waits, and none is newer.")
    github.output(go=not later)


def refuse_withdrawn(tag: str) -> None:
    """Refuse to deliver a release again that a rollback has withdrawn; a person may run a job of its run again.

    Raises:
        PipelineError: it was withdrawn.
    """
    for one in release_facts.published():
        if one.tag == tag and (gone := one.facts.get("withdrawn")):
            raise github.PipelineError(
                f"release {tag} was withdrawn ({gone['why']}), so nothing of it is deployed. If that was wrong, start "
                "the workflow rollback with it; else merge what fixes it, and main releases that"
            )


def approved() -> None:
    """Stop, as :func:`hold`, also where a newer release is still on its way: that one is to be approved instead."""
    hold(on_its_way=True)


def pack(folder: Path, target: Path) -> None:
    """Write an archive of a folder; its bytes depend on the names and contents of the files alone."""
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
    """Return rendered manifests with the image named by its digest.

    Raises:
        PipelineError: they do not name the image, or do not set IMAGE.
    """
    for line, what in ((IMAGE_LINE, "image"), (SETTING_LINE, "setting IMAGE with the value")):
        manifest, count = line.subn(lambda found: found[1] + image, manifest)
        if not count:
            raise github.PipelineError(f"a rendered manifest has no {what} `{NAME}`, so the digest has no place")
    return manifest


def gather() -> None:
    """Collect in build/release every file that a release contains, and its facts."""
    image = github.setting("IMAGE_BY_DIGEST")
    judged = release_facts.today(json.loads((BUILD / "decision.json").read_text(encoding="utf-8")))
    manifest = json.loads((BUILD / "bundle/manifest.json").read_text(encoding="utf-8"))
    collect(image)
    known = {
        "closedloop": release_facts.FORMAT,
        "tag": tags.own(),
        "commit": github.setting("GITHUB_SHA"),
        "image": image,
        "bundle_digest": manifest["bundle_digest"],
        "model_digest": manifest["model_digest"],
        "verdict": judged["verdict"],
        "becomes_champion": judged["becomes_champion"],
        "holdout": (judged.get("looks") or {}).get("holdout"),
        "files": sealed.digests(FILES),
    }
    FACTS.write_text(json.dumps(known, indent=1), encoding="utf-8")
    github.output(tag=tags.own())


def collect(image: str) -> None:
    """Write the files of a release into build/release, the manifests with the image's digest."""
    shutil.rmtree(FILES, ignore_errors=True)
    FILES.mkdir(parents=True)
    pack(BUILD / "bundle", FILES / "bundle.tar.gz")
    card = BUILD / "report/card.md"
    shutil.copy(card if card.exists() else BUILD / "bundle/card.md", FILES / "card.md")
    shutil.copy(BUILD / "report/index.html", FILES / "report.html")
    shutil.copy("requirements/serve.txt", FILES / "serve.txt")
    shutil.copy(BUILD / "sbom.json", FILES / "sbom.json")
    for name in ("metrics.json", "decision.json"):  # what it promises; monitor.yml compares its answers with that
        shutil.copy(BUILD / name, FILES / name)
    if (document := BUILD / "openapi.json").exists():  # a restored release may be too old to have one
        shutil.copy(document, FILES)
    for wheel in (BUILD / "wheel").glob("*.whl"):
        shutil.copy(wheel, FILES)
    for path in sorted((BUILD / "manifests").glob("*.yaml")):
        text = with_digest(path.read_text(encoding="utf-8"), image)
        (FILES / f"manifests-{path.name}").write_text(text, encoding="utf-8")
    for path in (BUILD / "manifests").glob("alerts-*.json"):
        shutil.copy(path, FILES)


def notes(known: dict[str, Any], reason: str, changed: str, numbered: str = "") -> str:
    """Return the text of a release; ``changed`` says what is new for callers, ``numbered`` why it has its number."""
    short = known["image"].rpartition("@")[2]
    lines = [
        *([f"Release **{known['number']}**: {numbered}.", ""] if numbered else []),
        f"Verdict: **{known['verdict']}**. {reason}",
        "",
        *([changed, ""] if changed else []),
        f"Image: `{known['image']}`",
        "",
        f"`gh attestation verify oci://{known['image']} --repo {github.repository()}` shows who built {short[:19]}.",
        "",
        f"[The run]({github.run_url()}) has every log. Do not edit the block below: older code reads it. Where",
        f"releases are signed, {sealed.FACTS} is what counts, and the signed chain of moves.",
        "",
        release_facts.block(known | {title: known.get(title) for title in chain.TITLES}),
    ]
    return "\n".join(lines)


def draft() -> None:
    """Create the draft release, in place of one that an earlier attempt left."""
    known = sealed.checked(FILES)
    judged = json.loads((BUILD / "decision.json").read_text(encoding="utf-8"))
    name = tags.own()
    for one in github.objects("releases"):
        if one["tag_name"] == name and one["draft"]:
            github.gh("api", "--method", "DELETE", f"repos/{github.repository()}/releases/{one['id']}")
    paths = [str(path) for path in sorted(FILES.iterdir())]
    words = ["--repo", github.repository(), "--draft", "--verify-tag", "--title", name]
    text = notes(known, judged["reason"], changes.told(release_facts.published(), FILES, name))
    github.gh("release", "create", name, *paths, *words, "--notes-file", "-", stdin=text)
    github.tell(f"Drafted release {name}: {len(paths)} files.")


def verify(name: str = "") -> None:
    """Verify build/release before it is applied; ``name`` is the release's tag, by default RELEASE or this run's.

    Raises:
        PipelineError: a file was changed, nothing shows that main made the release, or its moves name other facts.
    """
    name = name or os.environ.get("RELEASE", "")
    said = sealed.verify(FILES, name or tags.own(), of_this_run=not name)
    if name:
        sealed.refuse_other_facts(release_facts.named(release_facts.published(), name), FACTS.read_bytes())
    github.tell(f"Verified: {said}.")


def refuse_changed_draft(name: str, known: dict[str, Any]) -> str:
    """Refuse to publish a draft whose files are not those of this run, which any writer can change; return its text.

    Raises:
        PipelineError: there is no such draft, or a second one, or GitHub has another digest of a file.
    """
    same = [one for one in github.objects("releases") if one["tag_name"] == name]
    if len(same) != 1:
        how = "is gone" if not same else f"is one of {len(same)}, and any of them could be published: delete the others"
        raise github.PipelineError(f"the draft of release {name} {how}; run the whole workflow again")
    there = {each["name"]: str(each["digest"]).removeprefix("sha256:") for each in same[0]["assets"]}
    own = sealed.digests(FILES) | {FACTS.name: hashlib.sha256(FACTS.read_bytes()).hexdigest()}
    sealed.compare(there, own)
    return str(same[0].get("body") or "")


def publish() -> None:
    """Publish the draft with its number, and write the move that makes it served, and the champion if it is better.

    Where releases are signed, the next job signs the move: it counts from then on.

    Raises:
        PipelineError: the draft is gone, a file of it was changed, or the tag was moved.
    """
    known = sealed.checked(FILES)
    changed = changes.kept(refuse_changed_draft(tags.own(), known))
    tags.refuse_moved(tags.own(), tags.there(tags.own()), known["commit"])
    moment, there = release_facts.now(), release_facts.published()
    titles = {"served": moment} | ({"champion": moment} if known["becomes_champion"] else {})
    number, why = numbers.given(there, FILES, tags.own())
    known |= {"number": number}
    if chain.signs():
        about = known | {"facts": hashlib.sha256(FACTS.read_bytes()).hexdigest()}
        moves = [chain.move(tags.own(), about, title, moment) for title in titles]
        chain.write(known["image"], moment, moves, {one.tag: one.facts for one in there})
    judged = json.loads((BUILD / "decision.json").read_text(encoding="utf-8"))
    words = ["--title", f"{number} ({tags.own()})", "--draft=false", "--latest"]
    release_facts.edit(tags.own(), notes(known | titles, judged["reason"], changed, why), *words)
    champion = "it is the champion too" if "champion" in titles else "the champion stays"
    github.tell(f"Published {tags.own()} as {number} ({why}): it is served, and {champion}.")


if __name__ == "__main__":
    commands = {
        "decide": decide,
        "hold": hold,
        "approved": approved,
        "gather": gather,
        "draft": draft,
        "verify": verify,
        "publish": publish,
    }
    sys.exit(github.main(commands))
