"""Push the image that was built and tested here, and set its digest as an output: all that follows uses the digest."""

from __future__ import annotations

import json
import os
import re
import sys

from pipeline import github

REGISTRY = "ghcr.io"  # the only registry that the token of a run can log in to


def main() -> None:
    """Tag with the commit, push, and set the outputs ``image`` (``name@sha256:…``), ``name`` and ``digest``.

    Raises:
        PipelineError: the engine refused, or reports no digest.
    """
    docker = os.environ.get("DOCKER", "docker")
    name = f"{REGISTRY}/{github.repository()}".lower()
    tagged = f"{name}:{github.setting('GITHUB_SHA')}"
    github.call(docker, "tag", github.setting("IMAGE"), tagged)
    print(github.literal(github.call(docker, "push", tagged)))
    known = json.loads(github.call(docker, "image", "inspect", "--format", "{{json .RepoDigests}}", tagged))
    found = [one for one in known or [] if re.fullmatch(re.escape(name) + r"@sha256:[0-9a-f]{64}", one)]
    if len(found) != 1:
        raise github.PipelineError(f"no digest is known of {tagged} after its push; the engine reports {known}")
    github.output(image=found[0], name=name, digest=found[0].partition("@")[2])


if __name__ == "__main__":
    sys.exit(github.main({"": main}))
