"""The logins by OIDC: what is asked of GitHub and of the cloud, what later steps get, and what a refusal says."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest

from pipeline import cloud_login, github

ASSUMED = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>the-id</AccessKeyId><SecretAccessKey>the-key</SecretAccessKey>
<SessionToken>the-session</SessionToken></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SimpleNamespace]:
    """GitHub, AWS and Google Cloud on this machine. ``asked`` has each path with what was sent and the token shown."""
    state = SimpleNamespace(asked={}, status=200, environment=tmp_path / "env")

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            found = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            sent = json.loads(body) if body else {key: value[0] for key, value in parse_qs(found.query).items()}
            state.asked[found.path] = (sent, self.headers.get("Authorization"))
            text = {
                "/github": json.dumps({"value": f"run-for-{sent.get('audience')}"}),
                "/aws/": ASSUMED,
                "/google": json.dumps({"access_token": "federated"}),
            }.get(found.path, json.dumps({"accessToken": "the-token"}))
            self.send_response(200 if found.path == "/github" else state.status)
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = answer  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = f"http://127.0.0.1:{server.server_port}"
    for name, value in {
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{here}/github?api=1",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "of-the-run",
        "GITHUB_ENV": str(state.environment),
        "AWS_ENDPOINT_URL_STS": f"{here}/aws",
        "DATA_AWS_ROLE": "arn:aws:iam::1:role/data",
        "DATA_AWS_REGION": "eu-west-1",
        "DATA_GCP_PROVIDER": "projects/1/locations/global/workloadIdentityPools/p/providers/github",
        "DATA_GCP_SERVICE_ACCOUNT": "data@fleet.iam",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cloud_login, "GOOGLE_STS", f"{here}/google")
    monkeypatch.setattr(cloud_login, "GOOGLE_IAM", f"{here}/iam")
    yield state
    server.shutdown()
    server.server_close()


def test_aws_gives_the_role_for_what_github_says(cloud: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    cloud_login.aws()
    asked, _ = cloud.asked["/aws/"]
    assert {"api": "1", "audience": "sts.amazonaws.com"} == cloud.asked["/github"][0]
    assert cloud.asked["/github"][1] == "Bearer of-the-run"
    assert asked["RoleArn"] == "arn:aws:iam::1:role/data"
    assert asked["WebIdentityToken"] == "run-for-sts.amazonaws.com"
    lines = cloud.environment.read_text().splitlines()
    assert ["AWS_ACCESS_KEY_ID=the-id", "AWS_SECRET_ACCESS_KEY=the-key", "AWS_SESSION_TOKEN=the-session"] == lines[:3]
    assert lines[3:] == ["AWS_REGION=eu-west-1"]
    said = capsys.readouterr().out
    assert all(f"::add-mask::{secret}\n" in said for secret in ("the-id", "the-key", "the-session"))


def test_google_gives_a_token_that_only_reads(cloud: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    cloud_login.gcp()
    audience = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/github"
    assert cloud.asked["/github"][0]["audience"] == f"https:{audience}"
    asked, _ = cloud.asked["/google"]
    assert (audience, f"run-for-https:{audience}") == (asked["audience"], asked["subjectToken"])
    wanted, shown = cloud.asked["/iam/data@fleet.iam:generateAccessToken"]
    assert (["https://www.googleapis.com/auth/devstorage.read_only"], "Bearer federated") == (wanted["scope"], shown)
    assert cloud.environment.read_text() == "GOOGLE_ACCESS_TOKEN=the-token\n"
    assert "::add-mask::the-token\n" in capsys.readouterr().out


@pytest.mark.parametrize("login", [cloud_login.aws, cloud_login.gcp])
def test_a_refusal_is_one_line_and_sets_nothing(cloud: SimpleNamespace, login: object) -> None:
    cloud.status = 403
    with pytest.raises(github.PipelineError, match="answers 403: ") as refused:
        login()  # type: ignore[operator]
    assert "run-for" not in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert not cloud.environment.exists()


def test_a_run_without_an_identity_is_told_the_permission(
    cloud: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ACTIONS_ID_TOKEN_REQUEST_URL")
    with pytest.raises(github.PipelineError, match="needs the permission id-token: write"):
        cloud_login.aws()


def test_a_real_token_service_takes_the_request(
    cloud: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """moto answers as the token service of AWS does."""
    command = shutil.which("moto_server")
    if command is None:
        pytest.skip("moto_server is not on PATH")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    with (tmp_path / "moto.log").open("wb") as log:
        process = subprocess.Popen([command, "--host", "127.0.0.1", "--port", str(port)], stdout=log, stderr=log)
    try:
        for _ in range(600):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{port}")
        cloud_login.aws()
    finally:
        process.kill()
        process.wait()
    assert "AWS_SESSION_TOKEN=" in cloud.environment.read_text()
