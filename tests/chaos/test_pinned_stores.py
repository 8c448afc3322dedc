"""Pins of data in object stores: files, Delta tables and a log, behind a proxy that makes faults."""

import os
from pathlib import Path

import pandas as pd
import pytest
import stores
from deltalake import write_deltalake
from deltalake._internal import DeltaFileSystemHandler
from logkit import kit

import pinned_fleet as fleet
from closedloop.data.schema import DataError
from closedloop.log import pins
from closedloop.log.sink import Sink
from model import data
from model.common import cli, pinned_files

HERE = Path(__file__).parent


@pytest.fixture(params=["azure", "s3"])
def store(request, monkeypatch, tmp_path):
    """A place of its own in a store behind a proxy: (its address, the proxy, the kind)."""
    port, place, environ_of = request.getfixturevalue(request.param)
    proxy = stores.Proxy(port, tmp_path / "fault")
    for name, value in environ_of(proxy.port).items():
        monkeypatch.setenv(name, value)
    yield f"{place}/{tmp_path.name}", proxy, request.param
    proxy.close()


@pytest.fixture
def repo(tmp_path, monkeypatch):
    (tmp_path / "repo").mkdir()
    return fleet.repository(tmp_path / "repo", monkeypatch)


def options():
    return {name: value for name, value in os.environ.items() if name.startswith(("AZURE_", "AWS_"))}


def upload(place, folder):
    system = DeltaFileSystemHandler(place, options())
    for path in folder.iterdir():
        stream = system.open_output_stream(path.name)
        stream.write(path.read_bytes())
        stream.close()


def log_out(monkeypatch, kind):
    """Take the credentials away."""
    for name in ("AZURE_STORAGE_ACCOUNT_KEY",) if kind == "azure" else ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)


def test_files_are_pinned_fetched_and_refused_when_they_change(store, repo):
    place, _, kind = store
    upload(place, fleet.write(repo.top / "plant"))
    (part,) = fleet.pin("--source", place)["parts"]
    assert ("files", place) == (part["kind"], part["location"])
    assert ["PdM_failures.csv", "PdM_telemetry.csv"] == [file["path"] for file in part["files"]]
    assert (kind == "azure") == (part.get("account") == stores.ACCOUNT)
    assert (kind == "s3") == (part.get("public") is True)  # moto asks nobody who they are; Azurite does
    for kept in pinned_files.cache().iterdir():
        kept.unlink()
    assert 7200 == len(fleet.run()[0])
    (repo.top / "plant" / "PdM_failures.csv").write_text("machineID\n")
    upload(place, repo.top / "plant")
    assert 7200 == len(fleet.run()[0])  # from what was downloaded, by its digest
    for kept in pinned_files.cache().iterdir():
        kept.unlink()
    with pytest.raises(DataError, match=rf"{place}/PdM_failures\.csv: has 10 of the .*with: make data-pin$"):
        data.main([])


@pytest.mark.parametrize("fault", ["503", "429", "reset", "lost"])
def test_a_store_that_fails_at_every_other_call_is_asked_again(store, repo, fault):
    place, proxy, _ = store
    upload(place, fleet.write(repo.top / "plant"))
    fleet.pin("--source", place)
    for kept in pinned_files.cache().iterdir():
        kept.unlink()
    proxy.fault(fault, 2)
    data.main([])
    assert 7200 == len(pd.read_parquet("build/data/PdM_telemetry.parquet"))


def test_a_store_that_goes_on_failing_is_one_clear_line(store, repo):
    place, proxy, _ = store
    upload(place, fleet.write(repo.top / "plant"))
    fleet.pin("--source", place)
    for kept in pinned_files.cache().iterdir():
        kept.unlink()
    proxy.fault("503")
    with pytest.raises(
        DataError, match=f"{place}.*: cannot be read .*; run it again when the store answers$"
    ) as refused:
        data.main([])
    assert 1 == len(str(refused.value).splitlines())
    assert not list(pinned_files.cache().glob("*"))


def test_without_credentials_the_line_says_how_to_log_in(store, repo, monkeypatch):
    place, _, kind = store
    if kind == "s3":
        pytest.skip("moto lets everybody read")
    upload(place, fleet.write(repo.top / "plant"))
    fleet.pin("--source", place)
    for kept in pinned_files.cache().iterdir():
        kept.unlink()
    log_out(monkeypatch, kind)
    with pytest.raises(DataError, match=r"cannot be read .*log in with an identity that may read it \(run az login"):
        data.main([])


def test_what_is_public_is_read_without_credentials(store, repo, monkeypatch):
    place, _, kind = store
    if kind == "azure":
        pytest.skip("Azurite's container is private")
    upload(place, fleet.write(repo.top / "plant"))
    log_out(monkeypatch, kind)
    (part,) = fleet.pin("--source", place)["parts"]
    assert part["public"] is True
    assert 7200 == len(fleet.run()[0])


def test_delta_tables_are_read_where_they_lie_at_the_pinned_version(store, repo):
    place, proxy, _ = store
    write_deltalake(f"{place}/PdM_telemetry", fleet.readings(), storage_options=options())
    write_deltalake(f"{place}/failures", fleet.failures(), storage_options=options())
    (part,) = fleet.pin("--source", place)["parts"]
    assert ("delta", {"telemetry": 0, "failures": 0}) == (part["kind"], part["versions"])
    write_deltalake(f"{place}/failures", fleet.failures([1]).assign(failure="comp2"), mode="append",
                    storage_options=options())  # fmt: skip
    proxy.fault("503", 2)
    data.main([])
    assert 12 == len(pd.read_parquet("build/data/PdM_failures.parquet"))
    proxy.fault("none")
    assert 1 == fleet.pin()["parts"][0]["versions"]["failures"]
    assert 13 == len(pd.read_parquet("build/data/PdM_failures.parquet"))


def test_a_log_is_pinned_in_its_sink(store, repo):
    place, _, _ = store
    request = {"telemetry": {name: column.tolist() for name, column in fleet.readings(hours=400).items()}}
    request["telemetry"]["datetime"] = [text.replace(" ", "T") + "Z" for text in request["telemetry"]["datetime"]]
    kit.fill(repo.top / "spool", [kit.scored("one", request)])
    kit.ship(repo.top / "spool", place)
    (part,) = fleet.pin("--source", place)["parts"]
    assert ("log", {"requests": 1, "feedback": None}) == (part["kind"], part["versions"])
    assert "public" not in part
    (kept,) = pins.find(Sink.at(place, os.environ))
    assert ("main", {"requests": 1}) == (kept.kind, kept.versions)
    fleet.run()
    assert cli.read_json(cli.DATA / "data.json", "")["parts"] == [part]
