"""Load a bundle as the service would, digests first, and say or compare its digest (EXPECTED)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from closedloop.heads.bundle import BundleError, load
from pipeline import github


def main() -> None:
    """Hand on the digest.

    Raises:
        LineError: the bundle does not load, or is another one than EXPECTED.
    """
    try:
        manifest = load(Path("build/bundle")).manifest
    except BundleError as error:
        raise github.LineError(f"build/bundle: {error}") from error
    assert manifest is not None, "what was loaded has one"  # noqa: S101
    found = manifest.bundle_digest
    expected = os.environ.get("EXPECTED")
    if expected is not None and expected != found:  # an empty one is a digest that was lost on its way
        judged = expected or "none that anyone named"
        raise github.LineError(f"this bundle is {found}, and {judged} was trained and judged; run the workflow again")
    github.output(bundle_digest=found)


if __name__ == "__main__":
    sys.exit(github.main({"": main}))
