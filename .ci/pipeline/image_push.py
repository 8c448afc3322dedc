"""Push the image that was built and tested here, and say its digest: from now on nothing else names it."""

from __future__ import annotations

import json
import os
import re
import sys

from pipeline import github

REGISTRY = "ghcr.io"  # GitHub's own: a run's token logs in nowhere else


def main() -> None:
    """Tag with the commit, push, and hand on ``ghcr.io/owner/name@sha256:…``."""
    docker = os.environ.get("DOCKER", "docker")
    name = f"{REGISTRY}/{github.repository()}".lower()
    tagged = f"{name}:{github.setting('GITHUB_SHA')}"
    github.call(docker, "tag", github.setting("IMAGE"), tagged)
    print(github.literal(github.call(docker, "push", tagged)))
    known = json.loads(github.call(docker, "image", "inspect", "--format", "{{json .RepoDigests}}", tagged))
    found = [one for one in known or [] if re.fullmatch(re.escape(name) + r"@sha256:[0-9a-f]{64}", one)]
    if len(found) != 1:
        raise github.LineError(f"the push of {tagged} left no digest; the engine knows {known}")
    github.output(image=found[0], name=name, digest=found[0].partition("@")[2])


if __name__ == "__main__":
    sys.exit(github.main({"": main}))
