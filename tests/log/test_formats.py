"""What older versions wrote is read and shipped; what later ones wrote is refused before anything is written."""

import json
import shutil
from pathlib import Path

from deltalake import DeltaTable

from closedloop.log import tables
from closedloop.log.frame import SEALED, read_segment, segment_name
from closedloop.log.state import write_state

GOLDEN = Path(__file__).parents[1] / "golden"


def test_the_golden_segment_is_shipped(kit, folder, sink):
    golden = read_segment(GOLDEN / "segment.bin")
    folder.mkdir()
    write_state(folder, golden.spool, golden.number + 1)
    shutil.copy(GOLDEN / "segment.bin", folder / segment_name(golden.number, SEALED))
    status, said = kit.ship(folder, sink)
    assert ([], 0) == (said, status.unsent_segments)
    assert [("4f2c", golden.spool, golden.number, 0)] == [
        (row["request_id"], row["spool"], row["segment"], row["index"]) for row in kit.rows(sink)
    ]


def test_the_tables_have_the_golden_columns(kit, folder, sink):
    """They grow by nullable columns; any other change takes another FORMAT, and the old one is read too."""
    kit.fill(folder, [kit.scored("a"), kit.fed("b", {}), kit.refused("c", b"{")])
    kit.ship(folder, sink)
    made = {name: json.loads(DeltaTable(sink / name).schema().to_json()) for name in tables.SCHEMAS}
    assert json.loads((GOLDEN / "log_tables.json").read_text()) == {"format": tables.FORMAT, **made}
