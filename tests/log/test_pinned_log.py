"""Parts of kind ``log``: a run reads the pinned versions, and the sink keeps them until somebody releases them."""

import json

import pytest

import pinned_fleet as fleet
from closedloop.data.schema import DataError
from closedloop.log import pins
from model import data, data_pin
from model.common import cli, request_log
from model.common.params import load


def request(hours, start=0):
    """Readings of twelve machines, as a client sends them."""
    frame = fleet.readings(hours=hours).groupby("machineID").tail(hours - start)
    columns = {name: frame[name].tolist() for name in frame.columns}
    columns["datetime"] = (frame["datetime"].str.replace(" ", "T") + "Z").tolist()
    return {"telemetry": columns}


@pytest.fixture
def repo(tmp_path, monkeypatch):
    return fleet.repository(tmp_path, monkeypatch)


@pytest.fixture
def sink(repo, kit):
    """A log in the repository that holds 400 hours of twelve machines, and no feedback yet."""
    place = repo.top / "data" / "log"
    place.parent.mkdir()
    kit.fill(repo.top / "spool", [kit.scored("one", request(400))])
    kit.ship(repo.top / "spool", place)
    return place


def more(repo, sink, kit):
    """Ship 200 hours more, and a failure."""
    failure = {"datetime": ["2026-01-09T07:00:00Z"], "machineID": [1], "failure": ["comp1"]}
    kit.fill(repo.top / "spool", [kit.scored("two", request(600, start=400))], [kit.fed("f", {"failures": failure})])
    kit.ship(repo.top / "spool", sink, rounds=2)


def rows():
    data.main([])
    return cli.read_json(cli.DATA / "data.json", ""), len(fleet.pd.read_parquet("build/data/PdM_telemetry.parquet"))


def test_a_log_is_read_at_its_pinned_versions_and_moved_to_the_newest(repo, sink, kit, capsys):
    pin = fleet.pin("--source", "data/log")
    (part,) = pin["parts"]
    assert {"kind": "log", "location": "data/log", "versions": {"requests": 1, "feedback": None}} == part
    more(repo, sink, kit)
    _, count = rows()
    assert 12 * 400 == count
    assert 0 == len(fleet.pd.read_parquet("build/data/PdM_failures.parquet"))  # the table was not there yet
    capsys.readouterr()
    moved = fleet.pin()
    assert {"requests": 2, "feedback": 1} == moved["parts"][0]["versions"]
    said = capsys.readouterr().out
    assert "rows      4,800 → 7,200" in said
    assert "failures  0 → 1" in said
    assert f"make data-pin DATA=data/log UNPIN={request_log.pin_id(part)}" in said


def test_the_sink_keeps_every_pinned_version_until_it_is_released(repo, sink, kit, place):
    place = pins.Sink.at(str(sink), {})
    first = fleet.pin("--source", "data/log")["parts"][0]
    assert {"kind": "main", "versions": {"requests": 1}}.items() <= of(sink, request_log.pin_id(first)).items()
    with pytest.raises(DataError, match=r"model/data.lock.json names these versions; move it first: make data-pin"):
        data_pin.main(["--unpin", request_log.pin_id(first)])
    more(repo, sink, kit)
    second = fleet.pin()["parts"][0]
    assert {1: [request_log.pin_id(first)], 2: [request_log.pin_id(second)]} == pins.kept(pins.find(place), "requests")
    data_pin.main(["--unpin", request_log.pin_id(first)])
    assert {2: [request_log.pin_id(second)]} == pins.kept(pins.find(place), "requests")
    with pytest.raises(DataError, match="has no pin 'data-0'; make log-status lists the pins"):
        data_pin.main(["--source", "data/log", "--unpin", "data-0"])


def of(sink, name):
    return json.loads((sink / "_pins" / f"{name}.json").read_text())


def test_where_the_sink_takes_no_pin_nothing_is_pinned(repo, sink, monkeypatch):
    before = repo.lock.read_text()

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pins, "put", refuse)
    with pytest.raises(DataError, match=r"data/log/_pins/data-\w+\.json: cannot be written .*may write to the sink$"):
        fleet.pin("--source", "data/log")
    assert before == repo.lock.read_text()


def test_a_version_that_the_log_lacks_is_one_clear_line(repo, sink):
    fleet.dump(repo.lock, {"fingerprint": "", "parts": [
        {"kind": "log", "location": "data/log", "versions": {"requests": 9, "feedback": None}}
    ]})  # fmt: skip
    with pytest.raises(DataError, match="data/log") as refused:
        data.main([])
    assert 1 == len(str(refused.value).splitlines())


def test_the_log_continues_what_files_began(repo, sink, kit):
    fleet.write(repo.top / "data" / "plant")
    fleet.pin("--source", "data/plant")
    parts = fleet.pin("--source", "data/log", "--add")
    assert ["files", "log"] == [part["kind"] for part in parts["parts"]]
    assert (12 * 600, 12) == (parts["holds"]["rows"], parts["holds"]["failures"])


def one(body, machine):
    """The readings of one machine."""
    rows = [number for number, other in enumerate(body["telemetry"]["machineID"]) if other == machine]
    return {name: [column[number] for number in rows] for name, column in body["telemetry"].items()}


def unseen(repo, sink, kit):
    """Ship a failure, a replacement and a mark of machines that no request was about, and a failure of machine 1."""
    when = ["2026-01-09T07:00:00Z"]
    feedback = {
        "failures": {"datetime": when * 2, "machineID": [99, 1], "failure": ["comp1"] * 2},
        "maint": {"datetime": when, "machineID": [98], "comp": ["comp1"]},
        "complete_until": {"datetime": when, "machineID": [97]},
    }
    kit.fill(repo.top / "spool", [kit.fed("f", feedback)])
    kit.ship(repo.top / "spool", sink)


def test_reports_of_a_machine_that_is_not_known_stop_no_training(repo, sink, kit, capsys):
    """A log cannot be edited, and anybody may misspell a machine. What is left out is named, and comes back with it."""
    unseen(repo, sink, kit)
    fleet.pin("--source", "data/log")
    said = " ".join(capsys.readouterr().err.split())
    assert "maint and failures name 2 machines without telemetry, which are left out: 98, 99" in said
    assert "retract" in said
    assert [1] == fleet.pd.read_parquet("build/data/PdM_failures.parquet")["machineID"].tolist()
    data.main(["--source", "data/log"])  # a log by itself too
    assert [1] == fleet.pd.read_parquet("build/data/PdM_failures.parquet")["machineID"].tolist()
    late = {name: column * 2 for name, column in one(request(400), 1).items()}
    kit.fill(repo.top / "spool", [kit.scored("late", {"telemetry": late | {"machineID": [1] * 400 + [99] * 400}})])
    kit.ship(repo.top / "spool", sink)
    fleet.pin()
    assert {1, 99} == set(fleet.pd.read_parquet("build/data/PdM_failures.parquet")["machineID"])


@pytest.mark.parametrize("alone", [True, False], ids=["the log alone", "a pinned log"])
def test_a_reading_outside_its_range_stops_no_training(repo, sink, kit, capsys, alone):
    """The service answers it with a warning and logs it, and nobody can empty it there."""
    body = {"telemetry": one(request(400), 1)}
    sensor, (_, high) = next(iter(load().schema.to_dict()["sensors"].items()))
    body["telemetry"][sensor][7:9] = [high + 1, -1e9]
    kit.fill(repo.top / "spool", [kit.scored("wild", body)])
    kit.ship(repo.top / "spool", sink)
    if alone:
        data.main(["--source", "data/log"])
    else:
        fleet.pin("--source", "data/log")
    said = " ".join(capsys.readouterr().err.split())
    assert f"2 readings of {sensor} lie outside its range" in said
    found = fleet.pd.read_parquet("build/data/PdM_telemetry.parquet")
    assert found[sensor].isna().sum() == 2
    assert found.drop(columns=sensor).notna().all(axis=None)


def test_a_log_may_report_what_happened_to_a_machine_whose_telemetry_is_in_files(repo, sink, kit, capsys):
    plant = fleet.write(repo.top / "data" / "plant") / "PdM_telemetry.csv"
    fleet.readings(machines=[*range(1, 13), 99]).to_csv(plant, index=False)
    fleet.pin("--source", "data/plant")
    unseen(repo, sink, kit)
    fleet.pin("--source", "data/log", "--add")
    assert 99 in set(fleet.pd.read_parquet("build/data/PdM_failures.parquet")["machineID"])
    assert "maint names 1 machine without telemetry, which is left out: 98" in " ".join(capsys.readouterr().err.split())


def test_a_log_in_which_not_every_machine_is_described_is_valid(repo, sink, kit):
    """A request need not say a machine's model and age; the service answers it with a warning."""
    described = {"machineID": [1], "model": ["model1"], "age": [3]}
    kit.fill(repo.top / "spool", [kit.scored("two", {"telemetry": one(request(400), 1), "machines": described})])
    kit.ship(repo.top / "spool", sink)
    fleet.pin("--source", "data/log")
    machines = fleet.pd.read_parquet("build/data/PdM_machines.parquet").set_index("machineID")
    assert [*range(1, 13)] == machines.index.tolist()
    assert machines["model"].dropna().to_dict() == {1: "model1"}


def test_a_folder_without_a_log_is_none(repo):
    fleet.dump(repo.lock, {"fingerprint": "", "parts": [
        {"kind": "log", "location": "data/none", "versions": {"requests": 0}}
    ]})  # fmt: skip
    with pytest.raises(DataError, match="there is no log; name the folder or address that LOG_SINK has"):
        data.main([])
