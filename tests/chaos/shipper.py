"""Ship a spool once on a strict disk (see strict.py), then end as a power cut ends it: by SIGKILL.

usage: shipper.py FOLDER SINK SHADOW [--without SYNC ...] [--cut SYNC N]

FOLDER and SINK lie in one folder, which is the strict disk. A sync of the sink's disk covers SINK alone.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

from closedloop.log.ship import Shipper
from closedloop.log.sink import Sink

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("sink", type=Path)
    parser.add_argument("shadow", type=Path)
    parser.add_argument("--without", nargs="*", default=[])
    parser.add_argument("--cut", nargs=2, default=["", "0"])
    given = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))  # PYTHONSAFEPATH keeps it off
    import strict

    strict.install(given.folder.parent, given.shadow, given.without, (given.cut[0], int(given.cut[1])))
    shipper = Shipper(given.folder, Sink.at(str(given.sink), {}), print)
    if not shipper.round():
        sys.exit("segments are left")
    os.kill(os.getpid(), signal.SIGKILL)
