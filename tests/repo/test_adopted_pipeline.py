"""ci.yml of a copy that adopted a fleet of its own, with the real programs: a push, a pull request and a merge.

The fleet lies in Azurite, so the pin takes a login and every training fetches it. A workflow runner (act-run) runs the
jobs, each in an environment of its own. It takes a quarter of an hour and more, so it runs only where it is asked for::

    PIPELINE=1 pytest tests/repo/test_adopted_pipeline.py

``make test`` and ``make check`` are stand-ins there, since ``make fleet`` and this repository's own CI run them;
PIPELINE=whole runs them too. The merge releases nothing, since there is no registry (test_release.py has the release).
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from deltalake._internal import DeltaFileSystemHandler

from dev import fleets

from . import workflow_runs
from .test_runner import git
from .workflow_runs import PLANT, replace

FEATURE = '''

@feature("flow_range", unit="l/min", window_hours=24)
def flow_range(flow: Float64) -> float:
    """How far apart the readings of a day are."""
    return float(flow.max() - flow.min())
'''

pytestmark = [
    pytest.mark.skipif("PIPELINE" not in os.environ, reason="PIPELINE=1 runs it: a quarter of an hour and more"),
    pytest.mark.skipif(shutil.which("act-run") is None, reason="act-run is not on PATH"),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory, azurite: dict[str, str]) -> Path:
    """A copy of this repository whose first own commit, on the branch ``adopt``, adopts the fleet; no hand edits it."""
    folder = tmp_path_factory.mktemp("adopted")
    fleets.write_files(PLANT, folder / "plant")
    system = DeltaFileSystemHandler("az://fleet/plant", azurite)
    for path in sorted((folder / "plant").iterdir()):
        stream = system.open_output_stream(path.name)
        stream.write(path.read_bytes())
        stream.close()
    copy = folder / "fleet"
    copy.mkdir()
    fleets.copy_repository(copy)
    whole = os.environ["PIPELINE"] == "whole"
    replace(copy / "Makefile", {} if whole else dict.fromkeys(("test", "check"), "@echo 'a stand-in'"))
    decided = "@printf 'release=false\\nsign=false\\nstaging=false\\nproduction=false\\n' >> $$GITHUB_OUTPUT"
    replace(copy / ".ci/steps.mk", {"release-decide": decided})
    git(copy, "commit", "--quiet", "--all", "--message", "Leave out what other tests show")
    git(copy, "checkout", "--quiet", "-b", "adopt")
    workflow_runs.make(copy, "adopt", "DATA=../plant", "PLACE=az://fleet/plant", environ=azurite)
    git(copy, "add", "--all")
    git(copy, "commit", "--quiet", "--message", "Adopt the plant")
    return copy


def run(copy: Path, azurite: dict[str, str], event: str, branch: str) -> str:
    """Run ci.yml; what was printed, with the table of the jobs at its end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACT_RUN_API", str(copy.parent / "api.json"))  # what GitHub says where nothing is released
        nothing = {"gh api repos/someone/fleet/attestations/": {"attestations": []}}
        Path(os.environ["ACT_RUN_API"]).write_text(json.dumps(nothing), encoding="utf-8")
        shown = workflow_runs.act(copy, azurite, event, "ci.yml", "--branch", branch)
    assert "downloading az://fleet/plant/telemetry.csv" in shown
    assert "Azure/login" in workflow_runs.recorded(shown)
    return shown


def test_push_pull_request_and_merge_of_an_adopted_fleet_are_green(copy: Path, azurite: dict[str, str]) -> None:
    assert "First model" in run(copy, azurite, "push", "adopt")
    git(copy, "checkout", "--quiet", "main")
    git(copy, "merge", "--quiet", "--no-edit", "adopt")
    git(copy, "checkout", "--quiet", "-b", "feature")
    custom = copy / "src/closedloop/features/custom.py"
    custom.write_text(custom.read_text(encoding="utf-8") + FEATURE, encoding="utf-8")
    git(copy, "commit", "--quiet", "--all", "--message", "Add a feature")
    assert "First model" not in run(copy, azurite, "pull_request", "feature")
    git(copy, "checkout", "--quiet", "main")
    git(copy, "merge", "--quiet", "--no-ff", "--no-edit", "feature")
    run(copy, azurite, "push", "main")
