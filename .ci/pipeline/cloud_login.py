"""Log a job in to AWS or Google Cloud by OIDC, to read the pinned data: ``make login-aws``, ``make login-gcp``.

GitHub says who the run is, and the cloud gives credentials of an hour for it; no secret is stored. They are masked in
the log and set in the environment of the later steps, under the names that object_store reads. Azure has an action.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

from pipeline import github

SECONDS = 30
HOUR = 3600
GOOGLE_STS = "https://sts.googleapis.com/v1/token"
GOOGLE_IAM = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts"
READ_ONLY = "https://www.googleapis.com/auth/devstorage.read_only"
CLOUD = "https://www.googleapis.com/auth/cloud-platform"  # to become the service account, which has fewer rights
JWT = "urn:ietf:params:oauth:token-type:jwt"


def ask(address: str, content: dict[str, Any] | None = None, token: str = "") -> bytes:
    """Return the answer to a request: with ``content`` as JSON, and with a token where one is given.

    Raises:
        PipelineError: the server refuses or does not answer.
    """
    request = urllib.request.Request(address, None if content is None else json.dumps(content).encode())  # noqa: S310 - https, or a server of a test
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    where = address.partition("?")[0]
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310 - as above
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(2000).decode(errors="replace")
        raise github.PipelineError(f"{where} answers {error.code}: {' '.join(said.split())[:400]}") from None
    except OSError as error:
        raise github.PipelineError(f"{where} does not answer: {error}") from None


def identity(audience: str) -> str:
    """Return the signed text in which GitHub says who this run is.

    Raises:
        PipelineError: GitHub gives this run none.
    """
    address, token = (os.environ.get(f"ACTIONS_ID_TOKEN_REQUEST_{name}") for name in ("URL", "TOKEN"))
    if not address or not token:
        raise github.PipelineError("GitHub gives this run no identity; the job needs the permission id-token: write")
    value: str = json.loads(ask(f"{address}&{urlencode({'audience': audience})}", token=token))["value"]
    return value


def keep(**values: str) -> None:
    """Set variables for the later steps, each masked in the log."""
    for value in values.values():
        print(f"::add-mask::{value}")
    with Path(github.setting("GITHUB_ENV")).open("a", encoding="utf-8") as file:
        file.writelines(f"{name}={value}\n" for name, value in values.items())


def aws() -> None:
    """Assume the role DATA_AWS_ROLE in DATA_AWS_REGION."""
    role, region = github.setting("DATA_AWS_ROLE"), github.setting("DATA_AWS_REGION")
    server = os.environ.get("AWS_ENDPOINT_URL_STS") or f"https://sts.{region}.amazonaws.com"
    asked = {
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "RoleArn": role,
        "RoleSessionName": f"run-{os.environ.get('GITHUB_RUN_ID', '0')}",
        "DurationSeconds": HOUR,
        "WebIdentityToken": identity("sts.amazonaws.com"),
    }
    answer = ElementTree.fromstring(ask(f"{server}/?{urlencode(asked)}"))  # noqa: S314 - as above
    found = {tag.tag.rpartition("}")[2]: tag.text or "" for tag in answer.iter()}
    keep(
        AWS_ACCESS_KEY_ID=found["AccessKeyId"],
        AWS_SECRET_ACCESS_KEY=found["SecretAccessKey"],
        AWS_SESSION_TOKEN=found["SessionToken"],
        AWS_REGION=region,
    )
    print(f"logged in to AWS as {role}, for an hour")


def gcp() -> None:
    """Become the service account DATA_GCP_SERVICE_ACCOUNT through the provider DATA_GCP_PROVIDER, to read objects."""
    account = github.setting("DATA_GCP_SERVICE_ACCOUNT")
    provider = f"//iam.googleapis.com/{github.setting('DATA_GCP_PROVIDER')}"
    asked = {
        "audience": provider,
        "grantType": "urn:ietf:params:oauth:grant-type:token-exchange",
        "requestedTokenType": "urn:ietf:params:oauth:token-type:access_token",
        "scope": CLOUD,
        "subjectTokenType": JWT,
        "subjectToken": identity(f"https:{provider}"),
    }
    federated = json.loads(ask(GOOGLE_STS, asked))["access_token"]
    wanted = {"scope": [READ_ONLY], "lifetime": f"{HOUR}s"}
    answer = json.loads(ask(f"{GOOGLE_IAM}/{account}:generateAccessToken", wanted, federated))
    keep(GOOGLE_ACCESS_TOKEN=answer["accessToken"])
    print(f"logged in to Google Cloud as {account}, for an hour, to read objects")


if __name__ == "__main__":
    sys.exit(github.main({"aws": aws, "gcp": gcp}))
