"""Keep this copy fresh: newer locks and the newest digest of the base image, as one pull request that gets its checks.

``renew`` changes the files here, after `make lock UPGRADE=1`, and keeps what changed in build/refresh. The command
without a name opens or updates the pull request of those, from another job, whose token no library ever saw.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from pipeline import branches, github, propose

FOLDER = Path("build/refresh")
BRANCH = "refresh"
TITLE = "Renew locks and base image"
BASES = ("docker/Dockerfile", ".devcontainer/Dockerfile")
RENEWED = re.compile(r"requirements/[\w-]+\.txt|(docker|\.devcontainer)/Dockerfile")  # what the pull request may change
FROM = re.compile(r"^(FROM (?P<image>[\w./-]+:[\w.-]+))@sha256:[0-9a-f]{64}", re.MULTILINE)
PIN = re.compile(r"^([\w.-]+(?:\[[\w,-]+\])?)==([^\s;\\]+)", re.MULTILINE)


def newest(image: str) -> str:
    """Return the digest that a registry has for an image by its tag.

    Raises:
        PipelineError: the engine cannot ask, or the answer has none.
    """
    words = ("buildx", "imagetools", "inspect", image, "--format", "{{json .Manifest}}")
    answer = github.call(os.environ.get("DOCKER", "docker"), *words)
    found = re.search(r'"digest": ?"(sha256:[0-9a-f]{64})"', answer)
    if found is None:
        raise github.PipelineError(f"the registry names no digest of {image}: {answer.strip()[:200] or 'no answer'}")
    return found[1]


def renew() -> None:
    """Renew the base images' digests; copy every changed file and a summary into build/refresh; set ``changed``.

    Raises:
        PipelineError: a workflow cannot ask for a digest. On a laptop that is only said.
    """
    for path in map(Path, BASES):
        text = path.read_text(encoding="utf-8")
        try:
            path.write_text(FROM.sub(lambda it: f"{it[1]}@{newest(it['image'])}", text), encoding="utf-8")
        except github.PipelineError as error:
            if os.environ.get("GITHUB_ACTIONS") == "true":
                raise
            print(f"skipped: {path} keeps its base image, since {error}")
    changed = [name for name in branches.git("diff", "--name-only", "HEAD").splitlines() if RENEWED.fullmatch(name)]
    shutil.rmtree(FOLDER, ignore_errors=True)
    for name in changed:
        (FOLDER / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(name, FOLDER / "files" / name)
    if changed:
        (FOLDER / "summary.md").write_text(summary(changed), encoding="utf-8")
    github.tell(f"Renewed: {', '.join(changed) or 'nothing, all is new'}.")
    github.output(changed=bool(changed))


def summary(changed: list[str]) -> str:
    """Return the text of the pull request: each library with its old and new version, and the base images."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for path in changed:
        old, new = (dict(PIN.findall(text)) for text in (branches.content("HEAD", path), Path(path).read_text("utf-8")))
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                rows.setdefault((name, old.get(name, "-"), new.get(name, "-")), []).append(Path(path).stem)
    table = [f"| {name} | {old} | {new} | {', '.join(locks)} |" for (name, old, new), locks in rows.items()]
    head = ["| library | was | is | locks |", "| --- | --- | --- | --- |"]
    base = [f"`{path}`: the newest digest of its base image." for path in changed if path in BASES]
    told = [
        "Every version is at least a week old, so that others find its faults first. `required` says whether the model",
        "and the service are as good with it; the report of its run has the figures of the gate.",
    ]
    return "\n".join([*told, "", *base, "", *(head if table else []), *table]) + "\n"


def files() -> dict[str, Path]:
    """Return what is to be changed: the path, and the file with its new content.

    Raises:
        PipelineError: a file is none that is renewed.
    """
    there = FOLDER / "files"
    found = {path.relative_to(there).as_posix(): path for path in sorted(there.rglob("*")) if not path.is_dir()}
    for name, path in found.items():
        if not RENEWED.fullmatch(name) or path.is_symlink():
            raise github.PipelineError(f"{name} is not renewed by a pull request of the pipeline")
    return found


def main() -> None:
    """Open or update the pull request, or say on the summary page why not."""
    new = files()
    found = propose.Proposal.now(BRANCH, "\n".join(new))
    began = github.setting("GITHUB_SHA")
    moved = [path for path in new if branches.content(began, path) != branches.content(branches.MAIN, path)]
    why = "" if new else "nothing is newer"
    if moved:
        why = f"main has changed {', '.join(moved)} since this run began; the next run starts from there"
    if why := why or found.waits:
        github.tell(f"Nothing proposed: {why}.")
        return
    text = (FOLDER / "summary.md").read_text(encoding="utf-8")
    commit = branches.renew(branches.changed(new), BRANCH, f"{TITLE}\n\n{github.run_url()}", found.head)
    if found.number is None:
        branches.propose(BRANCH, TITLE, text)
    else:
        branches.update(found.number, TITLE, text)
    branches.check_once(BRANCH, commit)
    github.tell(f"Proposed: the pull request of `{BRANCH}`{f', #{found.number}' * bool(found.number)}.")


if __name__ == "__main__":
    sys.exit(github.main({"": main, "renew": renew}))
