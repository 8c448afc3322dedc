"""The bundle: a trained model as arrays and JSON, without code.

Loading trusts nothing. The format, the list of files, every digest and the feature code are checked before an array is
parsed, and the content of the arrays before it is used, since whoever can change a bundle can also correct its digests.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from closedloop.data.schema import DataError, Float64, Int64, Schema, Tables
from closedloop.features.kernel import Features, compute, iter_machines
from closedloop.features.spec import Constants, FeatureSpec, code_digest
from closedloop.heads.drift_reference import DriftReference
from closedloop.heads.manifest import (
    FORMAT,
    AnomalyEntry,
    FailureEntry,
    FileEntry,
    Heads,
    Manifest,
    SchemaEntry,
    TrainedOn,
    parse,
)
from closedloop.heads.scorers import DETECTORS, AnomalyHead, FailureHead
from closedloop.heads.storage import MANIFEST, REFERENCE, BundleError, listing, pack, read, sha256, unpack, write_files
from closedloop.heads.trees import Stack, walk_stack

__all__ = [
    "ANOMALY_SCORE",
    "Bundle",
    "BundleError",
    "Predictions",
    "TrainedOn",
    "load",
    "load_drift_reference",
    "write",
]

ANOMALY_SCORE = "anomaly_score"  # the feature of failure heads that follows the spec's own
ROWS_WORTH_STREAMING = 20_000  # from here on, features are computed machine by machine, to save memory


@dataclass(frozen=True, eq=False)
class Predictions:
    """Answers by row. ``probability`` and ``alarm`` are (components, rows), NaN and False where there is no head."""

    machine: Int64
    time: Int64
    history_hours: Float64
    anomaly_score: Float64
    anomaly_alarm: NDArray[np.bool_]
    probability: Float64
    alarm: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Bundle:
    """A trained model. ``failures`` lacks the components without a head.

    ``manifest`` is None until the bundle is written; :func:`load` fills it in.
    """

    schema: Schema
    spec: FeatureSpec
    constants: Constants
    anomaly: AnomalyHead | None
    failures: dict[str, FailureHead]
    training: TrainedOn
    provenance: dict[str, Any]
    drift_reference: DriftReference | None = None
    card: str = ""
    manifest: Manifest | None = None

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The features that the columns of the failure heads index: the spec's, then the anomaly score."""
        return (*self.spec.names, *([ANOMALY_SCORE] if self.anomaly else []))

    @cached_property
    def _failures(self) -> tuple[Stack, Float64, Float64, list[int]]:
        """All failure heads for one walk: trees, calibration, thresholds (heads, 1), and place among the components."""
        places = [k for k, name in enumerate(self.schema.components) if name in self.failures]
        heads = [self.failures[self.schema.components[k]] for k in places]
        width = len(self.feature_names)
        stack = Stack.of([head.forest for head in heads], [head.columns for head in heads], width)
        logistic = np.array([[head.slope for head in heads], [head.intercept for head in heads]])
        return stack, logistic, np.array([[head.threshold] for head in heads]), places

    def predict(self, tables: Tables, last_only: bool = False) -> Predictions:
        """Answers at every telemetry row, or with ``last_only`` at the last row of each machine.

        The bits of an answer do not depend on what else is in the tables.
        """
        if last_only or len(tables.time) < ROWS_WORTH_STREAMING:
            return self.answer(compute(tables, self.spec, self.constants, self.schema, last_only))
        rows, components = len(tables.time), len(self.schema.components)
        whole = Predictions(
            tables.machine,
            tables.time,
            np.empty(rows),
            np.empty(rows),
            np.empty(rows, bool),
            np.empty((components, rows)),
            np.empty((components, rows), bool),
        )
        start = 0
        for features in iter_machines(tables, self.spec, self.constants, self.schema):
            part = self.answer(features)
            here = slice(start, start + len(part.time))
            for name in ("history_hours", "anomaly_score", "anomaly_alarm", "probability", "alarm"):
                getattr(whole, name)[..., here] = getattr(part, name)
            start = here.stop
        return whole

    def answer(self, features: Features) -> Predictions:
        """Answers for features that :mod:`closedloop.features.kernel` computed."""
        rows, components = len(features.time), len(self.schema.components)
        if self.anomaly is None:
            score, extra = np.full(rows, np.nan), np.empty((0, rows))
            anomalous = np.zeros(rows, bool)
        else:
            score = self.anomaly.score(features.X)
            extra, anomalous = score[None, :], score >= self.anomaly.threshold
        if components and len(self.failures) == components:
            stack, logistic, threshold, _ = self._failures
            probability = walk_stack(stack, features.X, extra, logistic)
            alarm = probability >= threshold
        else:
            probability, alarm = np.full((components, rows), np.nan), np.zeros((components, rows), bool)
            if self.failures:
                stack, logistic, threshold, places = self._failures
                probability[places] = found = walk_stack(stack, features.X, extra, logistic)
                alarm[places] = found >= threshold
        return Predictions(
            features.machine, features.time, features.history_hours, score, anomalous, probability, alarm
        )


def write(bundle: Bundle, folder: Path) -> Manifest:
    """Write a bundle and return its manifest; an existing bundle in the folder is replaced.

    The same bundle gives the same bytes in every folder.

    Raises:
        BundleError: the bundle is not consistent, or the folder holds something else.
    """
    _check(bundle)
    heads, files = _packed(bundle)
    constants = bundle.constants.to_arrays()
    stored = {} if bundle.drift_reference is None else bundle.drift_reference.to_arrays()
    drift = {f"drift.{name}": array for name, array in stored.items()}
    files[REFERENCE] = pack({f"constants.{name}": array for name, array in constants.items()} | drift)
    files["card.md"] = bundle.card.encode()
    manifest = Manifest(
        format=FORMAT,
        model_digest="",
        bundle_digest="",
        schema=msgspec.convert(bundle.schema.to_dict(), SchemaEntry),
        features=bundle.spec.to_dict(),
        features_code=code_digest(),
        history_hours=float(bundle.spec.to_dict()["history_hours"]),  # type: ignore[arg-type]
        constants=sha256(pack(constants)),
        heads=heads,
        training=bundle.training,
        provenance=bundle.provenance,
        files={name: FileEntry(sha256(data), len(data)) for name, data in sorted(files.items())},
    )
    try:
        model, whole = manifest.digests()
        manifest = msgspec.structs.replace(manifest, model_digest=model, bundle_digest=whole)
        files[MANIFEST] = manifest.render()
    except (TypeError, ValueError) as error:
        raise BundleError(f"training or provenance is not plain JSON: {error}") from None
    write_files(files, folder, lambda path: (path / MANIFEST).is_file())
    return manifest


def _packed(bundle: Bundle) -> tuple[Heads, dict[str, bytes]]:
    """The manifest's entries of the heads, and the bytes of their files by name."""
    files: dict[str, bytes] = {}
    anomaly: AnomalyEntry | None = None
    if bundle.anomaly is not None:
        head = bundle.anomaly
        anomaly = AnomalyEntry(head.detector, float(head.threshold), "heads/anomaly.safetensors")
        files[anomaly.file] = pack(head.to_arrays())
    failure: dict[str, FailureEntry | None] = {}
    for k, component in enumerate(bundle.schema.components):
        if (own := bundle.failures.get(component)) is None:
            failure[component] = None
            continue
        # named by place, since a component's name may contain any character
        entry = FailureEntry(float(own.threshold), f"heads/failure-{k + 1:02d}.safetensors", own.plateau)
        files[entry.file] = pack(own.to_arrays())
        failure[component] = entry
    return Heads(anomaly, failure), files


def load(folder: Path) -> Bundle:
    """Verify and read a bundle.

    Raises:
        BundleError: it is incomplete, was changed, was trained with other feature code, or cannot answer safely.
    """
    with _named(folder):
        manifest, files = _verified(folder)
        if manifest.features_code != code_digest():
            raise BundleError("it was trained with other feature code than this; check out its commit or train again")
        bundle = _build(manifest, files)
        _check(bundle)
        return bundle


def load_drift_reference(folder: Path) -> tuple[Schema, DriftReference | None]:
    """The schema and the drift reference of a bundle, whatever feature code it was trained with.

    Raises:
        BundleError: it is incomplete, was changed, or its drift reference is not valid.
    """
    with _named(folder):
        manifest, files = _verified(folder)
        schema, found = _schema(manifest), _drift_reference(_stored(files)["drift"])
        _check_drift_reference(found, schema, manifest.heads.anomaly is not None, manifest.training)
        return schema, found


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Errors raised inside name the folder, in one line."""
    try:
        yield
    except BundleError as error:
        raise BundleError(f"bundle {folder}: {' '.join(str(error).split())}") from None


def _verified(folder: Path) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest and the bytes of each file that it lists, complete and unchanged but not yet parsed."""
    sizes = listing(folder)
    manifest = parse(read(folder, MANIFEST, sizes.pop(MANIFEST)))
    if other := sorted(sizes.keys() ^ manifest.files.keys()):
        where = "is not in the manifest" if other[0] in sizes else "is in the manifest but not in the folder"
        raise BundleError(f"{other[0]!r:.120} {where}; copy the bundle again or train again")
    files = {}
    for name, entry in manifest.files.items():
        files[name] = read(folder, name, sizes[name])
        if (sha256(files[name]), sizes[name]) != (entry.sha256, entry.bytes):
            raise BundleError(f"{name} was changed: its sha256 is not the manifest's; copy the bundle again")
    for kind, expected, found in zip(
        ("model_digest", "bundle_digest"),
        manifest.digests(),
        (manifest.model_digest, manifest.bundle_digest),
        strict=True,
    ):
        if expected != found:
            raise BundleError(f"{MANIFEST} was changed: its {kind} does not fit its content; copy the bundle again")
    return manifest, files


def _build(manifest: Manifest, files: dict[str, bytes]) -> Bundle:
    entries = manifest.heads.failure
    used = [entry.file for entry in (manifest.heads.anomaly, *entries.values()) if entry is not None]
    if sorted(used) != sorted(name for name in files if name.startswith("heads/")):
        raise BundleError("the heads in the manifest are not the files in heads/; train again")
    schema = _schema(manifest)
    try:
        spec = FeatureSpec.from_dict(manifest.features)
        families = ("history_hours", "rolling", "trend", "change", "shift", "level", "errors")
        params = {name: manifest.features[name] for name in families if name in manifest.features}
        given = FeatureSpec.from_params(params, schema)
    except (DataError, TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise BundleError(f"its feature spec is refused ({error}); train again") from None
    if not given == spec or manifest.features != given.to_dict():
        raise BundleError("its feature spec is not the one that this code derives from its windows; train again")
    if manifest.history_hours != manifest.features["history_hours"]:
        raise BundleError("history_hours in the manifest is not the feature spec's; train again")
    parts = _stored(files)
    try:
        constants = Constants.from_arrays(parts["constants"])
    except DataError as error:
        raise BundleError(f"{REFERENCE}: {error}") from None
    if unknown := sorted(parts["constants"].keys() - constants.to_arrays().keys()):
        raise BundleError(f"{REFERENCE}: {f'constants.{unknown[0]}'!r:.80} is unknown; train again")
    if sha256(pack(constants.to_arrays())) != manifest.constants:
        raise BundleError(f"{REFERENCE}: the baselines are not those of the manifest; copy the bundle again")
    anomaly = None if (entry := manifest.heads.anomaly) is None else _anomaly_head(entry, files[entry.file])
    failures = {name: _failure_head(own, files[own.file]) for name, own in entries.items() if own is not None}
    if list(entries) != list(schema.components):
        raise BundleError("heads.failure in the manifest does not list the schema's components; train again")
    card = files["card.md"].decode(errors="replace")
    return Bundle(
        schema,
        spec,
        constants,
        anomaly,
        failures,
        manifest.training,
        manifest.provenance,
        _drift_reference(parts["drift"]),
        card,
        manifest,
    )


def _schema(manifest: Manifest) -> Schema:
    try:
        return Schema.from_dict(msgspec.to_builtins(manifest.schema))
    except DataError as error:
        raise BundleError(f"its schema is refused ({error}); train again") from None


def _stored(files: dict[str, bytes]) -> dict[str, dict[str, NDArray[Any]]]:
    """The arrays of the baselines (``constants``) and of the drift reference (``drift``)."""
    parts: dict[str, dict[str, NDArray[Any]]] = {"constants": {}, "drift": {}}
    for name, array in unpack(REFERENCE, files[REFERENCE]).items():
        kind, _, rest = name.partition(".")
        if kind not in parts:
            raise BundleError(f"{REFERENCE}: {name!r:.80} is unknown; train again")
        parts[kind][rest] = array
    return parts


def _drift_reference(arrays: dict[str, NDArray[Any]]) -> DriftReference | None:
    try:
        return DriftReference.from_arrays(arrays) if arrays else None
    except ValueError as error:
        raise BundleError(f"{REFERENCE}: drift reference: {error}; train again") from None


def _anomaly_head(entry: AnomalyEntry, data: bytes) -> AnomalyHead:
    if entry.detector not in DETECTORS:
        raise BundleError(f"detector {entry.detector!r:.80} is unknown; this code has {list(DETECTORS)}")
    arrays = unpack(entry.file, data)
    try:
        return AnomalyHead.from_arrays(entry.detector, arrays, entry.threshold)
    except ValueError as error:
        raise BundleError(f"{entry.file}: {error}; train again") from None


def _failure_head(entry: FailureEntry, data: bytes) -> FailureHead:
    arrays = unpack(entry.file, data)
    try:
        return FailureHead.from_arrays(arrays, entry.threshold, entry.plateau)
    except ValueError as error:
        raise BundleError(f"{entry.file}: {error}; train again") from None


def _check(bundle: Bundle) -> None:
    """Raise BundleError where the bundle could not answer, or a compiled loop could leave its arrays."""
    schema, spec, constants = bundle.schema, bundle.spec, bundle.constants
    try:
        constants.check(len(schema.models), len(schema.sensors), len(schema.sensors) * len(spec.level_us))
    except DataError as error:
        raise BundleError(str(error)) from None
    _check_drift_reference(bundle.drift_reference, schema, bundle.anomaly is not None, bundle.training)
    if bundle.anomaly is None and not bundle.failures:
        raise BundleError("it has no head at all; train on more data")
    if unknown := sorted(bundle.failures.keys() - set(schema.components)):
        raise BundleError(f"{unknown[0]!r:.80} has a head but is no component of the schema; train again")
    try:
        if (anomaly := bundle.anomaly) is not None:
            where = "anomaly head"
            if not np.isfinite(anomaly.threshold):
                raise ValueError("its threshold is not a finite number")
            if anomaly.width > len(spec.names):
                raise ValueError(f"it reads a feature outside the {len(spec.names)} known")
            anomaly.scorer.check(len(anomaly.columns))
        for component, head in bundle.failures.items():
            where = f"failure head of {component!r:.80}"
            if not np.isfinite([head.threshold, head.slope, head.intercept]).all():
                raise ValueError("its threshold or calibration is not a finite number")
            if head.width > len(bundle.feature_names):
                raise ValueError(f"it reads a feature outside the {len(bundle.feature_names)} known")
            head.forest.check(len(head.columns))
    except ValueError as error:
        raise BundleError(f"{where}: {error}; train again") from None


def _check_drift_reference(found: DriftReference | None, schema: Schema, scored: bool, training: TrainedOn) -> None:
    """Raise BundleError where it does not describe the schema's sensors, codes and machines, and the score if any."""
    training.check(schema.machine_id)
    try:
        if found is not None:
            found.check(len(schema.sensors) + scored, len(schema.errors), training.count if schema.has_names else None)
    except ValueError as error:
        raise BundleError(f"drift reference: {error}; train again") from None
