"""Parts of kind ``log``: a run reads the pinned versions, and the sink keeps them until somebody releases them."""

import json

import pytest

import pinned_fleet as fleet
from closedloop.data.schema import DataError
from closedloop.log import pins
from model import data, data_pin
from model.common import cli, request_log


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


def test_a_folder_without_a_log_is_none(repo):
    fleet.dump(repo.lock, {"fingerprint": "", "parts": [
        {"kind": "log", "location": "data/none", "versions": {"requests": 0}}
    ]})  # fmt: skip
    with pytest.raises(DataError, match="there is no log; name the folder or address that LOG_SINK has"):
        data.main([])
