"""Whether an alert fires by what the pods' /metrics say during a fault: read twice, and continued as it went."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.repo import promql
from tests.repo.test_alerts import PROMTOOL, SOURCE, fired

from .cluster import PATIENCE_S, ROOT, Space, until

SERIES = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
AT = "90m"  # longer than each of these alerts waits


def scrape(space: Space) -> dict[str, float]:
    """Every series of the ready replicas, with the labels that Prometheus gives it."""
    found = {}
    for pod in space.ready():
        text = space.ask(f"http://{pod}.score-replicas:8000/metrics")[1]
        for line in text.splitlines():
            if not line.startswith("#") and (series := SERIES.fullmatch(line)):
                own = f"{series[2]}," if series[2] else ""
                found[f'{series[1]}{{{own}namespace="{space.name}",pod="{pod}"}}'] = float(series[3])
    return found


def fires(alert: str, first: dict[str, float], second: dict[str, float], seconds: float, folder: Path) -> bool:
    """Whether promtool says that the alert fires, if each series goes on as between two times."""
    groups: list[dict[str, Any]] = yaml.safe_load((ROOT / SOURCE).read_text(encoding="utf-8"))["spec"]["groups"]
    named = next(promql.metrics(rule["expr"]) for group in groups for rule in group["rules"] if rule["alert"] == alert)
    series = {
        name: f"{value:.3f}{(value - first.get(name, value)) * 60 / seconds:+.3f}x120"
        for name, value in second.items()
        if name.partition("{")[0] in named
    }
    assert series, f"no replica has {named}"
    folder.mkdir()
    said = fired(groups, [{"alert": alert, "series": series, "at": AT}], folder)
    assert said == "" or "got: nil" in said, said  # promtool did its work
    return said == ""


def _sum(series: dict[str, float], metric: str) -> float:
    return sum(value for name, value in series.items() if name.partition("{")[0] == metric)


def check(space: Space, alert: str, folder: Path, fault: Callable[[], object], metric: str) -> None:
    """Check that an alert is silent before a fault, and fires by what the fault makes the replicas say.

    ``fault`` is caused twice. Each time the sum of the metric grows, and what is in between is what goes on.
    """
    if PROMTOOL is None:
        pytest.skip("promtool is not on PATH")
    before = scrape(space)
    assert not fires(alert, before, before, 1, folder / "before")
    first, start = grown(space, metric, before, fault), time.monotonic()
    second = grown(space, metric, first, fault)
    assert fires(alert, first, second, time.monotonic() - start, folder / "after")


def grown(space: Space, metric: str, before: dict[str, float], fault: Callable[[], object]) -> dict[str, float]:
    """Cause the fault, and return the series as soon as the sum of a metric is higher than before."""
    fault()
    found: dict[str, float] = {}

    def more() -> bool:
        found.update(scrape(space))
        return _sum(found, metric) > _sum(before, metric)

    until(more, PATIENCE_S, f"{metric} does not grow")
    return found
