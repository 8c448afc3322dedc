"""Two releases by turns on one sink: the tables grow by nullable columns only, and neither stops the other."""

import json
from dataclasses import replace

import arro3.core as arrow
import msgspec
import pyarrow.parquet as pq
import pytest
from arro3.core import DataType
from deltalake import DeltaTable

from closedloop.data.schema import DataError
from closedloop.log import compact, pins, rewrite, rows, ship, tables, upkeep
from closedloop.log import sink as sinks
from closedloop.log.read import read
from simulated_fleet import SCHEMA

TEXT = DataType.string()


def widened(schema):
    """The columns of a later release: one more, and one more within a table."""
    fields = [schema.field(name) for name in schema.names]
    if "maint" in schema.names:
        at = schema.names.index("maint")
        cause = arrow.Field("cause", DataType.list(arrow.Field("element", TEXT)))
        fields[at] = arrow.Field("maint", DataType.struct([*fields[at].type.fields, cause]))
    return arrow.Schema([*fields, arrow.Field("region", TEXT)])


class _Later(rows._Builder):
    """Rows as a later release makes them."""

    def batch(self):
        narrow = super().batch()
        schema = widened(narrow.schema)
        columns = []
        for name in schema.names:
            field = schema.field(name)
            if name == "maint":
                old = narrow.column(name)
                parts = [arrow.struct_field(old, [i]) for i in range(len(old.type.fields))]
                columns.append(
                    arrow.struct_array(
                        [*parts, nulls(field.type.fields[-1].type, narrow.num_rows)], fields=list(field.type.fields)
                    )
                )
            elif name == "region":
                columns.append(arrow.Array(["north"] * narrow.num_rows, TEXT))
            else:
                columns.append(narrow.column(name))
        return arrow.RecordBatch.from_arrays(columns, schema=schema)


def narrowed(schema):
    """The columns of the release before requests had findings."""
    fields = [schema.field(name) for name in schema.names]
    if "telemetry" in schema.names:
        at = schema.names.index("maint")
        kept = [part for part in fields[at].type.fields if part.name != "finding"]
        fields[at] = arrow.Field("maint", DataType.struct(kept))
    return arrow.Schema(fields)


class _Earlier(rows._Builder):
    """Rows as that release makes them."""

    def batch(self):
        wide = super().batch()
        schema = narrowed(wide.schema)
        columns = [wide.column(name) for name in schema.names]
        if schema != wide.schema:
            at, fields = schema.names.index("maint"), list(schema.field("maint").type.fields)
            parts = [arrow.struct_field(columns[at], [i]) for i in range(len(fields))]
            columns[at] = arrow.struct_array(parts, fields=fields)
        return arrow.RecordBatch.from_arrays(columns, schema=schema)


def nulls(kind, count):
    return arrow.list_array(
        arrow.Array([0] * (count + 1), DataType.int32()),
        arrow.Array([], TEXT),
        type=kind,
        mask=arrow.Array([True] * count, DataType.bool()),
    )


@pytest.fixture
def other(monkeypatch):
    """Let another release ship; called with None it is this one again."""

    def switch(release):
        if release is None:
            monkeypatch.undo()
            return
        builder, columns = release
        schemas = {name: columns(schema) for name, schema in tables.SCHEMAS.items()}
        monkeypatch.setattr(rows, "_Builder", builder)
        monkeypatch.setattr(ship, "SCHEMAS", schemas)
        monkeypatch.setattr(sinks, "SCHEMAS", schemas)

    return switch


LATER, EARLIER = (_Later, widened), (_Earlier, narrowed)


def columns(place, table):
    return [field["name"] for field in json.loads(DeltaTable(place / table).schema().to_json())["fields"]]


def test_releases_by_turns_ship_into_one_table(kit, folder, sink, other):
    """A rollback and a roll forward: an older shipper goes on with a wider table, a newer one widens a narrow one."""
    names = []
    for turn in range(6):
        other(LATER if turn % 2 else None)
        names.append(f"{turn}")
        kit.fill(folder, [kit.scored(names[-1]), kit.fed(names[-1], {"maint": kit.request["maint"]})])
        status, said = kit.ship(folder, sink)
        assert ([], 0) == (said, status.unsent_segments)
    other(None)
    for table in ("requests", "feedback"):
        assert names == kit.ids(sink, table)
        assert ([None, "north"] * 3) == [row["region"] for row in kit.rows(sink, table)]
        assert [None] * 6 == [row["maint"]["cause"] for row in kit.rows(sink, table)]
        assert "region" == columns(sink, table)[-1]


@pytest.mark.parametrize("first", [0, 1])
def test_a_release_without_findings_in_requests_goes_on_with_a_table_that_has_them(
    kit, folder, sink, other, place, first
):
    """Replicas are updated one by one, and a rollback goes back: neither shipper stops, and each finding is read."""
    maint = {"datetime": ["2014-12-13T06:00:00Z"], "machineID": [1], "comp": ["comp2"]}
    for turn in range(first, 4 + first):
        other(EARLIER if turn % 2 == 0 else None)
        hour = {**maint, "datetime": [f"2014-12-13T0{turn}:00:00Z"]}
        found = {"finding": ["worn"]} if turn % 2 else {}
        kit.fill(folder, [kit.scored(f"{turn}", {**kit.request, "maint": hour | found})])
        status, said = kit.ship(folder, sink)
        assert ([], 0) == (said, status.unsent_segments)
        assert ("finding" in maint_of(sink)) == (turn > 0)
    other(None)
    assert [None if turn % 2 == 0 else ["worn"] for turn in range(first, 4 + first)] == [
        row["maint"]["finding"] for row in kit.rows(sink)
    ]
    assert [-1 if turn % 2 == 0 else 0 for turn in range(first, 4 + first)] == read(place, SCHEMA).findings.tolist()


def maint_of(place):
    """The columns of ``maint`` in the table of requests."""
    fields = json.loads(DeltaTable(place / "requests").schema().to_json())["fields"]
    (maint,) = (field for field in fields if field["name"] == "maint")
    return [part["name"] for part in maint["type"]["fields"]]


def test_a_compaction_keeps_the_columns_of_a_later_release(kit, folder, sink, other, place):
    """Replicas are updated one by one, and any of them may be the one that compacts."""
    other(LATER)
    for number in range(3):
        kit.fill(folder, [kit.scored(f"{number}"), kit.fed(f"{number}", {"maint": kit.request["maint"]})])
        kit.ship(folder, sink)
    other(None)
    kit.ship(kit.fill(folder, [kit.scored("3")]), sink)
    upkeep.keep(place, print, upkeep.UpkeepSettings(everything=True, clean_up=False))
    for table, regions in (("requests", ["north"] * 3 + [None]), ("feedback", ["north"] * 3)):
        (file,) = DeltaTable(sink / table).file_uris()
        assert regions == pq.read_table(file).column("region").to_pylist()
        assert regions == [row["region"] for row in kit.rows(sink, table)]
        assert "region" == columns(sink, table)[-1]


def test_a_shipper_that_runs_while_another_release_widens_the_table_goes_on(kit, folder, sink, other, tmp_path):
    kit.fill(folder, [kit.scored("a")])
    said = []
    running = ship.Shipper(folder, ship.Sink.at(str(sink), {}), said.append)
    assert running.round()
    other(LATER)
    kit.ship(kit.fill(tmp_path / "other", [kit.scored("b")]), sink)
    other(None)
    kit.fill(folder, [kit.scored("c")])
    assert running.round()
    running.close()
    assert ([], ["a", "b", "c"]) == (said, sorted(kit.ids(sink)))


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ('"name":"status","type":"long"', '"name":"status","type":"date"', "requests.status is "),
        ('"elementType":"double"', '"elementType":"string"', "requests.telemetry.sensors.values is "),
    ],
)
def test_a_column_of_another_type_is_refused_and_nothing_is_written(kit, folder, sink, old, new, where):
    """That would be no growth: it takes another format. Merged, the values would be cast."""
    kit.fill(folder, [kit.scored("a")])
    kit.ship(folder, sink)
    first = sink / "requests" / "_delta_log" / f"{0:020d}.json"
    for path in [*first.parent.glob("*1.json"), *(sink / "requests").glob("*.parquet")]:
        path.unlink()
    text = first.read_text()
    first.write_text(text.replace(old.replace('"', '\\"'), new.replace('"', '\\"')))
    assert text != first.read_text()
    kit.fill(folder, [kit.scored("b")])
    status, said = kit.ship(folder, sink)
    assert (1, 1, 0) == (status.unsent_segments, len(said), DeltaTable(sink / "requests").version())
    assert where in said[0]


# --- a release from before names of machines, and before findings in requests -----------------------------------------

TEXT_IDS = replace(SCHEMA, machine_id="text")
GUARD = "_pins/needs-a-newer-release.json"


@pytest.fixture
def named(kit):
    """The request with a machine that has a name."""
    return {table: {**body, "machineID": ["pump A"] * len(body["machineID"])} for table, body in kit.request.items()}


def test_what_an_older_compaction_would_lose_stops_its_upkeep_before_it_is_there(kit, folder, sink, place, named):
    """It reads all pins before it begins, and one that it cannot understand stops it. Ours passes over it."""
    kit.ship(kit.fill(folder, [kit.scored("number"), kit.fed("number", {"maint": kit.request["maint"]})]), sink)
    assert not (sink / GUARD).exists()
    kit.ship(kit.fill(folder, [kit.scored("name", named, answer=b'{"results": []}')]), sink)
    with pytest.raises(msgspec.ValidationError, match="guard"):
        msgspec.json.decode((sink / GUARD).read_bytes(), type=pins.Pin)
    assert [] == pins.find(place)
    upkeep.keep(place, print, upkeep.UpkeepSettings(everything=True))


@pytest.mark.parametrize("what", ["a finding in a request", "a name in an answer alone"])
def test_so_does_each_other_column_that_came_later(kit, folder, sink, monkeypatch, what):
    body, answer = {**kit.request, "maint": {**kit.request["maint"], "finding": ["worn"]}}, b'{"results": []}'
    if what != "a finding in a request":
        result = {"machineID": "pump A", "datetime": "2015-01-04T06:00:00Z", "anomaly": None, "failure": {}}
        body, answer = b"", msgspec.json.encode({"results": [{**result, "warnings": []}]})
    kit.fill(folder, [kit.scored("a", body, answer=answer)])
    there = []
    write = ship.write_deltalake
    monkeypatch.setattr(
        ship, "write_deltalake", lambda *x, **y: (there.append((sink / GUARD).exists()), write(*x, **y))
    )
    kit.ship(folder, sink)
    assert [True] == there


def test_rows_that_an_older_compaction_has_spoiled_are_told_and_never_taken_for_others(kit, folder, sink, place, named):
    for name in ("a", "b"):
        kit.ship(kit.fill(folder, [kit.scored(name, named, answer=b'{"results": []}')]), sink)
    whole = read(place, TEXT_IDS)
    assert ("pump A",) == whole.tables.names
    table = rewrite.Table(place, "requests")
    before = table.version
    table.schema = arrow.Schema([without_names(table.schema.field(name)) for name in table.schema.names])
    compact.compact(table, upkeep.NoLease(), print, everything=True)
    with pytest.raises(DataError, match=r"requests\.telemetry: 4 rows have lost the names of their machines.*version"):
        read(place, TEXT_IDS)
    assert whole.tables.fingerprint() == read(place, TEXT_IDS, {"requests": before}).tables.fingerprint()


def without_names(field):
    """A table's column as a release without names has it."""
    if not DataType.is_struct(field.type):
        return field
    return field.with_type(DataType.struct([part for part in field.type.fields if part.name != tables.NAME]))
