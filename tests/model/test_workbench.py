"""What a run records of itself, how two runs compare, what a run says at its end, and sweeps on training machines."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from closedloop.data import sources
from closedloop.data.schema import DataError, Schema
from closedloop.heads.bundle import write
from model import compare, sweep
from model.common import changes, cli, closing, params, provenance, sweeping, tracking

pytestmark = pytest.mark.filterwarnings("ignore")  # mlflow's own, in this process
GOLDEN = Path(__file__).parents[1] / "golden"
METRICS = json.loads((GOLDEN / "metrics.json").read_text())
DECISION = json.loads((GOLDEN / "decision.json").read_text())


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository whose commit has the reference fleet's params.yaml."""
    root = tmp_path / "checkout"
    (root / "model").mkdir(parents=True)
    (root / "model/params.yaml").write_text(params.PARAMS.read_text())
    (root / "code.py").write_text("a = 1\n")
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "One"]):
        subprocess.run(["git", "-C", str(root), *words], check=True)
    monkeypatch.setattr(provenance, "ROOT", root)
    return root


def record(out: Path, file: Path, trained, metrics: dict, quick: bool = False) -> str:
    (out / "report").mkdir(parents=True, exist_ok=True)
    if not (out / "bundle").exists():
        write(trained.bundle, out / "bundle")
    data = {
        "source": "plant",
        "schema": trained.params.schema.to_dict(),
        "parts": [],
        "fingerprint": "sha256:" + "a" * 64,
        "holdout_fingerprint": "sha256:" + "b" * 64,
    }
    cli.write_json(out / "metrics.json", metrics)
    cli.write_json(out / "decision.json", DECISION)
    return tracking.log(file, out / "bundle", data, metrics, DECISION, out, quick=quick)


def test_a_run_says_what_distinguishes_it_and_two_runs_are_compared(checkout, tmp_path, trained, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    out, file = Path("build"), checkout / "model/params.yaml"
    first = record(out, file, trained, METRICS)
    file.write_text(file.read_text().replace("max_iter: 100", "max_iter: 50"))
    (checkout / "code.py").write_text("a = 2\n")
    (checkout / "new.py").touch()
    second = record(out, file, trained, METRICS | {"failure": METRICS["failure"] | {"event_recall": 0.25}}, quick=True)

    with tracking.store(out, reading=True) as mlflow:
        a, b = (tracking.find(mlflow, run) for run in (first, second))
        diff = mlflow.artifacts.load_text(f"runs:/{second}/changes.diff")
        names = mlflow.artifacts.load_text(f"runs:/{second}/features.txt").splitlines()
        assert "changes.diff" not in {item.path for item in mlflow.MlflowClient().list_artifacts(first)}
    assert "hist_gradient_boosting, evidence_chart: better" == a.info.run_name
    assert "max_iter=50, changed code: better" == b.info.run_name
    assert ("none", "none") == (a.data.tags["changed_files"], a.data.tags["changed_parameters"])
    assert "failure.parameters.max_iter" == b.data.tags["changed_parameters"]
    assert "code.py, model/params.yaml, new.py" == b.data.tags["changed_files"]
    assert all(text in diff for text in ("+a = 2", "+    max_iter: 50", "# untracked, not in this diff: new.py"))
    assert list(trained.bundle.spec.names) == names
    assert "failures foreseen 0.25, " in b.data.tags["figures"]
    assert DECISION["delta"]["cost_per_machine_year"]["low"] == a.data.metrics["saved_per_machine_year.low"]

    compare.main(["--runs", f"{first[:12]},{second}"])
    said = capsys.readouterr().out
    assert "failure.parameters.max_iter: 100 -> 50" in said
    assert "files changed since the commit: none -> code.py" in said
    assert "quick: false -> true" in said
    row = next(line for line in said.splitlines() if line.strip().startswith("failures foreseen"))
    assert ["failures", "foreseen", "1.00", "0.25", "-0.75"] == row.split()
    assert "a saved 187,728 per machine-year against the champion that it met, interval 177,388 to 200,634" in said
    assert "features\n  the same" in said
    assert "judged on different tables" not in said


@pytest.mark.parametrize("runs", ["a", "a,", "a,b,c"])
def test_two_runs_are_compared_no_other_number(runs):
    with pytest.raises(DataError, match="name two runs"):
        compare.main(["--runs", runs])


def test_a_long_diff_is_cut_and_a_name_is_short(checkout, monkeypatch):
    (checkout / "code.py").write_text("x\n" * 10_000)
    monkeypatch.setattr(changes, "MOST", 500)
    assert len(changes.diff()) < 600
    assert "# cut here: the diff has" in changes.diff()
    content = params.load().raw
    long = {f"a.key{n}": "x" * 100 for n in range(9)}
    assert len(changes.name(content, long, "better")) <= changes.LONGEST


def test_outside_git_nothing_is_known_to_differ(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert ({}, [], "") == (changes.of_params(params.load().raw), changes.files(), changes.diff())


@pytest.mark.parametrize("verdict", closing.NEXT)
def test_a_run_ends_with_its_figures_and_the_next_step(verdict):
    found = closing.lines(
        METRICS,
        DECISION | {"verdict": verdict},
        "f" * 32,
        Path("build/report/index.html"),
        data={"local": True, "source": "plant"},
        quick=True,
    )
    assert found[0] == f"{verdict}: {DECISION['reason']}"
    assert [line.split() for line in found if "failures foreseen" in line] == [
        ["failures", "foreseen", "1.00", "champion", "1.00"]
    ]
    assert "quick run: ablations and feature importance were left out; make run computes them" in found
    assert found[-2].startswith("next: ")
    assert "make serve" in found[-1]


def test_a_first_model_of_no_use_is_told_what_may_help():
    useless = DECISION | {"verdict": "worse", "champion": None}
    found = closing.lines(METRICS, useless, "f" * 32, Path("x"), data={"local": False, "source": "plant"}, quick=False)
    assert found[-1].startswith("next: see the figures in x; give the model more to learn from")
    assert "gate.floors" in found[-1]


def test_a_first_model_that_is_not_kept_says_how_it_would_be():
    first = DECISION | {"verdict": "first", "becomes_champion": False}
    found = closing.lines(METRICS, first, "f" * 32, Path("x"), data={"local": False, "source": "plant"}, quick=False)
    assert found[-1].startswith("next: commit your changes and run again")
    assert not [line for line in found if "quick" in line]


# --- sweeps ---


@pytest.fixture(scope="module")
def fleet(trained, tmp_path_factory):
    """The folder of a validated fleet: the rows of its training machines."""
    folder = tmp_path_factory.mktemp("fleet")
    tables = trained.training
    sources.write_tables(tables, trained.params.schema, folder)
    schema = Schema.from_dict(json.loads(json.dumps(trained.params.schema.to_dict(), sort_keys=True)))  # as in the file
    written = sources.read_tables(folder, schema, {})
    about = {
        "source": trained.params.source,
        "schema": schema.to_dict(),
        "rule": "fleet",
        "fingerprint": written.fingerprint(),
        "train_until": {str(window.machine): int(window.time[-1]) for window in written.windows()},
    }
    cli.write_json(folder / "data.json", about)
    return folder


GRID = "failure.parameters.max_iter=3"


def swept(fleet, out, file=params.PARAMS, grid=GRID):
    sweep.main(["--grid", grid, "--data", str(fleet), "--out", str(out), "--params", str(file)])


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A parameter file that trains fast."""
    text = params.PARAMS.read_text().replace("max_iter: 100", "max_iter: 8")
    file = tmp_path_factory.mktemp("params") / "params.yaml"
    file.write_text(text)
    return file


def test_a_sweep_that_was_stopped_goes_on_where_it_was(fleet, small, tmp_path, monkeypatch, capsys):
    out, before = tmp_path / "sweep", small.read_bytes()
    answer, calls = sweeping.out_of_fold, []

    def stopped(*arguments):
        calls.append(arguments[2].raw["failure"]["parameters"]["max_iter"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return answer(*arguments)

    monkeypatch.setattr(sweeping, "out_of_fold", stopped)
    with pytest.raises(KeyboardInterrupt):
        swept(fleet, out, small)
    assert [8, 3] == calls
    assert 1 == len(list(out.glob("*.json")))
    (out / f"{'0' * 20}.part").write_text("{")  # of a kill while it was written
    capsys.readouterr()
    swept(fleet, out, small)
    said = capsys.readouterr()
    assert [8, 3, 3] == calls
    assert "1 of 2: as in the file, there already" in said.err
    rows = said.out.splitlines()
    assert rows[0].startswith("parameters")
    assert "failures foreseen" in rows[0]
    assert {"as in the file", "max_iter=3"} == {row.split("  ")[0] for row in rows[1:3]}
    assert before == small.read_bytes()
    swept(fleet, out, small)
    assert 3 == len(calls)
    cut = next(out.glob("*.json"))
    cut.write_text(cut.read_text()[:50])  # a damaged result is made again
    swept(fleet, out, small)
    assert 4 == len(calls)


def test_each_machine_is_answered_by_a_model_that_never_saw_it(trained, monkeypatch):
    learned = []

    class Training:
        spec = constants = None

    def prepare(tables, *rest):
        learned.append(set(tables.machine.tolist()))
        return Training

    def predict(model, tables):
        assert learned[-1].isdisjoint(tables.machine.tolist())
        zeros = np.zeros(len(tables.time))
        return sweeping.PredictionTable(tables.machine, tables.time, zeros.astype(object), zeros, zeros > 1)

    fakes = {"prepare": prepare, "predict": predict, "failure_heads": lambda *rest: {}}
    nothing = dict.fromkeys(("Bundle", "TrainedOn"), lambda *rest, **more: None)
    nothing["anomaly_head"] = lambda *rest: (None, None)
    for name, fake in (fakes | nothing).items():
        monkeypatch.setattr(sweeping, name, fake)
    about = {"source": "x", "fingerprint": "y"}
    answers = sweeping.out_of_fold(trained.training, trained.params.schema, trained.params, about)
    assert sorted(trained.training.machine.tolist()) == sorted(answers.machine.tolist())
    assert sweeping.FOLDS == len(learned)


def test_the_folds_share_the_machines_that_failed(trained):
    tables = trained.training
    parts = sweeping.folds(tables)
    assert sorted(np.unique(tables.machine)) == sorted(np.concatenate(parts))
    failures = [int(np.isin(tables.failures.machine, part).sum()) for part in parts]
    assert min(failures) > max(failures) / 2


@pytest.mark.parametrize(
    ("grid", "says"),
    [
        ("", "0 points"),
        ("failure.folds", "is not key=value"),
        ("failure.folds=", "is not key=value"),
        ("failure.folds=[", "is not key=value"),
        ("failure.folds=2,3; failure.folds=4", "is there twice"),
        (f"seed={','.join(map(str, range(65)))}", "65 points"),
        ("gate.error_rate=0.1", "decides how a model is judged"),
        ("labels.horizon_hours=12", "decides how a model is judged"),
        ("failure.parameter.max_iter=5", "params.yaml has no failure.parameter;"),
        ("failure.parameters.max_itr=5", "max_itr=5: .*did you mean max_iter?"),
        ("failure.folds=1", "folds=1: .*it must be a whole number, 2 or more"),
    ],
)
def test_a_grid_with_a_slip_is_refused_before_any_training(fleet, tmp_path, grid, says):
    with pytest.raises(DataError, match=says) as refused:
        swept(fleet, tmp_path / "sweep", grid=grid)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "sweep").exists()


def test_the_winner_is_named_with_its_line_and_only_as_proven_as_it_is():
    file = params.PARAMS

    def result(point, cost):
        part = METRICS["failure"]
        machines = {"years": [1.0] * 8, "cost": [float(cost + n) for n in range(8)]}
        return {"point": point, "failure": part, "anomaly": None, "machines": machines}

    current = result({}, 100)
    assert ["Nothing is better than the file as it is."] == sweep.advice([current, result({"seed": 8}, 200)], file)
    found = sweep.advice([current, result({"failure.parameters.max_iter": 50}, 50)], file)
    line = 1 + file.read_text().splitlines().index("    max_iter: 100")
    assert "The first row saves most." == found[0]
    assert f"{file}:{line}: change it to  max_iter: 50" in found[1]
    noisy = result({"failure.parameters.max_depth": 3}, 0) | {
        "machines": {"years": [1.0] * 8, "cost": [0.0, 900.0] + [90.0] * 5 + [0.0]}
    }
    noisy["machines"]["cost"][1] = 250.0
    found = sweep.advice([current, noisy], file)
    assert "no proof" in found[0]
    assert "add below failure.parameters:  max_depth: 3" in found[1]
    assert pd.notna(sweeping.saved(current, noisy)[0])
