"""Load build/bundle as the service does, print its digest, and compare it with EXPECTED where that is set."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from closedloop.heads.bundle import BundleError, load
from pipeline import github


def main() -> None:
    """Set the output ``bundle_digest``.

    Raises:
        PipelineError: the bundle cannot be loaded, or is not EXPECTED.
    """
    try:
        manifest = load(Path("build/bundle")).manifest
    except BundleError as error:
        raise github.PipelineError(f"build/bundle: {error}") from error
    assert manifest is not None, "a loaded bundle has one"  # noqa: S101
    found = manifest.bundle_digest
    expected = os.environ.get("EXPECTED")
    if expected is not None and expected != found:  # an empty one is a digest that was lost on the way
        judged = expected or "an unknown one"
        raise github.PipelineError(f"this bundle is {found}, but {judged} was judged; run the workflow again")
    github.output(bundle_digest=found)


if __name__ == "__main__":
    sys.exit(github.main({"": main}))
