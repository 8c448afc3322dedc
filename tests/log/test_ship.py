"""Every record of a sealed segment is in its table exactly once before the segment is removed, whoever else ships."""

import json
import shutil
from datetime import UTC, datetime

import msgspec
import pytest
from deltalake import DeltaTable

from closedloop.log import ledger, quarantine
from closedloop.log import rows as builders
from closedloop.log import ship as module
from closedloop.log.commits import read_commit
from closedloop.log.frame import HEADER_BYTES
from closedloop.log.ledger import Shipped
from closedloop.log.sink import Sink, SinkError, one_line
from closedloop.log.state import SpoolError
from closedloop.log.store import Store


def test_records_go_to_their_tables_in_order_and_the_segments_are_removed(kit, folder, sink):
    failures = {"failures": {"datetime": ["2015-01-05T06:00:00Z"], "machineID": [1], "failure": ["comp1"]}}
    kit.fill(folder, [kit.scored("a"), kit.fed("b", failures)], [kit.scored("c")], [kit.fed("d", failures)])
    status, said = kit.ship(folder, sink)
    assert [] == said
    assert (3, 4, 0, None) == (
        status.shipped_segments,
        status.shipped_records,
        status.unsent_segments,
        status.last_error,
    )
    assert ["a", "c"] == kit.ids(sink)
    assert ["b", "d"] == kit.ids(sink, "feedback")
    assert [] == list(folder.glob("*.seg"))


def test_a_row_holds_the_whole_record(kit, folder, sink):
    request = json.loads(json.dumps(kit.request))
    request["telemetry"]["volt"] = [None, 7]
    kit.fill(folder, [kit.scored("a", request, caller="press-shop", image="image@sha256:1")])
    kit.ship(folder, sink)
    (row,) = kit.rows(sink)
    assert ("a", "press-shop", 200, "sha256:00", "image@sha256:1") == tuple(
        row[name] for name in ("request_id", "caller", "status", "model", "image")
    )
    assert datetime(2015, 1, 4, 12, tzinfo=UTC) == row["received"]
    assert 64 == len(row["body_sha256"])
    assert (1, 0) == (row["segment"], row["index"])
    assert [1, 1] == row["telemetry"]["machineID"]
    assert [datetime(2015, 1, 4, 5, tzinfo=UTC), datetime(2015, 1, 4, 6, tzinfo=UTC)] == row["telemetry"]["datetime"]
    assert {"name": "volt", "values": [None, 7.0]} == row["telemetry"]["sensors"][0]
    assert request["errors"]["errorID"] == row["errors"]["errorID"]
    assert request["machines"] | {"machineName": None} == row["machines"]
    (result,) = row["results"]
    assert (1, datetime(2015, 1, 4, 6, tzinfo=UTC)) == (result["machineID"], result["datetime"])


def test_what_the_allow_list_left_out_is_null(kit, folder, sink):
    kit.fill(folder, [kit.scored("a", {"telemetry": kit.request["telemetry"]}, answer=b""), kit.scored("b", b"")])
    kit.ship(folder, sink)
    first, second = kit.rows(sink)
    assert [None] * 4 == [first[name] for name in ("errors", "maint", "machines", "results")]
    assert second["telemetry"] is None


def test_another_fleets_sensors_need_no_other_schema(kit, folder, sink):
    other = {"telemetry": {"datetime": ["2015-01-04T05:00:00+01:00"], "machineID": [9], "flow": [1.5]}}
    kit.fill(folder, [kit.scored("a")], [kit.scored("b", other)])
    kit.ship(folder, sink)
    assert [{"name": "flow", "values": [1.5]}] == kit.rows(sink)[1]["telemetry"]["sensors"]


def test_a_segment_that_was_shipped_already_is_not_shipped_again(kit, folder, sink, tmp_path):
    """The process ended after the commit and before the segment was removed."""
    kit.fill(folder, [kit.scored("a")], [kit.scored("b")])
    shutil.copytree(folder, tmp_path / "before")
    kit.ship(folder, sink)
    for path in (tmp_path / "before").glob("*.seg"):
        shutil.copy(path, folder)
    version = DeltaTable(sink / "requests").version()
    status, said = kit.ship(folder, sink)
    assert ([], 0) == (said, status.unsent_segments)
    assert ["a", "b"] == kit.ids(sink)
    assert version == DeltaTable(sink / "requests").version()


def test_of_a_segment_that_is_in_one_of_its_tables_only_the_other_is_written(kit, folder, sink, monkeypatch):
    failures = {"failures": {"datetime": ["2015-01-05T06:00:00Z"], "machineID": [1], "failure": ["comp1"]}}
    kit.fill(folder, [kit.scored("a"), kit.fed("b", failures)])
    monkeypatch.setattr(module.Shipper, "_bring", _fail_on(module.Shipper._bring, "requests"))
    status, _ = kit.ship(folder, sink)
    assert (1, "requests: out of order") == (status.unsent_segments, status.last_error)
    monkeypatch.undo()
    kit.ship(folder, sink)
    assert (["a"], ["b"]) == (kit.ids(sink), kit.ids(sink, "feedback"))


def _fail_on(real, table):
    def bring(self, name, *rest):
        if name == table:
            raise OSError(f"{table}: out of order")
        real(self, name, *rest)

    return bring


def test_a_copy_of_the_volume_that_went_on_by_itself_is_found_and_its_segment_kept(kit, folder, sink, tmp_path):
    kit.fill(folder, [kit.scored("a")])
    shutil.copytree(folder, tmp_path / "copy")
    kit.fill(folder, [kit.scored("b")])
    kit.fill(tmp_path / "copy", [kit.scored("c")])
    kit.ship(folder, sink)
    status, said = kit.ship(tmp_path / "copy", sink, rounds=3)
    assert ["a", "b"] == kit.ids(sink)  # what both had was left out, what differs was not written
    assert (1, 3, 1) == (status.unsent_segments, status.failures, len(said))
    assert "stays: the sink has another one of this number: is the volume a copy or a backup?" in said[0]


def test_a_segment_older_than_what_the_sink_has_is_kept_unless_it_is_there(kit, folder, sink, tmp_path):
    kit.fill(folder, [kit.scored("a")], [kit.scored("b")])
    first, _second = sorted(folder.glob("*.seg"))
    first.rename(tmp_path / first.name)
    kit.ship(folder, sink)
    (tmp_path / first.name).rename(first)
    status, said = kit.ship(folder, sink)
    assert "the sink has later ones of this spool and not this one" in said[0]
    assert (1, ["b"]) == (status.unsent_segments, kit.ids(sink))


def test_nothing_is_shipped_past_a_segment_that_is_not_sealed(kit, folder, sink):
    kit.fill(folder, [kit.scored("a")], [kit.scored("b")])
    first, _ = sorted(folder.glob("*.seg"))
    first.rename(first.with_suffix(".open"))
    kit.ship(folder, sink)
    assert not (sink / "requests").exists()


def test_what_cannot_be_read_is_kept_beside_counted_and_said_and_the_rest_is_shipped(kit, folder, sink):
    later = b"\x86\xa6format\x02"
    kit.fill(folder, [kit.scored("a"), later, kit.scored("b", b"[1]")], [kit.scored("c")])
    status, said = kit.ship(folder, sink)
    assert ["a", "c"] == kit.ids(sink)
    assert (1, 2, 0) == (status.quarantined_segments, status.quarantined_records, status.unsent_segments)
    ((path, kept, lost),) = quarantine.read(folder / "quarantine")
    assert said[0].startswith(f"kept {path}, which holds what cannot be shipped: record 1: ")
    assert said[0].endswith("(and 1 more)")
    assert ([1, 2], []) == ([found.index for found in kept], lost)
    assert later == kept[0].payload


def test_only_the_bad_record_of_a_large_segment_is_kept(kit, folder, sink):
    kit.fill(folder, [*[kit.scored(f"{i:03}") for i in range(300)], kit.scored("bad", b"[1]")])
    (sealed,) = folder.glob("*.seg")
    size = sealed.stat().st_size
    status, _ = kit.ship(folder, sink)
    assert 0 < status.quarantined_bytes < size / 100
    assert [] == list(folder.glob("*.seg"))
    assert 300 == len(kit.ids(sink))


def test_killed_after_it_was_kept_and_before_the_segment_went_it_is_kept_once(kit, folder, sink, tmp_path):
    kit.fill(folder, [kit.scored("a"), kit.scored("b", b"[1]")])
    shutil.copytree(folder, tmp_path / "before")
    kit.ship(folder, sink)
    shutil.copy(next((tmp_path / "before").glob("*.seg")), folder)
    kit.ship(folder, sink)
    assert 1 == len(list(quarantine.read(folder / "quarantine")))
    assert ["a"] == kit.ids(sink)


def test_on_a_full_disk_the_segment_is_kept_as_it_is_and_shipping_goes_on(kit, folder, sink, monkeypatch):
    def full(*_):
        raise OSError(28, "no space left")

    monkeypatch.setattr(module.quarantine, "keep", full)
    kit.fill(folder, [kit.scored("a"), kit.scored("b", b"[1]")], [kit.scored("c")])
    status, _ = kit.ship(folder, sink)
    assert (["a", "c"], 0, None) == (kit.ids(sink), status.unsent_segments, status.last_error)
    assert 1 == len(list((folder / "quarantine").glob("*.seg")))


@pytest.mark.parametrize("found", [0, 2, 10**9])
def test_a_record_of_another_format_is_refused_by_its_number(kit, folder, sink, found):
    kit.fill(folder, [kit.scored("a"), kit.scored("b", format=found)])
    status, said = kit.ship(folder, sink)
    assert ["a"] == kit.ids(sink)
    assert 1 == status.quarantined_records
    assert f"record 1: has format {found}, this version reads 1: read it with the one that wrote it" in said[0]


def test_a_record_of_a_later_format_with_other_fields_is_refused_by_its_number(kit, folder, sink):
    kit.fill(folder, [msgspec.msgpack.encode({"format": 7, "when": "later"})])
    _, said = kit.ship(folder, sink)
    assert "has format 7, this version reads 1" in said[0]


def test_a_damaged_record_is_kept_beside_and_the_others_shipped(kit, folder, sink):
    kit.fill(folder, [kit.scored("a"), kit.scored("b")])
    (sealed,) = folder.glob("*.seg")
    data = bytearray(sealed.read_bytes())
    data[HEADER_BYTES + 40] ^= 1
    sealed.write_bytes(data)
    status, said = kit.ship(folder, sink)
    assert (["b"], 1, 1) == (kit.ids(sink), status.quarantined_records, len(said))
    ((_, (kept,), lost),) = quarantine.read(folder / "quarantine")
    assert (None, HEADER_BYTES) == (kept.index, kept.offset)
    assert kept.payload in data
    assert ["are damaged; the records there are lost" in line for line in lost] == [True]


def test_a_segment_of_another_spool_is_kept_as_it_is(kit, folder, sink, tmp_path):
    kit.fill(tmp_path / "other", [kit.scored("x")])
    kit.fill(folder, [kit.scored("a")])
    (foreign,) = (tmp_path / "other").glob("*.seg")
    shutil.copy(foreign, folder / "00000000000000000009.seg")
    status, said = kit.ship(folder, sink)
    assert (["a"], 1, 0) == (kit.ids(sink), status.quarantined_segments, status.unsent_segments)
    assert "belongs to spool" in said[0]
    assert foreign.read_bytes() == (folder / "quarantine" / "00000000000000000009.seg").read_bytes()


def test_a_sink_of_another_format_is_refused_before_anything_is_written(kit, folder, sink, monkeypatch):
    kit.fill(folder, [kit.scored("a")], [kit.scored("b")])
    _first, second = sorted(folder.glob("*.seg"))
    second.rename(folder / "later")
    kit.ship(folder, sink)
    (folder / "later").rename(second)
    monkeypatch.setattr("closedloop.log.sink.FORMAT", "2")
    status, said = kit.ship(folder, sink)
    assert "has format 1, this version writes and reads 2" in said[0]
    monkeypatch.undo()
    assert (1, ["a"]) == (status.unsent_segments, kit.ids(sink))


def test_one_shipper_works_on_a_folder(kit, folder, sink):
    kit.fill(folder, [kit.scored("a")])
    first = module.Shipper(folder, Sink.at(str(sink), {}), pytest.fail)
    with pytest.raises(SpoolError, match="held by another process"):
        module.Shipper(folder, Sink.at(str(sink), {}), pytest.fail)
    first.close()


def test_only_the_sinks_own_folder_is_made(kit, folder, tmp_path):
    kit.fill(folder, [kit.scored("a")])
    status, said = kit.ship(folder, tmp_path / "not mounted" / "sink", rounds=2)
    assert "No such file or directory" in said[0]
    assert (1, 1, 2) == (status.unsent_segments, len(said), status.failures)
    assert not (tmp_path / "not mounted").exists()


def test_the_status_file_says_what_was_done_and_what_is_left(kit, folder, sink, tmp_path):
    kit.fill(folder, [kit.scored("a")])
    (sealed,) = folder.glob("*.seg")
    size, written = sealed.stat().st_size, sealed.stat().st_mtime_ns // 1000
    kit.ship(folder, tmp_path / "not mounted" / "sink")
    said = json.loads((folder / "ship.json").read_text())
    assert (1, size, 1, 0) == tuple(
        said[k] for k in ("unsent_segments", "unsent_bytes", "failures", "shipped_segments")
    )
    assert said["oldest_unsent_us"] == written
    assert "No such file" in said["last_error"]
    kit.ship(folder, sink)
    said = json.loads((folder / "ship.json").read_text())
    assert (0, 0, None, 1, 1, 1, None) == tuple(
        said[key]
        for key in (
            "unsent_segments",
            "unsent_bytes",
            "oldest_unsent_us",
            "shipped_segments",
            "shipped_records",
            "last_shipped_segment",
            "last_error",
        )
    )


@pytest.mark.parametrize("place", ["http://here", "az://", "file:///log", "s4://bucket/log"])
def test_an_address_of_another_kind_is_refused(place):
    with pytest.raises(SinkError, match="no place for the log"):
        Sink.at(place, {})


def test_errors_are_one_line_without_secrets():
    text = "Error\n \x1b[31m↳\x1b[0m GET https://account/log?sv=1&sig=secret and s3://key:secret@bucket/x"
    assert "Error GET https://account/log?… and s3://…@bucket/x" == one_line(OSError(text))
    assert "TimeoutError" == one_line(TimeoutError())


def test_the_columns_hold_what_a_batch_holds_and_more_than_one_batch_goes_at_once(kit, folder, sink, monkeypatch):
    monkeypatch.setattr(builders, "_BATCH_BYTES", 1000)
    kit.fill(folder, [kit.scored(f"{i:02}") for i in range(20)])
    kit.ship(folder, sink)
    assert [f"{i:02}" for i in range(20)] == kit.ids(sink)
    assert 1 == DeltaTable(sink / "requests").version()


def test_a_status_file_that_cannot_be_written_is_said_once_and_stops_no_shipping(kit, folder, sink):
    """As on a full disk, where only shipping frees space."""
    kit.fill(folder, [kit.scored("a")], [kit.scored("b")])
    (folder / "ship.json.new").mkdir()
    status, said = kit.ship(folder, sink, rounds=2)
    assert ["a", "b"] == kit.ids(sink)
    assert 0 == status.unsent_segments
    (line,) = said
    assert "ship.json cannot be written, shipping goes on" in line


def test_a_segment_goes_only_after_a_sync_that_comes_after_its_commit(kit, folder, sink, monkeypatch):
    kit.fill(folder, [kit.scored("a"), kit.fed("b", {})])
    (sealed,) = folder.glob("*.seg")
    seen = []

    def note(name, real):
        def call(*given, **named):
            seen.append((name, sealed.exists()))
            return real(*given, **named)

        return call

    monkeypatch.setattr(module, "write_deltalake", note("commit", module.write_deltalake))
    monkeypatch.setattr(module.Shipper, "_make_durable", note("sync", module.Shipper._make_durable))
    kit.ship(folder, sink)
    assert [("commit", True), ("sync", True)] * 2 == seen
    assert not sealed.exists()


def test_a_segment_goes_only_when_a_table_that_was_loaded_again_holds_it(kit, folder, sink, monkeypatch):
    """A write that says it is done and has written nothing is written again."""
    kit.fill(folder, [kit.scored("a")])
    real, lies = module.write_deltalake, iter([True, True, False])

    def write(*given, **named):
        if not next(lies):
            real(*given, **named)

    monkeypatch.setattr(module, "write_deltalake", write)
    status, _ = kit.ship(folder, sink)
    assert (0, ["a"]) == (status.unsent_segments, kit.ids(sink))
    assert next(lies, None) is None


def test_a_segment_whose_commit_was_cleaned_up_is_known_by_what_upkeep_stored(kit, folder, sink, tmp_path):
    """A replica that waited long would otherwise stop for ever."""
    kit.fill(folder, [kit.scored("a")])
    shutil.copytree(folder, tmp_path / "before")
    kit.ship(folder, sink)
    table = sink / "requests"
    DeltaTable(table).create_checkpoint()
    shipped = read_commit(table / "_delta_log" / f"{1:020d}.json").segment
    for path in (table / "_delta_log").glob("*.json"):
        path.unlink()
    shutil.copy(next((tmp_path / "before").glob("*.seg")), folder)
    status, said = kit.ship(folder, sink)
    assert (1, True) == (status.unsent_segments, "stays: the sink has later ones" in said[0])
    store = Store(Sink.at(str(sink), {}))
    for known, left in ((Shipped(1, "0" * 64), 1), (Shipped(2, shipped.sha256), 1), (Shipped(1, shipped.sha256), 0)):
        ledger.save(store, "requests", ledger.Ledger({shipped.spool: known}))
        assert left == kit.ship(folder, sink)[0].unsent_segments
    assert ["a"] == kit.ids(sink)


def test_a_spool_that_begins_at_1_again_overwrites_nothing_in_quarantine(kit, folder, sink):
    """A lost state makes a new spool in the same folder, whose numbers were used before."""
    for life in (b"first life", b"second life"):
        kit.ship(kit.fill(folder, [life]), sink)
        (folder / "state").unlink()
    files = list(quarantine.read(folder / "quarantine"))
    assert [[b"first life"], [b"second life"]] == sorted([one.payload for one in kept] for _, kept, _ in files)


def test_a_file_of_a_quarantine_under_its_old_name_is_read(kit, folder, sink):
    kit.ship(kit.fill(folder, [b"no record"]), sink)
    (path,) = (folder / "quarantine").iterdir()
    path.rename(path.with_name("00000000000000000001.kept"))
    ((_, (kept,), _),) = quarantine.read(folder / "quarantine")
    assert b"no record" == kept.payload


def test_a_whole_file_replaces_no_other_in_quarantine(folder):
    for content in (b"one", b"two", b"two"):
        folder.mkdir(exist_ok=True)
        (folder / "00000000000000000009.seg").write_bytes(content)
        quarantine.keep_whole(folder, folder / "00000000000000000009.seg")
    assert [b"one", b"two", b"two"] == sorted(path.read_bytes() for path in (folder / "quarantine").glob("*.seg"))
