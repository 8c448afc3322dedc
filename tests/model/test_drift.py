"""``model.drift``: what it says of a model's own fleet, of one that moved, and of names that the schema lacks."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from msgspec import structs

from closedloop.data import sources
from closedloop.data.schema import HOUR_US, DataError
from closedloop.data.simulate import simulate
from closedloop.heads import bundle
from closedloop.heads.drift_reference_fit import fit_drift_reference
from closedloop.judge.split import held_out
from model import drift
from model.common.params import load as load_params

DAY_US = 24 * HOUR_US


@pytest.fixture(scope="module")
def fleet():
    """Twelve machines of the profile azure for 120 days."""
    from model.common.params import load

    return simulate("azure", 12, 120, 3, load().schema).tables


@pytest.fixture(scope="module")
def model(fleet, tiny_bundle, tmp_path_factory):
    """A bundle whose drift reference is the fleet's first 90 days."""
    loaded = bundle.load(tiny_bundle)
    end = int(fleet.time.min()) + 90 * DAY_US
    trained = fleet.rows(fleet.time < end)
    score = loaded.predict(trained).anomaly_score
    drift_reference = fit_drift_reference(trained, loaded.schema, score)
    period = ("2015-01-01T06:00:00Z", str(np.datetime64(end, "us")) + "Z")
    training = structs.replace(loaded.training, period=(period[0], period[1][:19] + "Z"))
    folder = tmp_path_factory.mktemp("drift") / "bundle"
    bundle.write(replace(loaded, drift_reference=drift_reference, training=training), folder)
    return folder


def run(tmp_path, frames, model, capsys) -> tuple[dict, str, str]:
    """Run the command on these frames: the JSON, the page, and what it printed."""
    (tmp_path / "data").mkdir()
    for name, frame in frames.items():
        frame.to_parquet(tmp_path / "data" / f"PdM_{name}.parquet", index=False)
    drift.main(["--data", str(tmp_path / "data"), "--bundle", str(model), "--out", str(tmp_path / "out")])
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    return json.loads((tmp_path / "out/drift.json").read_text()), page, capsys.readouterr().out


def frames_of(fleet, schema, change=None):
    tables = fleet if change is None else replace(fleet, values=change(fleet.values.copy(), fleet.time))
    return sources.tables_to_frames(tables, schema)


def test_a_fleet_that_goes_on_as_before_is_steady(tmp_path, fleet, model, capsys):
    found, page, said = run(tmp_path, frames_of(fleet, bundle.load(model).schema), model, capsys)
    assert ("steady", []) == (found["verdict"], found["moved"])
    assert found["looks"][0]["end"] < found["looks"][1]["start"]
    assert ["2015-04-17", "2015-04-24"] == [one["start"][:10] for one in found["looks"]]  # whole days up to April 30
    assert "<h1>Nothing has moved</h1>" in page
    assert "volt" in page
    assert said.startswith("steady: two weeks look like the training tables")
    assert not any(word in page for word in ("<script", "<link", 'src="http', "@import"))


def test_a_sensor_that_moved_is_named_and_shown(tmp_path, fleet, model, capsys):
    since = int(fleet.time.max()) - 20 * DAY_US

    def hotter(values, time):
        values[2, time > since] += 10.0  # a deviation of pressure
        return values

    found, page, said = run(tmp_path, frames_of(fleet, bundle.load(model).schema, hotter), model, capsys)
    assert found["verdict"] == "moved"
    assert ("pressure", "level") in {(test["subject"], test["kind"]) for test in found["moved"]}
    assert "<h1>The world has moved</h1>" in page
    assert 'aria-label="pressure before and now"' in page
    assert "pressure went from 10" in said


def test_a_machine_that_judges_is_not_new_where_its_telemetry_begins_with_the_log(tmp_path, fleet, model, capsys):
    """No bundle names the machines that are held out, and a log begins when the service does."""
    frames = frames_of(fleet, bundle.load(model).schema)
    split = load_params().split
    ids = np.arange(100, 140)
    held = held_out(ids, "simulated", split["salt"])
    late = frames["telemetry"][frames["telemetry"]["machineID"] == 1].tail(24 * 10)
    both = [int(ids[held][0]), int(ids[~held][0])]
    frames["telemetry"] = pd.concat([frames["telemetry"], *[late.assign(machineID=one) for one in both]])
    found, _, said = run(tmp_path, frames, model, capsys)
    assert [both[1]] == found["new_machines"]
    assert "; 1 new machine" in said


def test_who_is_new_is_named_and_moves_nothing(tmp_path, fleet, model, capsys):
    schema = bundle.load(model).schema
    frames = frames_of(fleet, schema)
    late = frames["telemetry"][frames["telemetry"]["machineID"] == 1].assign(machineID=99).tail(24 * 10)
    frames["telemetry"] = pd.concat([frames["telemetry"], late], ignore_index=True)
    frames["errors"].loc[0, "errorID"] = "error77"
    frames["machines"].loc[0, "model"] = "model9"
    found, page, said = run(tmp_path, frames, model, capsys)
    assert [99] == found["new_machines"]
    assert ["errors.errorID 'error77'", "machines.model 'model9'"] == found["new_names"]
    assert "steady" == found["verdict"]
    assert "model9" in page
    assert "1 new machine" in said


def test_a_log_is_looked_at_as_a_folder_of_tables_is(tmp_path, fleet, model, capsys, monkeypatch):
    """A folder, or an address; its tables are those of make run DATA=log."""
    frames = frames_of(fleet, bundle.load(model).schema)
    read = []

    def fetch(place, schema):
        read.append(place)
        return frames, {"kind": "log"}

    monkeypatch.setattr(drift.request_log, "fetch", fetch)
    (tmp_path / "sink/requests/_delta_log").mkdir(parents=True)
    for place in (str(tmp_path / "sink"), "az://fleet/log"):
        drift.main(["--data", place, "--bundle", str(model), "--out", str(tmp_path / "out")])
        assert capsys.readouterr().out.startswith("steady: two weeks look like the training tables")
        assert place == read.pop()


NAMES = sorted(["007", "7", "7.0", "1e5", "NaN", "null", "=1+1", "../x", "a%2Fb", "<b>\"&'", "א-7", "Süd/1"])


def named_as(frames, names):
    """The frames with these names for the machines 1, 2, …"""
    return {
        table: frame.assign(machineID=frame["machineID"].map(names).astype("str")) for table, frame in frames.items()
    }


@pytest.fixture(scope="module", params=["traps", "padded"])
def named_model(fleet, model, tmp_path_factory, request):
    """The same model of machines with names, and those names: each a trap, or all of them numbers with zeros."""
    loaded = bundle.load(model)
    called = NAMES if request.param == "traps" else [f"{number:03}" for number in range(1, 13)]
    names = dict(zip(np.unique(fleet.machine).tolist(), called, strict=True))
    schema = replace(loaded.schema, machine_id="text")
    training = structs.replace(loaded.training, machines={"simulated": called})
    drift_reference = loaded.drift_reference
    positions = np.searchsorted(np.unique(drift_reference.day_machine), drift_reference.day_machine)
    folder = tmp_path_factory.mktemp("drift") / "named"
    drift_reference = replace(drift_reference, day_machine=positions)
    bundle.write(replace(loaded, schema=schema, training=training, drift_reference=drift_reference), folder)
    return folder, names


@pytest.mark.parametrize("moved", [False, True])
def test_machines_with_names_drift_as_those_with_numbers(tmp_path, fleet, model, named_model, moved, capsys):
    folder, names = named_model

    def change(values, time):
        values[2, time > int(fleet.time.max()) - 20 * DAY_US] += 10.0 * moved
        return values

    frames = frames_of(fleet, bundle.load(model).schema, change)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    numbered, _, _ = run(tmp_path / "a", frames, model, capsys)
    named, page, _ = run(tmp_path / "b", named_as(frames, names), folder, capsys)
    assert ("moved" if moved else "steady") == numbered["verdict"]
    assert numbered.pop("bundle_digest") != named.pop("bundle_digest")
    assert numbered == named
    assert '<b>"' not in page


def test_a_fleet_of_other_names_alone_is_too_little_data(tmp_path, fleet, model, named_model, capsys):
    """None of its machines has a drift reference: that is said, and nothing fails."""
    frames = frames_of(fleet, bundle.load(model).schema)
    others = {number: f"other {number}" for number in named_model[1]}
    found, page, _ = run(tmp_path, named_as(frames, others), named_model[0], capsys)
    assert "too little data" == found["verdict"]
    assert "Too little data" in page


def test_a_fleet_that_was_watched_for_a_week_is_too_little(tmp_path, fleet, model, capsys):
    schema = bundle.load(model).schema
    short = fleet.rows(fleet.time < int(fleet.time.min()) + 5 * DAY_US)
    found, page, said = run(tmp_path, sources.tables_to_frames(short, schema), model, capsys)
    assert "too little data" == found["verdict"]
    assert "Too little data" in page
    assert "0 machines of the drift reference" in said


def test_a_bundle_without_a_drift_reference_is_refused(tmp_path, fleet, tiny_bundle, capsys):
    with pytest.raises(DataError, match="no drift reference; train it again"):
        run(tmp_path, frames_of(fleet, bundle.load(tiny_bundle).schema), tiny_bundle, capsys)
