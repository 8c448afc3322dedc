"""What a bundle answers. What it refuses is in test_forged.py."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

import closedloop
from closedloop.features.kernel import compute
from closedloop.heads import bundle as module
from closedloop.heads.bundle import ANOMALY_SCORE, BundleError, Predictions, load, write
from closedloop.heads.detectors import fit_anomaly_head


def bits(predictions):
    return {field.name: getattr(predictions, field.name).tobytes() for field in fields(Predictions)}


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_bundle_read_back_is_the_one_written(trained, tables, tmp_path):
    manifest = write(trained, tmp_path / "bundle")
    back = load(tmp_path / "bundle")
    assert manifest == back.manifest
    assert bits(trained.predict(tables)) == bits(back.predict(tables))
    assert (trained.schema, trained.spec, trained.training) == (back.schema, back.spec, back.training)
    assert (trained.provenance, trained.card) == (back.provenance, back.card)
    for name, array in trained.drift_reference.to_arrays().items():
        np.testing.assert_array_equal(array, back.drift_reference.to_arrays()[name])
    assert (trained.anomaly.threshold, trained.feature_names) == (back.anomaly.threshold, back.feature_names)
    write(back, tmp_path / "again")
    assert contents(tmp_path / "bundle") == contents(tmp_path / "again")


def test_the_same_bundle_has_the_same_bytes_in_every_folder(trained, tmp_path):
    write(trained, tmp_path / "one")
    shuffled = replace(trained, failures=dict(reversed(trained.failures.items())))
    write(shuffled, tmp_path / "deep" / "er" / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "deep" / "er" / "two")


def test_the_folder_holds_what_the_design_lists(trained, tmp_path):
    write(trained, tmp_path / "bundle")
    files = contents(tmp_path / "bundle")
    assert sorted(files) == [
        "card.md",
        "heads/anomaly.safetensors",
        "heads/failure-01.safetensors",
        "heads/failure-03.safetensors",
        "manifest.json",
        "reference.safetensors",
    ]
    manifest = json.loads(files["manifest.json"])
    assert sorted(manifest["files"]) == sorted(files.keys() - {"manifest.json"})
    assert manifest["heads"]["failure"] == {
        "pump": {"threshold": trained.failures["pump"].threshold, "file": "heads/failure-01.safetensors"},
        "valve": None,
        "../seal": {"threshold": trained.failures["../seal"].threshold, "file": "heads/failure-03.safetensors"},
    }
    assert (manifest["history_hours"], manifest["training"]["machines"]) == (12.0, {"test": [2, 4]})
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


CHANGES = {
    "a threshold": (True, lambda b: replace(b, anomaly=replace(b.anomaly, threshold=3.5))),
    "a calibration": (True, lambda b: replace(b, failures=b.failures | {"pump": replace(b.failures["pump"], slope=2)})),
    "a head less": (True, lambda b: replace(b, failures={"pump": b.failures["pump"]})),
    "a baseline": (True, lambda b: replace(b, constants=replace(b.constants, location=b.constants.location + 1))),
    "the card": (False, lambda b: replace(b, card="other")),
    "the commit": (False, lambda b: replace(b, provenance={"commit": "1" * 40})),
    "the drift reference": (False, lambda b: replace(b, drift_reference=None)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_model_digest_covers_what_answers_and_bundle_digest_everything(change, trained, tmp_path):
    answers, make = CHANGES[change]
    before, after = write(trained, tmp_path / "one"), write(make(trained), tmp_path / "two")
    assert before.bundle_digest != after.bundle_digest
    assert (before.model_digest != after.model_digest) is answers


def test_writing_replaces_a_bundle_and_nothing_else(trained, tmp_path):
    write(trained, tmp_path / "bundle")
    (tmp_path / "bundle" / "stray").touch()
    write(trained, tmp_path / "bundle")
    load(tmp_path / "bundle")
    (tmp_path / "empty").mkdir()
    write(trained, tmp_path / "empty")
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("three years")
    with pytest.raises(BundleError, match="exists and is not a bundle; choose another folder"):
        write(trained, home)
    assert (home / "thesis.txt").read_text() == "three years"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "empty", "home"]


def test_a_write_that_fails_leaves_the_old_bundle_and_nothing_else(trained, tmp_path, monkeypatch):
    write(trained, tmp_path / "bundle")
    before = contents(tmp_path / "bundle")

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write(replace(trained, card="other"), tmp_path / "bundle")
    assert before == contents(tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


UNUSABLE = {
    "it has no head at all": lambda b: replace(b, anomaly=None, drift_reference=None, failures={}),
    "anomaly head: its threshold": lambda b: replace(b, anomaly=replace(b.anomaly, threshold=np.inf)),
    "failure head of 'pump': its threshold": lambda b: replace(
        b, failures={"pump": replace(b.failures["pump"], intercept=np.nan)}
    ),
    "'wheel' has a head but is no component": lambda b: replace(b, failures={"wheel": b.failures["pump"]}),
    "failure head of 'pump': it reads a feature outside": lambda b: replace(b, anomaly=None, drift_reference=None),
    "not plain JSON": lambda b: replace(b, provenance={"when": object()}),
    "card.md has 1048577 bytes, more than": lambda b: replace(b, card="x" * (2**20 + 1)),
    "baseline 'scale'": lambda b: replace(b, constants=replace(b.constants, scale=b.constants.scale * 0)),
}


@pytest.mark.parametrize("why", UNUSABLE)
def test_a_bundle_that_could_not_be_read_is_never_written(why, trained, tmp_path):
    with pytest.raises(BundleError, match=why):
        write(UNUSABLE[why](trained), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_answers_have_the_same_bits_whatever_else_is_asked(trained, tables, monkeypatch):
    whole = trained.predict(tables)
    last = trained.predict(tables, last_only=True)
    for k, machine in enumerate(last.machine):
        row = np.flatnonzero(tables.machine == machine)[-1]
        alone = trained.predict(tables.select(np.array([machine])), last_only=True)
        for answer, at in ((last, k), (alone, 0)):
            for field in fields(Predictions):
                expected = getattr(whole, field.name)[..., row]
                assert expected.tobytes() == getattr(answer, field.name)[..., at].tobytes()
    monkeypatch.setattr(module, "ROWS_WORTH_STREAMING", 1)
    assert bits(whole) == bits(trained.predict(tables))


def test_each_head_answers_as_it_does_alone(trained, tables):
    answer = trained.predict(tables)
    X = compute(tables, trained.spec, trained.constants, trained.schema).X
    score = trained.anomaly.score(X)
    whole = np.vstack([X, score])
    assert trained.feature_names == (*trained.spec.names, ANOMALY_SCORE)
    assert score.tobytes() == answer.anomaly_score.tobytes()
    assert (score >= trained.anomaly.threshold).tolist() == answer.anomaly_alarm.tolist()
    assert answer.anomaly_alarm.sum() == 20
    for place, component in ((0, "pump"), (2, "../seal")):
        probability = trained.failures[component].probability(whole)
        assert probability.tobytes() == answer.probability[place].tobytes()
        assert (probability >= trained.failures[component].threshold).tolist() == answer.alarm[place].tolist()
        assert {True, False} == set(answer.alarm[place].tolist())


def test_a_head_for_every_component_changes_no_other(trained, tables):
    some, every = (
        replace(trained, failures=failures).predict(tables)
        for failures in (trained.failures, trained.failures | {"valve": trained.failures["pump"]})
    )
    for field in ("probability", "alarm"):
        before, after = getattr(some, field), getattr(every, field)
        assert after[[0, 0, 2]].tobytes() == after.tobytes()
        assert before[[0, 2]].tobytes() == after[[0, 2]].tobytes()


def test_a_component_without_a_head_answers_nan_and_never_alarms(trained, tables):
    answer = trained.predict(tables)
    assert np.isnan(answer.probability[1]).all()
    assert not answer.alarm[1].any()
    alone = replace(trained, failures={}).predict(tables)
    assert np.isnan(alone.probability).all()
    assert not alone.alarm.any()
    assert answer.anomaly_score.tobytes() == alone.anomaly_score.tobytes()


def test_failure_heads_can_answer_without_an_anomaly_head(trained, tables, tmp_path):
    silent = replace(trained, anomaly=None, drift_reference=None, failures={"../seal": trained.failures["../seal"]})
    write(silent, tmp_path / "bundle")
    answer = load(tmp_path / "bundle").predict(tables)
    assert np.isnan(answer.anomaly_score).all()
    assert not answer.anomaly_alarm.any()
    assert trained.predict(tables).probability[2].tobytes() == answer.probability[2].tobytes()


@pytest.mark.parametrize("detector", ["pca", "isolation_forest"])
def test_every_detector_survives_the_bundle(detector, trained, tables, tmp_path):
    X = compute(tables, trained.spec, trained.constants, trained.schema).X
    head = fit_anomaly_head(X, trained.anomaly.columns, detector, {}, seed=0)
    write(replace(trained, anomaly=replace(head, threshold=0.5)), tmp_path / "bundle")
    back = load(tmp_path / "bundle")
    assert back.anomaly.detector == detector
    assert head.score(X).tobytes() == back.predict(tables).anomaly_score.tobytes()


def test_no_rows_give_no_answers(trained, tables):
    none = trained.predict(tables.select(np.array([99])))
    assert none.probability.shape == (3, 0)
    assert none.anomaly_score.shape == (0,)


def test_serving_a_bundle_imports_nothing_that_only_training_or_judging_needs():
    script = """
import sys
import closedloop.heads.bundle
other = {"sklearn", "pandas", "pyarrow", "mlflow", "great_expectations", "matplotlib"} & sys.modules.keys()
print(sorted(other | {name for name in sys.modules if name.startswith("closedloop.judge") or name.endswith("_fit")}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("folder", "answers"), [("judge", True), ("features", False)])
def test_a_bundle_answers_with_any_code_but_other_feature_code(folder, answers, trained, tmp_path):
    """Serving reads no label and holds nobody out, so a commit that only judges otherwise still serves old bundles."""
    write(trained, tmp_path / "bundle")
    library = Path(closedloop.__file__).parent
    copy = shutil.copytree(library, tmp_path / "closedloop", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (copy / folder).glob("*.py"):
        path.write_text(path.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    script = "import sys; from pathlib import Path; from closedloop.heads.bundle import load; load(Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "bundle")],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) is answers, done.stderr
    assert ("it was trained with other feature code" in done.stderr) is not answers
