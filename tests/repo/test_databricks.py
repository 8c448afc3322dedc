"""A workflow has Databricks train: what is asked of the workspace, what is fetched, and each thing that goes wrong."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from pipeline import databricks, github

from .workspace import COMMIT, FILES, JOB, RUN, WORK, Fake, handed, workspace

CALLS = ("/github", "/token", "/jobs/list", "/run-now", "/runs/get", "handed.json", "manifest.json")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Fake]:
    """A workspace, an empty folder to run in, and a command line that deploys nothing."""
    with workspace() as made:
        for name, value in {
            "DATABRICKS_HOST": made.address,
            "DATABRICKS_CLIENT_ID": "the-principal",
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{made.address}/github?api=1",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "of-the-run",
            "GITHUB_SHA": COMMIT,
            "GITHUB_RUN_ID": "9",
            "GITHUB_RUN_ATTEMPT": "2",
            "GITHUB_OUTPUT": str(tmp_path / "outputs"),
            "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        }.items():
            monkeypatch.setenv(name, value)
        command = tmp_path / "databricks"
        command.write_text('#!/bin/sh\necho "$BUNDLE_ROOT $*" > deployed\n')
        command.chmod(0o755)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(databricks, "POLL", 0.01)
        monkeypatch.setattr(databricks, "PAUSE", 0.001)
        monkeypatch.setattr("sys.argv", ["databricks"])
        yield made


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a refused run writes."""
    assert github.main({"": databricks.main}) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_the_bundle_that_was_trained_is_fetched_and_verified(fake: Fake, tmp_path: Path) -> None:
    databricks.main()
    assert (tmp_path / "deployed").read_text() == "platforms/databricks bundle deploy --target production\n"
    out = tmp_path / "build/databricks"
    assert FILES == {name: (out / name).read_bytes() for name in FILES}
    assert json.loads((out / "handed.json").read_text()) == handed()
    assert (tmp_path / "outputs").read_text() == "trained=build/databricks\n"
    assert not (tmp_path / "build/.databricks.part").exists()


def test_no_secret_is_sent_but_what_github_says_of_the_run(fake: Fake) -> None:
    databricks.main()
    sent = {key: value[0] for key, value in parse_qs(fake.bodies["/oidc/v1/token"].decode()).items()}
    assert sent == {
        "client_id": "the-principal",
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "scope": "all-apis",
        "subject_token": f"who-i-am-for-{fake.address}/oidc/v1/token",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    }
    asked = json.loads(fake.bodies["/api/2.2/jobs/run-now"])
    assert asked == {"job_id": JOB, "idempotency_token": "9-2", "job_parameters": {"commit": COMMIT}}


@pytest.mark.parametrize("status", [429, 500, 503, 0])
@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_fails_once_is_tried_again(fake: Fake, tmp_path: Path, call: str, status: int) -> None:
    fake.failing[call] = [status]
    if call == "/github":  # it is asked by the program that logs in to clouds, and at once
        with pytest.raises(github.PipelineError, match=r"github (answers|does not answer)"):
            databricks.main()
        return
    databricks.main()
    assert fake.failing[call] == []
    assert fake.started == {"9-2"}
    assert (tmp_path / "build/databricks/handed.json").exists()


@pytest.mark.parametrize("call", CALLS[1:])
def test_a_call_that_goes_on_failing_is_one_error_and_nothing_is_left(
    fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str], call: str
) -> None:
    fake.failing[call] = [503] * 100
    assert "answers 503: " in refused(capsys)
    assert not (tmp_path / "build/databricks").exists()
    ended = ("POST", "/api/2.2/jobs/runs/cancel") in fake.asked
    assert ended == (call == "/runs/get")  # a run that nobody waits for is ended


@pytest.mark.parametrize("call", CALLS[1:])
def test_a_refusal_is_not_tried_again(fake: Fake, capsys: pytest.CaptureFixture[str], call: str) -> None:
    fake.failing[call] = [403]
    assert "answers 403: " in refused(capsys)
    assert len([path for _, path in fake.asked if call in path]) == 1


def test_a_run_that_failed_is_named_with_its_page(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.details = {"code": "CLUSTER_ERROR", "message": "no such node type"}
    said = refused(capsys)
    assert f"run {RUN} failed: CLUSTER_ERROR: no such node type ({fake.address}" in said


def test_a_run_that_takes_too_long_is_ended(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(databricks, "LONGEST", 0)
    fake.states = ["RUNNING"]
    assert "takes longer than" in refused(capsys)
    assert ("POST", "/api/2.2/jobs/runs/cancel") in fake.asked


def test_a_workflow_that_is_cancelled_ends_the_run(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.states = ["RUNNING"]
    monkeypatch.setattr(databricks.time, "sleep", lambda _: signal.raise_signal(signal.SIGTERM))
    assert "stopped from outside" in refused(capsys)
    assert ("POST", "/api/2.2/jobs/runs/cancel") in fake.asked


@pytest.mark.parametrize("jobs", [0, 2])
def test_one_job_has_the_name(fake: Fake, capsys: pytest.CaptureFixture[str], jobs: int) -> None:
    fake.jobs = fake.jobs * jobs
    assert f"the workspace has {jobs} jobs named closedloop-train, and one is wanted" in refused(capsys)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 2}, "has format 2, which this program does not read"),
        ({"commit": "other"}, "commit other trained in run 77, and this run is of another commit"),
        ({"files": {"../evil": {"bytes": 1, "sha256": ""}}}, "names '../evil', which is no file of a bundle"),
        ({"files": {"/etc/evil": {"bytes": 1, "sha256": ""}}}, "names '/etc/evil', which is no file of a bundle"),
        ({"files": {"a\\b": {"bytes": 1, "sha256": ""}}}, "which is no file of a bundle"),
        ({"files": {"a": {"bytes": 2**40, "sha256": ""}}}, "which is no bundle"),
        ({"files": {"gone": {"bytes": 1, "sha256": ""}}}, "gone answers 404"),
        ({"files": ["a"]}, "answers in another form: AttributeError"),
    ],
)
def test_what_is_no_bundle_of_this_commit_is_refused(
    fake: Fake, capsys: pytest.CaptureFixture[str], tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    fake.handed |= changes
    assert said in refused(capsys)
    assert not (tmp_path / "build/databricks").exists()


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_changed_is_refused(fake: Fake, capsys: pytest.CaptureFixture[str], name: str) -> None:
    fake.files[name] += b"?"
    assert f"{WORK}/handed/{RUN}/{name} is not the file that was handed over" in refused(capsys)


@pytest.mark.parametrize("host", ["workspace.example", "http://workspace.example", "file:///etc/passwd"])
def test_a_host_that_is_no_https_address_is_refused(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], host: str
) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", host)
    assert "write the workspace's address: https://" in refused(capsys)


def test_without_the_command_line_nothing_begins(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "databricks is not on PATH: install it" in refused(capsys)
    assert fake.asked == []


def test_a_token_is_renewed_before_it_ends(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databricks, "FRESH", -1)
    databricks.main()
    tokens = [path for _, path in fake.asked if path.endswith("/token")]
    assert len(tokens) > len(FILES)


def test_the_workspace_answers_as_the_vendors_own_library_expects(fake: Fake) -> None:
    """What the fake says of a run and of jobs is read by Databricks' library; a made-up form would not be."""
    sdk = pytest.importorskip("databricks.sdk")
    from databricks.sdk.service.jobs import RunLifecycleStateV2State, TerminationCodeCode

    client = sdk.WorkspaceClient(host=fake.address, token="x", auth_type="pat")  # noqa: S106 - of no workspace
    assert [JOB] == [job.job_id for job in client.jobs.list(name="closedloop-train")]
    fake.states = ["TERMINATED"]
    run = client.jobs.get_run(RUN)
    assert run.status.state is RunLifecycleStateV2State.TERMINATED
    assert run.status.termination_details.code is TerminationCodeCode.SUCCESS
    assert {one.name: one.value or one.default for one in run.job_parameters} == {"commit": COMMIT, "work": WORK}
