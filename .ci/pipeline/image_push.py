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

    IMAGE is the id of the image that was tested, and the digest is asked of that id: no tag is trusted, which a test
    could have moved.

    Raises:
        PipelineError: IMAGE is a tag, the engine refused, or it reports no digest.
    """
    docker = os.environ.get("DOCKER", "docker")
    name = f"{REGISTRY}/{github.repository()}".lower()
    tagged, tested = f"{name}:{github.setting('GITHUB_SHA')}", github.setting("IMAGE")
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", tested):
        raise github.PipelineError(f"IMAGE is {tested}, and must be the id that `make image` printed: sha256:…")
    github.call(docker, "tag", tested, tagged)
    print(github.literal(github.call(docker, "push", tagged)))
    known = json.loads(github.call(docker, "image", "inspect", "--format", "{{json .RepoDigests}}", tested))
    found = [one for one in known or [] if re.fullmatch(re.escape(name) + r"@sha256:[0-9a-f]{64}", one)]
    if len(found) != 1:
        raise github.PipelineError(f"no digest is known of {tagged} after its push; the engine reports {known}")
    github.output(image=found[0], name=name, digest=found[0].partition("@")[2])


if __name__ == "__main__":
    sys.exit(github.main({"": main}))
