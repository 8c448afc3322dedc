"""A retraining under a workflow runner, its log in Azurite, with a stand-in for GitHub: from the log to the release.

Real are the workflows, the pipeline's programs, git, the commands that read, train and judge, and the pins in the sink.
Stand-ins are GitHub, and the make targets that check code, build images and sign.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from logkit import kit

import logged_fleet
from closedloop.data.simulate import simulate
from closedloop.data.sources import tables_to_frames
from closedloop.log import pins
from closedloop.log.sink import Sink
from simulated_fleet import PARAMS_FILE, SCHEMA

ROOT = Path(__file__).resolve().parents[2]
PIN = "model/data.lock.json"
MACHINES, DAYS = 16, 70
BEGAN = 45  # days that are pinned before there is a log
MAKEFILE = """\
export PATH := BIN:$(PATH)
export GH_STATE := STATE
export REMOTE := ORIGIN
export REAL_GIT := GIT
SETTINGS
PIPELINE = @PYTHONSAFEPATH=1 PYTHONPATH=.ci python3 -m pipeline
# the library is this checkout's, which is compiled already
MODEL = PYTHONSAFEPATH=1 PYTHONPATH=LIBRARY:$(CURDIR) PYTHON -m model

plan champion required:
\t$(PIPELINE).$@
pin-access:
\t$(PIPELINE).pin_access
retrain-log:
\t$(PIPELINE).propose log
retrain-judge:
\t$(PIPELINE).propose judge
retrain:
\t$(MODEL).retrain --quick
\t@[ ! -d build/evidence ] || cp build/evidence/decision.json KEPT/evidence.json
log-pins:
\t$(PIPELINE).log_pins
\t$(MODEL).log_pins --log "$(LOG_SINK)"
propose:
\t@git remote set-url origin ORIGIN && git fetch --quiet origin
\t$(PIPELINE).propose
run:
\t@mkdir -p build/report build/bundle
\tfor step in data validate 'train --quick' predict; do $(MODEL).$$step || exit 1; done
\t$(MODEL).evaluate --quick; code=$$?; cp build/decision.json KEPT/decision.json; exit $$code
bundle-digest:
\t@echo bundle_digest=sha256:b >> $$GITHUB_OUTPUT
release-decide:
\t@printf 'release=true\\nsign=true\\nstaging=false\\nproduction=false\\n' >> $$GITHUB_OUTPUT
manifests release-files:
\t@mkdir -p build/manifests build/release
\t@for f in manifests/local release/bundle.tar.gz release/sbom release/facts; do echo $@ > build/$$f.json; done
\t@for f in bundle.tar.gz sbom.json facts.json; do echo $@ > build/release/$$f; done
image-push:
\t@printf 'name=x\\ndigest=sha256:%064d\\nimage=x@sha256:%064d\\n' 1 1 >> $$GITHUB_OUTPUT
%:
\t@echo $@
"""

pytestmark = pytest.mark.skipif(shutil.which("act-run") is None, reason="act-run is not on PATH")


class World:
    """A repository with a remote, a stand-in for GitHub, and a fleet whose log is in an object store."""

    def __init__(self, folder, sink, environ):
        self.folder, self.sink, self.environ = folder, sink, environ
        self.work, self.remote, self.state_file = folder / "fleet", folder / "remote", folder / "state.json"
        for name in ("bin", "kept"):
            (folder / name).mkdir()
        (folder / "bin/gh").symlink_to(ROOT / "tests/repo/gh_pulls")
        self.change({"calls": [], "pulls": [], "runs": [], "releases": []})
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        for name in (".github", ".ci", "src", "model", "requirements"):
            shutil.copytree(ROOT / name, self.work / name, ignore=ignored)
        for name in ("pyproject.toml", ".gitignore"):
            shutil.copy(ROOT / name, self.work / name)
        shutil.copy(PARAMS_FILE, self.work / "model/params.yaml")
        names = {"PYTHON": sys.executable, "BIN": folder / "bin", "STATE": self.state_file, "ORIGIN": self.remote,
                 "GIT": shutil.which("git"), "KEPT": folder / "kept", "LIBRARY": ROOT / "src",
                 "SETTINGS": "\n".join(f"export {name} := {value}" for name, value in environ.items())}  # fmt: skip
        text = re.sub("|".join(rf"\b{name}\b" for name in names), lambda found: str(names[found[0]]), MAKEFILE)
        (self.work / "Makefile").write_text(text)
        frames = tables_to_frames(simulate("azure", MACHINES, DAYS, 3, SCHEMA).tables, SCHEMA)
        self.frames = {name: frame for name, frame in frames.items() if name != "anomalies"}
        self.start = frames["telemetry"]["datetime"].min()

    def change(self, state):
        self.state_file.write_text(json.dumps(state))

    @property
    def state(self):
        return json.loads(self.state_file.read_text())

    def git(self, *words):
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.invalid", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *identity, *words], cwd=self.work, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self, message, branch="main"):
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        self.git("push", "--quiet", "origin", branch)
        return self.git("rev-parse", "HEAD")

    def model(self, *words):
        environ = os.environ | {"PYTHONSAFEPATH": "1", "PYTHONPATH": f"{ROOT / 'src'}:{self.work}"}
        command = [sys.executable, "-m", f"model.{words[0]}", *words[1:]]
        subprocess.run(command, cwd=self.work, env=environ, check=True, capture_output=True)

    def between(self, first, last):
        """The tables of some days; the first has all that was before, which machines have no telemetry of."""
        first, last = (self.start + pd.Timedelta(days=day) for day in (first, last))
        return {
            name: frame if name == "machines" else frame[frame["datetime"].between(first, last, inclusive="left")]
            for name, frame in self.frames.items()
        }

    def live(self, first, last):
        """Log the requests and the feedback of some days, and ship them."""
        found = {name: logged_fleet.columns(frame) for name, frame in self.between(first, last).items() if len(frame)}
        told = {name: found[name] for name in ("failures", "maint") if name in found}
        until = [logged_fleet.text(self.start + pd.Timedelta(days=last))]
        told["complete_until"] = {"datetime": until, "machineID": [None]}
        found.pop("failures", None)
        now = int(self.start.timestamp() + last * 86_400) * 1_000_000
        kit.fill(self.folder / "spool", [kit.scored(f"s{last}", found, now)], [kit.fed(f"f{last}", told, now)])
        kit.ship(self.folder / "spool", self.sink, rounds=2)

    def act(self, event, workflow, branch="main", *words):
        """Run a workflow; return its jobs with their results, and what was said."""
        self.git("fetch", "--quiet", "--prune", "origin", "+refs/heads/*:refs/remotes/origin/*")
        for name in ("main", "retrain"):
            if name in self.git("ls-remote", "--heads", "origin", name):
                self.git("checkout", "--quiet", "-B", name, f"origin/{name}")
        self.git("checkout", "--quiet", branch)
        command = ["act-run", event, "--repository", "someone/fleet", "-W", f".github/workflows/{workflow}",
                   "--branch", branch, "--var", f"LOG_SINK={self.sink}", *words]  # fmt: skip
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
        done = subprocess.run(command, cwd=self.work, env=environ, capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        rows = re.findall(r"^(.+?) +[\d.]+ s +(\w[\w ]*)$", done.stdout.rpartition("-- jobs\n")[2], re.MULTILINE)
        return {name.partition("/")[2] or name: result for name, result in rows}, said

    def retrain(self):
        jobs, said = self.act("workflow_dispatch", "retrain.yml")
        assert "failure" not in jobs.values(), said[-5000:]
        return jobs, said

    def kept(self):
        """The kinds of the pins in the sink, with the version of requests."""
        found = pins.find(Sink.at(self.sink, self.environ))
        return sorted((pin.kind, pin.versions["requests"]) for pin in found)


@pytest.fixture
def world(azure, tmp_path, monkeypatch):
    port, place, environ_of = azure
    environ = environ_of(port)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    world = World(tmp_path, f"{place}/{tmp_path.name}", environ)
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch", "main", str(world.remote)], check=True)
    world.git("init", "--quiet", "--initial-branch", "main")
    world.git("remote", "add", "origin", str(world.remote))
    folder = world.work / "data/plant"
    folder.mkdir(parents=True)
    for name, frame in world.between(-10_000, BEGAN).items():
        frame.to_parquet(folder / f"PdM_{name}.parquet", index=False)
    world.model("data_pin", "--source", "data/plant")
    world.model("validate", "--pin")
    shutil.rmtree(world.work / "build")
    world.commit("begin")
    return world


PROPOSE, RETRAIN = "Open or update the pull request for the newer data", "Retrain on newer data and judge the model"


def test_from_the_log_to_the_release(world):
    """Opened once, updated next week, accepted by a person, checked, merged, released."""
    world.live(BEGAN, 60)
    jobs, said = world.retrain()
    assert "success" == jobs[PROPOSE], said[-5000:]
    (pull,) = world.state["pulls"]
    assert "A log joins the pinned data" in pull["body"]
    assert [("proposal", 1)] == world.kept()
    first = world.git("ls-remote", "origin", "refs/heads/retrain").split()[0]

    world.live(60, DAYS)
    world.retrain()
    (pull,) = world.state["pulls"]
    assert f"| rows | {MACHINES * BEGAN * 24:,} | {MACHINES * DAYS * 24:,} |" in pull["body"]
    second = world.git("ls-remote", "origin", "refs/heads/retrain").split()[0]
    assert [first, second] == world.state["runs"]
    assert ("proposal", 2) in world.kept()

    # the run that proposed it and the checks of the pull request are of the same inputs
    evidence = json.loads((world.folder / "kept/evidence.json").read_text())
    assert "incomparable" == evidence["verdict"]
    accepted = {"champion": evidence["champion"]["commit"], "inputs_digest": evidence["inputs_digest"], "why": "read"}
    world.git("fetch", "--quiet", "origin")
    assert PIN == world.git("diff", "--name-only", "origin/main...origin/retrain")
    world.git("checkout", "--quiet", "-B", "retrain", "origin/retrain")
    (world.work / "model/accepted.json").write_text(json.dumps(accepted))
    world.commit("accept", "retrain")
    jobs, said = world.act("workflow_dispatch", "ci.yml", "retrain")
    decision = json.loads((world.folder / "kept/decision.json").read_text())
    assert evidence["inputs_digest"] == decision["inputs_digest"]
    assert (evidence["challenger"]["model_digest"], True) == (
        decision["challenger"]["model_digest"], decision["accepted"]
    )  # fmt: skip
    assert "success" == jobs["branch"], said[-5000:]

    before = world.git("rev-parse", "origin/main")
    world.git("checkout", "--quiet", "main")
    world.git("merge", "--quiet", "--squash", "retrain")
    world.commit("Retrain on newer data")
    world.git("push", "--quiet", "origin", "--delete", "retrain")
    world.git("branch", "--quiet", "-D", "retrain")
    world.change(world.state | {"pulls": [pull | {"state": "closed"}]})
    payload = world.folder / "payload.json"
    payload.write_text(json.dumps({"before": before}))
    jobs, said = world.act("push", "ci.yml", "main", "--event-json", str(payload))
    assert "success" == jobs["required"], said[-5000:]
    assert "failure" not in jobs.values(), said[-5000:]
    assert any("elease" in name and result == "success" for name, result in jobs.items()), jobs
    assert [("main", 2)] == world.kept(), "the merged proposal is kept as main's"

    jobs, said = world.retrain()
    assert "nothing new" in said
    assert "skipped" == jobs[PROPOSE]
    assert 1 == len(world.state["pulls"])
