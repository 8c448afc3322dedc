"""A log of answers that were given, without a service: requests of a fleet, their answers, and what came true."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from closedloop.data.rfc3339 import to_text
from closedloop.data.schema import HOUR_US
from closedloop.log.record import Record, encode
from closedloop.log.ship import Shipper
from closedloop.log.sink import Sink
from closedloop.log.spool import Spool

START_US = 1_420_092_000_000_000
HOURS, MACHINES = 24 * 30, 12
FAILING_HOUR = 24 * 20  # of each machine that fails, comp1

# sorted as the numbers 1 to 12 are; each is a trap for whoever reads it as a number, a path, markup or a formula
NAMES = dict(
    enumerate(sorted(["007", "7", "7.0", "1e5", "NaN", "null", "=1+1", "../x", "a%2Fb", "<b>\"&'", "א-7", "Süd/1"]), 1)
)


def number_of(machine: int | str) -> int:
    """The number that a machine has here."""
    return next((number for number, name in NAMES.items() if name == machine), machine)  # type: ignore[return-value]


def request(machine: int | str, hour: int) -> dict[str, Any]:
    """A request of one row."""
    return {
        "telemetry": {
            "datetime": [to_text(START_US + hour * HOUR_US)], "machineID": [machine],
            "volt": [170.0], "rotate": [450.0], "pressure": [100.0], "vibration": [40.0],
        },
        "machines": {"machineID": [machine], "model": [f"model{number_of(machine) % 2 + 1}"], "age": [3]},
    }  # fmt: skip


def answer(machine: int | str, hour: int, alarm: bool) -> dict[str, Any]:
    """The answer to it."""
    chance = {"probability": 0.9 if alarm else 0.01, "alarm": alarm}
    failure = {"comp1": chance, "comp2": {"probability": 0.01, "alarm": False}, "comp3": None, "comp4": None}
    result = {
        "machineID": machine, "datetime": to_text(START_US + hour * HOUR_US),
        "anomaly": {"score": 0.5, "alarm": False}, "failure": failure, "warnings": [],
    }  # fmt: skip
    return {"request_id": "r", "model": "sha256:aa", "results": [result]}


def record(kind: str, number: int, body: dict[str, Any], reply: dict[str, Any], model: str) -> bytes:
    """A record of the spool."""
    received = START_US + HOURS * HOUR_US + number
    return encode(
        Record(
            kind=kind, caller="anonymous", status=200, model=model, image="", answer=json.dumps(reply).encode(),
            request_id=f"{kind}{number}", received_us=received, answered_us=received + 250,
            request=json.dumps(body).encode(),
        )
    )  # fmt: skip


def write_log(
    folder: Path,
    place: str,
    foreseen: int,
    names: Mapping[int, str] | None = None,
    machines: int = MACHINES,
    failing: int = 8,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Ship the log of an older and a newer model to a sink; the spool is in ``folder``.

    The first ``failing`` machines fail, the newer model foresaw ``foreseen`` of these failures ten hours before, and
    the last machine has an alarm in the end.
    """
    called = names or {number: number for number in range(1, machines + 1)}
    records: list[bytes] = []
    for machine in range(1, machines + 1):
        for hour in range(0, HOURS, 2):
            alarm = machine <= foreseen and hour == FAILING_HOUR - 10
            alarm |= machine == machines and hour == HOURS - 2
            model = "sha256:old" if hour < 24 * 10 else "sha256:new"
            reply = answer(called[machine], hour, alarm)
            records.append(record("score", len(records), request(called[machine], hour), reply, model))
    feedback = {
        "failures": {
            "datetime": [to_text(START_US + FAILING_HOUR * HOUR_US)] * failing,
            "machineID": [called[one] for one in range(1, failing + 1)],
            "failure": ["comp1"] * failing,
        },
        "complete_until": {"datetime": [to_text(START_US + (HOURS - 24) * HOUR_US)], "machineID": [None]},
    }
    records.append(record("feedback", len(records), feedback, {}, ""))

    async def append(spool: Spool) -> None:
        await asyncio.gather(*[spool.append(payload) for payload in records])

    spool = Spool(folder)
    asyncio.run(append(spool))
    spool.close()
    shipper = Shipper(folder, Sink.at(place, environ), print)
    shipper.round()
    shipper.close()
