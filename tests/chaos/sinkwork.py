"""Do one thing to a sink on a strict disk (see strict.py), then end as a power cut ends it: by SIGKILL.

usage: sinkwork.py ROOT SHADOW WHAT [--without SYNC ...] [--cut SYNC N]

ROOT is the strict disk, with the spool in ``log`` and the sink in ``sink``.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

from closedloop.log import halt, pins, repair
from closedloop.log.pins import Pin
from closedloop.log.repair import Spools
from closedloop.log.sink import Sink
from closedloop.log.store import Store


def work(what, root):
    sink = Sink(str(root / "sink"))
    if what == "halt":
        halt.halt(root / "sink", ["a torn commit"])
    elif what == "lift":
        halt.lift(sink)
    elif what == "pin":  # a version that nobody has synced
        opened = sink.open("requests")
        opened.create_write_transaction([], "append", opened.schema())
        pins.put(sink, Pin("main", "main", {"requests": sink.open("requests").version()}))
    elif what == "write":
        Store(sink).write("_erasures/a.json", b"an order")
    elif what in ("repair", "checkpoint"):
        repair.take_back_torn(root / "sink" / "requests", Spools((root / "log",)))
    else:
        repair.put_aside(root / "sink" / "requests", "given up")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("shadow", type=Path)
    parser.add_argument("what")
    parser.add_argument("--without", nargs="*", default=[])
    parser.add_argument("--cut", nargs=2, default=["", "0"])
    given = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))  # PYTHONSAFEPATH keeps it off
    import strict

    strict.install(given.root, given.shadow, given.without, (given.cut[0], int(given.cut[1])))
    work(given.what, given.root)
    os.kill(os.getpid(), signal.SIGKILL)
