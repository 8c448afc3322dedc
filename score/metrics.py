"""The service's figures, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from score.log import supervisor

if TYPE_CHECKING:
    from score.service import Service

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counters of one service, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("route", "status")
        self._requests = Counter("closedloop_requests", "Requests answered", labels, registry=self._registry)
        self._seconds = Histogram(
            "closedloop_request_seconds", "From head to answer", ("route",), registry=self._registry, buckets=_SECONDS
        )
        self._machines = Counter("closedloop_machines_scored", "Results answered", registry=self._registry)
        self._feedback = Counter("closedloop_feedback_rows", "Rows of feedback", ("table",), registry=self._registry)
        self._bound: dict[tuple[str, int], tuple[Counter, Histogram]] = {}  # looking labels up costs more than counting
        self.machines = 0

    def watch(self, service: Service) -> None:
        """Show what the parts of a service count, too."""
        self._registry.register(_Collector(service))

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        if (bound := self._bound.get((route, status))) is None:
            bound = self._bound[route, status] = self._requests.labels(route, status), self._seconds.labels(route)
        bound[0].inc()
        bound[1].observe(seconds)

    def scored(self, machines: int) -> None:
        """Count the results of one answer."""
        self._machines.inc(machines)
        self.machines += machines

    def fed_back(self, rows: dict[str, int]) -> None:
        """Count the rows of one acknowledged feedback."""
        for table, count in rows.items():
            self._feedback.labels(table).inc(count)

    def text(self) -> bytes:
        """The figures in Prometheus' text format."""
        return generate_latest(self._registry)


class _Collector(Collector):
    """What the parts count, read when asked."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterable[Metric]:
        service, load, journal = self._service, self._service.load, self._service.journal
        served = {name: value or "" for name, value in service.served.items()}
        build = GaugeMetricFamily("closedloop_build_info", "What is served", labels=list(served))
        build.add_metric(list(served.values()), 1)
        yield build
        yield _gauge("ready", "Whether requests are wanted", service.unready() is None)
        yield _gauge("requests_in_flight", "Requests between head and answer", load.requests)
        yield _gauge("body_bytes_in_flight", "Bytes of their bodies", load.body_bytes)
        yield _gauge("connections", "Open connections", load.connections)
        yield _labelled("requests_shed", "Requests turned away by a limit", load.shed)
        yield _labelled("connections_closed", "Connections closed on their clients", load.closed)
        if service.tokens is not None:
            yield _labelled("auth_failures", "Requests without a known token or its scope", service.tokens.refused)
            yield _counter("tokens_reloads", "Times the tokens file was read again", service.tokens.reloads)
            yield _gauge("tokens_stale", "Whether the tokens file is wrong and older tokens hold", service.tokens.stale)
        yield _counter("log_offered", "Requests that could be logged", journal.offered)
        yield _counter("log_sampled_out", "Requests that the sample left out", journal.sampled_out)
        yield _counter("log_rejected", "Requests answered without a record", journal.rejected)
        yield from _spool(journal.spool)
        yield from _shipper(service)


def _spool(spool: Any) -> Iterable[Metric]:
    counts = spool.counts
    counters = {
        "records": ("Requests stored", counts.records),
        "bytes": ("Bytes stored", counts.bytes),
        "commits": ("Group commits", counts.commits),
        "failures": ("Times the disk refused", counts.failures),
        "lost": ("Requests answered at once (LOG_DURABILITY=off) that the disk then refused", counts.lost),
        "segments_sealed": ("Segments sealed", counts.sealed),
        "recovered_records": ("Records found in a segment that a crash left open", counts.recovered),
        "torn_bytes": ("Bytes cut from such a segment's end", counts.torn_bytes),
        "corrupt_stretches": ("Damaged stretches found in such segments", counts.corrupt),
    }
    for name, (text, value) in counters.items():
        yield _counter(f"log_{name}", text, value)
    yield _gauge("log_ready", "Whether it can be written", spool.failure is None)


def _shipper(service: Service) -> Iterable[Metric]:
    if service.shipper is None:
        return
    yield _gauge("log_shipper_running", "Whether there is a shipper", service.shipper.running)
    yield _counter("log_shipper_starts", "Times a shipper was started", service.shipper.starts)
    if (figures := supervisor.figures(service.settings.log_dir)) is None:
        return
    yield _counter("log_shipped_segments", "Segments that the shipper has shipped", figures.get("shipped_segments", 0))
    yield _counter("log_shipped_records", "Records in them", figures.get("shipped_records", 0))
    yield _counter("log_ship_failures", "Times the shipper failed", figures.get("failures", 0))
    quarantined = figures.get("quarantined_records", 0)
    yield _counter("log_quarantined_records", "Records kept aside since they cannot be shipped", quarantined)
    yield _gauge("log_unsent_segments", "Segments that wait for it", figures.get("unsent_segments", 0))
    yield _gauge("log_unsent_bytes", "Bytes of them", figures.get("unsent_bytes", 0))
    oldest = figures.get("oldest_unsent_us")
    age = 0.0 if oldest is None else max(time.time() - oldest / 1e6, 0.0)
    yield _gauge("log_oldest_unsent_seconds", "Age of the oldest of them", age)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"closedloop_{name}", text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"closedloop_{name}", text, value=float(value))


def _labelled(name: str, text: str, by_reason: dict[str, int]) -> Metric:
    family = CounterMetricFamily(f"closedloop_{name}", text, labels=["reason"])
    for reason, value in by_reason.items():
        family.add_metric([reason], value)
    return family
