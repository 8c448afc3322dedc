"""What distinguishes a model from the champion, in words: from the manifests of the two bundles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MOST = 8  # names in one sentence

Manifest = Mapping[str, Any]


def of_manifests(before: Manifest, now: Manifest) -> list[str]:
    """Return a sentence for each thing that differs between two bundles; empty where the models are the same.

    Args:
        before: content of the champion's ``manifest.json``.
        now: that of the challenger.
    """
    if before["model_digest"] == now["model_digest"]:
        return []
    return [*_features(before, now), *_heads(before, now), *_data(before, now), *_libraries(before, now)]


def of_params(changed: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """Return a sentence for each parameter that differs, by its key; a value that is None is not there."""
    return [f"{key}: {_value(before)} → {_value(now)}" for key, (before, now) in changed.items()]


def _value(value: Any) -> str:
    return "absent" if value is None else str(value)


def _named(names: list[str]) -> str:
    return ", ".join(names[:MOST]) + (f" and {len(names) - MOST} more" if len(names) > MOST else "")


def _features(before: Manifest, now: Manifest) -> Iterator[str]:
    old, new = before["features"]["names"], now["features"]["names"]
    for how, names in (
        ("New features", [one for one in new if one not in old]),
        ("Features that are gone", [one for one in old if one not in new]),
    ):
        if names:
            yield f"{how} ({len(names)}): {_named(names)}"
    if old == new and before.get("features_code") != now.get("features_code"):
        yield "The code of the features changed, their names did not"


def _heads(before: Manifest, now: Manifest) -> Iterator[str]:
    old, new = _thresholds(before), _thresholds(now)
    for how, names in (("New heads", new.keys() - old.keys()), ("Heads that are gone", old.keys() - new.keys())):
        if names:
            yield f"{how}: {_named(sorted(names))}"
    detectors = [(one["heads"].get("anomaly") or {}).get("detector") for one in (before, now)]
    if detectors[0] != detectors[1] and None not in detectors:
        yield f"Detector: {detectors[0]} → {detectors[1]}"
    moved = [f"{name} {old[name]:.3g} → {new[name]:.3g}" for name in new if name in old and old[name] != new[name]]
    if moved:
        yield f"Thresholds: {_named(moved)}"


def _thresholds(manifest: Manifest) -> dict[str, float]:
    heads = {"anomaly": manifest["heads"].get("anomaly"), **manifest["heads"]["failure"]}
    return {name: float(head["threshold"]) for name, head in heads.items() if head and "threshold" in head}


def _data(before: Manifest, now: Manifest) -> Iterator[str]:
    if before["training"].get("fingerprint") != now["training"].get("fingerprint"):
        yield f"Learned from {_learned(now)}; the champion from {_learned(before)}"


def _learned(manifest: Manifest) -> str:
    machines = sum(len(some) for some in manifest["training"]["machines"].values())
    rows = (manifest["provenance"].get("learned_from") or {}).get("rows")
    until = (manifest["training"].get("period") or ["", ""])[1][:10]
    return f"{machines:,} machines" + (f", {rows:,} rows" if rows else "") + (f", until {until}" if until else "")


def _libraries(before: Manifest, now: Manifest) -> Iterator[str]:
    old, new = (one["provenance"].get("libraries") or {} for one in (before, now))
    moved = [f"{name} {old[name]} → {new[name]}" for name in new if name in old and old[name] != new[name]]
    if moved:
        yield f"Libraries: {_named(moved)}"
