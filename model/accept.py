"""Accept a verdict that the gate does not let pass: write model/accepted.json, for a code owner to review.

An acceptance answers one decision, the newest that CI made of this pull request. It holds only for the champion and the
inputs that were judged there. Commit the file and it travels with the branch; once the champion or an input changes, it
has no effect. --decision names the decision.json of CI's artifact `report`; without that flag gh fetches it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from closedloop.data.schema import DataError
from closedloop.judge.gate import ACCEPTABLE
from model.common import cli, decisions, provenance

WORKFLOW, ARTIFACT = "ci.yml", "report"  # the workflow that decides, and its artifact that holds the decision
KEYS = {"verdict", "reason", "champion", "inputs_digest", "ci"}
BY_HAND = "download the artifact 'report' of the pull request's newest run, and name its decision.json: --decision PATH"


def gh(*words: str) -> str:
    """Return what GitHub's command line prints.

    Raises:
        DataError: it fails; with the last line it printed.
    """
    done = subprocess.run(["gh", *words], cwd=provenance.ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DataError(f"gh {' '.join(words[:2])} exited {done.returncode}: {last}; or {BY_HAND}")
    return done.stdout


def fetch(folder: Path) -> Path:
    """Download the decision of CI's newest run on this branch's pull request into ``folder``, and return its path.

    Raises:
        DataError: gh is missing, or there is no such run or no decision in it.
    """
    if shutil.which("gh") is None:
        raise DataError(f"gh is not on PATH to fetch CI's decision; {BY_HAND}")
    branch = provenance.git("branch", "--show-current")
    if not branch:
        raise DataError(f"no branch is checked out, so its pull request is unknown; check it out, or {BY_HAND}")
    which = ("--workflow", WORKFLOW, "--event", "pull_request", "--branch", branch, "--limit", "1")
    runs = json.loads(gh("run", "list", *which, "--json", "databaseId"))
    if not runs:
        raise DataError(f"CI has not run on a pull request of {branch}; open one: its decision is what is accepted")
    gh("run", "download", str(runs[0]["databaseId"]), "--name", ARTIFACT, "--dir", str(folder))
    return folder / "decision.json"


def read(path: Path) -> dict[str, Any]:
    """Read a decision.

    Raises:
        DataError: the file is missing or is no decision.
    """
    content = cli.read_json(path, BY_HAND)
    decision = decisions.with_todays_keys(content) if isinstance(content, dict) else {}
    if missing := sorted(KEYS - set(decision)):
        raise DataError(f"{path} is no decision.json of this version: it lacks {', '.join(missing)}; {BY_HAND}")
    return decision


def acceptance(decision: dict[str, Any], why: str, inputs_digest: str) -> dict[str, Any]:
    """Return the content of ``accepted.json``; ``inputs_digest`` is that of this checkout.

    Raises:
        RefusedError: CI did not make the decision, it cannot or need not be accepted, or it is about other inputs.
    """
    verdict = decision["verdict"]
    if decision["ci"] is None:
        raise cli.RefusedError(f"this decision was made on a person's machine, and only CI's counts; {BY_HAND}")
    if verdict == "refused":
        raise cli.RefusedError(f"a refusal cannot be accepted: {decision['reason']}")
    if verdict not in ACCEPTABLE:
        raise cli.RefusedError(f"the verdict is {verdict}, which needs no acceptance")
    if decision["inputs_digest"] != inputs_digest:
        raise cli.RefusedError(
            "the decision is about other inputs (locks, closedloop, model/ or data pin) than this checkout has; "
            "bring the branch up to date with its base, push it, and accept what CI then decides"
        )
    kept = {key: decision[key] for key in ("inputs_digest", "verdict", "ci")}
    return kept | {"champion": decisions.champion_commit(decision), "why": why}


def main(words: list[str]) -> None:
    """Write model/accepted.json."""
    flags = cli.parser(__doc__, out=provenance.ACCEPTED, writes="the acceptance to write")
    flags.add_argument("--why", required=True, metavar="REASON", help="why this model may be served all the same")
    flags.add_argument("--decision", type=Path, metavar="PATH", help="CI's decision.json (default: fetched with gh)")
    args = flags.parse_args(words)
    why = " ".join(args.why.split())
    if not why:
        raise DataError('an acceptance needs a reason; give it: make accept WHY="…"')
    pin = cli.read_json(provenance.PIN, "restore it from git")
    with tempfile.TemporaryDirectory() as folder:
        decision = read(args.decision or fetch(Path(folder)))
    content = acceptance(decision, why, provenance.inputs_digest(args.params, pin["fingerprint"]))
    cli.write_json(args.out, content)
    cli.say(f"wrote {args.out}: {content['verdict']} against {content['champion']}; commit and push it")


if __name__ == "__main__":
    cli.main(main)
