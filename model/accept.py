"""Accept a verdict that the gate would not let pass by itself: write model/accepted.json, for a code owner to review.

It answers one decision, the newest that CI made of this pull request, and holds for the very reference and inputs that
were judged there: commit it, and it travels with the branch; it does nothing once either has changed. --decision names
the decision.json of CI's artifact "report"; without that flag it is fetched with gh.
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
from model.common import cli, provenance
from model.data import LOCK

WORKFLOW, ARTIFACT = "ci.yml", "report"  # where the decision of a pull request is made, and what holds it
BY_HAND = "download the artifact 'report' of the pull request's newest run, and name its decision.json: --decision PATH"


def gh(*words: str) -> str:
    """What GitHub's own command line answers.

    Raises:
        DataError: it fails; with its last line.
    """
    done = subprocess.run(["gh", *words], cwd=provenance.ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DataError(f"gh {' '.join(words[:2])} exited {done.returncode}: {last}; or {BY_HAND}")
    return done.stdout


def fetch(folder: Path) -> Path:
    """The decision of the newest run of CI on this branch's pull request, downloaded into ``folder``.

    Raises:
        DataError: there is no gh, no such run, or no decision in it.
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


def accepted(decision: dict[str, Any], why: str, inputs_digest: str) -> dict[str, Any]:
    """The content of ``accepted.json``; ``inputs_digest`` is this checkout's.

    Raises:
        RefusedError: the decision was not made by CI, cannot be accepted, needs it not, or is about other inputs.
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
            "the decision is about other inputs (locks, closedloop, model or data pin) than this checkout has; "
            "bring the branch up to date with its base, push it, and accept what CI then decides"
        )
    kept = {key: decision[key] for key in ("reference", "inputs_digest", "verdict", "ci")}
    return kept | {"why": why}


def main(words: list[str]) -> None:
    """Write model/accepted.json."""
    flags = cli.parser(__doc__, out=provenance.ACCEPTED)
    flags.add_argument("--why", required=True, metavar="REASON", help="why this model may ship all the same")
    flags.add_argument("--decision", type=Path, metavar="PATH", help="CI's decision.json (default: fetched with gh)")
    args = flags.parse_args(words)
    why = " ".join(args.why.split())
    if not why:
        raise DataError('an acceptance needs a reason; say it: make accept WHY="…"')
    pin = cli.read_json(LOCK, "restore it from git")
    with tempfile.TemporaryDirectory() as folder:
        path = args.decision or fetch(Path(folder))
        decision = cli.read_json(path, BY_HAND)
    if not isinstance(decision, dict) or not {"verdict", "reason", "reference", "inputs_digest", "ci"} <= set(decision):
        raise DataError(f"{path} is no decision.json of this version; {BY_HAND}")
    content = accepted(decision, why, provenance.inputs_digest(args.params, pin["fingerprint"]))
    cli.write_json(args.out, content)
    cli.say(f"wrote {args.out}: {decision['verdict']} against {decision['reference']}; commit and push it")


if __name__ == "__main__":
    cli.main(main)
