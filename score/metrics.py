"""The figures of ``/metrics``, in Prometheus' text format."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from closedloop.log.spool import Spool
from score.model_counts import ANOMALY, ModelCounts
from score.status import ServiceStatus

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The counters of requests and feedback, and a collector of the status, in a registry of their own."""

    def __init__(self, status: ServiceStatus) -> None:
        self.registry = CollectorRegistry()
        labels = ("route", "status")
        self._requests = Counter("closedloop_requests", "Requests answered", labels, registry=self.registry)
        self._seconds = Histogram(
            "closedloop_request_seconds",
            "Seconds from the request's headers to its answer",
            ("route",),
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._feedback = Counter("closedloop_feedback_rows", "Feedback rows", ("table",), registry=self.registry)
        self.registry.register(_StatusCollector(status))
        self._bound: dict[tuple[str, int], tuple[Counter, Histogram]] = {}  # looking labels up costs more than counting

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        if (bound := self._bound.get((route, status))) is None:
            bound = self._bound[route, status] = self._requests.labels(route, status), self._seconds.labels(route)
        bound[0].inc()
        bound[1].observe(seconds)

    def feedback_taken(self, rows: dict[str, int]) -> None:
        """Count the rows of one acknowledged feedback request, by table."""
        for table, count in rows.items():
            self._feedback.labels(table).inc(count)

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self.registry)


class _StatusCollector(Collector):
    """The figures of a status, read at each scrape."""

    def __init__(self, status: ServiceStatus) -> None:
        self._status = status
        self._created = time.time()

    def collect(self) -> Iterable[Metric]:
        """The metrics of each part of the service."""
        status = self._status
        served = {name: value or "" for name, value in status.served.items()}
        build = GaugeMetricFamily("closedloop_build_info", "What is served", labels=list(served))
        build.add_metric(list(served.values()), 1)
        yield build
        yield _gauge("ready", "Whether requests are accepted", status.unready() is None)
        yield CounterMetricFamily(
            "closedloop_machines_scored", "Results answered", value=status.machines_scored, created=self._created
        )
        yield from _model(status.model)
        yield from _load(status)
        yield from _tokens(status)
        yield _counter("log_offered", "Requests that could be logged", status.journal.offered)
        yield _counter("log_sampled_out", "Requests left out by LOG_SAMPLE", status.journal.sampled_out)
        yield _counter("log_dry_run", "Dry runs: answered, and not logged", status.journal.dry_run)
        yield _counter("log_rejected", "Requests answered without a record", status.journal.rejected)
        rejects = status.journal.rejects
        kept = {"stored": rejects.stored, "left_out": rejects.left_out, "failed": rejects.failed}
        yield _by_reason("log_rejects", "Refused requests for the table rejects", kept, label="result")
        yield _counter("log_records", "Records of answers stored", status.journal.stored)
        yield from _spool(status.journal.spool)
        yield from _shipper(status)


def _load(status: ServiceStatus) -> Iterable[Metric]:
    load = status.load
    yield _gauge("requests_in_flight", "Requests of /score and /feedback that are not answered yet", load.requests)
    yield _gauge("body_bytes_in_flight", "Bytes read of their bodies", load.body_bytes)
    yield _gauge("answer_bytes_untaken", "Bytes of long answers that clients have yet to take", load.untaken_bytes)
    yield _gauge("connections", "Open connections", load.connections)
    yield _counter("upgrades_ignored", "Requests to speak another protocol, answered as ordinary ones", load.upgrades)
    yield _by_reason("requests_shed", "Requests refused by a limit", load.shed)
    yield _by_reason("connections_closed", "Connections closed by the service", load.closed)


def _model(counts: ModelCounts) -> Iterable[Metric]:
    yield _by_reason("alarms", "Results with an alarm of this head", counts.alarms, label="head")
    anomaly = HistogramMetricFamily("closedloop_anomaly_score", "Scores of the anomaly head", labels=["head"])
    failure = HistogramMetricFamily("closedloop_failure_probability", "Probabilities of failure heads", labels=["head"])
    for head, scores in counts.scores.items():
        bounds = [*map(str, scores.bounds), "+Inf"]
        family = anomaly if head == ANOMALY else failure
        family.add_metric([head], list(zip(bounds, accumulate(scores.buckets), strict=True)), scores.sum)
    yield anomaly
    yield failure
    yield _by_reason("warnings", "Warnings in answers, by code", counts.warnings, label="code")
    yield _by_reason("readings_missing", "Missing readings in scored windows", counts.missing, label="sensor")
    yield _by_reason("readings_outside", "Readings outside the sensor's range", counts.outside, label="sensor")
    until = datetime.fromisoformat(counts.trained_until).timestamp()
    yield _gauge("model_trained_until_seconds", "Time of the newest telemetry that the model was trained on", until)
    if counts.newest:
        newest = datetime.fromisoformat(counts.newest).timestamp()
        yield _gauge("telemetry_newest_seconds", "Time of the newest telemetry that was scored", newest)


def _tokens(status: ServiceStatus) -> Iterable[Metric]:
    if (tokens := status.tokens) is None:
        return
    yield _by_reason("auth_failures", "Requests without a known token or without the scope", tokens.refused)
    yield _counter("tokens_reloads", "Times the tokens file was read again", tokens.reloads)
    yield _gauge("tokens_stale", "Whether the tokens file is invalid and the previous tokens are used", tokens.stale)


def _spool(spool: Spool) -> Iterable[Metric]:
    counts = spool.counts
    counters = {
        "bytes": ("Bytes stored", counts.bytes),
        "commits": ("Group commits", counts.commits),
        "failures": ("Failed writes", counts.failures),
        "lost": ("Requests answered at once (LOG_DURABILITY=off) whose write then failed", counts.lost),
        "segments_sealed": ("Segments sealed", counts.sealed),
        "recovered_records": ("Records recovered from a segment that a crash left open", counts.recovered),
        "torn_bytes": ("Incomplete bytes cut from the end of such segments", counts.torn_bytes),
        "corrupt_stretches": ("Damaged stretches found in such segments", counts.corrupt),
    }
    for name, (text, value) in counters.items():
        yield _counter(f"log_{name}", text, value)
    yield _gauge("log_ready", "Whether the log can be written", spool.failure is None)


def _shipper(status: ServiceStatus) -> Iterable[Metric]:
    if status.supervisor is None:
        return
    yield _gauge("log_shipper_running", "Whether the shipper is running", status.supervisor.running)
    yield _counter("log_shipper_starts", "Times the shipper was started", status.supervisor.starts)
    if (report := status.shipping()) is None:
        return
    yield _counter(
        "log_shipped_segments", "Segments shipped since the shipper started", report.get("shipped_segments", 0)
    )
    yield _counter("log_shipped_records", "Records in them", report.get("shipped_records", 0))
    yield _counter("log_ship_failures", "Times that shipping failed", report.get("failures", 0))
    quarantined = report.get("quarantined_records", 0)
    yield _counter("log_quarantined_records", "Records that cannot be shipped, kept in quarantine", quarantined)
    yield _gauge("log_unsent_segments", "Sealed segments not yet shipped", report.get("unsent_segments", 0))
    yield _gauge("log_unsent_bytes", "Bytes in them", report.get("unsent_bytes", 0))
    oldest = report.get("oldest_unsent_us")
    age = 0.0 if oldest is None else max(time.time() - oldest / 1e6, 0.0)
    yield _gauge("log_oldest_unsent_seconds", "Age of the oldest of them", age)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"closedloop_{name}", text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"closedloop_{name}", text, value=float(value))


def _by_reason(name: str, text: str, by_reason: dict[str, int], label: str = "reason") -> Metric:
    family = CounterMetricFamily(f"closedloop_{name}", text, labels=[label])
    for reason, value in by_reason.items():
        family.add_metric([reason], value)
    return family
