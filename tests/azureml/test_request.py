"""The request of the smoke test, which needs no SDK: whatever the fleet, its own model answers it."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from closedloop.heads.bundle import TrainedOn, load, write
from score.answer import Scorer

RELEASE = Path(__file__).resolve().parents[2] / "platforms/azureml/release.py"


@pytest.mark.parametrize("kind", ["number", "text"])
def test_a_model_answers_the_request_of_its_own_smoke_test(
    kind: str, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Machines with names take no JSON number, so a fleet of them could never be deployed."""
    spec = importlib.util.spec_from_file_location("azureml_release", RELEASE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "azureml_release", module)  # its dataclass asks for it
    spec.loader.exec_module(module)
    bundle = load(tiny_bundle)
    trained_on = bundle.training if kind == "number" else TrainedOn({"plant": ["press"]}, bundle.training.period, "")
    schema = replace(bundle.schema, machine_id=kind)
    folder = tmp_path / "bundle"
    write(replace(bundle, schema=schema, training=trained_on, drift_reference=None), folder)

    manifest = json.loads((folder / "manifest.json").read_text())
    asked = module.Release("", "", "", "", manifest["schema"]).request()
    answered = Scorer(load(folder), 1000, 10, 1 << 20).answer(asked, "smoke")
    assert answered["model"] == manifest["model_digest"]
