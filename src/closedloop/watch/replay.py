"""Shadow by replay: what another model would have answered to the requests that were really asked.

Each request is first answered again by the model that answered it. That must give the same bits, since a request holds
all that a model knows; else the log or the code is not what was served, and nothing that follows from it counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from closedloop.data.machines import Id
from closedloop.data.request import Decoder
from closedloop.data.schema import DataError, Schema, Tables
from closedloop.watch.logged_requests import Heads, LoggedRequest, Requests

EXAMPLES = 20  # of mismatches
_LARGEST = 2**31  # rows and hours: what was accepted once is not measured against today's limits and clock
_NO_MAINT, _NO_MACHINES = "no replacement known of {}", "no machine description"  # warnings of an answer

Answers = dict[tuple[Id, int], Heads]
Predict = Callable[[Tables], Answers]


class Answerer:
    """A model that answers bodies of requests. ``digest`` names it; ``predict`` answers tables."""

    def __init__(self, digest: str, schema: Schema, predict: Predict) -> None:
        self.digest, self.schema = digest, schema
        self._decode, self._predict = Decoder(schema, _LARGEST, max_ahead_us=2**62), predict

    def __call__(self, body: Mapping[str, Any]) -> Answers:
        """The heads' answers by machine and time.

        Raises:
            DataError: the model's schema refuses the request.
        """
        return self._predict(self._decode(msgspec.json.encode(body)))


@dataclass(frozen=True)
class Mismatch:
    """An answer that its own model does not give again; None where one side has no such answer."""

    request_id: str
    model: str
    machine: Id
    time: int
    head: str
    logged: tuple[float, bool] | None
    replayed: tuple[float, bool] | None


@dataclass(frozen=True)
class Change:
    """What became of the alarms of one machine: those of the served models, of the challenger, gained and lost.

    An alarm is a stretch of answers that alarm, of any head, no further apart than the gap. ``gained`` are the starts
    of the challenger's that meet none of the served models' (microseconds UTC); ``lost`` the other way round.
    """

    machine: Id
    served: int
    challenger: int
    gained: list[int]
    lost: list[int]


@dataclass
class Replay:
    """The outcome. ``records`` counts what became of each record of the stretch, ``replayed`` among them.

    ``models`` counts the replayed records by the model that had answered; ``unknown`` those of models without a bundle.
    """

    since: int
    until: int
    records: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    mismatched: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)


def replay(requests: Requests, served: Mapping[str, Answerer], challenger: Answerer, gap_us: int) -> Replay:
    """Let the challenger answer logged requests, after the model that answered each has answered it again.

    Args:
        requests: of the log.
        served: the models that answered, by digest.
        challenger: the model that might follow them.
        gap_us: alarms of a machine no further apart are one.
    """
    found = Replay(requests.since, requests.until)
    alarms: tuple[dict[Id, set[int]], dict[Id, set[int]]] = ({}, {})
    doubtful: dict[tuple[str, int], tuple[int, list[Mismatch]]] = {}  # by segment: how many records, and examples
    for asked in requests:
        model = served.get(asked.model)
        if model is None:
            found.unknown[asked.model] += 1
        elif not (differences := _differences(asked, model)):
            _compare(found, asked, challenger, alarms)
        elif _lost_tables(asked, model.schema):
            found.records["partial"] += 1
        elif "errors" not in asked.body and model.schema.errors:  # the segment tells whether the log keeps errors
            count, examples = doubtful.get(asked.segment, (0, []))
            doubtful[asked.segment] = count + 1, (examples + differences)[:EXAMPLES]
        else:
            _count(found, 1, differences)
    for segment, (count, differences) in doubtful.items():
        if segment in requests.with_errors:  # it does, so these requests had none
            _count(found, count, differences)
        else:
            found.records["partial"] += count
    found.records.update(requests.left_out)
    found.records["unknown_model"] = sum(found.unknown.values())
    found.changes = _changes(*alarms, gap_us)
    return found


def _differences(asked: LoggedRequest, model: Answerer) -> list[Mismatch]:
    """Each answer of the log that the model which gave it does not give again, bit for bit."""
    try:
        again = model(asked.body)
    except DataError:
        again = {}
    about = asked.request_id, asked.model
    return [
        Mismatch(*about, *key, head, asked.answers.get(key, {}).get(head), again.get(key, {}).get(head))
        for key in sorted(asked.answers.keys() | again.keys(), key=str)
        for head in sorted({*asked.answers.get(key, {}), *again.get(key, {})})
        if not _same(asked.answers.get(key, {}).get(head), again.get(key, {}).get(head))
    ]


def _same(one: tuple[float, bool] | None, other: tuple[float, bool] | None) -> bool:
    """Whether two answers have the same bits."""
    if one is None or other is None:
        return one is other
    return np.float64(one[0]).tobytes() == np.float64(other[0]).tobytes() and one[1] == other[1]


def _lost_tables(asked: LoggedRequest, schema: Schema) -> bool:
    """Whether the request had a table that the log did not keep: else its answer would warn that all of it is missing.

    Errors are another matter: a request without any gets no warning.
    """
    warnings = {
        "maint": _NO_MAINT.format(", ".join(schema.components)) if schema.components else "",
        "machines": _NO_MACHINES if schema.models else "",
    }
    return any(
        warning and table not in asked.body and any(warning not in lines for lines in asked.warnings.values())
        for table, warning in warnings.items()
    )


def _count(found: Replay, records: int, differences: list[Mismatch]) -> None:
    found.mismatched += records
    found.mismatches += differences[: EXAMPLES - len(found.mismatches)]


def _compare(
    found: Replay, asked: LoggedRequest, challenger: Answerer, alarms: tuple[dict[Id, set[int]], dict[Id, set[int]]]
) -> None:
    """Note where the served model and the challenger alarm."""
    try:
        theirs = challenger(asked.body)
    except DataError:
        found.records["incompatible"] += 1
        return
    found.records["replayed"] += 1
    found.models[asked.model] += 1
    found.answers += len(theirs)
    for given, ours in zip((asked.answers, theirs), alarms, strict=True):
        for (machine, time), heads in given.items():
            if any(alarm for _, alarm in heads.values()):
                ours.setdefault(machine, set()).add(time)


def _changes(served: dict[Id, set[int]], challenger: dict[Id, set[int]], gap_us: int) -> list[Change]:
    """What changed on each machine that alarmed, most changes first."""
    changes = []
    for machine in served.keys() | challenger.keys():
        old, new = (_stretches(alarms.get(machine, set()), gap_us) for alarms in (served, challenger))
        gained, lost = _without(new, old, gap_us), _without(old, new, gap_us)
        changes.append(Change(machine, len(old), len(new), gained, lost))
    return sorted(changes, key=lambda one: (-len(one.gained) - len(one.lost), str(one.machine)))


def _stretches(times: set[int], gap_us: int) -> list[tuple[int, int]]:
    """First and last time of each alarm."""
    found: list[tuple[int, int]] = []
    for time in sorted(times):
        if found and time - found[-1][1] <= gap_us:
            found[-1] = found[-1][0], time
        else:
            found.append((time, time))
    return found


def _without(these: list[tuple[int, int]], others: list[tuple[int, int]], gap_us: int) -> list[int]:
    """The starts of the alarms that no other alarm meets."""
    return [
        start
        for start, end in these
        if not any(first - gap_us <= end and start <= last + gap_us for first, last in others)
    ]
