"""The chain of moves: signed records of which release became served or the champion, and which was withdrawn.

Each record is an attestation by deliver.yml (once release.yml) or rollback.yml at ``main``. Its subjects are the image
that it is about and one constant text, by which all records are found at once. A record names the digest of the one
before it, so that a missing one is noticed. Where GitHub keeps attestations, nothing that can be edited says what is
served.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline import github

FOLDER = Path("build/move")  # what the job that signs attests: the record, and its subjects
TYPE = "https://closedloop.example/moves/v1"  # of the predicate; deliver.yml and rollback.yml name it too
SUBJECT = b"closedloop: the moves of served, champion and withdrawn\n"
MAIN = "refs/heads/main"
TEXTS_UNTIL = ""  # the day, as 2026-12-31, until which the releases' texts are believed where a chain begins anew
REMEDY = (
    "so someone may have deleted attestations. Read the audit log; then begin a new chain with a reviewed commit that "
    "changes SUBJECT in .ci/pipeline/chain.py and sets TEXTS_UNTIL to tomorrow, once you have read the releases' texts"
)
MOST = 1000  # attestations that one call of gh can fetch, the newest first
TITLES = ("served", "champion", "withdrawn")

Record = dict[str, Any]


def signs() -> bool:
    """Return whether GitHub keeps attestations for this repository, by PRIVATE and ATTESTATIONS.

    Raises:
        PipelineError: PRIVATE is neither true nor false, so that it is not known.
    """
    private = github.setting("PRIVATE")
    if private not in ("true", "false"):
        raise github.PipelineError(f"PRIVATE is {private!r}, and must be true or false: the workflow step sets it")
    return private == "false" or os.environ.get("ATTESTATIONS") == "true"


def digest(record: Record) -> str:
    """Return the digest by which the next record names this one."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def begins_anew() -> bool:
    """Return whether a reviewed commit lets the releases' texts begin a new chain today."""
    return datetime.now(UTC).strftime("%Y-%m-%d") <= TEXTS_UNTIL


def is_attested(subject: str) -> bool:
    """Return whether GitHub has an attestation of a digest (``sha256:…``), whoever signed it."""
    if not subject:
        return False
    path = f"repos/{github.repository()}/attestations/{subject}"
    try:
        return bool(json.loads(github.gh("api", f"{path}?per_page=1"))["attestations"])
    except github.PipelineError as error:
        if "HTTP 404" in str(error):  # so GitHub answers where a subject has none
            return False
        raise


def _by_main(result: dict[str, Any]) -> bool:
    """Return whether a verified attestation is a record that a workflow of ``main`` signed; gh has looked before."""
    found = result["verificationResult"]
    seal = found["signature"]["certificate"]
    return (
        found["statement"]["predicateType"] == TYPE
        and seal["sourceRepositoryRef"] == MAIN
        and re.fullmatch(signer(), seal["subjectAlternativeName"]) is not None
    )


def signer() -> str:
    """Return the pattern of the identities that may sign a record."""
    here = re.escape(f"{github.setting('GITHUB_SERVER_URL')}/{github.repository()}/.github/workflows/")
    return f"^{here}(release|deliver|rollback)\\.yml@{MAIN}$"


def records() -> list[Record]:
    """Return every record, the oldest first.

    Raises:
        PipelineError: GitHub cannot be asked, none is signed as it must be, or one is missing.
    """
    if not is_attested(f"sha256:{hashlib.sha256(SUBJECT).hexdigest()}"):
        return []
    with tempfile.TemporaryDirectory() as folder:
        subject = Path(folder, "moves")
        subject.write_bytes(SUBJECT)
        who = ("--repo", github.repository(), "--cert-identity-regex", signer(), "--source-ref", MAIN)
        how = ("--predicate-type", TYPE, "--deny-self-hosted-runners", "--limit", str(MOST), "--format", "json")
        answer = json.loads(github.gh("attestation", "verify", str(subject), *who, *how))
    signed = [one["verificationResult"]["statement"]["predicate"] for one in answer if _by_main(one)]
    known = {digest(record): record for record in signed}
    found = sorted(known.values(), key=lambda record: str(record["at"]))
    lost = [record for record in found if record["before"] and record["before"] not in known]
    if len(signed) >= MOST:  # the one before the oldest was not fetched; each record repeats what still holds
        lost = [record for record in lost if record is not found[0]]
    if lost or not found:
        what = f"the record before the one of {lost[0]['run']} is missing" if lost else "main has signed no record"
        raise github.PipelineError(f"what is served cannot be told: {what}, {REMEDY}")
    return found


def held(found: list[Record]) -> dict[str, dict[str, Any]]:
    """Return what the records say of each release: commit, image, the digest of its facts, its number and titles."""
    known: dict[str, dict[str, Any]] = {}
    for record in found:
        for move in record["moves"]:
            one = known.setdefault(move["release"], dict.fromkeys(TITLES))
            one |= {key: move[key] for key in ("commit", "image", "facts")}
            one["number"] = move.get("number") or ""  # records of before numbers have none
            value = {"at": move["at"], "why": move["why"]} if move["title"] == "withdrawn" else move["at"]
            one[move["title"]] = max(one[move["title"]] or value, value, key=str)
    return known


def move(release: str, facts: dict[str, Any], title: str, at: str, why: str = "") -> dict[str, str]:
    """Return one move of a record; ``facts`` are the release's, with the digest of its facts file if it has one."""
    about = {"commit": facts["commit"], "image": facts.get("image", "")}
    about |= {key: facts.get(key) or "" for key in ("facts", "number")}
    return {"release": release, "title": title, "at": at, "why": why, **about}


def titles(releases: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
    """Return a move for every title that a release has or had."""
    found = []
    for tag, facts in releases.items():
        for title in TITLES:
            if value := facts.get(title):
                at, why = (value["at"], value["why"]) if title == "withdrawn" else (value, "")
                found.append(move(tag, facts, title, at, why))
    return found


def standing(moves: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the moves that still hold: with these, a record holds without the older ones."""
    gone = {one["release"] for one in moves if one["title"] == "withdrawn"}
    found = [one for one in moves if one["title"] == "withdrawn"]
    for title in ("served", "champion"):
        left = [one for one in moves if one["title"] == title and one["release"] not in gone]
        found += [max(left, key=lambda one: one["at"])] if left else []
    return found


def write(image: str, at: str, moves: list[dict[str, str]], releases: dict[str, dict[str, Any]]) -> None:
    """Write the next record, and its subjects, into build/move for the job that signs it.

    The first record takes over all that the releases' texts say, which is what counted before it.
    """
    before = records()
    repeated = standing(titles(releases)) if before else titles(releases)
    name, _, hexadecimal = image.partition("@sha256:")
    record = {
        "version": 1,
        "before": digest(before[-1]) if before else None,
        "at": at,
        "run": github.run_url(),
        "moves": [*repeated, *moves],
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "move.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    subjects = [f"{hashlib.sha256(SUBJECT).hexdigest()}  moves", f"{hexadecimal}  {name}"]
    (FOLDER / "subjects.txt").write_text("\n".join(subjects) + "\n", encoding="utf-8")
