"""``make adopt``: a fleet becomes the copy's own, all of it or nothing, and another one can take its place."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
import yaml

from closedloop.data.schema import DataError
from model import adopt, data, data_check
from model import validate as validation
from model.common import adopting, cli, commits, data_pin, params, pinned_files, proposed_params, provenance
from model.common import starting_params as start

PARAMS, PIN, SIMULATED = "model/params.yaml", "model/data.lock.json", "model/simulated.yaml"
SIMULATED_PIN = """{"fingerprint": "sha256:0", "parts": [
 {"days": 20, "kind": "simulator", "machines": 3, "profile": "default", "seed": 7}]}"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A repository with the parameters and a pin of simulated machines; the commands take it for their own."""
    root = tmp_path / "copy"
    (root / "model").mkdir(parents=True)
    monkeypatch.chdir(root)
    shutil.copy(params.PARAMS, root / PARAMS)
    (root / PIN).write_text(SIMULATED_PIN)
    (root / ".gitignore").write_text("/build/\n")
    git(root, "init", "-q")
    commit(root, "Start")
    for module in (provenance, adopting, adopt, pinned_files, proposed_params, commits):
        monkeypatch.setattr(module, "ROOT", root)
    for module in (provenance, data_pin, adopt, validation):
        monkeypatch.setattr(module, "PIN", root / PIN, raising=False)
    for module in (params, cli):
        monkeypatch.setattr(module, "PARAMS", root / PARAMS)
    monkeypatch.setattr(start, "SIMULATED", root / SIMULATED)
    monkeypatch.setattr(adopt, "check", checked)
    return root


def checked(source, words, params_file):
    """Run data_check as adopt does, in this process."""
    out = adopting.WORK / "data-check"
    flags = ["--params", str(params_file)] if params_file else ["--out", str(out)]
    if code := data_check.main(["--source", str(source), *flags, *words]):
        raise SystemExit(code)
    return params_file or out / "params.yaml"


def git(root, *words):
    named = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", str(root), *words]
    return subprocess.run(named, check=True, capture_output=True, text=True).stdout


def commit(root, subject):
    git(root, "add", "--all")
    git(root, "commit", "-qm", subject)


def presses(folder, days=12, seed=5, sensors=("temp [°C]", "volt")):
    """Write a fleet of three machines and ten-minute rows, with names that need care."""
    rng, rows = np.random.default_rng(seed), days * 144
    time = pd.date_range("2026-01-05", periods=rows, freq="10min").strftime("%Y-%m-%d %H:%M")
    parts = [
        pd.DataFrame({"Zeit": time, "asset": k} | {name: rng.normal(60, 2, rows).round(2) for name in sensors})
        for k in (1, 2, 3)
    ]
    folder.mkdir(exist_ok=True)
    pd.concat(parts).to_csv(folder / "sensor log.csv", index=False)
    return folder


def state(root):
    """What a folder holds, apart from what is generated and from git."""
    found = (path for path in root.rglob("*") if path.is_file())
    named = {path.relative_to(root).as_posix(): path.read_bytes() for path in found}
    return {name: content for name, content in named.items() if not name.startswith((".git/", "build/"))}


def test_a_folder_becomes_the_fleet_that_the_next_run_reads(home, tmp_path, capsys):
    plant = presses(tmp_path / "plant no. 1")
    before = (home / PARAMS).read_bytes()
    assert adopt.main(["--source", str(plant)]) == cli.DONE
    said = capsys.readouterr().out
    asked, pin = params.load(home / PARAMS), json.loads((home / PIN).read_text())
    (part,) = pin["parts"]
    assert asked.schema.sensors == ("temp [°C]", "volt")  # volt alone of the simulator's sensors: no other stays
    assert (part["kind"], [file["path"] for file in part["files"]]) == ("files", ["sensor log.csv"])
    assert (home / part["location"] / "sensor log.csv").read_bytes() == (plant / "sensor log.csv").read_bytes()
    assert (home / SIMULATED).read_bytes() == before
    names = [PARAMS, PIN, SIMULATED, part["location"]]
    assert f"git add {' '.join(names)}\n" in said
    assert {line[3:].rstrip("/") for line in git(home, "status", "--porcelain").splitlines()} == {
        *names[:3],
        part["location"].split("/")[0],
    }
    data.main(["--params", PARAMS])
    validation.main(["--params", PARAMS])  # refuses tables that are not those of the pin

    wanted = state(home)
    validation.main(["--params", PARAMS, "--pin"])  # says nothing else than adopt did
    assert wanted == state(home)
    adopt.main(["--source", str(plant)])
    assert wanted == state(home)  # again: nothing changes
    commit(home, "Adopt")
    shutil.move(plant, tmp_path / "gone")
    capsys.readouterr()
    adopt.main(["--source", part["location"]])  # its copy is the same fleet, and keeps its name
    assert wanted == state(home)
    assert capsys.readouterr().out.endswith("every file is as committed; next: make run\n")


def test_a_second_fleet_takes_the_place_of_the_first_as_if_that_had_never_been(home, tmp_path):
    """Lengths of time too; and what a person tuned meanwhile stays."""
    first, second = presses(tmp_path / "first", days=3), presses(tmp_path / "second", days=30, sensors=("flow",))
    adopt.main(["--source", str(second)])
    wanted = params.load(home / PARAMS).raw
    git(home, "checkout", "-q", "--", ".")
    git(home, "clean", "-qfd")
    adopt.main(["--source", str(first)])
    short = params.load(home / PARAMS).raw
    assert short["features"]["history_hours"] < wanted["features"]["history_hours"]
    tuned = (
        (home / PARAMS).read_text().replace("max_iter: 100", "max_iter: 55").replace("planned: 2000", "planned: 1999")
    )
    (home / PARAMS).write_text(tuned)
    commit(home, "Adopt the first")
    adopt.main(["--source", str(second)])
    after = params.load(home / PARAMS).raw
    assert (after["failure"]["parameters"].pop("max_iter"), after["judge"]["costs"].pop("planned")) == (55, 1999)
    del wanted["failure"]["parameters"]["max_iter"], wanted["judge"]["costs"]["planned"]
    assert wanted == after


@pytest.mark.parametrize("profile", ["default", "azure"])
def test_the_simulator_can_be_adopted_again(profile, home, tmp_path):
    before = params.load(home / PARAMS).raw
    adopt.main(["--source", str(presses(tmp_path / "plant"))])
    commit(home, "Adopt")
    adopt.main(["--profile", profile])
    name = {"default": "simulated", "azure": "simulated-azure"}[profile]
    assert before | {"source": name} == params.load(home / PARAMS).raw
    pin = json.loads((home / PIN).read_text())
    assert pin["parts"] == [{"kind": "simulator", "profile": profile} | adopt.SIMULATED_FLEET]
    assert not (home / SIMULATED).exists()


def test_of_a_profile_the_pinned_size_stays(home):
    adopt.main(["--profile", "azure"])
    (part,) = json.loads((home / PIN).read_text())["parts"]
    assert part == json.loads(SIMULATED_PIN)["parts"][0] | {"profile": "azure"}
    data.main(["--params", PARAMS])
    validation.main(["--params", PARAMS])


def test_taken_back_it_is_as_it_was(home, tmp_path, capsys):
    before, plant = state(home), presses(tmp_path / "plant")
    adopt.main(["--source", str(plant)])
    assert adopt.main(["--undo"]) == cli.DONE
    assert before == state(home)
    assert git(home, "status", "--porcelain") == ""
    capsys.readouterr()
    adopt.main(["--undo"])
    assert "nothing to take back" in capsys.readouterr().out


def test_a_copy_whose_original_is_gone_is_not_deleted(home, tmp_path, capsys):
    plant = presses(tmp_path / "plant")
    adopt.main(["--source", str(plant)])
    shutil.rmtree(plant)
    adopt.main(["--undo"])
    (kept,) = (home / "data").rglob("*.csv")
    assert f"{kept.relative_to(home)} stays: its original is gone" in capsys.readouterr().out


def test_where_data_check_refuses_nothing_changes(home, tmp_path):
    plant, before = presses(tmp_path / "plant"), state(home)
    table = pd.read_csv(plant / "sensor log.csv").drop(columns="Zeit")
    table.to_csv(plant / "sensor log.csv", index=False)
    with pytest.raises(SystemExit) as stopped:
        adopt.main(["--source", str(plant)])
    assert stopped.value.code == cli.REFUSED
    assert before == state(home)


@pytest.mark.parametrize("after", ["the copied files", "the written parameters"])
@pytest.mark.parametrize("error", [DataError("x"), KeyboardInterrupt()])
def test_where_it_fails_half_way_nothing_changes(after, error, home, tmp_path, monkeypatch):
    adopt.main(["--source", str(presses(tmp_path / "first"))])
    second = presses(tmp_path / "second")
    before, write = state(home), adopting.Changes.write

    def fail(*found):
        if after == "the written parameters" and found[1].name != adopt.PIN.name:
            return write(*found)
        raise error

    if after == "the copied files":
        monkeypatch.setattr(adopt, "pin_of", fail)
    else:
        monkeypatch.setattr(adopting.Changes, "write", fail)
    with pytest.raises(type(error)):
        adopt.main(["--source", str(second)])
    assert before == state(home)


def test_changes_that_git_does_not_have_are_kept(home, tmp_path, capsys):
    text = (home / PARAMS).read_text() + "# mine\n"
    (home / PARAMS).write_text(text)
    adopt.main(["--source", str(presses(tmp_path / "plant"))])
    kept = "build/adopt/replaced/model/params.yaml"
    assert f"model/params.yaml had changes that were not committed; as it was, it is {kept}" in capsys.readouterr().out
    assert (home / kept).read_text() == text


def test_no_change_is_lost_however_often_fleets_are_adopted_and_taken_back(home, tmp_path, capsys):
    plants = [presses(tmp_path / name, seed=seed) for seed, name in enumerate(("one", "two"))]
    edits = []
    for turn in range(3):
        edits.append((home / PARAMS).read_text() + f"# mine {turn}\n")
        (home / PARAMS).write_text(edits[-1])
        for plant in plants:
            adopt.main(["--source", str(plant)])
        adopt.main(["--undo"])
    kept = [path.read_text() for path in (home / "build/adopt/replaced/model").glob("params.yaml*")]
    assert all(edit in kept for edit in edits)
    said = capsys.readouterr().out
    assert "had replaced what was not committed either:\n  build/adopt/replaced/model/params.yaml\n" in said
    assert git(home, "status", "--porcelain") == ""  # the copy of the first fleet is gone too
    assert not (home / "data").exists()


def test_a_parameter_file_that_was_corrected_is_adopted_as_it_is(home, tmp_path):
    plant = presses(tmp_path / "plant")
    checked(plant, [], None)
    own = yaml.safe_load((adopting.WORK / "data-check/params.yaml").read_text())
    own["schema"]["sensors"]["volt"] = [-5, 500]
    own["source"] = "press shop"
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(own, allow_unicode=True))
    adopt.main(["--source", str(plant), "--params", str(tmp_path / "mine.yaml")])
    assert own == params.load(home / PARAMS).raw
    assert (home / "data/press-shop/sensor log.csv").exists()


def test_files_in_the_repository_are_pinned_where_they_lie_and_ignored_ones_are_copied(home):
    presses(home / "measured")
    adopt.main(["--source", "measured"])
    (part,) = json.loads((home / PIN).read_text())["parts"]
    assert part["location"] == "measured"
    presses(home / "build/measured")
    adopt.main(["--source", "build/measured"])
    (part,) = json.loads((home / PIN).read_text())["parts"]
    assert part["location"].startswith("data/measured-")


def test_files_that_are_too_large_for_git_are_not_copied(home, tmp_path, monkeypatch):
    monkeypatch.setattr(adopting, "MOST_MB", 0.01)
    before = state(home)
    with pytest.raises(DataError, match=r"sensor log\.csv.*git is no place for more than"):
        adopt.main(["--source", str(presses(tmp_path / "plant"))])
    assert before == state(home)


def test_the_check_is_that_of_data_check_and_its_exit_code_too(tmp_path, capsys):
    """Run as its own process, as make does."""
    (tmp_path / "readings.csv").write_text("a,b\nx,y\n")
    with pytest.raises(SystemExit) as stopped:
        adopt.check(tmp_path, [], None)
    assert stopped.value.code == cli.REFUSED
    said = capsys.readouterr().out
    assert data_check.main(["--source", str(tmp_path), "--out", str(tmp_path / "out")]) == cli.REFUSED
    assert capsys.readouterr().out.strip() == said.replace("\nnot adopted: nothing was changed\n", "").strip()


def test_an_uploaded_copy_is_pinned_if_it_holds_the_same_tables(home, tmp_path, capsys):
    """A place may be an address, or as here a folder; how addresses are read is shown in test_data_pin.py."""
    plant = presses(tmp_path / "plant")
    presses(home / "uploaded", seed=6)
    before = state(home)
    with pytest.raises(cli.RefusedError, match="uploaded holds other tables than"):
        adopt.main(["--source", str(plant), "--place", "uploaded"])
    assert before == state(home)
    shutil.copytree(plant, home / "uploaded", dirs_exist_ok=True)
    adopt.main(["--source", str(plant), "--place", "uploaded"])
    (part,) = json.loads((home / PIN).read_text())["parts"]
    assert part["location"] == "uploaded"
    assert not (home / "data").exists()
