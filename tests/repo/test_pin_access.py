"""Which runs can read the pinned data, what they log in to, and what the others are told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import pin_access, plan, required

ROOT = Path(__file__).resolve().parents[2]
AZURE = {"kind": "log", "location": "az://fleet/log", "versions": {"requests": 1}}
AWS = {"kind": "delta", "location": "s3://fleet/lake", "versions": {"telemetry": 1}}
GCP = {"kind": "files", "location": "gs://fleet/plant", "files": [{"path": "a.csv", "size": 1, "sha256": "0" * 64}]}
OPEN = GCP | {"public": True}
WEB = GCP | {"location": "https://example.invalid/plant"}
HERE = GCP | {"location": "data/plant"}
SIMULATED = {"kind": "simulator", "seed": 7}


def pull(name: str | None) -> dict[str, Any]:
    return {"pull_request": {"number": 7, "head": {"repo": name and {"full_name": name}}}}


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([SIMULATED, HERE, WEB, OPEN], {}),
        ([AZURE], {"azure": "az://fleet/log"}),
        ([AWS, GCP, OPEN], {"aws": "s3://fleet/lake", "gcp": "gs://fleet/plant"}),
        (
            [AZURE | {"location": "abfss://c@account.dfs.core.windows.net/x"}],
            {"azure": "abfss://c@account.dfs.core.windows.net/x"},
        ),
        ([OPEN | {"public": "true"}], {"gcp": "gs://fleet/plant"}),
    ],
)
def test_what_is_not_public_takes_a_login(parts: list[dict[str, Any]], expected: dict[str, str]) -> None:
    assert expected == pin_access.clouds(parts)


@pytest.mark.parametrize(
    ("event", "actor", "payload", "who"),
    [
        ("pull_request", "someone", pull("someone/fleet"), None),
        ("pull_request", "stranger", pull("stranger/fleet"), "a fork"),
        ("pull_request", "stranger", pull(None), "a fork"),  # deleted since
        ("pull_request", "dependabot[bot]", pull("someone/fleet"), "Dependabot"),
        ("push", "dependabot[bot]", {}, "Dependabot"),
        ("push", "someone", {}, None),
        ("merge_group", "dependabot[bot]", {}, None),
        ("workflow_dispatch", "someone", {}, None),
        ("", "", {}, None),
    ],
)
def test_whose_runs_get_no_login(event: str, actor: str, payload: dict[str, Any], who: str | None) -> None:
    assert who == pin_access.stranger(event, actor, payload, "someone/fleet")
    assert bool(who) == bool(pin_access.not_judged({"azure": "az://c"}, who, payload))
    assert pin_access.not_judged({}, who, payload) == ""


def test_a_fork_is_red_once_and_told_who_can_judge_it() -> None:
    why = pin_access.not_judged(pin_access.clouds([AZURE]), "a fork", pull("stranger/fleet"))
    told = plan.outputs(dict.fromkeys(plan.SKIPPABLE, True), login=True, not_judged=why)
    as_text = {name: str(it).lower() if isinstance(it, bool) else it for name, it in told.items()}
    needs: dict[str, Any] = {"plan": {"result": "success", "outputs": as_text}}
    needs |= {job: {"result": "skipped", "outputs": {}} for job in plan.SKIPPABLE}
    needs |= {job: {"result": "success", "outputs": {}} for job in ("check", "test", "manifests")}
    against = required.objections(needs)
    assert {"train"} == set(against)
    assert "not judged: the data is at az://fleet/log" in against["train"]
    assert "gh pr checkout 7, then git push origin HEAD:refs/heads/judge-7" in against["train"]
    assert "\n" not in against["train"]


def test_a_run_here_without_the_variables_is_red_once_and_told_which_to_set() -> None:
    found = pin_access.clouds([AZURE, AWS])
    why = pin_access.not_judged(found, None, {}, {"DATA_AZURE_CLIENT_ID": "i", "DATA_AWS_REGION": "", "X": "y"})
    assert why == (
        "az://fleet/log takes a login to azure: set the repository's variable DATA_AZURE_TENANT_ID "
        "(.github/README.md says how); s3://fleet/lake takes a login to aws: set the repository's variables "
        "DATA_AWS_ROLE and DATA_AWS_REGION (.github/README.md says how)"
    )
    told = plan.outputs(dict.fromkeys(plan.SKIPPABLE, True), login=True, not_judged=why)
    assert not any(told[name] for name in plan.OF_MODEL)
    assert all(told[name] for name in set(plan.SKIPPABLE) - set(plan.OF_MODEL))
    every = dict.fromkeys([name for names in pin_access.VARIABLES.values() for name in names], "set")
    assert pin_access.not_judged(found, None, {}, every) == ""
    assert pin_access.not_judged(found, None, {}, None) == ""  # a laptop has credentials of its own


def test_a_change_of_prose_needs_no_data_so_it_is_green_from_a_fork() -> None:
    told = plan.outputs(plan.plan("pull_request", ["README.md"]), login=True, not_judged="no login")
    assert told["not_judged"] == ""


@pytest.mark.parametrize(
    ("parts", "private", "kept"),
    [
        ([WEB], False, True),
        ([OPEN], False, True),
        ([GCP], False, False),  # a fork's pull request could restore it
        ([GCP], True, True),
        ([OPEN, GCP], False, False),
        ([HERE, AWS, AZURE, SIMULATED], True, False),  # nothing of it is downloaded as files
    ],
)
def test_downloads_are_kept_where_no_stranger_could_restore_them(
    parts: list[dict[str, Any]], private: bool, kept: bool
) -> None:
    assert kept == bool(pin_access.cache_key(parts, private))


def test_other_files_have_another_key() -> None:
    other = WEB | {"files": [WEB["files"][0] | {"sha256": "1" * 64}]}
    assert pin_access.cache_key([WEB], False) != pin_access.cache_key([other], False)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"parts": 1}', '{"parts": ["x"]}'])
def test_a_pin_that_is_none_stops_no_plan(text: str) -> None:
    assert pin_access.parts_of(text) == []


def run(folder: Path, module: str, **environment: str) -> tuple[int, str, str]:
    output = folder / "output"
    output.write_text("")
    own = {"PYTHONPATH": str(ROOT / ".ci"), "PYTHONSAFEPATH": "1", "GITHUB_OUTPUT": str(output)}
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "DATA_"))}
    words = [sys.executable, "-m", f"pipeline.{module}"]
    done = subprocess.run(words, cwd=folder, env=clean | own | environment, capture_output=True, text=True, check=False)
    return done.returncode, output.read_text(), done.stdout + done.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/data.lock.json").write_text(json.dumps({"fingerprint": "", "parts": [AZURE]}))
    return tmp_path


def test_the_plan_of_a_push_by_dependabot_skips_what_needs_the_data(copy: Path) -> None:
    code, told, _ = run(copy, "plan", GITHUB_EVENT_NAME="push", GITHUB_ACTOR="dependabot[bot]")
    assert code == 0
    assert (
        "check=true\ntest=true\ntrain=false\ncontract=false\nimage=false\n"
        "cluster=false\nmanifests=true\nlogin=true\nnot_judged=the data is at az://fleet/log"
    ) in told
    ready = (
        "check=true\ntest=true\ntrain=true\ncontract=true\nimage=true\n"
        "cluster=false\nmanifests=true\nlogin=true\nnot_judged=\n"
    )
    assert ready == run(copy, "plan", GITHUB_ACTOR="me")[1]
    here = {"GITHUB_ACTOR": "me", "GITHUB_ACTIONS": "true"}
    told = run(copy, "plan", **here)[1]
    assert "train=false\n" in told
    assert (
        "not_judged=az://fleet/log takes a login to azure: set the repository's variables DATA_AZURE_CLIENT_ID" in told
    )
    assert ready == run(copy, "plan", **here, DATA_AZURE_CLIENT_ID="i", DATA_AZURE_TENANT_ID="t")[1]


def test_the_training_job_is_told_what_to_log_in_to_for_every_commit_that_it_trains(copy: Path) -> None:
    def git(*words: str) -> str:
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.invalid", "-c", "commit.gpgsign=false")
        return subprocess.run(
            ["git", *identity, *words], cwd=copy, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "--quiet")
    git("add", "model")
    git("commit", "--quiet", "--message", "base")
    base = git("rev-parse", "HEAD")
    (copy / "model/data.lock.json").write_text(json.dumps({"fingerprint": "", "parts": [AWS]}))
    assert "azure=false\naws=true\ngcp=false\ncache=\nlog=false\n" == run(copy, "pin_access")[1]
    champion = {"BASE_COMMIT": base, "CHAMPION_COMMIT": ""}
    own = {"GITHUB_ACTIONS": "true", "DATA_AWS_ROLE": "r"}
    code, told, said = run(copy, "pin_access", **own, DATA_AWS_REGION="e", **champion)
    assert (0, "azure=true\naws=true\ngcp=false\ncache=\nlog=false\n") == (code, told)
    lacks = "az://fleet/log takes a login to azure: set the repository's variables DATA_AZURE_CLIENT_ID and DATA_AZURE"
    assert lacks in said  # the champion then cannot be trained again, which its judge says
    code, told, said = run(copy, "pin_access", **own, **champion)
    assert (1, "") == (code, told)
    assert ["::error::s3://fleet/lake takes a login to aws: set the repository's variable DATA_AWS_REGION "] == [
        line.partition("(")[0] for line in said.splitlines()
    ]


ACTION = "$/.github/actions/pinned-data"
LOGINS = {
    f"steps.pin.outputs.{cloud} == 'true' && inputs.{given} != ''": action
    for cloud, given, action in (
        ("azure", "azure-client-id", "Azure/login"),
        ("aws", "aws-role", "make login-aws"),
        ("gcp", "gcp-provider", "make login-gcp"),
    )
}
VARIABLES = {name for names in pin_access.VARIABLES.values() for name in names}


def test_each_login_runs_only_where_the_pin_needs_it_and_its_variable_is_set() -> None:
    told = yaml.safe_load((ROOT / ".github/actions/pinned-data/action.yml").read_text(encoding="utf-8"))["runs"][
        "steps"
    ]
    assert VARIABLES <= set(told[0]["env"])
    assert "make pin-access" == told[0]["run"]
    logins = {step["if"]: step.get("uses", step.get("run")).partition("@")[0] for step in told[1:]}
    assert LOGINS.items() <= logins.items()


def test_every_job_that_reads_the_pin_logs_in_first_where_the_cloud_trusts_it() -> None:
    """And passes each variable under its own name; but a job that makes its own pins needs none."""
    found = []
    for path in sorted((ROOT / ".github/workflows").glob("*.yml")):
        for name, job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].items():
            done = [step.get("run", step.get("uses")) for step in job.get("steps", [])]
            readers = [at for at, what in enumerate(done) if what in ("make run", "make retrain", "make monitor")]
            if not readers:
                continue
            found.append((path.name, name))
            assert ACTION in done[: readers[0]], found[-1]
            assert "'data'" in job["environment"], found[-1]
            assert job["permissions"]["id-token"] == "write", found[-1]
            given = job["steps"][done.index(ACTION)]["with"]
            passed = {f"DATA_{key}".upper().replace("-", "_"): value for key, value in given.items()}
            assert {variable: f"${{{{ vars.{variable} }}}}" for variable in VARIABLES}.items() <= passed.items()
            assert "${{ steps.pin.outputs.azure }}" == job["steps"][readers[0]]["env"]["AZURE_USE_AZURE_CLI"], found[-1]
    assert {("daily.yml", "newcomer"), ("daily.yml", "macos"), ("daily.yml", "arm")} <= set(found)
    assert {("retrain.yml", "retrain"), ("monitor.yml", "monitor"), ("train.yml", "train")} <= set(found)


def test_the_daily_jobs_that_cannot_read_the_pin_are_skipped_but_the_first_which_says_why() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/daily.yml").read_text(encoding="utf-8"))["jobs"]
    readers = {name for name, job in jobs.items() if ACTION in json.dumps(job)}
    skipped = {name for name in readers if "needs.plan.outputs.not_judged == ''" in jobs[name].get("if", "")}
    assert {"newcomer"} == readers - skipped
    assert "if" not in jobs["newcomer"]
