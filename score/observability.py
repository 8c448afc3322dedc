"""The service's figures, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from closedloop.log.spool import Spool

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counters of one service, in a registry of their own."""

    def __init__(self, spool: Spool) -> None:
        self._registry = CollectorRegistry()
        labels = ("route", "status")
        self._requests = Counter("closedloop_requests", "Requests answered", labels, registry=self._registry)
        self._seconds = Histogram(
            "closedloop_request_seconds", "From head to answer", ("route",), registry=self._registry, buckets=_SECONDS
        )
        self._machines = Counter("closedloop_machines_scored", "Results answered", registry=self._registry)
        self._registry.register(_SpoolCollector(spool))

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def scored(self, machines: int) -> None:
        """Count the results of one answer."""
        self._machines.inc(machines)

    def text(self) -> bytes:
        """The figures in Prometheus' text format."""
        return generate_latest(self._registry)


class _SpoolCollector(Collector):
    """What the spool counts, read when asked."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def collect(self) -> Iterable[Metric]:
        counts = self._spool.counts
        counters = {
            "records": ("Requests stored", counts.records),
            "bytes": ("Bytes stored", counts.bytes),
            "commits": ("Group commits", counts.commits),
            "failures": ("Times the disk refused", counts.failures),
            "segments_sealed": ("Segments sealed", counts.sealed),
            "recovered_records": ("Records found in a segment that a crash left open", counts.recovered),
            "torn_bytes": ("Bytes cut from such a segment's end", counts.torn_bytes),
            "corrupt_stretches": ("Damaged stretches found in such segments", counts.corrupt),
        }
        for name, (text, value) in counters.items():
            yield CounterMetricFamily(f"closedloop_log_{name}", text, value=value)
        yield GaugeMetricFamily("closedloop_log_ready", "Whether it can be written", value=self._spool.failure is None)
