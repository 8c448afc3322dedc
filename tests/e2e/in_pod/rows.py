"""Print the request id of every row in a table of the log. A replica of the service runs this."""

import os
import sys

from arro3.core import RecordBatchReader

from closedloop.log.sink import Sink

opened = Sink.at(os.environ.get("LOG_SINK") or f"{os.environ['LOG_DIR']}/delta", os.environ).open(sys.argv[1])
if opened is not None:
    rows = RecordBatchReader.from_stream(opened.scan(columns=["request_id"])).read_all()
    print("\n".join(rows["request_id"].to_pylist()))
