"""The model card: what a bundle is, for people.

Training writes it into the bundle, before the model is judged. The report writes it again, with figures, ablations and
verdict. It names neither the place nor the hour of the training, so equal trainings have equal cards.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from closedloop.data.schema import HOUR_US
from closedloop.features.spec import FeatureSpec
from closedloop.heads.bundle import Bundle
from closedloop.heads.scorers import FailureHead

TEMPLATE = "card.md.j2"
SPLITS = {
    "fleet": "About 30 % of the machines are held out permanently. They judge the model, on the last third of time.",
    "unit": "About 30 % of the machines are held out permanently. They judge the model.",
    "prefix": "The first rows of each machine trained the model, and later ones judge it.",
}
DETECTORS = {
    "evidence_chart": "evidence chart",
    "mean_chart": "mean chart",
    "isolation_forest": "isolation forest",
    "pca": "PCA, T² and Q",
}


def environment() -> jinja2.Environment:
    """The environment that renders the templates of this package; a missing value is an error."""
    result = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    result.filters["plain"] = plain
    return result


def plain(text: str) -> str:
    """Text for a cell or a paragraph of Markdown, without tags, cell borders and line breaks."""
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").split())


def describe(bundle: Bundle, params: Mapping[str, Any], rule: str) -> dict[str, Any]:
    """The content of a bundle's card, as the template takes it.

    Args:
        bundle: its ``provenance`` must hold ``learned_from``: ``rows``, and ``failures`` by component.
        params: content of the ``params.yaml`` that it was trained with.
        rule: the split rule of its fleet.
    """
    learned, schema, training = bundle.provenance["learned_from"], bundle.schema, bundle.training
    trees = "calibrated histogram gradient boosting"
    return {
        "fleet": next(iter(training.machines)),
        "machines": sum(map(len, training.machines.values())),
        "rows": learned["rows"],
        "period": training.period,
        "fingerprint": training.fingerprint,
        "sensors": schema.sensors,
        "sampling_minutes": schema.sampling_minutes,
        "split": SPLITS[rule],
        "feature_count": len(bundle.spec.names),
        "features": _features(bundle.spec),
        "history": _hours(bundle.spec.history_us),
        "horizon": params["labels"]["horizon_hours"],
        "gap": params["judge"]["episode_gap_hours"],
        "lead": params["judge"]["minimum_lead_hours"],
        "costs": params["judge"]["costs"],
        "anomaly": None
        if bundle.anomaly is None
        else {
            "kind": DETECTORS[bundle.anomaly.detector],
            "threshold": f"{bundle.anomaly.threshold:.3f}",
            "budget": params["anomaly"]["alarms_per_machine_year"],
        },
        "failures": [
            {
                "component": component,
                "kind": trees if component in bundle.failures else "—",
                "failures": count,
                "threshold": _threshold(bundle.failures.get(component)),
            }
            for component, count in learned["failures"].items()
        ],
    }


def render(bundle: Bundle, params: Mapping[str, Any], rule: str) -> str:
    """The card of a bundle that is not judged yet."""
    return environment().get_template(TEMPLATE).render(describe(bundle, params, rule))


def _threshold(head: FailureHead | None) -> str:
    """A failure head's threshold and the plateau around it, as probabilities; empty without a head."""
    if head is None:
        return ""
    plateau = "" if head.plateau is None else f" (as good: {head.plateau[0]:.2g} to {head.plateau[1]:.2g})"
    return f"{head.threshold:.3f}{plateau}"


def _features(spec: FeatureSpec) -> list[str]:
    """One line for each family of features that the spec has."""
    lines = []
    if spec.rolling_us:
        lines.append(f"of each sensor, mean and deviation over {_windows(spec.rolling_us)}")
    if spec.half_lives_us:
        lines.append(f"of each sensor, EWMA with half-lives of {_windows(spec.half_lives_us)}")
    if spec.cusum_slack is not None:
        lines.append(f"of each sensor, CUSUM against the machine's own baseline, slack {spec.cusum_slack:g} deviations")
    if spec.change_us:
        lines.append(f"of each sensor, change within {_windows(spec.change_us)}")
    if spec.shift_steps:
        lines.append("of each sensor, whether it has left its baseline and is still away, how far and since when")
    if spec.level_us:
        lines.append(f"of each sensor, distance from the machine's own level, half-lives of {_windows(spec.level_us)}")
    if spec.error_windows_us is not None:
        lines.append(f"of each error code, how often within {_windows(spec.error_windows_us)}, and how long ago")
    if "maint" in spec.groups:
        lines.append("of each component, days since its last replacement")
    lines.append("the machine's model and age")
    return lines + [f"{name} (features/custom.py)" for name in spec.custom]


def _windows(lengths_us: tuple[int, ...]) -> str:
    return " and ".join(_hours(us) for us in lengths_us) + " h"


def _hours(us: int) -> str:
    return f"{us / HOUR_US:g}"
