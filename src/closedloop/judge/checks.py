"""What the gate checks before it compares: whether predictions can be judged, and whether they meet the floors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from closedloop.data.machines import Id
from closedloop.data.schema import DataError
from closedloop.judge.metrics import Assessment
from closedloop.judge.truth import ANOMALY, Aligned, Grid, PredictionTable, Truth, align

LESS_IS_BETTER = {"brier", "cost_per_machine_year", "false_alarm_rate", "false_alarms_per_machine_year"}


@dataclass(frozen=True)
class Candidate:
    """One of the two models of a comparison.

    ``predictions`` is None where the model could not be built or could not answer; ``problem`` then says why.
    ``manifest`` is the content of the bundle's ``manifest.json``, of which the gate reads ``model_digest``,
    ``provenance.commit``, ``heads`` and ``training``: ``machines`` by source and, under the split rule ``prefix``,
    ``until_us``, the last training row of each machine by source. ``ruler`` is the result
    of :func:`closedloop.judge.ruler.ruler` for the model's commit.
    """

    predictions: PredictionTable | None
    manifest: Mapping[str, Any]
    inputs_digest: str
    ruler: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""

    @property
    def commit(self) -> str | None:
        """The commit it was trained at."""
        return self.manifest.get("provenance", {}).get("commit")

    @property
    def name(self) -> dict[str, Any]:
        """The model's entry in ``decision.json``."""
        return {"commit": self.commit, "model_digest": self.manifest.get("model_digest")}

    @property
    def heads(self) -> set[str]:
        """The heads that the bundle holds."""
        heads = self.manifest.get("heads", {})
        failure = {component for component, entry in heads.get("failure", {}).items() if entry is not None}
        return failure | ({ANOMALY} if heads.get("anomaly") is not None else set())


def answers(one: Candidate, grid: Grid) -> dict[str, Aligned]:
    """A model's predictions on the grid, by head; empty where it has no predictions."""
    return {} if one.predictions is None else align(one.predictions, grid)


def faults(one: Candidate, on_grid: Mapping[str, Aligned], grid: Grid, truth: Truth) -> list[str]:
    """Reasons for which a model's predictions cannot be used, head by head."""
    if one.predictions is None:
        return [one.problem or "it has no predictions"]
    result = []
    rows = len(grid.time)
    for head in (*truth.schema.components, ANOMALY):
        answer = on_grid.get(head)
        if answer is None:
            if head in one.heads:
                result.append(f"its bundle has a head {head}, but there is no prediction of it")
            continue
        if answer.missing:
            machines = [
                machine
                for i, machine in enumerate(grid.machines)
                if answer.absent[grid.offsets[i] : grid.offsets[i + 1]].any()
            ]
            result.append(f"{answer.missing:,} of {rows:,} rows have no prediction of head {head} ({_some(machines)})")
        if answer.twice:
            result.append(f"{answer.twice:,} of {rows:,} rows have more than one prediction of head {head}")
        if bad := int((~np.isfinite(answer.score) & ~answer.absent).sum()):
            result.append(f"{bad:,} of {rows:,} scores of head {head} are not finite numbers")
        elif head != ANOMALY and ((answer.score < 0) | (answer.score > 1)).any():
            result.append(f"scores of head {head} are not probabilities between 0 and 1")
    return result


def overlap(one: Candidate, grid: Grid, truth: Truth) -> list[str]:
    """Reasons for which the model counts as trained on what it is judged on; empty where it is not."""
    training = one.manifest.get("training", {})
    if not isinstance(training.get("machines"), Mapping):
        return ["its manifest does not list the machines it was trained on"]
    trained = set(training["machines"].get(truth.source, ()))
    both = [machine for machine in grid.machines if machine in trained]
    if truth.rule == "prefix":
        until = training.get("until_us", {}).get(truth.source, {})
        first = dict(zip(grid.machines, grid.time[grid.offsets[:-1]].tolist(), strict=True))
        both = [machine for machine in both if until.get(str(machine), first[machine]) >= first[machine]]
    if not both:
        return []
    what = "rows" if truth.rule == "prefix" else "machines"
    return [f"it was trained on {what} that judge it ({_some(both)} of {len(grid.ids)})"]


def _some(machines: Sequence[Id]) -> str:
    """The first three machines, as words of a message."""
    return f"machines {', '.join(map(str, machines[:3]))}" + (f" and {len(machines) - 3} more" if machines[3:] else "")


def lacking(found: Assessment, grid: Grid, judged: bool) -> list[str]:
    """Metrics that the truth allows and the predictions lack."""
    result = []
    if grid.supervised and judged and found.metrics["failure"]["pr_auc"] is None:
        result.append(
            f"the truth has {grid.failure_count} failures, but no failure head answered, so there is no PR-AUC"
        )
    if grid.events is not None and grid.anomalous.any() and found.metrics["anomaly"]["pr_auc"] is None:
        result.append("the truth has anomalies, but the anomaly head did not answer, so there is no PR-AUC")
    return result


def floors(
    found: Assessment, other: Assessment | None, gate: Mapping[str, Any], grid: Grid, judged: bool
) -> list[dict[str, Any]]:
    """Each floor with both models' figures; ``holds`` is None where the floor is not judged.

    Of a figure in ``LESS_IS_BETTER`` the limit is the most that it may be, of any other the least.
    """
    part = "failure" if grid.supervised else "anomaly"
    result = []
    for name, limit in gate["floors"].items():
        figures = found.metrics[part] or {}
        if figures and not isinstance(figures.get(name, ""), float | int | None):
            raise DataError(f"gate.floors.{name}: no such figure; choose one of {', '.join(sorted(figures))}")
        value = figures.get(name)
        theirs = None if other is None or not other.metrics[part] else other.metrics[part][name]
        holds = _meets(name, value, limit) if judged else None
        result.append(
            {"name": f"{part}.{name}", "estimate": value, "champion": theirs, "limit": float(limit), "holds": holds}
        )
    return result


def _meets(name: str, value: float | None, limit: float) -> bool | None:
    """Whether a figure is on the right side of its limit; None where there is no figure."""
    return None if value is None else bool(value <= limit if name in LESS_IS_BETTER else value >= limit)


def missed(floor: Mapping[str, Any]) -> str:
    """The clause that reports a floor that is not met."""
    part, _, name = floor["name"].partition(".")
    side = "above" if name in LESS_IS_BETTER else "below"
    return f"{part} {name} is {floor['estimate']:.2f}, {side} the floor of {floor['limit']:.2f}"


def champion_meets(floor: Mapping[str, Any]) -> bool:
    """Whether the champion is on the right side of a floor."""
    return bool(_meets(floor["name"].partition(".")[2], floor["champion"], floor["limit"]))
