"""Two releases by turns on one sink: the tables grow by nullable columns only, and neither stops the other."""

import json

import arro3.core as arrow
import pytest
from arro3.core import DataType
from deltalake import DeltaTable

from closedloop.log import rows, ship, sink, tables

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


def nulls(kind, count):
    return arrow.list_array(
        arrow.Array([0] * (count + 1), DataType.int32()),
        arrow.Array([], TEXT),
        type=kind,
        mask=arrow.Array([True] * count, DataType.bool()),
    )


@pytest.fixture
def later(monkeypatch):
    """Let a later release ship; call it again to go back to this one."""

    def switch(on):
        if not on:
            monkeypatch.undo()
            return
        wide = {name: widened(schema) for name, schema in tables.SCHEMAS.items()}
        monkeypatch.setattr(rows, "_Builder", _Later)
        monkeypatch.setattr(ship, "SCHEMAS", wide)
        monkeypatch.setattr(sink, "SCHEMAS", wide)

    return switch


def columns(place, table):
    return [field["name"] for field in json.loads(DeltaTable(place / table).schema().to_json())["fields"]]


def test_releases_by_turns_ship_into_one_table(kit, folder, sink, later):
    """A rollback and a roll forward: an older shipper goes on with a wider table, a newer one widens a narrow one."""
    names = []
    for turn in range(6):
        later(turn % 2 == 1)
        names.append(f"{turn}")
        kit.fill(folder, [kit.scored(names[-1]), kit.fed(names[-1], {"maint": kit.request["maint"]})])
        status, said = kit.ship(folder, sink)
        assert ([], 0) == (said, status.unsent_segments)
    later(False)
    for table in ("requests", "feedback"):
        assert names == kit.ids(sink, table)
        assert ([None, "north"] * 3) == [row["region"] for row in kit.rows(sink, table)]
        assert [None] * 6 == [row["maint"]["cause"] for row in kit.rows(sink, table)]
        assert "region" == columns(sink, table)[-1]


def test_a_shipper_that_runs_while_another_release_widens_the_table_goes_on(kit, folder, sink, later, tmp_path):
    kit.fill(folder, [kit.scored("a")])
    said = []
    running = ship.Shipper(folder, ship.Sink.at(str(sink), {}), said.append)
    assert running.round()
    later(True)
    kit.ship(kit.fill(tmp_path / "other", [kit.scored("b")]), sink)
    later(False)
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
