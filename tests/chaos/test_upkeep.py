"""Three spools, one sink: shippers and upkeep killed at random; each record is there once, and each pin as it was."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from logkit import kit

from closedloop.log import pins, upkeep
from closedloop.log.pins import Pin
from closedloop.log.read import read
from closedloop.log.sink import Sink
from simulated_fleet import SCHEMA

HERE = Path(__file__).parent
ROUNDS, LONGEST_SECONDS = int(os.environ.get("KILLS", "200")) // 8, 120

# The upkeep of a running service, without pause: what the shipper's own process does every ten minutes.
TEND = """
import sys
from closedloop.log import upkeep
from closedloop.log.sink import Sink
settings = upkeep.UpkeepSettings(everything=True, grace_seconds=0, lease_seconds=0.5, wait_seconds=10)
print("ready", flush=True)
while True:
    upkeep.keep(Sink(sys.argv[1]), lambda _: None, settings)
"""


def start(*command, **environ):
    return subprocess.Popen(
        [sys.executable, *command], env={**os.environ, **environ}, stdout=subprocess.PIPE, start_new_session=True
    )


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("victim", ["upkeep", "both"])
def test_killed_at_random_it_loses_no_record_and_no_pin(tmp_path, victim):
    sink, spools, schema = tmp_path / "sink", [tmp_path / f"spool-{i}" for i in range(3)], SCHEMA
    place, names, deadline = Sink(str(sink)), [], time.monotonic() + LONGEST_SECONDS / 2
    pinned, rounds = {}, 0
    for _ in range(ROUNDS):
        if time.monotonic() > deadline:
            break
        rounds += 1
        for spool in spools:
            fresh = [f"{spool.name}-{rounds}-{n}" for n in range(4)]
            kit.fill(spool, *[[kit.scored(name)] for name in fresh])
            names += fresh
        kit.ship(spools[0], sink)  # so that there is a table
        shippers = [start("-m", "score.log.ship", LOG_DIR=str(x), LOG_SINK=str(sink)) for x in spools]
        tending = start("-c", TEND, str(sink))
        tending.stdout.readline()
        time.sleep(random.uniform(0.05, 1))  # noqa: S311
        kill(tending)
        for shipper in shippers:
            if victim == "both":
                kill(shipper)
            else:
                shipper.terminate()
                shipper.wait(60)
                shipper.stdout.close()
        if rounds % 3 == 0:
            version = place.open("requests").version()
            pins.put(place, Pin(f"round-{rounds}", "main", {"requests": version}))
            pinned[version] = read(place, schema, {"requests": version}).tables.fingerprint()
    for spool in spools:
        status, _ = kit.ship(spool, sink, rounds=3)
        assert 0 == status.unsent_segments
    settings = upkeep.UpkeepSettings(everything=True, grace_seconds=0, wait_seconds=10)
    report = upkeep.keep(place, print, settings)
    assert rounds >= 3
    assert report["requests"].compacted.files_after <= 1
    assert dict.fromkeys(names, 1) == dict(Counter(kit.ids(sink)))
    assert pinned == {v: read(place, schema, {"requests": v}).tables.fingerprint() for v in pinned}
