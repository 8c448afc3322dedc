"""What ``data_check`` prints about unknown files, and that its proposal trains at once; with small, odd fleets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from closedloop.data import sources
from closedloop.data.expectations import validate
from closedloop.data.schema import DataError
from model import data, data_check, evaluate, predict, train
from model import validate as validation
from model.common import cli, examine, params, proposed_params, tracking

DAY = 144  # rows of ten minutes
MACHINES = ("press-a", "press-b", "press-c")
PROPOSED = "build/data-check/params.yaml"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Work in an empty folder outside git, and record no run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "none"))
    monkeypatch.setattr(tracking, "log", lambda *_, **__: "none")
    monkeypatch.setattr(proposed_params, "fleet_name", lambda place: place.name)  # the name decides who is held out


def readings(machines=MACHINES, days=21, **more):
    """A fleet of unknown form: other sensors, ten minutes between rows, times as a spreadsheet writes them."""
    rng, rows = np.random.default_rng(5), days * DAY
    time = pd.date_range("2026-01-05", periods=rows, freq="10min").strftime("%Y-%m-%d %H:%M")
    parts = [
        pd.DataFrame(
            {
                "timestamp": time,
                "asset": name,
                "temp": (60 + k + rng.normal(size=rows)).round(2),
                "rpm": rng.normal(1500, 20, rows).round().astype(int),
            }
        )
        for k, name in enumerate(machines)
    ]
    return pd.concat(parts, ignore_index=True).assign(**more)


def breakdowns(machines=MACHINES, every_days=2):
    """The seal of each machine fails every other day."""
    times = pd.date_range("2026-01-06 07:00", periods=10, freq=f"{every_days}D")
    parts = [pd.DataFrame({"when": times + pd.Timedelta(hours=k), "asset": m}) for k, m in enumerate(machines)]
    return pd.concat(parts).assign(part="seal", note="hot")


def folder(tmp_path, **frames):
    """Write a folder ``plant`` of CSV files."""
    plant = tmp_path / "plant"
    plant.mkdir(exist_ok=True)
    for stem, frame in frames.items():
        frame.to_csv(plant / f"{stem}.csv", index=False)
    return plant


def written(path):
    """Return the content of a JSON file."""
    return json.loads(Path(path).read_text())


def check(plant, capsys, *words):
    """Run data_check; return its exit code and what it printed."""
    code = data_check.main(["--source", str(plant), *words])
    return code, capsys.readouterr().out


def loop(plant, *words):
    """Run ``make run DATA=plant`` in this process; return the decision."""
    data.main(["--source", str(plant), *words])
    validation.main([*words])
    train.main([*words])
    predict.main([])
    assert evaluate.main([*words]) == cli.DONE
    return written("build/decision.json")


def test_three_machines_without_failures_run_anomaly_only_and_learn_from_failures_added_later(tmp_path, capsys):
    plant = folder(tmp_path, sensors=readings())
    code, said = check(plant, capsys)
    assert code == cli.DONE, said
    assert "sensors.csv is telemetry: timestamp is datetime, asset is machineID" in said
    assert "9,072 rows of 3 machines, 2026-01-05 00:00 to 2026-01-25 23:50, one every 10 minutes" in said
    assert "anomaly-only: without a table of failures" in said
    assert "add a table of time, machine and component, or say which rows of a log are failures, such as " in said
    assert "split.rule prefix: the first third of each machine's rows trains: split by machine, " in said
    assert f"\nfits: make adopt DATA={plant} makes it this copy's fleet; to only try it: " in said
    assert said.endswith(f" make run DATA={plant} PARAMS={PROPOSED}\n")
    asked = params.load(tmp_path / PROPOSED)
    assert (asked.schema.sensors, asked.schema.sampling_minutes) == (("temp", "rpm"), 10)
    assert asked.features["history_hours"] == 33  # a fifth of a third of three weeks
    assert loop(plant, "--params", PROPOSED)["verdict"] == "first"
    assert written("build/bundle/manifest.json")["heads"]["failure"] == {}

    folder(tmp_path, breakdowns=breakdowns())
    code, said = check(plant, capsys)
    assert code == cli.DONE, said
    assert "breakdowns.csv is failures: when is datetime, part is failure, asset is machineID" in said
    assert "failures: 30 rows: seal 30" in said
    assert "failure heads, 11 hours ahead: seal" in said
    shutil.rmtree("build/champion")  # outside git the first model cannot answer for the new tables
    assert loop(plant, "--params", PROPOSED)["holdout"]["failures"] > 0
    assert written("build/bundle/manifest.json")["heads"]["failure"]["seal"] is not None


def test_components_of_which_little_is_known_do_not_stop_a_run(tmp_path, capsys):
    """Only one machine was repaired and had an alarm, so the fold without it has features that are always missing."""
    one = breakdowns(("press-b",))
    repairs = one.rename(columns={"part": "component"})
    plant = folder(tmp_path, sensors=readings(), breakdowns=breakdowns(), repairs=repairs, alarms=one)
    code, said = check(plant, capsys)
    assert code == cli.DONE, said
    assert "repairs.csv is maint: when is datetime, component is comp, asset is machineID" in said
    assert "alarms.csv is errors: when is datetime, part is errorID, asset is machineID" in said
    loop(plant, "--params", PROPOSED)
    assert written("build/bundle/manifest.json")["heads"]["failure"]["seal"] is not None


def test_one_machine_runs_and_its_failures_alone_make_no_head(tmp_path, capsys):
    """Calibration needs two machines that failed; the run says so, and trains the anomaly head."""
    plant = folder(tmp_path, sensors=readings(("solo",)), failures=breakdowns(("solo",), every_days=1))
    code, said = check(plant, capsys)
    assert code == cli.DONE, said
    assert "all on one machine, and calibration needs two" in said
    assert "anomaly-only in effect" in said
    assert loop(plant, "--params", PROPOSED)["holdout"]["machines"] == 1


def test_a_sensor_that_stood_still_in_training_does_not_drown_the_others(tmp_path, capsys):
    """It moves a little in the judged rows; no row may score a million deviations for that."""
    frame = readings()
    plant = folder(tmp_path, sensors=frame.assign(setpoint=np.where(frame.index % 3024 > 2000, 40.1, 40.0)))
    assert check(plant, capsys)[0] == cli.DONE
    loop(plant, "--params", PROPOSED)
    table = pd.read_parquet("build/predictions.parquet")
    assert table["score"].max() < 100
    assert table["alarm"].mean() < 0.05


def test_a_fleet_of_twenty_machines_is_split_by_machine(tmp_path, capsys):
    plant = folder(tmp_path, sensors=readings(tuple(f"m{k:02}" for k in range(1, 21)), days=14))
    code, said = check(plant, capsys)
    assert code == cli.DONE
    assert "split.rule fleet: " in said
    asked = params.load(tmp_path / PROPOSED)
    assert asked.split["rule"] == "fleet"
    assert asked.schema.machine_id == "text"


def test_a_mapping_that_was_corrected_is_held_against_the_data_and_not_overwritten(tmp_path, capsys):
    plant = folder(tmp_path, sensors=readings())
    assert check(plant, capsys)[0] == cli.DONE
    text = (tmp_path / PROPOSED).read_text()
    (tmp_path / PROPOSED).write_text(text.replace("temp: [57, 67]", "temp: [60, 61]").replace("asset: ", "assets: "))
    with pytest.raises(DataError, match="the table has no column 'assets'"):
        check(plant, capsys, "--params", PROPOSED)
    (tmp_path / PROPOSED).write_text(text.replace("rpm: [", "rpm: [1500, 1501] # "))
    code, said = check(plant, capsys, "--params", PROPOSED)
    assert code == cli.REFUSED
    assert "telemetry.rpm: is outside its range 1500 to 1501" in said
    assert "rpm: [1500, 1501]" in (tmp_path / PROPOSED).read_text()


SPOILED = {
    "two readings at one time": (
        lambda frame: pd.concat([frame, frame.iloc[[5]].assign(temp=50.0)]),
        "1 rows repeat the time of another row of their machine (machine press-a at 2026-01-05 00:50:00)",
    ),
    "several rows a minute": (
        lambda frame: frame.assign(
            timestamp=(pd.Timestamp("2026-01-05") + pd.to_timedelta(frame.index % 432 * 2, unit="s")).astype("str")
        ),
        "readings come every 2 seconds, and a schema has whole minutes",
    ),
    "a machine without a name": (
        lambda frame: frame.assign(asset=frame["asset"].where(frame.index != 7)),
        "telemetry.machineID: is missing: 1 of 1,296 rows",
    ),
    "a slip in a time": (
        lambda frame: frame.assign(timestamp=frame["timestamp"].where(frame.index != 7, "2026-02-30 10:00")),
        "telemetry.datetime: is not a time: 1 of 1,296 rows: row 8",
    ),
    "no column of the machine": (
        lambda frame: frame.drop(columns="asset"),
        "several rows at one time and no column that says which machine each is of: name it with MACHINE=column",
    ),
    "hardly any rows": (
        lambda frame: frame.groupby("asset").head(3),
        "1 training rows for each machine are too few; give a longer time",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_what_does_not_fit_is_refused_with_a_fix(case, tmp_path, capsys):
    damage, says = SPOILED[case]
    code, said = check(folder(tmp_path, sensors=damage(readings(days=3))), capsys)
    fixes = said.split("what to fix")[1]
    assert code == cli.REFUSED, said
    assert says in fixes
    assert "refused: a run would stop." in fixes


def test_only_the_first_three_fixes_are_shown(tmp_path, capsys):
    frame = readings(days=3)
    frame = frame.astype({"temp": object, "rpm": object})
    frame.loc[3, ["temp", "rpm", "timestamp"]] = ["high", "low", "2026-02-30 10:00"]
    frame.loc[4, "asset"] = None
    code, said = check(folder(tmp_path, sensors=frame), capsys)
    assert code == cli.REFUSED
    assert "what to fix, the first 3 of " in said
    assert "\n  3. " in said
    assert "\n  4. " not in said


def test_wrong_usage_exits_2(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        data_check.main([])
    assert stopped.value.code == cli.USAGE
    with pytest.raises(DataError, match="no such file or folder"):
        data_check.main(["--source", str(tmp_path / "none")])


def test_a_new_machine_needs_no_change_of_the_parameters(tmp_path, capsys):
    plant = folder(tmp_path, sensors=readings(days=3))
    check(plant, capsys)
    folder(tmp_path, sensors=readings((*MACHINES, "press-d"), days=3))
    data.main(["--source", str(plant), "--params", PROPOSED])
    found = pd.read_parquet("build/data/PdM_telemetry.parquet")
    assert {*MACHINES, "press-d"} == set(found["machineID"])


# --- the parts of a proposal ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ([10.0, 20.0, 30.0], 0, 40),
        ([-5.0, 5.0], -10, 10),
        ([7.0, 7.0], 0, 14),
        ([0.0, 0.0], 0, 1),
        ([np.nan], -1e6, 1e6),
    ],
)
def test_a_range_holds_what_was_seen_and_half_as_much_beside_it(values, low, high):
    assert [low, high] == proposed_params.plausible(pd.Series(values))


def test_a_code_for_a_missing_reading_is_told_from_a_far_reading():
    """A range admits the far one; the code is proposed as missing, unless another sensor reads it in earnest."""
    rng = np.random.default_rng(1)
    volt = np.append(rng.normal(100, 5, 5000), [-999.0, 9999.0, 471.5])
    frame = pd.DataFrame({"volt": volt, "speed": np.linspace(9000, 11000, len(volt))})
    frame = frame.assign(machineID=1, datetime=pd.date_range("2026-01-01", periods=len(volt), freq="h", tz="UTC"))
    found, said = examine.sentinels(frame, ["volt", "speed"])
    assert found == {"-999": 1}
    assert "another sensor reads 9999 in earnest" in said[0]
    assert (
        "volt reads 471.5 in 1 rows, far from all others"
        in examine.remarks(frame.iloc[[*range(5000), 5002]], ["volt"])[0]
    )


@pytest.mark.parametrize("code", ["007", "yes", "1e3", "null", "a: b", "#1", "[", "2026-01-01", "~"])
def test_names_that_yaml_would_read_as_something_else_stay_what_they_are(code, tmp_path):
    """As a component, a sensor and a column."""
    schema = {"sampling_minutes": 10, "sensors": {code: [0.0, 1.5]}, "components": [code], "errors": [], "models": []}
    fleet = proposed_params.Fleet(
        code, schema, {"rule": "fleet"}, 72, {"telemetry": f"{code}.csv"}, {"maint": {code: "comp"}}
    )
    (tmp_path / "p.yaml").write_text(proposed_params.render(fleet))
    asked = params.load(tmp_path / "p.yaml")
    assert asked.source == code
    assert (asked.schema.sensors, asked.schema.components) == ((code,), (code,))
    assert (asked.files, asked.columns) == ({"telemetry": f"{code}.csv"}, {"maint": {code: "comp"}})


def test_the_proposal_of_an_hourly_fleet_of_years_is_the_commits_own_file_but_for_the_fleet(tmp_path):
    own = params.load()
    fleet = proposed_params.Fleet(
        own.source, own.schema.to_dict(), {"rule": own.split["rule"]}, own.features["history_hours"]
    )
    (tmp_path / "p.yaml").write_text(proposed_params.render(fleet))
    assert own.raw == params.load(tmp_path / "p.yaml").raw
    comments = [line.partition("#")[2] for line in params.PARAMS.read_text().splitlines() if line.startswith("  ")]
    assert all(comment in (tmp_path / "p.yaml").read_text() for comment in comments)


def test_a_public_set_brings_its_own_schema_split_and_time_scale(tmp_path):
    """SKAB's files are shorter than the history of an hourly fleet, with which no figure would mean anything."""
    skab = tmp_path / "skab" / "valve1"
    skab.mkdir(parents=True)
    names = ["Accelerometer1RMS", "Accelerometer2RMS", "Current", "Pressure"]
    rng = np.random.default_rng(0)
    for number in range(3):
        table = pd.DataFrame(rng.normal(size=(600, 4)), columns=names).assign(anomaly=0.0, changepoint=0.0)
        table.loc[500:520, "anomaly"] = 1.0
        table.insert(0, "datetime", pd.date_range("2020-03-09 10:14:33", periods=600, freq="s").astype("str"))
        table.to_csv(skab / f"{number}.csv", sep=";", index=False)
    decision = loop(skab.parent)
    assert decision["verdict"] == "first"
    about = written("build/data/data.json")
    asked = params.load().of(about)
    assert about["brings"]["history_hours"] == asked.features["history_hours"] == 1.35
    assert (asked.split["rule"], asked.split["prefix"]) == ("prefix", 400)
    assert asked.schema.sensors == tuple(names)
    until = {machine: (np.datetime64(us, "us") - np.datetime64("2020-03-09T10:14:33")).item().seconds // 60
             for machine, us in about["train_until"].items()}  # fmt: skip
    assert until == {"100": 399, "101": 399, "102": 399}


def test_a_budget_that_even_the_highest_score_exceeds_buys_no_alarm(tmp_path, capsys):
    """A sensor that never moved scores 0 in every row, and an alarm at 0 would never end."""
    plant = folder(tmp_path, sensors=readings(days=5).assign(temp=20.0, rpm=1500))
    assert check(plant, capsys)[0] == cli.DONE
    loop(plant, "--params", PROPOSED)
    assert not pd.read_parquet("build/predictions.parquet")["alarm"].any()


def test_what_validation_writes_meets_the_expectations_again(tmp_path, capsys):
    """Files of any form become tables in the layout PdM_<table>."""
    plant = folder(tmp_path, sensors=readings(days=3), breakdowns=breakdowns())
    check(plant, capsys)
    data.main(["--source", str(plant), "--params", PROPOSED])
    shutil.rmtree(plant)
    frames = sources.read_frames(tmp_path / "build/data", {}, machine_id="text")
    assert validate(frames, params.load(tmp_path / PROPOSED).schema).ok
    assert sorted(frames["telemetry"]["machineID"].unique()) == ["press-a", "press-b", "press-c"]


def test_ages_that_look_like_the_ends_of_the_machines_names_are_ages(tmp_path, capsys):
    machines = [f"Pumpe Ä/{number}" for number in range(1, 7)]
    about = pd.DataFrame({"machineID": machines, "model": ["A", "B"] * 3, "age": [1, 2, 3, 4, 5, 6]})
    readings_of_all = readings(machines=machines).rename(columns={"timestamp": "datetime", "asset": "machineID"})
    code, said = check(folder(tmp_path, PdM_telemetry=readings_of_all, PdM_machines=about), capsys)
    assert code == cli.DONE, said
    assert "stands before each machine" not in said
    assert params.load(tmp_path / PROPOSED).schema.models == ("A", "B")


# --- failures that teach nothing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [-4000, 40])
def test_events_of_another_time_than_the_readings_are_said(shift, tmp_path, capsys):
    events = breakdowns()
    events["when"] += pd.Timedelta(days=shift)
    code, said = check(folder(tmp_path, sensors=readings(), breakdowns=events), capsys)
    assert code == cli.DONE, said
    first = events["when"].min()
    assert f"failures: 30 of 30 rows lie outside the time of the readings, such as {first:%Y-%m-%d %H:%M}, so" in said
    assert "TIME_FORMAT= or EPOCH=" in said


def test_maintenance_before_the_readings_is_no_remark(tmp_path, capsys):
    """It says how long ago a component was replaced; all of it in another time is a remark."""
    repairs = breakdowns().rename(columns={"part": "component"})
    early = repairs.assign(when=repairs["when"] - pd.Timedelta(days=9))
    plant = folder(tmp_path, sensors=readings(), repairs=early, breakdowns=breakdowns())
    code, said = check(plant, capsys)
    assert (code, "outside the time" in said) == (cli.DONE, False)
    folder(tmp_path, repairs=repairs.assign(when=repairs["when"] - pd.Timedelta(days=900)))
    assert "maint: 30 of 30 rows lie outside the time of the readings" in check(plant, capsys)[1]


def test_failures_that_no_head_can_foresee_are_refused_as_the_gate_would(tmp_path, capsys):
    """They lie in the judged rows alone, and there are enough of them to judge by."""
    machines = tuple(f"m{k}" for k in range(6))
    late = breakdowns(machines, every_days=1)
    plant = folder(tmp_path, sensors=readings(machines), breakdowns=late[late["when"] > "2026-01-13"])
    code, said = check(plant, capsys)
    assert code == cli.REFUSED, said
    assert "anomaly-only in effect: no component has failed often enough" in said
    assert "failures are held out, and no component has failed often enough in training for a head" in said
    folder(tmp_path, breakdowns=late)
    assert check(plant, capsys)[0] == cli.DONE
