"""What feedback vouches for goes with the tables of a log: marks and findings, whatever the order of delivery."""

import os
from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from closedloop.data import sources
from closedloop.data.frames import join_marks
from closedloop.data.rfc3339 import to_text
from closedloop.data.schema import HOUR_US, DataError
from closedloop.log.read import read
from closedloop.log.sink import Sink
from model.common import request_log

FIRST_US = 1_420_347_600_000_000  # 2015-01-04T05:00Z, the first row of the golden request


def at(hour):
    return to_text(FIRST_US + hour * HOUR_US)


MARK = {"complete_until": {"datetime": [at(9), at(4)], "machineID": [1, 5]}}
EARLIER = {"complete_until": {"datetime": [at(2)], "machineID": [None]}}
WORN = {"maint": {"datetime": [at(1)], "machineID": [1], "comp": ["comp2"], "finding": ["worn"]}}
PLAIN = {"maint": {"datetime": [at(1), at(2)], "machineID": [1, 1], "comp": ["comp2", "comp1"]}}


@pytest.fixture
def fetched(kit, folder, sink, schema):
    """The frames of a log in which these bodies of feedback follow one request."""

    def go(name, *bodies):
        records = [kit.scored("r", {"telemetry": kit.request["telemetry"]})]
        records += [kit.fed(f"f{i}", body, kit.noon + i) for i, body in enumerate(bodies)]
        spool, shipped = folder.with_name(f"log-{name}"), sink.with_name(f"sink-{name}")
        kit.ship(kit.fill(spool, *([record] for record in records)), shipped)
        return request_log.fetch(str(shipped), schema)[0]

    return go


def test_marks_and_findings_accompany_the_tables_in_whatever_order_they_come(fetched, schema, tmp_path):
    prints = set()
    for n, bodies in enumerate(permutations((MARK, EARLIER, WORN, PLAIN))):
        if n % 5 == 0:  # five of them differ in every place
            frames = fetched(str(n), *bodies)
            prints.add(sources.frames_to_tables(frames, schema, {}).fingerprint())
    tables = sources.frames_to_tables(frames, schema, {})
    assert 1 == len(prints)
    assert [1, 5] == tables.marks.machine.tolist()
    assert [FIRST_US + 9 * HOUR_US, FIRST_US + 4 * HOUR_US] == tables.marks.until.tolist()
    assert [0, -1] == tables.maint.finding.tolist()
    sources.write_tables(tables, schema, tmp_path)
    assert sources.read_tables(tmp_path, schema, {}).fingerprint() == tables.fingerprint()
    sources.write_tables(
        sources.frames_to_tables(frames | {"marks": frames["marks"][:1]}, schema, {}), schema, tmp_path
    )
    assert [1] == sources.read_tables(tmp_path, schema, {}).marks.machine.tolist()


def test_a_log_without_marks_vouches_for_nothing(fetched, schema):
    frames = fetched("a", PLAIN)
    assert frames["marks"]["until"].isna().all()
    (window,) = sources.frames_to_tables(frames, schema, {}).windows()
    assert window.until == np.iinfo(np.int64).min
    assert window.maint.finding is None


def test_parts_without_marks_are_complete_up_to_their_last_telemetry():
    def part(rows, marks=None):
        frame = pd.DataFrame(rows, columns=["machineID", "datetime"])
        frames = {"telemetry": frame.assign(datetime=pd.to_datetime(frame["datetime"], utc=True).dt.as_unit("us"))}
        if marks is not None:
            until = pd.to_datetime([time for _, time in marks], utc=True).as_unit("us")
            frames["marks"] = pd.DataFrame({"machineID": [machine for machine, _ in marks], "until": until})
        return frames

    files = part([(1, "2015-01-01"), (1, "2015-01-03"), (2, "2015-01-02")])
    log = part([(1, "2015-02-01"), (3, "2015-02-01"), (4, "2015-02-01")],
               [(1, None), (3, "2015-01-20"), (4, None)])  # fmt: skip
    assert join_marks([files, files]) is None
    found = join_marks([files, log]).set_index("machineID")["until"]
    assert ["2015-01-03", "2015-01-02", "2015-01-20", "NaT"] == [str(time)[:10] for time in found]
    later = join_marks([files, part([(1, "2015-02-01")], [(1, "2015-02-05")])])
    assert ["2015-02-05", "2015-01-02"] == [str(time)[:10] for time in later["until"]]


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        ({"machineID": [1]}, "marks.until: the column is missing"),
        ({"machineID": [1, 2], "until": ["2015-01-01", "soon"]}, "marks.until: row 2 is not a time"),
        ({"machineID": [1, None], "until": ["2015-01-01"] * 2}, "marks.machineID: row 2 is not a whole number"),
    ],
)
def test_marks_that_cannot_be_read_are_refused(fetched, schema, frame, says):
    frames = fetched("a", MARK) | {"marks": pd.DataFrame(frame)}
    with pytest.raises(DataError, match=says):
        sources.frames_to_tables(frames, schema, {})


def test_an_unknown_finding_is_refused(fetched, schema):
    frames = fetched("a", WORN)
    frames["maint"]["finding"] = "broken"
    with pytest.raises(DataError, match=r"maint.finding: is not one of worn, sound: 1 of 1 rows: .*leave it empty"):
        sources.frames_to_tables(frames, schema, {})


def test_the_log_itself_has_no_marks_of_machines_that_it_never_heard_of(kit, folder, sink, schema):
    kit.ship(kit.fill(folder, [kit.scored("r"), kit.fed("f", EARLIER)]), sink)
    tables = request_log.vouched(read(Sink.at(str(sink), os.environ), schema))
    assert [1] == tables.marks.machine.tolist()
