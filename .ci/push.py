"""Push the image that was built and tested here, and say its digest: from now on nothing else names it."""

from __future__ import annotations

import json
import os
import re
import sys

import hub

REGISTRY = "ghcr.io"  # GitHub's own: a run's token logs in nowhere else


def main() -> None:
    """Tag with the commit, push, and hand on ``ghcr.io/owner/name@sha256:…``."""
    docker = os.environ.get("DOCKER", "docker")
    name = f"{REGISTRY}/{hub.repository()}".lower()
    tagged = f"{name}:{hub.setting('GITHUB_SHA')}"
    hub.call(docker, "tag", hub.setting("IMAGE"), tagged)
    print(hub.literal(hub.call(docker, "push", tagged)))
    known = json.loads(hub.call(docker, "image", "inspect", "--format", "{{json .RepoDigests}}", tagged))
    found = [one for one in known or [] if re.fullmatch(re.escape(name) + r"@sha256:[0-9a-f]{64}", one)]
    if len(found) != 1:
        raise hub.LineError(f"the push of {tagged} left no digest; the engine knows {known}")
    hub.output(image=found[0], name=name, digest=found[0].partition("@")[2])


if __name__ == "__main__":
    sys.exit(hub.main({"": main}))
