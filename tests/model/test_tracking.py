"""What a run records in MLflow, the model that loads from there, and the commands that read a run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from closedloop.data.rfc3339 import to_text
from closedloop.data.schema import HOUR_US, DataError
from model import mirror, recorded_params, register
from model.common import cli, tracking
from model.common.params import PARAMS
from recorded_run import write_run

pytestmark = pytest.mark.filterwarnings("ignore")  # mlflow's own, in this process

GOLDEN = Path(__file__).parents[1] / "golden"
VERDICTS = {"first": True, "inconclusive": False, "better": True, "worse": False, "accepted": True, "identical": False}
OLD_KEYS = dict.fromkeys(("better", "worse"), "becomes_reference")  # as commits before the rename recorded them


@pytest.fixture(scope="module")
def runs(trained, tmp_path_factory):
    """A project folder with one recorded run of each verdict, and the ids of the runs by verdict."""
    folder = tmp_path_factory.mktemp("project")
    out = folder / "build"
    metrics = {"failure": {"pr_auc": 0.5, "by_component": {"comp1": {"recall": 1.0, "brier": None}}}}
    data = write_run(out, trained.bundle, trained.params.schema, metrics)
    found = {}
    for name, becomes_champion in VERDICTS.items():
        decision = {
            "verdict": "worse" if name == "accepted" else name,
            "reason": f"It is {name}.",
            OLD_KEYS.get(name, "becomes_champion"): becomes_champion,
            "inputs_digest": f"sha256:inputs-of-{name}",
        }
        cli.write_json(out / "decision.json", decision)
        found[name] = tracking.log(PARAMS, out / "bundle", data, metrics, decision, out)
    return folder, found


@pytest.fixture
def here(runs, monkeypatch):
    """The ids of the runs; the project is the working directory."""
    folder, found = runs
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])  # loading a model puts its code first on the path
    return found


KEYS = [
    "a.Темп. [°C]",
    "a.Темп. (°C)",
    "a.Load %",
    'a.p/abs ~ "bar"',
    "a.x//y",
    "a.end/",
    "/up",
    "../up",
    "..",
    ".",
    "..a",
    "a." + "x" * 400,
    "a." + "x" * 401,
    "a.[1]",
    "a.{1}",
    "a._1_",
    "features.rolling.windows_hours",
    "a.m³/h: x-y",
]


def test_names_of_any_kind_become_different_names_that_mlflow_accepts():
    from mlflow.utils.validation import MAX_ENTITY_KEY_LENGTH, _validate_metric_name, _validate_param_name

    names = tracking.accepted(KEYS)
    assert list(names) == KEYS
    assert len(set(names.values())) == len(KEYS)
    for name in names.values():
        _validate_param_name(name)
        _validate_metric_name(name)
        assert len(name) <= MAX_ENTITY_KEY_LENGTH
    assert names["features.rolling.windows_hours"] == "features.rolling.windows_hours"
    assert names["a.m³/h: x-y"] == "a.m³/h: x-y"  # what MLflow takes stays as it is


def stored(folder: Path):
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder / 'build' / 'mlflow.db'}")
    return mlflow


def model_uri(mlflow, run: str) -> str:
    return f"models:/{mlflow.get_run(run).outputs.model_outputs[0].model_id}"


def as_request(tables, schema) -> dict:
    """The tables as a request."""
    machine, time, code = tables.errors.machine, tables.errors.time, tables.errors.code
    maint = tables.maint
    return {
        "telemetry": {
            "datetime": [to_text(at) for at in tables.time.tolist()],
            "machineID": tables.machine.tolist(),
            **dict(zip(schema.sensors, tables.values.tolist(), strict=True)),
        },
        "errors": {
            "datetime": [to_text(at) for at in time.tolist()],
            "machineID": machine.tolist(),
            "errorID": [schema.errors[k] for k in code],
        },
        "maint": {
            "datetime": [to_text(at) for at in maint.time.tolist()],
            "machineID": maint.machine.tolist(),
            "comp": [schema.components[k] for k in maint.code],
        },
        "machines": {
            "machineID": tables.machine_ids.tolist(),
            "model": [schema.models[k] for k in tables.machine_model],
            "age": tables.machine_age.tolist(),
        },
    }


def test_a_run_holds_parameters_figures_tables_files_and_its_model(runs, here):
    mlflow = stored(runs[0])
    run = mlflow.get_run(here["first"])
    assert run.data.params["labels.horizon_hours"] == "24"
    assert {"failure.pr_auc": 0.5, "failure.by_component.comp1.recall": 1.0} == run.data.metrics
    datasets = {one.tags[0].value: one.dataset for one in run.inputs.dataset_inputs}
    assert {"training": "a" * 36, "holdout": "b" * 36} == {name: one.digest for name, one in datasets.items()}
    assert "simulator" in datasets["training"].source
    assert "volt" in datasets["training"].schema
    artifacts = {item.path for item in mlflow.MlflowClient().list_artifacts(here["first"])}
    files = {"bundle", "decision.json", "features.txt", "metrics.json", "params.yaml", "report"}
    assert files == artifacts - {"changes.diff"}  # which is there while somebody edits
    assert PARAMS.read_text() == mlflow.artifacts.load_text(f"runs:/{here['first']}/params.yaml")


def test_the_model_answers_with_the_bits_of_the_bundle(runs, here, trained):
    tables = trained.truth.tables
    tables = tables.select(np.unique(tables.machine)[:2])
    tables = tables.rows(tables.time > tables.time.max() - 200 * HOUR_US)
    expected = trained.bundle.predict(tables)
    mlflow = stored(runs[0])
    model = mlflow.pyfunc.load_model(model_uri(mlflow, here["first"]))
    found = model.predict(as_request(tables, trained.params.schema))
    np.testing.assert_array_equal(expected.machine, found["machineID"])
    np.testing.assert_array_equal(expected.time, found["datetime"].to_numpy().astype("datetime64[us]").astype(np.int64))
    np.testing.assert_array_equal(expected.history_hours, found["history_hours"])
    np.testing.assert_array_equal(expected.anomaly_score, found["anomaly"])
    np.testing.assert_array_equal(expected.anomaly_alarm, found["anomaly_alarm"])
    for c, component in enumerate(trained.params.schema.components):
        np.testing.assert_array_equal(expected.probability[c], found[component])
        np.testing.assert_array_equal(expected.alarm[c], found[f"{component}_alarm"])


def test_the_model_takes_what_the_service_takes(runs, here):
    """Whole numbers, nulls, missing tables and arrays are accepted; there is one answer for each telemetry row."""
    mlflow = stored(runs[0])
    model = mlflow.pyfunc.load_model(model_uri(mlflow, here["first"]))
    request = json.loads((GOLDEN / "request.json").read_text())
    whole = model.predict(request)
    assert [1.0, 2.0] == whole["history_hours"].tolist()
    telemetry = request["telemetry"] | {"volt": [171, None], "rotate": [None, None], "pressure": np.array([99.8, 101])}
    assert len(model.predict({"telemetry": telemetry})) == 2
    batch = model.predict(pd.DataFrame([request, dict.fromkeys(request) | {"telemetry": request["telemetry"]}]))
    assert 4 == len(batch)
    np.testing.assert_array_equal(whole["anomaly"], batch["anomaly"][:2])
    assert model.metadata.signature.inputs.required_input_names() == ["telemetry"]
    assert set(model.input_example) == {"telemetry", "errors", "maint", "machines"}
    assert list(whole.columns) == model.metadata.signature.outputs.input_names()


def test_the_model_brings_its_own_code_and_no_pickle(runs, here):
    """Loaded in another process, outside the project, it answers with the code that was stored with it."""
    mlflow = stored(runs[0])
    folder = Path(mlflow.artifacts.download_artifacts(model_uri(mlflow, here["better"])))
    assert not [path for path in folder.rglob("*") if path.suffix in {".pkl", ".pickle", ".joblib"}]
    program = "import sys, mlflow; mlflow.pyfunc.load_model(sys.argv[1]); import closedloop; print(closedloop.__file__)"
    command = [sys.executable, "-P", "-c", program, str(folder)]
    done = subprocess.run(command, cwd=folder.parent, env=os.environ, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(folder / "code" / "closedloop" / "__init__.py"), done.stderr


def registry(mlflow) -> dict[str, int]:
    """The version that is champion, and the number of versions."""
    client = mlflow.MlflowClient()
    versions = len(client.search_model_versions("name = 'plant'"))
    champion = client.get_model_version_by_alias("plant", "champion")
    return {"champion": int(champion.version), "versions": versions}


def test_only_a_verdict_that_makes_a_champion_moves_the_alias(runs, here, capsys):
    mlflow = stored(runs[0])
    register.main(["--run", here["first"]])
    assert {"champion": 1, "versions": 1} == registry(mlflow)
    for verdict in ("inconclusive", "worse"):
        with pytest.raises(cli.RefusedError, match=f"is {verdict}; only .*It is {verdict}."):
            register.main(["--run", here[verdict]])
    register.main(["--run", here["identical"]])
    assert {"champion": 1, "versions": 1} == registry(mlflow)
    register.main(["--run", here["better"]])
    register.main(["--run", here["accepted"][:12]])
    assert {"champion": 3, "versions": 3} == registry(mlflow)
    capsys.readouterr()
    register.main(["--run", here["accepted"]])  # again: nothing to do
    assert "nothing to do: models:/plant@champion is version 3" in capsys.readouterr().out
    assert {"champion": 3, "versions": 3} == registry(mlflow)
    register.main(["--run", here["first"]])  # an older one on purpose: its version, no new one
    assert {"champion": 1, "versions": 3} == registry(mlflow)
    version = mlflow.MlflowClient().get_model_version_by_alias("plant", "champion")
    assert here["first"] == version.run_id
    assert len(
        mlflow.pyfunc.load_model("models:/plant@champion").predict(json.loads((GOLDEN / "request.json").read_text()))
    )


def test_the_run_that_is_registered_is_by_default_the_one_judged_last(runs, here, capsys):
    cli.write_json(Path("build/decision.json"), {"inputs_digest": "sha256:inputs-of-better"})
    register.main([])
    assert here["better"] in capsys.readouterr().out
    cli.write_json(Path("build/decision.json"), {"inputs_digest": "sha256:other"})
    with pytest.raises(DataError, match="no recorded run has the inputs"):
        register.main([])


def test_a_recorded_run_gives_its_parameter_file_back_unchanged(here):
    recorded_params.main(["--run", here["first"]])
    assert PARAMS.read_bytes() == Path("build/params-of-run.yaml").read_bytes()
    shortest = next(n for n in range(1, 33) if sum(one.startswith(here["better"][:n]) for one in here.values()) == 1)
    recorded_params.main(["--run", here["better"][:shortest], "--out", "build/again.yaml"])
    assert PARAMS.read_bytes() == Path("build/again.yaml").read_bytes()


def test_an_unknown_run_is_answered_with_those_that_exist(here):
    with pytest.raises(DataError, match="no run has an id that begins with 'zz'") as error:
        recorded_params.main(["--run", "zz"])
    assert all(run in str(error.value) for run in here.values())
    with pytest.raises(DataError, match="6 runs have an id that begins with ''"):
        recorded_params.main(["--run", ""])


def test_where_nothing_was_recorded_nothing_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command, words in ((recorded_params, ["--run", "a"]), (register, [])):
        with pytest.raises(DataError, match="no run is recorded yet; run: make run"):
            command.main(words)
    assert not (tmp_path / "build").exists()


def test_a_server_that_does_not_answer_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(DataError, match=r"MLflow \(MLFLOW_TRACKING_URI=http://127.0.0.1:9\)"):
        recorded_params.main(["--run", "a"])


@pytest.mark.parametrize("key", ["becomes_champion", "becomes_reference"])
@pytest.mark.parametrize(("verdict", "versions"), [("better", 1), ("inconclusive", 0)])
def test_a_run_of_ci_is_recorded_on_the_server_and_the_alias_follows_the_verdict(
    runs, tmp_path, monkeypatch, capsys, verdict, versions, key
):
    """From files alone, since only the job that mirrors knows the server; the files may be those of an older commit."""
    shutil.copytree(runs[0] / "build", tmp_path / "build", ignore=shutil.ignore_patterns("mlflow.db", "mlartifacts"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'server.db'}")
    decision = {"verdict": verdict, "reason": "So.", key: VERDICTS[verdict], "inputs_digest": "sha256:x"}
    cli.write_json(Path("build/decision.json"), decision)
    mirror.main([])
    import mlflow

    client = mlflow.MlflowClient()
    assert len(client.search_model_versions("name = 'plant'")) == versions
    assert ("the alias champion stays where it is" in capsys.readouterr().out) == (versions == 0)


def test_a_mirror_needs_a_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(DataError, match="MLFLOW_TRACKING_URI is not set"):
        mirror.main([])
