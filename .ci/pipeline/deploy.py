"""Apply a release's manifests to the cluster of this job, wait for the rollout, and ask what answers there.

``apply`` and ``smoke`` take build/release, as release.py gathered it or ``fetch`` downloaded it (RELEASE). ``served``
applies what was served last, after a rollout that failed. OVERLAY names the manifests; the steps before log kubectl in.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline import github, release, release_facts

WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet"}
PATIENCE = "10m"  # for one workload: pulling an image and a volume may take minutes
REQUEST = Path("tests/golden/request.json")
SERVICE = "service/score"


def manifests() -> Path:
    """The file to apply.

    Raises:
        LineError: the release has no such overlay.
    """
    overlay = github.setting("OVERLAY")
    path = release.FILES / f"manifests-{overlay}.yaml"
    if not path.exists():
        there = ", ".join(sorted(p.stem.removeprefix("manifests-") for p in release.FILES.glob("manifests-*.yaml")))
        raise github.LineError(f"OVERLAY is {overlay!r}, and the release has manifests for: {there or 'none'}")
    return path


def kubectl_list(*words: str) -> list[dict[str, Any]]:
    """The objects that kubectl answers."""
    found = json.loads(github.call("kubectl", *words, "--output", "json"))
    return found["items"] if found["kind"] == "List" else [found]


def apply() -> None:
    """Apply, and wait until every workload has rolled out. Raises LineError where one does not."""
    for one in kubectl_list("apply", "--filename", str(manifests())):
        if one["kind"] in WORKLOADS:
            name = f"{one['kind'].lower()}/{one['metadata']['name']}"
            space = one["metadata"].get("namespace", "default")
            github.call("kubectl", "rollout", "status", name, "--namespace", space, f"--timeout={PATIENCE}")
            print(github.literal(f"rolled out: {name} in {space}"))


def fetch(tag: str = "") -> None:
    """Download a release (RELEASE) into build/release, with its facts."""
    one = release_facts.named(release_facts.published(), tag or github.setting("RELEASE"))
    shutil.rmtree(release.FILES, ignore_errors=True)
    release.FILES.mkdir(parents=True)
    github.gh("release", "download", one.tag, "--repo", github.repository(), "--dir", str(release.FILES))
    release.FACTS.write_text(json.dumps(one.facts), encoding="utf-8")
    release.checked()
    print(github.literal(f"fetched {one.tag}, commit {one.commit[:12]}"))


def served() -> None:
    """Apply what was served last, since the newer one did not come up.

    Raises:
        LineError: nothing ever was.
    """
    last = release_facts.latest(release_facts.published(), "served")
    if last is None:
        raise github.LineError(
            "nothing was served before, so there is nothing to go back to; mend what the step above says"
        )
    fetch(last.tag)
    apply()
    github.tell(f"The new release did not come up; {last.tag}, which was served before, was applied again.")


@contextmanager
def address() -> Iterator[str]:
    """Where the service answers: SMOKE_URL, else a port of this machine that kubectl forwards."""
    if url := os.environ.get("SMOKE_URL", ""):
        yield url.rstrip("/")
        return
    found = kubectl_list("get", "--filename", str(manifests()))
    names = {one["metadata"].get("namespace", "default") for one in found if one["kind"] == "Service"}
    if len(names) != 1:
        raise github.LineError(f"the service lies in {len(names)} namespaces; name its address: SMOKE_URL")
    words = ["kubectl", "port-forward", "--namespace", names.pop(), SERVICE, ":80"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as forward:
        assert forward.stdout is not None  # noqa: S101
        line = forward.stdout.readline()  # Forwarding from 127.0.0.1:40000 -> 8000
        try:
            if "->" not in line:
                raise github.LineError(f"kubectl forwards no port to {SERVICE}: {line.strip() or 'it said nothing'}")
            yield "http://" + line.split()[2]
        finally:
            forward.terminate()


def ask(url: str, body: bytes | None = None, token: str = "") -> tuple[int, bytes]:
    """A status and what came with it; 0 where nobody answered."""
    headers = {"Content-Type": "application/json", "Closed-Loop-Dry-Run": "1"} | (
        {"Authorization": f"Bearer {token}"} if token else {}
    )
    request = urllib.request.Request(url, body, headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError as error:
        return 0, str(error).encode()


def objections(url: str, facts: dict[str, Any], body: bytes, token: str) -> list[str]:
    """What is wrong with what answers there: not ready, another model, or no answer to a request."""
    found = []
    status, text = ask(f"{url}/readyz")
    if status != 200:
        found.append(f"/readyz answered {status}: {text[:200].decode(errors='replace')}")
    status, text = ask(f"{url}/version")
    version = json.loads(text) if status == 200 else {}
    found += [
        f"/version says {key} {version.get(key)}, and the release has {facts[key]}"
        for key in ("bundle_digest", "model_digest", "commit")
        if version.get(key) != facts[key]
    ]
    status, text = ask(f"{url}/score", body, token)
    if status != 200 and (token or status not in (401, 403)):
        found.append(f"/score answered {status}: {text[:200].decode(errors='replace')}")
    elif status == 200 and json.loads(text).get("model") != facts["model_digest"]:
        found.append("/score was answered by another model")
    return found


def smoke() -> None:
    """Ask, a few times if need be: the last replica may have become ready only now.

    Raises:
        LineError: it still is not what was released; with every objection.
    """
    facts, token = release.checked(), os.environ.get("SMOKE_TOKEN", "")
    with address() as url:
        for pause in (1, 5, 10, 20, 0):
            found = objections(url, facts, REQUEST.read_bytes(), token)
            if not found or not pause:
                break
            time.sleep(pause)
    if found:
        raise github.LineError("; ".join(found))
    kept = "" if token else " (no SMOKE_TOKEN, so /score was only asked whether it is closed or open)"
    github.tell(f"Smoke test: ready, and it serves commit {facts['commit'][:12]}{kept}.")


if __name__ == "__main__":
    sys.exit(github.main({"apply": apply, "fetch": fetch, "served": served, "smoke": smoke}))
