"""Slips planted in params.yaml: each is one row with the file, its line number, the cause and the fix."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sklearn.utils._param_validation import InvalidParameterError, validate_parameter_constraints

import closedloop
from closedloop.data.schema import Schema
from closedloop.features.spec import FeatureSpec
from closedloop.heads import detectors, failure
from closedloop.heads.failure import HistGradientBoostingClassifier
from closedloop.judge import checks
from closedloop.spark import estimators as mllib
from model import batch, data, data_check, evaluate, params_check, train, validate
from model.common import cli, estimators, feature_names, param_rules, params, proposed_params, time_scaling
from model.common.param_rules import SECTIONS

TEXT = params.PARAMS.read_text(encoding="utf-8")
SLIPS = [  # what stands there, what is written instead, the line of the slip after that, what is said
    # names of sections and keys
    ("labels:", "lables:", "lables:", "lables is not a known key; did you mean labels?"),
    ("seed: 7", "sed: 7", "sed:", "sed is not a known key; did you mean seed?"),
    ("seed: 7", "", None, "seed is missing; add it"),
    ("  horizon_hours: 24", "  horizon_hour: 24", "horizon_hour:", "did you mean horizon_hours?"),
    ("  folds: 3", "  fold: 3", "fold: 3", "failure.fold is not a known key; did you mean folds?"),
    ("  folds: 3 #", "  #", "failure:", "failure.folds is missing; add it below failure:"),
    ("  neutral_hours: 96", "  neutral_hours: 96\n  folds: 3", "folds: 3", "judge.folds .* move it to failure:"),
    ("unplanned: 10000", "unplaned: 10000", "costs:", "did you mean unplanned?"),
    ("pr_auc: 0.3", "prauc: 0.3", "floors:", "gate.floors.prauc is not a known key; did you mean pr_auc?"),
    ("  sampling_minutes: 60", "  sampling_minute: 60", "sampling_minute:", "did you mean sampling_minutes?"),
    ("    cusum_slack: 0.5", "    cusum_slak: 0.5", "cusum_slak:", "did you mean cusum_slack?"),
    ("  rolling:", "  roling:", "roling:", "features.roling is not a known key; did you mean rolling?"),
    ("    steps: 24 #", "    #", "shift:", "features.shift.steps is missing; add it below features.shift:"),
    # written twice
    ("seed: 7", "seed: 7\nseed: 8", "seed: 8", "seed is written twice, the first time in line .*; remove one"),
    ("    max_iter: 100", "    max_iter: 100\n    max_iter: 9", "max_iter: 9", "max_iter is written twice"),
    ("volt: [0, 400]", "volt: [0, 4]\n    volt: [0, 400]", "volt: [0, 400]", "sensors.volt is written twice"),
    ("comp1, comp2", "comp1, comp1", "components:", r"components\[2\] is comp1, a second time; remove one"),
    ("[level_6h, ", "[level_6h, level_6h, ", "level_6h", "is level_6h, a second time; remove one"),
    ("windows_hours: [3, 24]", "windows_hours: [3, 3]", "windows_hours: [3, 3]", "is 3, a second time"),
    # ranges
    ("horizon_hours: 24", "horizon_hours: -24", "horizon_hours:", "is -24; it must be a number above 0"),
    ("horizon_hours: 24", "horizon_hours: .nan", "horizon_hours:", "it must be a number above 0"),
    ("folds: 3", "folds: 1", "folds: 1", "is 1; it must be a whole number, 2 or more, such as 3"),
    ("folds: 3", "folds: 3.0", "folds: 3.0", "must be a whole number, 2 or more, such as 3; write 3"),
    ("error_rate: 0.05", "error_rate: 5", "error_rate:", "is 5; it must be a number above 0 and below 1"),
    ("pr_auc: 0.3", "brier: -0.1", "floors:", "gate.floors.brier is -0.1"),
    ("event_recall: 0.5", "event_recall: 50", "floors:", "is 50; it must be a number from 0 to 1"),
    ("planned: 2000", "planned: -1", "costs:", "judge.costs.planned is -1; it must be a number, 0 or more"),
    ("volt: [0, 400]", "volt: [400, 0]", "volt:", r"write the lower one first: \[0, 400\]"),
    ("volt: [0, 400]", "volt: 400", "volt:", "is 400, not a range; write its lowest and highest"),
    ("sampling_minutes: 60", "sampling_minutes: 0.5", "sampling_minutes:", "must be a whole number from 1"),
    ("minimum_lead_hours: 2", "minimum_lead_hours: 24", "minimum_lead", "not below labels.horizon_hours"),
    ("windows_hours: [3, 24]", "windows_hours: [3, 240]", "[3, 240]", "longer than features.history_hours"),
    ("steps: 24", "steps: 100", "steps: 100", "must be a whole number from 2 to 48"),
    ("seed: 7", "seed: -7", "seed: -7", "seed is -7; it must be a whole number from 0"),
    ("rule: fleet", "rule: prefix\n  prefix: 1.5", "prefix: 1.5", "a share below 1 or a whole number of rows"),
    # kinds
    ("horizon_hours: 24", "horizon_hours: 24 h", "horizon_hours:", "is '24 h'; .*; write 24 without quotes"),
    ("weight: 0.5", "weight: 0,5", "weight:", "is '0,5'; .*; write 0.5 without quotes"),
    ("folds: 3", "folds: many", "folds:", "failure.folds is 'many'; it must be a whole number"),
    ("folds: 3", "folds: true", "folds:", "failure.folds is true; it must be a whole number"),
    ("folds: 3", 'folds: "3"', "folds:", "is '3'; .*; write 3 without quotes"),
    ("horizon_hours: 24", "horizon_hours:", "horizon_hours:", "labels.horizon_hours has no value; it must be"),
    ("labels:\n  horizon_hours: 24", "labels: 24", "labels:", "labels is 24, not a mapping; write its keys below"),
    ("windows_hours: [3, 24]", "windows_hours: 3", "windows_hours: 3", r"not a list of hours; write \[3\]"),
    ("errors: [error1,", "errors: [off,", "errors: [off", r"is false, not the name of an error code; put .* quotes"),
    ("models: [model1, model2, model3, model4]", "models: none", "models:", r"not a list; write \[\]"),
    # choices, features and hyper-parameters
    ("detector: evidence_chart", "detector: mean_chrt", "detector:", "is 'mean_chrt'; did you mean mean_chart?"),
    ("schema:\n", "schema:\n  machine_id: both\n", "machine_id:", "machine_id is 'both'; choose one of number, text"),
    ("rule: fleet", "rule: random", "rule:", "is 'random'; choose one of fleet, unit, prefix"),
    ("on_inconclusive: ship", "on_inconclusive: yes", "on_inconclusive", "choose one of ship, ask"),
    ("level_6h", "level_7h", "[level_7h", "is 'level_7h', and there is no such feature; did you mean level_6h?"),
    ("shift_odds,", "volt_shift_ods,", "volt_shift", "did you mean volt_shift_odds?"),
    ("half_lives_hours: [6]", "half_lives_hours: [8]", "features: [level_6h", "there is no such feature"),
    ("max_iter: 100", "max_itr: 100", "max_itr", "is not a parameter of hist_.*; did you mean max_iter?"),
    ("max_iter: 100", "n_estimators: 100", "n_estimators", "is not a parameter of hist_gradient_boosting; it has"),
    ("max_iter: 100", "max_iter: 0", "max_iter", "is 0; it must be a whole number, 1 or more"),
    ("max_iter: 100", "max_iter: 1e2", "max_iter", "is '1e2'; .*; write 100"),
    ("learning_rate: 0.08", "learning_rate: 0,08", "learning_rate", "is '0,08'; .* above 0; write 0.08"),
    ("max_features: 0.3", "max_features: 1", "max_features", "above 0 and at most 1; write 1.0"),
    ("max_leaf_nodes: 6", "max_leaf_nodes: 1", "max_leaf", "is 1; it must be a whole number, 2 or more or null"),
    ("max_iter: 100", "early_stopping: true", "early_stopping", "is set by training, not here; remove it"),
    ("  parameters: {}", "  parameters: {alpha: 0.1}", "alpha", "is not a parameter of evidence_chart; it has cont"),
    # engines
    ("seed: 7", "seed: 7\nengine: sparc", "engine: sparc", "engine is 'sparc'; did you mean spark?"),
    ("seed: 7", "seed: 7\nengine: spark", "estimator:", "which engine: spark does not have; choose random_forest or"),
    ("estimator: hist_gradient_boosting", "estimator: random_forest", "estimator:", "or set engine: spark"),
    # columns and files
    ("columns: {}", "columns: {telemetry: {t: datetim}}", "columns:", "did you mean datetime?"),
    ("columns: {}", "columns: {telemetri: {t: datetime}}", "columns:", "did you mean telemetry?"),
    ("columns: {}", "columns: {}\nread: {epoch: minutes}", "read:", "choose one of s, ms"),
    ("columns: {}", "columns: {}\nread: {separater: ';'}", "read:", "is not a known key"),
    (
        "columns: {}",
        "columns: {}\nfiles: {error: a.csv}",
        "files:",
        r"files\.error is not a table; did you mean errors\?",
    ),
    ("columns: {}", "columns: {}\nread: {separator: ';;'}", "read:", "it must be one mark"),
    ("columns: {}", "columns: {}\nread: {separator: tab}", "read:", "it must be one mark; a tab is"),
    ("columns: {}", "columns: {}\nread: {decimal: ';'}", "read:", 'write "." or ","'),
    (
        "columns: {}",
        "columns: {}\nread: {decimal: ',', thousands: ','}",
        "read:",
        "the decimal mark as well; give each",
    ),
    ("columns: {}", "columns: {}\nread: {thousands: '3'}", "read:", "it must be one mark"),
    ("columns: {}", "columns: {}\nread: {encoding: klingon}", "read:", "is 'klingon'; it is not an encoding of text"),
    ("columns: {}", "columns: {}\nread: {encoding: base64}", "read:", "is 'base64'; it is not an encoding of text"),
    (
        "columns: {}",
        "columns: {}\nread: {time_format: YYYY-MM-DD}",
        "read:",
        "is 'YYYY-MM-DD'; write the codes of strptime",
    ),
    (
        "columns: {}",
        "columns: {}\nread: {time_format: '%Q %Y'}",
        "read:",
        "'Q' is a bad directive .*; write the codes of strptime",
    ),
    ("columns: {}", "columns: {}\nread: {time_format: '%H:%M'}", "read:", "it has no year; add %Y or %y"),
    ("columns: {}", "columns: {}\nread: {epoch: s, time_format: '%Y'}", "read:", "time_format stands beside epoch"),
    (
        "columns: {}",
        "columns: {}\nread: {machine: 1, machine_from: '{machine}.csv'}",
        "read:",
        "machine_from stands beside machine",
    ),
    ("columns: {}", "columns: {}\nread: {tag: Tag}", "read:", "tag stands without value; add value"),
    (
        "columns: {}",
        "columns: {}\nread: {telemetry: {tag_separator: /}}",
        "read:",
        "read.telemetry.tag_separator stands without tag",
    ),
    ("columns: {}", "columns: {}\nread: {flag: broken}", "read:", "flag marks events, and telemetry has none; move it"),
    ("columns: {}", "columns: {}\nread: {machines: {age_in: 24}}", "read:", "is 24; it must be a year, such as 2024"),
    ("columns: {}", "columns: {}\nread: {skip_lines: -1}", "read:", "must be a whole number, 0 or more"),
    ("columns: {}", "columns: {}\nfiles: {telemetry: ''}", "files:", "is ''; write a file, a pattern"),
    ("columns: {}", "columns: {}\nfiles: {failures: a.csv}", "files:", "files.telemetry is missing; name the file"),
    (
        "columns: {}",
        "columns: {}\nfiles: {telemetry: /a.csv}",
        "files:",
        "is '/a.csv'; write its place inside the folder",
    ),
    ("columns: {}", "columns: {}\nfiles: a.csv", "files:", "files is not a mapping; write 'table: file'"),
    (
        "columns: {}",
        "columns: {}\nmachine_numbers: {a: 1, b: 2}",
        "machine_numbers:",
        "machine_numbers is a key of earlier versions; .*; remove it and write 'machine_id: text' below schema:",
    ),
    ("columns: {}", "columns: {telemetry: {a: datetime, b: datetime}}", "columns:", "b is datetime, as a is; map one"),
    ("source: simulated", "source: a/b", "source:", "which cannot be a folder's name"),
    # YAML itself
    ("seed: 7", "seed: [", None, "cannot be read as YAML"),
    ("  horizon_hours: 24", "\thorizon_hours: 24", "\thorizon", "indent with spaces, not with a tab"),
    ("  folds: 3", "  folds 3", "minimum_failures: 5", "cannot be read as YAML: .*; write a colon and a space"),
    ("rule: fleet", "rule: fleet: unit", "rule:", "cannot be read as YAML: .*; put one key on each line"),
    ("salt: closed-loop", "salt: 'closed", None, "cannot be read as YAML"),
    ("seed: 7", "seed: *a", "seed:", "cannot be read as YAML: .*undefined alias"),
]


def planted(folder: Path, old: str, new: str) -> Path:
    """Write the reference fleet's params.yaml with one slip."""
    assert old in TEXT, old
    (folder / "params.yaml").write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    return folder / "params.yaml"


def line_with(path: Path, text: str) -> int:
    """The line number that a person would look at, found without the tested code: the last with the text."""
    return max(n for n, line in enumerate(path.read_text().splitlines(), start=1) if text in line)


@pytest.mark.parametrize(("old", "new", "at", "says"), SLIPS, ids=[f"{row[0]}-{row[1]}" for row in SLIPS])
def test_a_slip_is_one_line_with_the_file_its_place_the_cause_and_the_fix(tmp_path, old, new, at, says):
    path = planted(tmp_path, old, new)
    with pytest.raises(params.ParamsError) as refused:
        params.load(path)
    lines = str(refused.value).splitlines()
    assert len([line for line in lines if re.search(says, line)]) == 1, lines
    found = re.fullmatch(rf"{re.escape(str(path))}:(\d+): (.+); (.+)", lines[0])
    assert found, lines[0]
    if at is not None:
        first = next(line for line in lines if re.search(says, line))
        assert first.startswith(f"{path}:{line_with(path, at)}: "), first
    assert len(lines) <= 2, lines  # a slip does not hide behind what follows from it


def test_there_are_more_than_forty_slips():
    assert len(SLIPS) >= 60


def test_every_slip_of_a_file_is_listed_up_to_five_in_the_order_of_the_lines(tmp_path):
    text = TEXT
    changes = [
        ("volt: [0, 400]", "volt: 1"),
        ("level_6h", "levels_6h"),
        ("max_iter", "max_itr"),
        ("folds: 3", "folds: 1"),
    ]
    for old, new in changes:
        text = text.replace(old, new)
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(params.ParamsError) as refused:
        params.load(path)
    lines = str(refused.value).splitlines()
    assert [line_with(path, new) for _, new in changes] == [int(line.split(":")[1]) for line in lines]
    path.write_text(
        text.replace("seed: 7", "seed: x")
        .replace("error_rate: 0.05", "error_rate: 2")
        .replace("on_inconclusive: ship", "on_inconclusive: x")
    )
    with pytest.raises(params.ParamsError, match="and 2 more; correct these first") as refused:
        params.load(path)
    assert str(refused.value).count("\n") == 5


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"a: \x00", b"- 1", b"", b"[" * 5000, b"d: 2026-13-01", b"a: &a [*a]"]
)
def test_a_file_that_is_no_parameter_file_is_one_line(tmp_path, content):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(params.ParamsError) as refused:
        params.load(path)
    assert re.match(rf"{re.escape(str(path))}:1: .+; .+", str(refused.value)), str(refused.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(params.ParamsError, match="No such file or directory; name an existing file"):
        params.load(tmp_path / "params.yaml")


def test_the_golden_file_and_a_proposed_one_pass(tmp_path):
    assert params.load().source == "simulated"
    schema = {"sampling_minutes": 10, "sensors": {"temp °C": [-40, 120], "1": [0, 1]}, "components": ["007"]}
    fleet = proposed_params.Fleet(
        "press line", schema | {"errors": [], "models": []}, {"rule": "prefix", "prefix": 0.3}, 12,
        files={"telemetry": "a.csv"}, columns={"telemetry": {"t": "datetime"}},
    )  # fmt: skip
    path = tmp_path / "params.yaml"
    path.write_text(proposed_params.render(fleet), encoding="utf-8")
    assert ("temp °C", "1") == params.load(path).schema.sensors


def test_floors_and_ceilings_are_those_that_the_gate_knows():
    assert set(param_rules.CEILINGS) == checks.LESS_IS_BETTER
    assert not set(param_rules.FLOORS) & checks.LESS_IS_BETTER


def test_every_choice_of_an_estimator_has_parameters():
    choices = {*SECTIONS["anomaly"]["detector"].choices, *SECTIONS["failure"]["estimator"].choices}
    assert set(estimators.CLASSES) == choices == set(CLASSES)
    assert all(estimators.parameters(name) for name in choices)


CLASSES = detectors.ESTIMATORS | {
    "hist_gradient_boosting": HistGradientBoostingClassifier,
    "random_forest": mllib.RandomForest,
    "gradient_boosted_trees": mllib.GradientBoostedTrees,
}
VALUES = [
    None,
    True,
    False,
    -1,
    0,
    1,
    2,
    255,
    256,
    10**9,
    0.0,
    0.3,
    0.5,
    1.0,
    1.5,
    -0.1,
    "auto",
    "log_loss",
    "x",
    "",
    [],
    {},
]


@pytest.mark.parametrize("name", CLASSES)
def test_what_is_read_from_the_source_is_what_scikit_learn_checks(name):
    """For every parameter and many values; only true and false are no numbers here, where scikit-learn takes them."""
    declared = CLASSES[name]._parameter_constraints
    assert set(declared) - estimators.OWN == set(estimators.parameters(name))
    if name not in mllib.NAMES:
        assert set(CLASSES[name]().get_params()) - estimators.OWN <= set(estimators.parameters(name))
    for key in estimators.parameters(name):
        for value in VALUES:
            try:
                validate_parameter_constraints({key: declared[key]}, {key: value}, "x")
                accepted = True
            except InvalidParameterError:
                accepted = False
            found = estimators.refusal(name, key, value) is None
            assert accepted == found or (isinstance(value, bool) and accepted and not found), (key, value)


def test_the_names_that_training_keeps_for_itself_are_those_of_the_heads():
    assert estimators.OWN == {*failure.FIXED, "random_state"}


@pytest.mark.parametrize("history", [72, 1.2, 0.2, 500])
def test_the_names_of_the_features_are_those_that_training_computes(history):
    raw = time_scaling.scale(params.load().raw, history, 1)
    for features in (raw["features"], {"history_hours": history}, raw["features"] | {"shift": None, "errors": {}}):
        for sensors in (raw["schema"]["sensors"], {"temp": [0, 1]}):
            schema = raw["schema"] | {"sensors": sensors}
            spec = FeatureSpec.from_params(features, Schema.from_dict(schema))
            parts = [f"{sensor}_{part}" for sensor in sensors for part in feature_names.of_sensor(features)]
            assert sorted(spec.names) == sorted(parts + feature_names.of_fleet(features, schema))
            fed, skipped = feature_names.custom(features, schema)
            assert list(spec.custom) == fed
            assert [reason.partition(":")[0] for reason in spec.skipped] == skipped


def test_a_check_imports_nothing_that_takes_seconds_and_says_one_line_without_a_traceback(tmp_path):
    path = planted(tmp_path, "max_iter: 100", "max_itr: 100")
    program = (
        "import sys, time; from model import params_check\n"
        "from model.common import cli\n"
        "try: cli.main(params_check.main)\n"
        "finally: print(time.process_time(), *sorted({name.split('.')[0] for name in sys.modules}))"
    )
    command = [sys.executable, "-c", program, "--params", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == cli.USAGE
    assert done.stderr == (
        f"error: {path}:{line_with(path, 'max_itr')}: failure.parameters.max_itr is not a parameter of "
        "hist_gradient_boosting; did you mean max_iter?\n"
    )
    seconds, *imported = done.stdout.split()
    assert {"sklearn", "pandas", "numba", "scipy", "mlflow", "pyarrow"}.isdisjoint(imported)
    assert float(seconds) < 2  # of the processor, so that other programs on this machine do not count


COMMANDS = dict.fromkeys([batch, data, evaluate, params_check, train, validate], ()) | {data_check: ("--source", "x")}


@pytest.mark.parametrize(("command", "more"), COMMANDS.items())
def test_every_command_refuses_the_file_before_it_looks_at_anything_else(tmp_path, command, more):
    path = planted(tmp_path, "max_iter: 100", "max_itr: 100")
    with pytest.raises(params.ParamsError, match="did you mean max_iter"):
        command.main(["--params", str(path), "--data", "none", "--out", str(tmp_path / "out"), *more])
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("detector: evidence_chart", "detector: pca"),
        ("detector: evidence_chart", "detector: isolation_forest"),
        ("  parameters: {}", "  parameters: {contamination: 0.1}"),
        ("max_iter: 100", "max_depth: null"),
        ("max_iter: 100", "class_weight: balanced"),
        ("level_6h", "volt_mean_3h"),
    ],
)
def test_what_training_accepts_is_no_slip(tmp_path, old, new):
    assert params.load(planted(tmp_path, old, new))


def test_a_custom_feature_that_cannot_be_registered_is_one_line(tmp_path, commands_path):
    """It is found while modules are imported, before any command could catch it."""
    shutil.copytree(
        Path(closedloop.__file__).parent, tmp_path / "closedloop", ignore=shutil.ignore_patterns("__pycache__")
    )
    with (tmp_path / "closedloop/features/custom.py").open("a") as file:
        file.write('\n\n@feature("mine", unit="h", window_hours=24)\ndef mine() -> float:\n    return 1.0\n')
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), commands_path]), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "model.params_check"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    said = "features/custom.py: custom feature 'mine': its arguments name no sensor; name at least one"
    assert (2, f"error: {said}\n") == (done.returncode, done.stderr)
