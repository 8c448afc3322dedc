"""Standing orders of erasure: ``_erasures/<id>.json`` in the sink names a machine or a caller whose rows must go.

An order stands until someone withdraws it. The shipper applies it to what it ships (:func:`Orders.prune`), the reader
to what it reads, and ``log-erase`` to what is in the tables.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Literal

import msgspec

from closedloop.log.record import REJECT, Record
from closedloop.log.sink import Sink, SinkError
from closedloop.log.store import Store

FOLDER = "_erasures"
Subject = Literal["machine", "caller"]


class Order(msgspec.Struct, frozen=True):
    """Whose rows must go. ``ordered_us`` is when that was ordered, in microseconds UTC."""

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

    def prune(self, record: Record) -> Record | None:
        """A record without what must go; None if nothing of it may stay. Without orders, the record itself.

        Raises:
            msgspec.DecodeError: its body is no JSON of ours.
        """
        if record.caller in self.callers:
            return None
        if record.kind == REJECT:
            text = record.request.decode(errors="replace") + " " + record.answer.decode()
            return None if any(re.search(naming(machine), text) for machine in self.machines) else record
        if not self.machines or not record.request:
            return record
        body: dict[str, dict[str, Any]] = msgspec.json.decode(record.request)
        tables = [(body, name) for name in body if name != "retracted"]
        tables += [(body["retracted"], name) for name in body.get("retracted", {})]
        hit = [(within, name) for within, name in tables if self._any(within[name].get("machineID", []))]
        if not hit:
            return record
        for within, name in hit:
            keep = [str(machine) not in self.machines for machine in within[name]["machineID"]]
            within[name] = {
                column: [value for value, kept in zip(values, keep, strict=True) if kept]
                for column, values in within[name].items()
            }
        if not any(within[name].get("machineID") for within, name in tables):
            return None
        answer = record.answer
        if answer:
            found: dict[str, Any] = msgspec.json.decode(answer)
            results = found.get("results", [])
            found["results"] = [result for result in results if str(result["machineID"]) not in self.machines]
            answer = msgspec.json.encode(found)
        return msgspec.structs.replace(record, request=msgspec.json.encode(body), answer=answer)

    def _any(self, machines: list[Any]) -> bool:
        return any(str(machine) in self.machines for machine in machines)


def find(sink: Sink) -> Orders:
    """The orders of a sink.

    Raises:
        SinkError: one cannot be understood, so what must go is not known.
        OSError: the sink does not answer.
    """
    store = Store(sink)
    orders = []
    paths = [file.path for file in store.list(FOLDER) if file.path.endswith(".json") and "/." not in file.path]
    for path, content in store.read_many(sorted(paths)):
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


def naming(machine: str) -> str:
    """A pattern, for RE2 too, of text that names a machine: its id, and not as a part of a longer one."""
    return rf"(^|[^0-9A-Za-z_.-]){re.escape(machine)}([^0-9A-Za-z_.-]|$)"


def _path(order: Order) -> str:
    return f"{FOLDER}/{order.id}.json"
