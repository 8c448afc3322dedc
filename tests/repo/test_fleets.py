"""``make fleet``: files of fleets that the template was not made for, a copy, and the commands of its owner."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import pytest
import yaml

from dev import fleets
from dev.fleets import FLEETS, IMAGE_STEPS, STEPS, OtherFleet

SMALL = OtherFleet({"a": (1.0, 0.1)}, ("1", "2"), days=3, minutes=60)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", FLEETS)
def test_a_fleet_has_a_row_of_every_machine_and_period_and_only_the_files_that_it_names(
    name: str, tmp_path: Path
) -> None:
    fleet, folder = FLEETS[name], tmp_path / "files"
    fleets.write_files(fleet, folder)
    expected = {"telemetry"} | ({"failures", "maint"} if fleet.parts else set())
    expected |= ({"errors"} if fleet.codes else set()) | ({"machines"} if fleet.models else set())
    assert expected == {path.stem for path in folder.iterdir()}
    readings = rows(folder / "telemetry.csv")
    assert len(fleet.machines) * fleet.days * 24 * 60 // fleet.minutes == len(readings)
    assert ["time", "machine", *fleet.sensors] == list(readings[0])
    if fleet.parts:
        assert set(fleet.parts) == {row["failure"] for row in rows(folder / "failures.csv")}


def test_every_sensor_rises_before_a_failure(tmp_path: Path) -> None:
    fleet = FLEETS["one-sensor"]
    fleets.write_files(fleet, tmp_path / "files")
    times = {(row["time"], row["machine"]) for row in rows(tmp_path / "files/failures.csv")}
    mean, noise = fleet.sensors["vibration"]
    readings = rows(tmp_path / "files/telemetry.csv")
    at_the_end = [float(row["vibration"]) for row in readings if (row["time"], row["machine"]) in times]
    assert sum(at_the_end) / len(at_the_end) > mean + 2 * noise


def test_the_workflow_runs_each_fleet(root: Path) -> None:
    jobs = yaml.safe_load((root / ".github/workflows/daily.yml").read_text(encoding="utf-8"))["jobs"]
    assert list(FLEETS) == jobs["fleet"]["strategy"]["matrix"]["fleet"]


def test_they_differ_from_the_golden_fleet_in_all_that_a_fleet_may_differ_in(root: Path) -> None:
    golden = yaml.safe_load((root / "tests/golden/params.yaml").read_text(encoding="utf-8"))["schema"]
    every = FLEETS.values()
    assert any(not set(fleet.sensors) & set(golden["sensors"]) for fleet in every)
    assert any(not sensor.isidentifier() for fleet in every for sensor in fleet.sensors)
    assert any(not machine.isdigit() for fleet in every for machine in fleet.machines)
    assert any(len(fleet.sensors) == 1 for fleet in every)
    assert any(fleet.minutes == 10 for fleet in every)
    assert any(fleet.parts and not fleet.codes and not fleet.models for fleet in every)
    assert any(not fleet.parts for fleet in every)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small repository in which ``make`` writes down how it was called, and fails where its last word is in FAIL."""
    root = tmp_path / "root"
    (root / ".venv").mkdir(parents=True)
    (root / "committed").touch()
    (root / "new").touch()
    (root / ".gitignore").write_text("/.venv/\n/build/\n")
    for words in (["init", "-q"], ["add", "committed"]):
        subprocess.run(["git", "-C", str(root), *words], check=True)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "make").write_text(
        f'#!/bin/sh\npwd >> "{tmp_path}/called"\necho "$@" "${{MAKEFLAGS-}}" >> "{tmp_path}/called"\n'
        'case "$3" in $FAIL) exit 3;; esac\n'
    )
    (programs / "make").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setenv("MAKEFLAGS", "of the outer make")
    monkeypatch.setattr(fleets, "ROOT", root)
    monkeypatch.setattr(fleets, "FLEETS", {"small": SMALL, "other": SMALL})
    return root


@pytest.mark.parametrize(("fail", "code", "called"), [("none", 0, 7), ("adopt", 1, 1), ("test", 1, 3), ("image", 1, 6)])
def test_the_commands_run_in_the_copy_until_one_fails(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    fail: str, code: int, called: int,
) -> None:  # fmt: skip
    monkeypatch.setenv("FAIL", fail)
    assert code == fleets.main(["small"])
    steps: list[tuple[str, ...]] = list(STEPS[:called])
    if IMAGE_STEPS[0] in steps:
        steps.insert(steps.index(IMAGE_STEPS[0]), ("engine",))
    copy = made / "build/fleets/small/copy"
    lines = (tmp_path / "called").read_text().splitlines()
    told = [f"--no-print-directory INSTALLED= {' '.join(words)} " for words in steps]
    assert [word for words in told for word in (str(copy), words)] == lines
    assert called == len([line for line in capsys.readouterr().out.splitlines() if "exit code" in line])


def test_without_a_container_engine_the_image_is_skipped_by_name(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAIL", "engine")
    assert 0 == fleets.main(["small"])
    (skipped,) = (line for line in capsys.readouterr().out.splitlines() if "skipped" in line)
    assert skipped.split()[2:5] == ["small:", "make", "image"]
    assert skipped.endswith("it needs a container engine")
    assert "image " not in (tmp_path / "called").read_text()


def test_the_copy_is_clean_and_has_what_is_committed_or_would_be(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIL", "none")
    assert 0 == fleets.main(["small"])
    copy = made / "build/fleets/small/copy"
    assert {".git", ".gitignore", ".venv", "committed", "new"} == {path.name for path in copy.iterdir()}
    state = subprocess.run(["git", "status", "--porcelain"], cwd=copy, capture_output=True, text=True, check=True)
    assert state.stdout == ""
    assert 0 == fleets.main(["small"])  # again, over the first


def test_without_a_name_each_fleet_is_run_whatever_became_of_the_others(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAIL", "run")
    assert 1 == fleets.main([])
    said = [line.split()[2] for line in capsys.readouterr().out.splitlines() if "exit code" in line]
    assert ["small:", "small:", "other:", "other:"] == said


def test_an_unknown_fleet_is_one_line(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 2 == fleets.main(["smal"])
    assert "make fleet: FLEET is 'smal'; name one of small, other\n" == capsys.readouterr().err
