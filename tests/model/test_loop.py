"""The commands, one after the other, as a person runs them: from tables to a verdict, with the same bits every time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from closedloop.data.simulate import simulate
from closedloop.data.sources import write_tables
from model.common.params import load

AS_ON_MACOS = Path(__file__).parents[1] / "support/as_on_macos"
COMMANDS = ("validate", "train", "predict", "evaluate")


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run(commands_path) -> Run:
    """Run a command in a folder outside git, so that the first model may become the champion."""

    def once(folder: Path, *words: str, threads: int = 2, macos: bool = False) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"GIT_DIR": str(folder / "none"), "OMP_NUM_THREADS": str(threads)}
        path = [str(AS_ON_MACOS), commands_path] if macos else [commands_path]
        environment |= {"PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}
        words = (sys.executable, "-m", f"model.{words[0]}", *words[1:])
        return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    return once


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """A folder of tables: 20 machines, 150 days."""
    folder = tmp_path_factory.mktemp("fleet") / "plant"
    schema = load().schema
    write_tables(simulate("azure", 20, 150, 3, schema).tables, schema, folder)
    return folder


def loop(run: Run, folder: Path, fleet: Path, threads: int, macos: bool = False) -> list[str]:
    """Run all commands; return what each printed."""
    folder.mkdir()
    said = [run(folder, "data", "--source", str(fleet), threads=threads, macos=macos)]
    said += [run(folder, command, threads=threads, macos=macos) for command in COMMANDS]
    for done in said:
        assert done.returncode == 0, done.stderr
        assert [
            line for line in done.stderr.splitlines() if not line.startswith("[")
        ] == []  # progress and nothing else
    return [done.stdout for done in said]


@pytest.fixture(scope="module")
def here(run, fleet, tmp_path_factory):
    """A folder in which all commands ran once, and what they printed."""
    folder = tmp_path_factory.mktemp("runs") / "here"
    return folder, loop(run, folder, fleet, threads=2)


def name_of(folder: Path) -> str:
    """What the fleet of that folder's run is called: the folder, and letters of its place."""
    return json.loads((folder / "build/data/data.json").read_text())["source"]


def test_the_first_run_becomes_the_champion_and_the_second_is_identical(run, here):
    folder, said = here
    assert said[-1].startswith("first: ")
    again = run(folder, "evaluate")
    assert again.stdout.startswith("identical: ")
    assert json.loads((folder / "build/decision.json").read_text())["verdict"] == "identical"
    registered = run(folder, "register")  # the first run of these inputs, which nobody registered
    assert f"models:/{name_of(folder)}@champion is now version 1" in registered.stdout, registered.stderr
    assert "(first)" in registered.stdout


def test_another_folder_one_thread_and_no_call_of_linux_alone_make_byte_identical_heads(run, here, fleet, tmp_path):
    folder, _ = here
    loop(run, tmp_path / "there", fleet, threads=1, macos=True)
    one, other = folder / "build/bundle", tmp_path / "there/build/bundle"
    names = sorted(path.relative_to(one) for path in one.rglob("*.safetensors"))
    assert len(names) > 2
    assert names == sorted(path.relative_to(other) for path in other.rglob("*.safetensors"))
    names.append(Path("card.md"))
    assert [(one / name).read_bytes() for name in names] == [(other / name).read_bytes() for name in names]
    digests = [json.loads((root / "manifest.json").read_text())["model_digest"] for root in (one, other)]
    assert digests[0] == digests[1]


@pytest.mark.filterwarnings("ignore")  # mlflow's own, in this process
def test_the_run_is_recorded_with_parameters_figures_report_and_bundle(here):
    import mlflow

    folder, _ = here
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'build/mlflow.db'}")
    assert name_of(folder).startswith("plant-")
    experiment = client.get_experiment_by_name(name_of(folder))
    runs = client.search_runs([experiment.experiment_id])
    assert runs
    assert str(load().labels["horizon_hours"]) == runs[0].data.params["labels.horizon_hours"]
    assert "failure.pr_auc" in runs[0].data.metrics or "anomaly.pr_auc" in runs[0].data.metrics
    assert {"bundle", "decision.json", "metrics.json", "params.yaml", "report"} <= {
        item.path for item in client.list_artifacts(runs[0].info.run_id)
    }
    assert not (folder / "mlruns").exists()


def test_the_report_is_one_page_that_fetches_nothing(here):
    page = (here[0] / "build/report/index.html").read_text(encoding="utf-8")
    assert "<h1>" in page
    assert not any(word in page for word in ("<script src", "<link rel", 'src="http', "@import"))
    card, judged = ((here[0] / "build" / name / "card.md").read_text(encoding="utf-8") for name in ("bundle", "report"))
    assert "### Ablations" in judged
    assert "### Ablations" not in card


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("data", "--source", "nowhere"), 2, "nowhere"),
        (("train", "--data", "nowhere"), 2, "model.data"),
        (("predict", "--bundle", "nowhere"), 2, "nowhere"),
        (("train", "--params", "nowhere.yaml"), 2, "nowhere.yaml"),
    ],
)
def test_a_wrong_input_is_one_line_that_says_what_and_where(run, tmp_path, words, code, says):
    done = run(tmp_path, *words)
    assert done.returncode == code
    lines = [line for line in done.stderr.splitlines() if not line.startswith("[")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert says in lines[0]


def test_refused_data_exits_1_and_names_the_rows(run, fleet, tmp_path):
    import pandas as pd

    bad = tmp_path / "bad"
    bad.mkdir()
    for path in fleet.iterdir():
        frame = pd.read_parquet(path)
        if path.stem == "PdM_telemetry":
            frame.loc[10, "volt"] = -5.0
        frame.to_parquet(bad / path.name, index=False)
    assert run(tmp_path, "data", "--source", str(bad)).returncode == 0
    done = run(tmp_path, "validate")
    assert done.returncode == 1
    assert "telemetry.volt" in done.stderr
    assert "-5" in done.stderr


def test_training_refuses_tables_that_were_not_validated(run, here, fleet, tmp_path):
    folder = tmp_path / "unvalidated"
    folder.mkdir()
    assert run(folder, "data", "--source", str(fleet)).returncode == 0
    done = run(folder, "train")
    assert done.returncode == 2
    assert "model.validate" in done.stderr
