from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from closedloop.data.schema import HOUR_US, DataError, Schema
from closedloop.features import spec as spec_module
from closedloop.features.kernel import compute
from closedloop.features.spec import FeatureSpec, code_digest, fit_constants

PARAMS = {
    "history_hours": 72,
    "rolling": {"windows_hours": [0.5, 24]},
    "trend": {"half_lives_hours": [6], "cusum_slack": 0.5},
    "change": {"windows_hours": [24]},
    "errors": {"windows_hours": [24, 72]},
}


def test_names_groups_and_order() -> None:
    schema = Schema(("volt",), ("comp1",), ("error1",), ("model1",), 60, ((0.0, 1.0),))
    spec = FeatureSpec.from_params(PARAMS, schema)
    volt = ["mean_0.5h", "std_0.5h", "mean_24h", "std_24h", "ewma_6h", "cusum", "change_24h"]
    errors = ["error1_count_24h", "error1_count_72h", "error1_hours_since"]
    expected = [f"volt_{name}" for name in volt] + errors + ["comp1_days_since", "age", "model=model1"]
    assert expected == list(spec.names)
    assert list(spec.groups) == ["telemetry"] * 7 + ["errors"] * 3 + ["maint"] + ["machine"] * 2
    assert spec.history_us == 72 * HOUR_US


def test_it_survives_the_manifest(schema: Schema) -> None:
    for params in (PARAMS, {"history_hours": 72}, {"history_hours": 90.5, "trend": PARAMS["trend"]}):
        spec = FeatureSpec.from_params(params, schema)
        assert spec == FeatureSpec.from_dict(json.loads(json.dumps(spec.to_dict())))


def test_a_family_that_is_not_named_is_off(schema: Schema) -> None:
    spec = FeatureSpec.from_params({"history_hours": 24}, schema)
    assert list(spec.custom) == [n for n, g in zip(spec.names, spec.groups, strict=True) if g == "telemetry"]
    assert "errors" not in spec.groups


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"historyhours": 72}, r"features: unknown key 'historyhours'"),
        ({"rolling": {"windows": [3]}}, r"features\.rolling: unknown key 'windows'"),
        ({"rolling": [3]}, r"features\.rolling: write a mapping"),
        ({"rolling": {"windows_hours": 3}}, r"features\.rolling\.windows_hours: write a list"),
        ({"rolling": {"windows_hours": [73]}}, r"windows_hours: 73 h is longer than history_hours \(72\)"),
        ({"change": {"windows_hours": [80]}}, r"features\.change\.windows_hours: 80 h is longer"),
        ({"errors": {"windows_hours": [0]}}, r"features\.errors\.windows_hours: 0 is not a number of hours above 0"),
        ({"errors": {"windows_hours": [True]}}, r"True is not a number of hours"),
        ({"errors": {"windows_hours": [float("nan")]}}, r"nan is not a number of hours"),
        ({"rolling": {"windows_hours": [3, 3.0]}}, r"a length occurs twice"),
        ({"shift": {"steps": 24}}, r"features\.shift: 'weight' is missing"),
        ({"shift": {"steps": 1, "weight": 0.5}}, r"features\.shift\.steps: 1 is not"),
        ({"shift": {"steps": 2.0, "weight": 0.5}}, r"features\.shift\.steps: 2\.0 is not"),
        ({"shift": {"steps": 24, "weight": 0}}, r"features\.shift\.weight: 0 is not"),
        ({"shift": {"steps": 24, "weight": True}}, r"features\.shift\.weight: True is not"),
        ({"trend": {"half_lives_hours": [6]}}, r"features\.trend: 'cusum_slack' is missing"),
        ({"trend": {"half_lives_hours": [6], "cusum_slack": -1}}, r"cusum_slack: -1 is not"),
        ({"trend": {"half_lives_hours": [6], "cusum_slack": "0.5"}}, r"cusum_slack: '0.5' is not"),
        ({"history_hours": None}, r"features\.history_hours: None is not a number of hours"),
    ],
)
def test_what_it_refuses(change: dict, message: str, schema: Schema) -> None:
    with pytest.raises(DataError, match=message):
        FeatureSpec.from_params(PARAMS | change, schema)


def test_history_must_be_given(schema: Schema) -> None:
    with pytest.raises(DataError, match=r"features\.history_hours"):
        FeatureSpec.from_params({}, schema)


def test_the_kernel_refuses_a_schema_that_gives_other_features(schema: Schema, fleet) -> None:
    tables = fleet(schema)
    fewer = Schema(schema.sensors, ("comp1",), schema.errors, schema.models, 60, schema.ranges)
    with pytest.raises(DataError, match="train again"):
        compute(tables, FeatureSpec.from_params(PARAMS, fewer), None, schema)


def test_the_kernel_refuses_baselines_and_telemetry_of_other_sensors(schema: Schema, schema_of, fleet) -> None:
    spec, tables = FeatureSpec.from_params(PARAMS, schema), fleet(schema)
    baselines = fit_constants(tables, schema, 2**62)
    fewer = schema_of(60, schema.sensors[:-1])
    for wrong in (
        (fleet(fewer), spec, baselines),
        (tables, spec, fit_constants(fleet(fewer), fewer, 2**62)),
    ):
        with pytest.raises(DataError, match=f"not those of {len(schema.sensors)} sensors"):
            compute(*wrong, schema)


def test_the_digest_of_the_code_follows_every_source_and_nothing_else(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "other" / "features"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(spec_module.__file__).parent, folder, ignore=ignored)
    monkeypatch.setattr(spec_module, "__file__", str(folder / "spec.py"))
    expected = code_digest()
    monkeypatch.undo()
    assert expected == code_digest(), "the folder does not matter"
    monkeypatch.setattr(spec_module, "__file__", str(folder / "spec.py"))
    for path in folder.glob("*.py"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    (folder / "notes.txt").write_text("not code")
    assert expected == code_digest(), "line endings do not matter"
    for path in sorted(folder.glob("*.py")):
        source = path.read_bytes()
        path.write_bytes(source + b"#")
        assert expected != code_digest(), path.name
        path.write_bytes(source)
    (folder / "new.py").write_text("")
    assert expected != code_digest()


def test_digest_has_the_form_of_the_manifest() -> None:
    assert code_digest().startswith("sha256:")
    assert len(code_digest()) == 71
    assert np.all([character in "0123456789abcdef" for character in code_digest()[7:]])
