"""The parameters that a proposal for another fleet starts from.

In a copy of the template these are model/params.yaml. Once a fleet was adopted, its lengths of time are shortened or
lengthened to suit it, and no factor brings the old ones back. So ``make adopt`` keeps the file as it was before in
model/simulated.yaml: lengths of time come from there, and everything else that a person may have tuned since comes
from model/params.yaml.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from model.common import params
from model.common.time_scaling import FAMILIES

SIMULATED = params.PARAMS.with_name("simulated.yaml")
OWN = ("files", "read")  # optional keys, which are the adopted fleet's alone


def path() -> Path:
    """Return the file that a proposal starts from; its comments hold for any fleet."""
    return SIMULATED if SIMULATED.exists() else params.PARAMS


def load() -> params.Params:
    """Read and check the parameters that a proposal starts from.

    Raises:
        ParamsError: model/params.yaml or model/simulated.yaml cannot be read, or has slips.
    """
    tuned = params.load()
    return params.parse(_combined(params.load(SIMULATED).raw, tuned.raw), SIMULATED) if SIMULATED.exists() else tuned


def raw() -> dict[str, Any]:
    """Return the content of :func:`load`, checked before by whoever calls it."""
    content: dict[str, Any] = yaml.safe_load(path().read_text(encoding="utf-8"))
    if not SIMULATED.exists():
        return content
    return _combined(content, yaml.safe_load(params.PARAMS.read_text(encoding="utf-8")))


def _combined(before: dict[str, Any], tuned: dict[str, Any]) -> dict[str, Any]:
    """Return ``tuned`` with the fleet and the lengths of time of ``before``."""
    features = {"history_hours": before["features"]["history_hours"]}
    for family, values in tuned["features"].items():
        if family in FAMILIES and family in before["features"]:
            key = FAMILIES[family][0]
            values = values | {key: before["features"][family][key]}
        features.setdefault(family, values)
    judge = {key: hours for key, hours in before["judge"].items() if key.endswith("_hours")}
    split = {key: value for key, value in tuned["split"].items() if key != "prefix"}
    return {key: value for key, value in tuned.items() if key not in OWN} | {
        "source": before["source"],
        "schema": before["schema"],
        "columns": before["columns"],
        "features": features,
        "labels": tuned["labels"] | {"horizon_hours": before["labels"]["horizon_hours"]},
        "split": split | {"rule": before["split"]["rule"]},
        "anomaly": tuned["anomaly"] | {key: before["anomaly"][key] for key in ("features", "alarms_per_machine_year")},
        "failure": tuned["failure"] | {"negatives_every_hours": before["failure"]["negatives_every_hours"]},
        "judge": tuned["judge"] | judge,
    }
