"""Ask a deployed endpoint whether it is the release: as a dry run, so that no model learns from it."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass

from platforms.azureml.release import DeployError, Release

PAUSES_SECONDS = (2, 5, 10, 20, 40, 0)  # between attempts: an instance may be ready before its route is
TIMEOUT_SECONDS = 60
NO_SUCH_PATH = (404, 405)
FEEDBACK = b'{"complete_until": {"datetime": ["2015-01-01T06:00:00Z"], "machineID": [null]}}'


@dataclass(frozen=True)
class Asked:
    """An endpoint's address and key; ``deployment`` is the one to ask whatever the traffic, empty for the traffic's."""

    url: str
    key: str
    deployment: str = ""

    def post(self, body: bytes, path: str = "") -> tuple[int, bytes]:
        """Return the status and the body of an answer, or 0 and the reason."""
        headers = {"Content-Type": "application/json", "Closed-Loop-Dry-Run": "1"}
        headers |= {"Authorization": f"Bearer {self.key}"} if self.key else {}
        headers |= {"azureml-model-deployment": self.deployment} if self.deployment else {}
        url = urllib.parse.urljoin(self.url, path) if path else self.url
        request = urllib.request.Request(url, body, headers)  # noqa: S310
        try:
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
                    return answer.status, answer.read()
            except urllib.error.HTTPError as error:
                return error.code, error.read()
        except (OSError, http.client.HTTPException) as error:  # also one that breaks off in the middle of its answer
            return 0, f"{type(error).__name__}: {error}".encode()


def patient(ask: Asked, release: Release, route: str) -> str | None:
    """Return what is wrong with the answers of a route, after several attempts; None if nothing is."""
    found: str | None = None
    for pause in PAUSES_SECONDS:
        found = score(ask, release) if route == "/score" else feedback(ask)
        if found is None or not pause:
            break
        time.sleep(pause)
    return found


def score(ask: Asked, release: Release) -> str | None:
    """Return what is wrong with the answer of ``/score``; None if it is the release's model."""
    status, body = ask.post(release.request())
    if status != 200:
        return f"/score {_said(status, body)}"
    try:
        model = json.loads(body).get("model")
    except (ValueError, AttributeError):
        return f"/score answered no JSON object: {_short(body)}"
    if model != release.model_digest:
        return f"/score answered with the model {model}, the release's is {release.model_digest}"
    return None


def feedback(ask: Asked) -> str | None:
    """Return what is wrong with the answer of ``/feedback``; None if feedback is taken."""
    status, body = ask.post(FEEDBACK, "/feedback")
    return None if status == 200 else f"/feedback {_said(status, body)}"


def passes_on(ask: Asked) -> bool:
    """Whether feedback gets through an endpoint whose scoring route is another.

    Raises:
        DeployError: it gets through, and is not taken.
    """
    status, body = 0, b""
    for pause in PAUSES_SECONDS:
        status, body = ask.post(FEEDBACK, "/feedback")
        if status in (200, *NO_SUCH_PATH) or not pause:
            break
        time.sleep(pause)
    if status not in (200, *NO_SUCH_PATH):
        raise DeployError(f"/feedback {_said(status, body)}; /score is served; run it again")
    return status == 200


def _said(status: int, body: bytes) -> str:
    return f"answered {status}: {_short(body)}" if status else f"did not answer: {_short(body)}"


def _short(body: bytes) -> str:
    return " ".join(body[:300].decode(errors="replace").split())
