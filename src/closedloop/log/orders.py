"""Standing orders of erasure: ``_erasures/<id>.json`` in the sink names a machine or a caller whose rows must go.

An order stands until someone withdraws it. The shipper applies it to what it ships (:func:`Orders.prune`), the reader
to what it reads, and ``log-erase`` to what is in the tables.
"""

from __future__ import annotations

import hashlib
import re
import sys
from dataclasses import replace
from itertools import compress
from typing import Literal

import msgspec

from closedloop.data.machines import canonical, clip, whole
from closedloop.log.bodies import Table, values_of
from closedloop.log.rows import Parts
from closedloop.log.sink import Sink, SinkError
from closedloop.log.store import Store

FOLDER = "_erasures"
_ESCAPED = re.compile(r"""\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|x([0-9a-fA-F]{2})|(["'\\/]))""")
Subject = Literal["machine", "caller"]


class Order(msgspec.Struct, frozen=True):
    """Whose rows must go. ``ordered_us`` is when that was ordered, in microseconds UTC.

    A machine is its name, or its number in plain digits.
    """

    subject: Subject
    name: str
    ordered_us: int

    @property
    def id(self) -> str:
        """The name of its file: the same order given again is the same file."""
        return f"{self.subject}-{hashlib.sha256(self.name.encode()).hexdigest()[:16]}"

    def __str__(self) -> str:
        return f"{self.subject} {self.name}"


class Orders:
    """All orders of a sink."""

    def __init__(self, orders: list[Order]) -> None:
        self.orders = orders
        self.machines = frozenset(order.name for order in orders if order.subject == "machine")
        self.callers = frozenset(order.name for order in orders if order.subject == "caller")

    def __bool__(self) -> bool:
        return bool(self.orders)

    def prune(self, parts: Parts) -> Parts | None:
        """A record without what must go, for a shipper; None if nothing of it may stay."""
        if parts.view.caller in self.callers:
            return None
        if not self.machines:
            return parts
        if parts.reject is not None:
            texts = (bytes(parts.view.request).decode(errors="backslashreplace"), parts.reject.detail)
            return None if any(mentions(text, machine) for text in texts for machine in self.machines) else parts
        tables = {name: self._rest(name, table) for name, table in parts.tables.items()}
        results = parts.results
        if results is not None and any(str(result.machineID) in self.machines for result in results):
            results = [result for result in results if str(result.machineID) not in self.machines]
        if tables == parts.tables and results is parts.results:
            return parts
        # LOG_FIELDS may have dropped the tables and kept the results, or the other way round
        if not results and not any(len(table["machineID"]) for table in tables.values()):
            return None
        return replace(parts, tables=tables, results=results)

    def _rest(self, name: str, table: Table) -> Table:
        """A table of a record without the machines that must go."""
        machines = values_of(name, "machineID", table["machineID"])
        keep = [machine is None or str(machine) not in self.machines for machine in machines]  # null is every machine
        if all(keep):
            return table
        return {column: list(compress(values_of(name, column, found), keep)) for column, found in table.items()}


def find(sink: Sink) -> Orders:
    """The orders of a sink.

    Raises:
        SinkError: one cannot be understood, so what must go is not known.
        OSError: the sink does not answer.
    """
    orders = []
    for path, content in Store(sink).read_json(FOLDER):
        try:
            orders.append(msgspec.json.decode(content, type=Order))
        except msgspec.DecodeError as error:
            raise SinkError(f"{path} is no order of erasure ({error}): give the order again with log-erase") from None
    return Orders(orders)


def give(sink: Sink, order: Order) -> None:
    """Store an order, durably. Given again, it keeps standing."""
    Store(sink).write(_path(order), msgspec.json.encode(order) + b"\n")


def withdraw(sink: Sink, order: Order) -> bool:
    """Take an order back; whether it stood. What it erased does not come back."""
    store = Store(sink)
    there = store.read(_path(order)) is not None
    store.delete(_path(order))
    return there


def mentions(text: str, machine: str) -> bool:
    """Whether a text names a machine: its id, and not as a part of a longer one.

    JSON may write a character in several ways, and Unicode too. A message quotes a long name as far as :func:`clip`
    does. ``007`` and ``7.0`` are taken for 7: what was refused is a sample, and of it rather too much goes.
    """
    number = whole(machine)
    if number is not None and str(number) == machine:
        written = rf"{'-' if number < 0 else '[+]?'}0*{abs(number)}(?:[.]0+)?"
    else:
        quoted = clip(machine)[1:-1]
        written = "|".join(map(re.escape, {machine, quoted, _plain(quoted)}))
    pattern = re.compile(rf"(?:^|[^0-9A-Za-z_.-])(?:{written})(?:[^0-9A-Za-z_.-]|$)")
    return any(pattern.search(form) for form in {text, canonical(_plain(text))})


def _plain(text: str) -> str:
    """A text with what JSON or Python's ``ascii`` escaped in it, as far as that can be told of a text that was cut."""
    units = _ESCAPED.sub(_character, text).encode("utf-16-le", "surrogatepass")
    return units.decode("utf-16-le", "replace")  # two escapes may be one character


def _character(escape: re.Match[str]) -> str:
    code = escape[1] or escape[2] or escape[3]
    if code is None:
        return escape[4]
    return chr(int(code, 16)) if int(code, 16) <= sys.maxunicode else escape[0]


def _path(order: Order) -> str:
    return f"{FOLDER}/{order.id}.json"
