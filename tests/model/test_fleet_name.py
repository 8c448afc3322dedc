"""The name of a fleet, which decides which machines are held out, whatever parameter file a run uses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from closedloop.data import sources
from closedloop.data.simulate import simulate
from closedloop.judge.ruler import changes, ruler
from model import data, engine_params, retrain
from model.common import params, proposed_params, starting_params
from simulated_fleet import PARAMS, PARAMS_FILE, PIN_FILE, SCHEMA


@pytest.fixture
def plant(tmp_path, monkeypatch):
    """A folder of tables, and a commit whose own fleet is the simulated one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(params, "PARAMS", PARAMS_FILE)
    folder = tmp_path / "plant"
    folder.mkdir()
    sources.write_tables(simulate("azure", 3, 5, 7, SCHEMA).tables, SCHEMA, folder)
    return folder


def fetched(*words):
    data.main([*map(str, words)])
    return json.loads(Path("build/data/data.json").read_text())


def named(path, source):
    """A parameter file for another fleet."""
    path.write_text(PARAMS_FILE.read_text().replace("source: simulated", f"source: {source}"))
    return path


@pytest.mark.parametrize("of", ["a recorded run", "an engine"])
def test_a_file_that_names_no_folder_holds_out_the_folders_machines(plant, tmp_path, of):
    """What was tuned on the training machines of DATA=folder would be judged on them, under another name."""
    name = fetched("--source", plant)["source"]
    assert name == proposed_params.fleet_name(plant)  # so adopting the folder holds out the same
    copy = tmp_path / "copy.yaml"
    if of == "an engine":
        engine_params.main(["--engine", "spark", "--params", str(PARAMS_FILE), "--out", str(copy)])
    else:
        shutil.copy(PARAMS_FILE, copy)
    assert fetched("--source", plant, "--params", copy)["source"] == name


def test_a_file_of_before_an_adoption_names_no_folder_either(plant, tmp_path, monkeypatch):
    monkeypatch.setattr(params, "PARAMS", named(tmp_path / "adopted.yaml", "presses"))
    monkeypatch.setattr(starting_params, "SIMULATED", PARAMS_FILE)
    assert fetched("--source", plant, "--params", PARAMS_FILE)["source"] == proposed_params.fleet_name(plant)


def test_a_file_that_was_searched_for_a_folder_names_it(plant, tmp_path):
    searched = named(tmp_path / "searched.yaml", "pumps")
    assert fetched("--source", plant, "--params", searched)["source"] == "pumps"


@pytest.mark.parametrize("profile", [(), ("--profile", "azure")])
def test_the_pinned_fleet_keeps_its_name(plant, tmp_path, monkeypatch, capsys, profile):
    """A file that was searched for another fleet changes parameters, and not who is held out."""
    monkeypatch.setattr(data.data_pin, "PIN", PIN_FILE)
    monkeypatch.setattr(data.data_pin, "fetch", lambda parts, asked: (sources.read_frames(plant, {}), None))
    about = fetched("--params", named(tmp_path / "searched.yaml", "pumps"), *profile)
    assert about["source"] == fetched(*profile)["source"] == "simulated" + "-azure" * bool(profile)
    assert f"the fleet is called {about['source']}" in capsys.readouterr().err


def test_a_retraining_holds_out_the_machines_of_the_pinned_fleet(plant, tmp_path, monkeypatch):
    monkeypatch.setattr(data.data_pin, "fetch", lambda parts, asked: (sources.read_frames(plant, {}), None))
    retrain.fetch([], params.load(named(tmp_path / "searched.yaml", "pumps")))
    assert json.loads(Path("build/data/data.json").read_text())["source"] == "simulated"


@pytest.mark.parametrize("local", [True, False])
def test_the_ruler_has_the_name_that_the_tables_were_split_by(tmp_path, local):
    """Else the champion of a folder, kept from a run of params.yaml, is incomparable with what a search wrote."""
    about = {"source": "pumps", "local": local}
    of_commit = params.of_fleet(PARAMS, about)
    searched = params.load(named(tmp_path / "searched.yaml", "pumps")).of(about).raw
    found = changes(ruler(tmp_path, of_commit, {}), ruler(tmp_path, searched, {}))
    assert found == ([] if local else ["source in params.yaml"])  # what the base says of the pinned fleet counts


@pytest.mark.parametrize(("folder", "begins"), [(".hidden", "hidden-"), ("a\\b", "a-b-"), ("..", "")])
def test_a_folder_of_any_name_has_a_name_that_a_parameter_file_takes(tmp_path, folder, begins):
    name = proposed_params.fleet_name(tmp_path / folder)
    assert name.startswith(begins)
    assert params.parse(PARAMS | {"source": name}).source == name
