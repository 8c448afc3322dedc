"""Have Databricks train: deploy this commit's jobs, start the one that trains, wait, and fetch what it hands over.

GitHub says who the run is and the workspace gives a token for it, so no secret is stored. Every call is tried again
where the workspace is busy, and a run is started once however often it is asked for. A run that nobody waits for is
ended. build/databricks gets the proposed pin and the bundle, each file with its digest verified: `make retrain
TRAINED=build/databricks` judges them. Nothing here deploys a model.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import FrameType
from typing import Any
from urllib.parse import quote, urlencode

from pipeline import cloud_login, github

BUNDLE = "platforms/databricks"
OUT = Path("build/databricks")
HANDED, FORMAT = "handed.json", 1  # as platforms/databricks/task.py writes it
API = "/api/2.2/jobs"
SECONDS, TRIES, PAUSE = 60, 6, 2.0  # of one call; how often; before the second try, and twice as long before each next
POLL = 30.0  # seconds between two looks at a run
FRESH = 40 * 60  # seconds for which a token is used; it lives an hour
LONGEST = 4 * 3600 + 900  # seconds: the job ends by itself before
MOST_BYTES, MOST_FILES = 2**30, 200  # of what is handed over
ENDED = "TERMINATED"


class Workspace:
    """A workspace, asked as the service principal that this run may become."""

    def __init__(self, host: str, client: str) -> None:
        if not re.match(r"https://|http://127\.0\.0\.1:", host):
            raise github.PipelineError(f"DATABRICKS_HOST is {host!r}; write the workspace's address: https://…")
        self.host, self.client = host.rstrip("/"), client
        self._token, self._since = "", 0.0

    def token(self) -> str:
        """Return a token that is fresh, in exchange for GitHub's word on who this run is."""
        if not self._token or time.monotonic() - self._since > FRESH:
            address = f"{self.host}/oidc/v1/token"
            asked = {
                "client_id": self.client,
                "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
                "subject_token_type": cloud_login.JWT,
                "subject_token": cloud_login.identity(os.environ.get("DATABRICKS_TOKEN_AUDIENCE") or address),
                "scope": "all-apis",
            }
            answer = self._again("POST", address, urlencode(asked).encode(), "x-www-form-urlencoded", "")
            self._token, self._since = json.loads(answer)["access_token"], time.monotonic()
            if os.environ.get("GITHUB_ACTIONS") == "true":
                print(f"::add-mask::{self._token}")
        return self._token

    def get(self, path: str, **query: Any) -> Any:
        """Return the answer to a question, as JSON."""
        address = f"{self.host}{path}" + (f"?{urlencode(query)}" if query else "")
        return json.loads(self._again("GET", address, None, "json", self.token()))

    def post(self, path: str, content: dict[str, Any]) -> Any:
        """Return the answer to a request, as JSON."""
        answer = self._again("POST", self.host + path, json.dumps(content).encode(), "json", self.token())
        return json.loads(answer or b"{}")

    def file(self, path: str) -> bytes:
        """Return the content of a file in a volume."""
        return self._again("GET", f"{self.host}/api/2.0/fs/files{quote(path)}", None, "json", self.token())

    def _again(self, method: str, address: str, body: bytes | None, kind: str, token: str) -> bytes:
        """Return an answer, asked for again where the server is busy or does not answer.

        Raises:
            PipelineError: it refuses, or does not answer at the last try either.
        """
        request = urllib.request.Request(address, body, method=method)  # noqa: S310 - checked above
        request.add_header("Content-Type", f"application/{kind}")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        where = address.partition("?")[0]
        for left in reversed(range(TRIES)):
            try:
                with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310 - as above
                    return bytes(answer.read(MOST_BYTES))
            except urllib.error.HTTPError as error:
                with error:
                    said = f"answers {error.code}: {' '.join(error.read(2000).decode(errors='replace').split())[:400]}"
                if error.code != 429 and error.code < 500:
                    raise github.PipelineError(f"{where} {said}") from None
            except OSError as error:
                said = f"does not answer: {error}"
            if not left:
                raise github.PipelineError(f"{where} {said}")
            time.sleep(PAUSE * 2 ** (TRIES - 1 - left))
        raise AssertionError  # the last try returns or raises


def start(here: Workspace, name: str) -> int:
    """Start the job of that name and return the run's id; the same run if this one has started it before.

    Raises:
        PipelineError: there is no such job, or several have the name.
    """
    jobs = here.get(f"{API}/list", name=name).get("jobs") or []
    if len(jobs) != 1:
        raise github.PipelineError(f"the workspace has {len(jobs)} jobs named {name}, and one is wanted")
    once = f"{github.setting('GITHUB_RUN_ID')}-{os.environ.get('GITHUB_RUN_ATTEMPT', '1')}"
    asked = {"job_id": jobs[0]["job_id"], "idempotency_token": once}
    asked |= {"job_parameters": {"commit": github.setting("GITHUB_SHA")}}
    return int(here.post(f"{API}/run-now", asked)["run_id"])


@contextmanager
def ended(here: Workspace, run: int) -> Iterator[None]:
    """Inside, whatever ends this program ends the run too, so that no cluster works for nobody."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise github.PipelineError("stopped from outside")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except BaseException:
        try:
            here.post(f"{API}/runs/cancel", {"run_id": run})
        except github.PipelineError as error:
            print(f"run {run} could not be ended: {error}; it ends by itself", file=sys.stderr)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def wait(here: Workspace, run: int) -> dict[str, Any]:
    """Return what the workspace says of the run, once it has done its work.

    Raises:
        PipelineError: the run failed, or takes longer than the job may.
    """
    until, told = time.monotonic() + LONGEST, ""
    with ended(here, run):
        while True:
            found: dict[str, Any] = here.get(f"{API}/runs/get", run_id=run)
            status = found["status"]
            if status["state"] != told:
                told = status["state"]
                print(f"run {run}: {told.lower()} {found.get('run_page_url', '')}", flush=True)
            if told == ENDED:
                break
            if time.monotonic() > until:
                raise github.PipelineError(f"run {run} takes longer than {LONGEST // 60} minutes, and is ended")
            time.sleep(POLL)
    details = status.get("termination_details") or {}
    if details.get("code") != "SUCCESS":
        why = f"{details.get('code', 'unknown')}: {details.get('message', 'no message')}"
        raise github.PipelineError(f"run {run} failed: {why} ({found.get('run_page_url', 'its page says more')})")
    return found


def fetch(here: Workspace, run: int, found: dict[str, Any]) -> dict[str, Any]:
    """Download what the run handed over into build/databricks, and return the content of handed.json.

    Raises:
        PipelineError: it is not of this commit, or a file is not as handed.json states it.
    """
    values = {one["name"]: one.get("value") or one.get("default", "") for one in found.get("job_parameters", [])}
    place = f"{values.get('work', '')}/handed/{run}"
    said: dict[str, Any] = json.loads(here.file(f"{place}/{HANDED}"))
    if said.get("format") != FORMAT:
        raise github.PipelineError(
            f"{place}/{HANDED} has format {said.get('format')!r}, which this program does not read"
        )
    if said["commit"] != github.setting("GITHUB_SHA"):
        raise github.PipelineError(f"commit {said['commit']} trained in run {run}, and this run is of another commit")
    total = sum(about["bytes"] for about in said["files"].values())
    if total > MOST_BYTES or len(said["files"]) > MOST_FILES:
        raise github.PipelineError(f"{place} has {len(said['files'])} files of {total:,} bytes, which is no bundle")
    part = OUT.with_name(f".{OUT.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for name, about in said["files"].items():
        if PurePosixPath(name).is_absolute() or {"..", ""} & set(name.split("/")) or "\\" in name:
            raise github.PipelineError(f"{place}/{HANDED} names {name!r}, which is no file of a bundle")
        content = here.file(f"{place}/{name}")
        if hashlib.sha256(content).hexdigest() != about["sha256"]:
            raise github.PipelineError(f"{place}/{name} is not the file that was handed over: its digest differs")
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        (part / name).write_bytes(content)
    (part / HANDED).write_text(json.dumps(said, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    shutil.rmtree(OUT, ignore_errors=True)
    part.replace(OUT)
    return said


def main() -> None:
    """Deploy the jobs, run the one that trains, and fetch its bundle."""
    here = Workspace(github.setting("DATABRICKS_HOST"), github.setting("DATABRICKS_CLIENT_ID"))
    github.call("databricks", "bundle", "deploy", "--target", "production", env={"BUNDLE_ROOT": BUNDLE})
    try:
        run = start(here, f"closedloop-{os.environ.get('DATABRICKS_JOB') or 'train'}")
        found = wait(here, run)
        said = fetch(here, run, found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise github.PipelineError(f"{here.host} answers in another form: {type(error).__name__} {error}") from error
    github.tell(f"Databricks trained `{said['model_digest']}` in [run {run}]({found.get('run_page_url', here.host)}).")
    github.output(trained=str(OUT))


if __name__ == "__main__":
    sys.exit(github.main({"": main}))
