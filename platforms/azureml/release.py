"""The release that is deployed: what build/release says and holds.

`make release-verify` has compared the files there with the release's facts, and those with who signed them.
"""

from __future__ import annotations

import json
import re
import shutil
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILES = Path("build/release")
WORK = Path("build/azureml")
AGAIN = "fetch it again, or a later one: make release-fetch RELEASE=tag"


class DeployError(Exception):
    """The deployment cannot go on; the message says what failed and how to fix it."""


@dataclass(frozen=True)
class Release:
    """One release, with its bundle unpacked below build/azureml."""

    image: str
    commit: str
    bundle_digest: str
    model_digest: str
    schema: dict[str, Any]

    @property
    def version(self) -> str:
        """How Azure's assets of this release are called: the first digits of the bundle's digest."""
        return self.bundle_digest.removeprefix("sha256:")[:16]

    def image_at(self, place: str) -> str:
        """The image at another registry's name, by the same digest; the release's own without one.

        Raises:
            DeployError: the release has no digest, or the name has one.
        """
        digest = self.image.rpartition("@")[2]
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
            raise DeployError(f"the release's image {self.image!r} has no digest, so nobody can say what would run")
        if "@" in place:
            raise DeployError(f"AZUREML_IMAGE={place}: write the name alone; the digest is the release's")
        return f"{place}@{digest}" if place else self.image

    def request(self) -> bytes:
        """A request that this release's model can answer: one hour of one machine without readings."""
        columns = {"datetime": ["2015-01-01T06:00:00Z"], "machineID": ["1"]}  # a number in quotes is one too
        readings: dict[str, list[Any]] = {name: [None] for name in self.schema["sensors"]}
        return json.dumps({"telemetry": columns | readings}).encode()


def read() -> Release:
    """Return the release of build/release, and unpack its bundle.

    Raises:
        DeployError: there is none, or it is not whole.
    """
    try:
        facts = json.loads((FILES / "facts.json").read_text(encoding="utf-8"))
        shutil.rmtree(WORK / "bundle", ignore_errors=True)
        WORK.mkdir(parents=True, exist_ok=True)
        with tarfile.open(FILES / "bundle.tar.gz") as archive:
            archive.extractall(WORK, filter="data")
        manifest = json.loads((WORK / "bundle/manifest.json").read_text(encoding="utf-8"))
        named = {key: str(facts[key]) for key in ("image", "commit", "bundle_digest", "model_digest")}
        found, schema = manifest["bundle_digest"], dict(manifest["schema"])
        schema["sensors"] = list(schema["sensors"])
    except FileNotFoundError as error:
        raise DeployError(f"{error.filename} is missing; fetch a release: make release-fetch RELEASE=tag") from None
    except KeyError as error:
        raise DeployError(f"the release in {FILES} does not say {error}; {AGAIN}") from None
    except (ValueError, TypeError, EOFError, OSError, tarfile.TarError) as error:
        raise DeployError(f"the release in {FILES} cannot be read ({error}); {AGAIN}") from None
    if found != named["bundle_digest"]:
        raise DeployError(f"{FILES}/bundle.tar.gz is not the bundle of its facts; {AGAIN}")
    return Release(**named, schema=schema)


def server_files(root: Path) -> tuple[Path, Path]:
    """Return the code and the build context of Azure's server: the release's wheel, and the lock beside its Dockerfile.

    Raises:
        DeployError: the release has no wheel.
    """
    wheels = sorted(FILES.glob("*.whl"))
    if len(wheels) != 1:
        raise DeployError(f"{FILES} holds {len(wheels)} wheels instead of one; fetch the release again")
    code, context = WORK / "code", WORK / "server"
    for folder in (code, context):
        shutil.rmtree(folder, ignore_errors=True)
    with zipfile.ZipFile(wheels[0]) as archive:
        archive.extractall(code)  # noqa: S202 - its digest is among the facts
    context.mkdir(parents=True)
    shutil.copy(root / "platforms/azureml/server/Dockerfile", context)
    shutil.copy(root / "requirements/azmlinfsrv.txt", context)
    return code, context
