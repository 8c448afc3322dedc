"""Give a copy a name of its own: ``make rename NAME=press-line``. It changes the places listed here, and nothing else.

The title, the wheel, the image, the Kubernetes objects and the volumes take the name. The Python package `closedloop`,
the metrics `closedloop_…`, the bundle format and the image labels `closedloop.…` keep theirs: dashboards and bundles
depend on them, and otherwise a later merge of the template would conflict with every import.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OLD, OLD_TITLE = "closedloop", "Closed Loop"
NAME = re.compile(r"[a-z](?:[a-z0-9]|-(?=[a-z0-9])){1,39}")  # valid for a wheel, an image and a namespace
TAKEN = {"model", "score", "tests", "docker", "k8s", "default", "kube-system", OLD}

WORD = re.compile(rf"(?<![\w/.-]){OLD}(?![\w/.]|-bundle)")  # not a path, package, metric, format or image label
TITLE = re.compile(rf"{OLD_TITLE}(?! authors)")  # the licence keeps its authors
PROJECT = re.compile(rf'(?<=^name = "){OLD}(?="$)', re.MULTILINE)
IMAGE = re.compile(rf"{OLD}(?=:dev|-log\b|-same\b)")
NAMESPACE = re.compile(rf"(?<=--namespace ){OLD}\b")

# Where the name is written. A place without it is an error: it has moved, and this list must follow.
PLACES: dict[str, tuple[re.Pattern[str], ...]] = {
    "README.md": (TITLE,),
    "pyproject.toml": (PROJECT,),
    "score/pages/openapi.py": (TITLE,),
    "score/pages/page.html": (TITLE,),
    "Makefile": (IMAGE,),
    "compose.yaml": (WORD, IMAGE),
    "docker/Dockerfile": (TITLE,),
    "docker/README.md": (IMAGE,),
    "k8s/README.md": (IMAGE, NAMESPACE),
    "k8s/**/*.yaml": (WORD,),
    "tests/e2e/*.py": (IMAGE,),
}
CHOSEN = re.compile(rf'(?<=^OLD, OLD_TITLE = ")({OLD})", "({OLD_TITLE})(?="$)', re.MULTILINE)


def rename(root: Path, name: str) -> list[str]:
    """Write the name into every place under ``root``; return the files that changed.

    Raises:
        ValueError: the name is not valid, or a place does not contain the old one; then nothing is written.
    """
    if not NAME.fullmatch(name) or name in TAKEN:
        raise ValueError(
            f"NAME={name}: choose 2 to 40 of a-z, 0-9 and single hyphens, a letter first, like NAME=press-line; "
            f"not {', '.join(sorted(TAKEN))}"
        )
    title = name.replace("-", " ").title()
    changed: dict[Path, str] = {}
    for place, patterns in PLACES.items():
        found = 0
        for path in sorted(root.glob(place)):
            text = changed.get(path) or path.read_text(encoding="utf-8")
            for pattern in patterns:
                text, times = pattern.subn(title if pattern is TITLE else name, text)
                found += times
            changed[path] = text
        if not found:
            raise ValueError(f"{place} does not contain the name {OLD}; correct PLACES in .ci/dev/rename.py")
    here = root / ".ci/dev/rename.py"
    changed[here] = CHOSEN.sub(f'{name}", "{title}', here.read_text(encoding="utf-8"))
    fresh = {path: text for path, text in changed.items() if text != path.read_text(encoding="utf-8")}
    for path, text in fresh.items():
        path.write_text(text, encoding="utf-8")
    return [path.relative_to(root).as_posix() for path in sorted(fresh)]


def main() -> int:
    """Run ``make rename`` and return the exit code; 2: the name is not valid."""
    try:
        changed = rename(ROOT, sys.argv[1] if len(sys.argv) > 1 else "")
    except ValueError as error:
        print(f"make rename: {error}", file=sys.stderr)
        return 2
    print(*changed, sep="\n")
    print(f"\n{len(changed)} files have the new name; read git diff, then run: make check")
    return 0


if __name__ == "__main__":
    sys.exit(main())
