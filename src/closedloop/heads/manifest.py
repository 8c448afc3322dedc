"""``manifest.json``: the content of a bundle, how it is written, and its two digests."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from closedloop.data.machines import NUMBER, TEXT
from closedloop.heads.storage import MANIFEST, BundleError, sha256

FORMAT = "closedloop-bundle-1"
HORIZON = "horizon_hours"  # in a bundle's provenance: how far ahead a failure is foreseen


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the manifest: these fields in this order, and no others."""


class TrainedOn(Strict, frozen=True):
    """What the heads were fitted on: machines by source, (first, last) time in RFC 3339, fingerprint of the tables.

    Machines are sorted; where they have names, arrays of the bundle hold their positions in that list. ``until_us`` is
    the time of the last training row, by source and machine; the split rule ``prefix`` needs it.
    """

    machines: dict[str, list[int | str]]
    period: tuple[str, str]
    fingerprint: str
    until_us: dict[str, dict[str, int]] = {}

    @property
    def count(self) -> int:
        """The number of training machines."""
        return sum(map(len, self.machines.values()))

    def check(self, machine_id: str) -> None:
        """Raise BundleError where a machine is not called as ``schema.machine_id`` says."""
        for source, machines in self.machines.items():
            if wrong := [machine for machine in machines if isinstance(machine, str) != (machine_id == TEXT)]:
                said = f"the training machine {wrong[0]!r:.80} of {source!r:.80} is no {machine_id}"
                raise BundleError(f"{said}, as schema.machine_id says; train again")


class AnomalyEntry(Strict, frozen=True):
    """The anomaly head in the manifest."""

    detector: str
    threshold: float
    file: str


class FailureEntry(Strict, frozen=True, omit_defaults=True):
    """One failure head in the manifest; ``plateau`` as in :class:`~closedloop.heads.scorers.FailureHead`."""

    threshold: float
    file: str
    plateau: tuple[float, float] | None = None


class Heads(Strict, frozen=True):
    """The heads in the manifest; a component without one is null."""

    anomaly: AnomalyEntry | None
    failure: dict[str, FailureEntry | None]


class SchemaEntry(Strict, frozen=True, omit_defaults=True):
    """The schema in the manifest, in the form of :meth:`Schema.to_dict`: that machines have numbers is not written."""

    sensors: dict[str, tuple[float, float]]
    components: list[str]
    errors: list[str]
    models: list[str]
    sampling_minutes: int
    machine_id: str = NUMBER


class FileEntry(Strict, frozen=True):
    """One file in the manifest."""

    sha256: str
    bytes: int


class Manifest(Strict, frozen=True):
    """``manifest.json``. ``features_code`` and ``constants`` are digests of code and of the baselines' arrays."""

    format: str
    model_digest: str
    bundle_digest: str
    schema: SchemaEntry
    features: dict[str, Any]
    features_code: str
    history_hours: float
    constants: str
    heads: Heads
    training: TrainedOn
    provenance: dict[str, Any]
    files: dict[str, FileEntry]

    def to_dict(self) -> dict[str, Any]:
        """The manifest as plain JSON values."""
        return msgspec.to_builtins(self)

    def render(self) -> bytes:
        """The bytes of this manifest; there is only one way to write it."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"

    def digests(self) -> tuple[str, str]:
        """The model digest and the bundle digest of this content."""
        parts = ("format", "schema", "features", "features_code", "constants", "heads")
        heads = {name: entry.sha256 for name, entry in self.files.items() if name.startswith("heads/")}
        raw = self.to_dict()
        model = _canonical({name: raw[name] for name in parts} | {"files": heads})
        whole = _canonical(raw | {"model_digest": sha256(model), "bundle_digest": ""})
        return sha256(model), sha256(whole)


def parse(data: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        BundleError: it is of another format, lacks or adds a field, or is not written as :meth:`Manifest.render` does.
    """
    try:
        raw = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise BundleError(f"{MANIFEST} is not JSON ({error}); train again") from None
    found = raw.get("format") if isinstance(raw, dict) else None
    if found != FORMAT:
        raise BundleError(f"its format is {found!r:.80}, this code reads {FORMAT!r}; use the code it was trained with")
    try:
        manifest = msgspec.convert(raw, Manifest)
    except msgspec.ValidationError as error:
        raise BundleError(f"{MANIFEST}: {error}; train again") from None
    if manifest.render() != data:  # a key given twice, another order: two readers could then disagree
        raise BundleError(f"{MANIFEST} is not written as training writes it; copy the bundle again or train again")
    return manifest


def _canonical(raw: dict[str, Any]) -> bytes:
    # in the order given, not sorted: the order of the sensors means something
    return json.dumps(raw, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
