"""The data pin: what its parts name, and that a run reads exactly that or says what is wrong."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from closedloop.data.schema import DataError
from model import data, validate
from model.common import cli, data_pin, params, pinned_files, provenance


@pytest.fixture
def plant(tmp_path, monkeypatch):
    """A repository with the folder ``plant`` of two machines, and no pin yet; the working folder is its top."""
    monkeypatch.chdir(tmp_path)
    for module in (pinned_files, provenance):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    lock = tmp_path / "data.lock.json"
    for module in (data_pin, pinned_files, validate):
        monkeypatch.setattr(module, "PIN", lock)
    folder = tmp_path / "plant"
    folder.mkdir()
    readings(240).to_csv(folder / "PdM_telemetry.csv", index=False)
    pd.DataFrame({"machineID": [1, 2], "model": "model1", "age": 3}).to_csv(folder / "PdM_machines.csv", index=False)
    return folder


def readings(hours):
    times = pd.date_range("2026-01-01", periods=hours, freq="h").strftime("%Y-%m-%d %H:%M:%S")
    return pd.concat(
        pd.DataFrame(
            {"datetime": times, "machineID": m, "volt": 170.0, "rotate": 440.0, "pressure": 99.0, "vibration": 40.0}
        )
        for m in (1, 2)
    )


def asked():
    return params.load()


def test_a_folder_is_pinned_with_size_and_digest_of_each_file_and_read_through_the_pin(plant):
    part = pinned_files.part_of(plant, {})
    assert "files" == part["kind"]
    assert "plant" == part["location"]
    assert ["PdM_machines.csv", "PdM_telemetry.csv"] == [file["path"] for file in part["files"]]
    assert (plant / "PdM_machines.csv").stat().st_size == part["files"][0]["size"]
    assert 64 == len(part["files"][0]["sha256"])
    data_pin.write([part])
    data.main([])
    assert 480 == len(pd.read_parquet("build/data/PdM_telemetry.parquet"))
    about = cli.read_json(cli.DATA / "data.json", "")
    assert (about["local"], about["parts"]) == (False, [part])


def test_what_the_pin_does_not_name_is_not_read(plant):
    part = pinned_files.part_of(plant, {})
    pd.DataFrame({"machineID": [1], "datetime": ["2026-01-02"], "failure": ["comp1"]}).to_csv(
        plant / "PdM_failures.csv", index=False
    )
    frames, _ = data_pin.fetch([part], asked())
    assert {"telemetry", "machines"} == set(frames)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.unlink(), r"plant/PdM_machines.csv: is pinned by data.lock.json and is not there; restore"),
        (lambda path: path.write_text("machineID\n"), r"plant/PdM_machines.csv: has 10 bytes, and .* pins \d+; rest"),
        (lambda path: path.write_text(path.read_text().replace("3", "4")), r"is sha256 .*pin what is there with: make"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), r"Git LFS.*run: git lfs pull"),
    ],
)
def test_a_file_that_is_not_the_pinned_one_is_refused(plant, spoil, says):
    part = pinned_files.part_of(plant, {})
    spoil(plant / "PdM_machines.csv")
    with pytest.raises(DataError, match=says) as refused:
        data_pin.fetch([part], asked())
    assert 1 == len(str(refused.value).splitlines())


def test_a_folder_outside_the_repository_is_refused(plant, tmp_path_factory):
    with pytest.raises(DataError, match="lies outside the repository, so only this machine has it; copy it"):
        pinned_files.part_of(tmp_path_factory.mktemp("elsewhere"), {})


def test_only_the_files_that_params_yaml_names_are_pinned(plant):
    (plant / "2026").mkdir()
    for month in ("01", "02"):
        (plant / "2026" / f"{month}.csv").write_text("a\n1\n")
    (plant / "notes.txt").write_text("by hand")
    part = pinned_files.part_of(plant, {"telemetry": "2026/*.csv"})
    assert ["2026/01.csv", "2026/02.csv"] == [file["path"] for file in part["files"]]
    assert (plant / "2026/01.csv").read_text() == (pinned_files.fetch(part) / "2026/01.csv").read_text()


def test_the_written_pin_is_read_back(plant):
    part = pinned_files.part_of(plant, {})
    data_pin.write([part], "sha256:0")
    assert {"fingerprint": "sha256:0", "parts": [part]} == data_pin.load()
    assert json.dumps(data_pin.load(), indent=1, sort_keys=True) + "\n" == (plant.parent / "data.lock.json").read_text()
