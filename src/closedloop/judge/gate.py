"""The verdict on a challenger: refused, identical, incomparable, worse, first, better or inconclusive.

The gate compares predictions, never bundles: it sees what two models answered for the same tables, each with the code
of its own commit, what was true, and the ruler of the base commit. The first verdict in the order above that fits is
given. :func:`decide` is a pure function: fetching, predicting and releasing are for others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from closedloop.judge.checks import Candidate, answers, champion_meets, faults, floors, lacking, missed, overlap
from closedloop.judge.compare import Comparison, Ratio, compare
from closedloop.judge.metrics import Assessment, assess
from closedloop.judge.ruler import Ruler, changes
from closedloop.judge.trivial import harm, saving
from closedloop.judge.truth import Grid, JudgeSettings, Truth

GREEN = {"identical", "first", "better"}
ACCEPTABLE = {"incomparable", "worse", "inconclusive"}
NO_DELTA = {"estimate": None, "low": None, "high": None}


@dataclass(frozen=True)
class _Evidence:
    """Everything that the verdict depends on; ``comparison`` is None where there is nothing to compare with.

    ``saving`` is what the challenger saves against a model that never alarms, ``harm`` what proves it worse than that.
    """

    grid: Grid
    gate: Mapping[str, Any]
    judged: bool
    faults: list[str]
    champion_faults: list[str]
    challenger: Assessment
    comparison: Comparison | None
    floors: list[dict[str, Any]]
    saving: Ratio
    harm: list[str]

    @property
    def events(self) -> str:
        """What the holdout counts besides machines."""
        return "failures" if self.grid.supervised else "anomalies"


def decide(
    champion: Candidate | None,
    challenger: Candidate,
    truth: Truth,
    settings: JudgeSettings,
    *,
    base_ruler: Ruler | None = None,
    accepted: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """``decision.json``: whether the challenger may be served, and why.

    Args:
        champion: the model to beat; None where nothing was released yet.
        challenger: the model of this commit.
        truth: the held-out tables of the challenger's pin, under the base's holdout rule.
        settings: labels, costs and limits of the base commit.
        base_ruler: the ruler of the base commit; None where there is none.
        accepted: content of ``model/accepted.json``: ``champion`` (a commit), ``inputs_digest`` and ``why``.

    Raises:
        DataError: the truth holds nothing that could be judged, or a floor names an unknown figure.
    """
    evidence = _look(champion, challenger, truth, settings)
    verdict, reason = _verdict(champion, challenger, evidence, base_ruler)
    is_accepted = False
    if accepted is not None and verdict in ACCEPTABLE:
        is_accepted = _applies(accepted, champion, challenger)
        if is_accepted:
            reason += f" Accepted by a code owner: {accepted.get('why') or 'no reason given'}."
        else:
            reason += " model/accepted.json was written for another champion or other inputs, so it has no effect."
    is_let_through = settings.gate["on_inconclusive"] == "ship" and verdict == "inconclusive"
    comparison = evidence.comparison
    return {
        "verdict": verdict,
        "reason": reason,
        "green": verdict in GREEN or is_let_through or is_accepted,
        "accepted": is_accepted,
        "becomes_champion": verdict in ("first", "better") or is_accepted,
        "inputs_digest": challenger.inputs_digest,
        "champion": None if champion is None else champion.name,
        "challenger": challenger.name,
        "delta": {"cost_per_machine_year": dict(NO_DELTA) if comparison is None else comparison.delta},
        "guardrails": [] if comparison is None else comparison.guardrails,
        "floors": evidence.floors,
        "holdout": evidence.challenger.metrics["holdout"],
    }


def _applies(accepted: Mapping[str, Any], champion: Candidate | None, challenger: Candidate) -> bool:
    """Whether an acceptance was written for this champion and these inputs."""
    met = champion and champion.commit
    return (accepted.get("champion"), accepted.get("inputs_digest")) == (met, challenger.inputs_digest)


def is_green(decision: Mapping[str, Any]) -> bool:
    """Whether the check of this decision passes."""
    return bool(decision["green"])


def exit_code(decision: Mapping[str, Any]) -> int:
    """0 where the check passes, else 1."""
    return 0 if is_green(decision) else 1


def _look(champion: Candidate | None, challenger: Candidate, truth: Truth, settings: JudgeSettings) -> _Evidence:
    """Judge both models on one grid, and compare them where both can be judged."""
    grid, gate = Grid.of(truth, settings), settings.gate
    judged = len(grid.ids) >= gate["minimum_machines"] and grid.event_count >= gate["minimum_failures"]
    mine = answers(challenger, grid)
    found = assess(mine, grid, settings, truth.schema)
    problems = faults(challenger, mine, grid, truth) + overlap(challenger, grid, truth) + lacking(found, grid, judged)
    other: Assessment | None = None
    their_problems: list[str] = []
    if champion is not None:
        theirs = answers(champion, grid)
        their_problems = faults(champion, theirs, grid, truth)
        other = None if their_problems else assess(theirs, grid, settings, truth.schema)
    comparison = None
    if other is not None and judged and not problems:
        comparison = compare(other, found, settings, truth.schema.models, grid.supervised)
    saved = saving(found, grid, settings, truth.schema)
    proven = [] if problems else harm(mine, saved, grid, truth.schema, float(gate["error_rate"]))
    limits = floors(found, other, gate, grid, judged)
    return _Evidence(grid, gate, judged, problems, their_problems, found, comparison, limits, saved, proven)


def _verdict(
    champion: Candidate | None, challenger: Candidate, seen: _Evidence, base_ruler: Ruler | None
) -> tuple[str, str]:
    """The verdict and its reason."""
    if seen.faults:
        return "refused", f"The challenger cannot be judged: {'; '.join(seen.faults)}."
    same = "so there is nothing to compare."
    others = [ruler for ruler in (base_ruler, None if champion is None else champion.ruler) if ruler is not None]
    changed = sorted({name for ruler in others for name in changes(challenger.ruler, ruler)})
    if champion is not None:
        if challenger.inputs_digest == champion.inputs_digest:
            return "identical", f"Made from the same inputs as the champion, {same}"
        same_model = challenger.name["model_digest"] == champion.name["model_digest"] is not None
        if same_model and not changed:
            return "identical", f"The same model as the champion, judged by the same ruler, {same}"
    if changed:
        return "incomparable", (
            f"The ruler changed ({', '.join(changed)}), so the two models cannot be compared. "
            "A code owner can accept the challenger (make accept WHY=…); then it is the new champion."
        )
    if seen.champion_faults:
        return "incomparable", (
            f"The champion cannot answer for these tables: {'; '.join(seen.champion_faults)}. "
            "A code owner can accept the challenger (make accept WHY=…); then it is the new champion."
        )
    if champion is None:
        if useless := _of_no_use(seen):
            return "worse", (
                f"There is no champion yet, and this model is of no use: {'; '.join(useless)}. "
                "A code owner can accept it (make accept WHY=…); then it is the champion."
            )
        return "first", f"There is no champion yet, so this model becomes the champion.{_too_few(seen)}"
    if seen.comparison is None:
        if seen.harm:
            return "worse", f"Worse than a trivial model: {'; '.join(seen.harm)}.{_too_few(seen)}"
        return "inconclusive", f"Not judged.{_too_few(seen)}"
    if faults := _worse(seen, seen.comparison):
        return "worse", f"Worse than the champion: {'; '.join(faults)}."
    if seen.comparison.better:
        delta, confidence = seen.comparison.delta, 1 - seen.gate["error_rate"]
        return "better", (
            f"Saves {_money(delta['estimate'])} for each machine-year against the champion "
            f"(at least {_money(delta['low'])}, with {confidence:.0%} confidence), and no guardrail is broken."
        )
    return "inconclusive", _undecided(seen, seen.comparison)


def _worse(seen: _Evidence, comparison: Comparison) -> list[str]:
    """The reasons for which the challenger is worse."""
    result = []
    if comparison.worse:
        loss, least = -(comparison.delta["estimate"] or 0), -(comparison.delta["high"] or 0)
        result.append(f"it costs {_money(loss)} more for each machine-year (at least {_money(least)})")
    result += [_broken(rail) for rail in comparison.guardrails if rail["holds"] is False]
    result += [
        f"{missed(floor)} that the champion meets"
        for floor in seen.floors
        if floor["holds"] is False and champion_meets(floor)
    ]
    return result


def _of_no_use(seen: _Evidence) -> list[str]:
    """The reasons for which a model is worse than none, without a champion: floors, and the trivial model."""
    result = [missed(floor) for floor in seen.floors if floor["holds"] is False]
    if seen.judged and not seen.harm and not (seen.saving.estimate or 0) > 0:
        result.append("it saves nothing against a model that never alarms")
    return result + seen.harm


def _too_few(seen: _Evidence) -> str:
    """What the holdout lacks to judge a model; empty where it lacks nothing."""
    if seen.judged:
        return ""
    return (
        f" {len(seen.grid.ids)} machines and {seen.grid.event_count} {seen.events} are held out; it takes at least"
        f" {seen.gate['minimum_machines']} machines and {seen.gate['minimum_failures']} {seen.events} to judge a model."
    )


def _undecided(seen: _Evidence, comparison: Comparison) -> str:
    """The reason of ``inconclusive``: what the holdout allows, and how much more of it would decide."""
    delta, machines = comparison.delta, len(seen.grid.ids)
    if not delta["estimate"]:
        return (
            "Neither is better: both cost the same on the held-out machines, and more such machines would not decide."
        )
    word = "saves" if delta["estimate"] > 0 else "costs"
    text = (
        f"Neither is proven better. The challenger {word} about {_money(abs(delta['estimate']))} for each machine-year,"
        f" but the {machines} held-out machines allow any saving"
        f" from {_money(delta['low'])} to {_money(delta['high'])}."
    )
    if comparison.machines_to_decide is None:
        return text
    events = round(comparison.machines_to_decide * seen.grid.event_count / machines)
    needed = f"about {comparison.machines_to_decide:,} machines ({events:,} {seen.events})"
    return f"{text} If the difference is real, {needed} would decide."


def _broken(rail: Mapping[str, Any]) -> str:
    """The clause that reports a broken guardrail."""
    kind, _, segment = rail["name"].partition(":")
    figure = "any number" if rail["estimate"] is None else f"{rail['estimate']:.2f}"
    clause = {
        "false_alarm_ratio": f"its false alarms are {figure} times the champion's",
        "brier_ratio": f"its Brier score is {figure} times the champion's",
        "calibration_excess": f"its calibration error exceeds the champion's by {figure} of the failures seen",
        "segment_cost_ratio": f"{segment} costs {figure} times as much as with the champion",
    }[kind]
    least = "" if rail["low"] is None else f"at least {rail['low']:.2f}, "
    return f"{clause} ({least}limit {rail['limit']:.2f})"


def _money(amount: float | None) -> str:
    return "any amount" if amount is None else f"{amount:,.0f}"
