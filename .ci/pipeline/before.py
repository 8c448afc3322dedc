"""Have what this change would replace, for `make e2e`: the served release, or without one the base of the change.

Its image becomes closedloop:before. build/before gets k8s/ of its commit, and before.json, which says what it is. The
image of a base is built from the base's own code with this run's bundle; where that code refuses the bundle, as when a
feature changed, with a bundle that the base trains.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from pipeline import champion, github, release, release_facts

FOLDER = Path("build/before")
TREE = FOLDER / "tree"
IMAGE = f"{release.NAME}:before"
BUNDLE = Path("build/bundle")
# What is no business of another commit's code: how make started this program, the outputs of its step, the token.
OF_THIS_RUN = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PYTHONPATH", "PYTHONSAFEPATH", "IMAGE", "GH_TOKEN"} | {
    "GITHUB_OUTPUT",
    "GITHUB_STEP_SUMMARY",
    "BASE_COMMIT",
}


def served() -> release_facts.Release | None:
    """Return the release that is served, if GitHub can be asked and there is one."""
    if not os.environ.get("GITHUB_REPOSITORY") or shutil.which("gh") is None:
        return None
    return release_facts.latest(release_facts.published(), "served")


def make(*words: str) -> bool:
    """Run make in the base's tree with its output shown; return whether it succeeded."""
    environment = {name: value for name, value in os.environ.items() if name not in OF_THIS_RUN}
    done = subprocess.run(["make", "--no-print-directory", *words], cwd=TREE, env=environment, check=False)
    return done.returncode == 0


def build(commit: str) -> bool:
    """Build the image of a commit; return whether that succeeded."""
    github.call("git", "worktree", "prune")
    github.call("git", "worktree", "add", "--quiet", "--force", "--detach", str(TREE), commit)
    words = ("image", f"IMAGE={IMAGE}", f"DOCKER={os.environ.get('DOCKER', 'docker')}")
    shutil.copytree(BUNDLE, TREE / BUNDLE)
    if make(*words):
        return True
    print("the base refuses this run's bundle, or cannot be built with it; it trains one of its own")
    shutil.rmtree(TREE / "build/bundle")
    return make("run", "QUICK=1") and make(*words)


def get() -> tuple[str, str]:
    """Get the image; return its commit, and what it is. No commit: why there is none.

    Raises:
        PipelineError: the release's image cannot be pulled, or git or the engine failed.
    """
    docker = os.environ.get("DOCKER", "docker")
    if last := served():
        github.call(docker, "pull", "--quiet", last.facts["image"])
        github.call(docker, "tag", last.facts["image"], IMAGE)
        return last.commit, f"the served release {last.tag}"
    base = champion.base()
    if not base:
        return "", "no release is served, and this commit has no base"
    what = f"the base {base[:12]}, since no release is served"
    return (base, what) if build(base) else ("", f"the image of {what}, cannot be built")


def main() -> None:
    """Get the image and the manifests, and write down what they are, or why there are none.

    Raises:
        PipelineError: as for :func:`get`.
    """
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    commit, what = get()
    if commit:
        archive = FOLDER / "k8s.tar"
        github.call("git", "archive", "--output", str(archive), commit, "k8s")
        github.call("tar", "--extract", "--file", str(archive), "--directory", str(FOLDER))
        github.tell(f"`make e2e` upgrades from {what}.")
    else:
        github.tell(f"Skipped: the upgrade from another commit's image, in `make e2e`: {what}.")
    (FOLDER / "before.json").write_text(json.dumps({"what": what, "commit": commit}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(github.main({"": main}))
