"""What distinguishes a run from its commit: changed parameters, changed files, and the name made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from model.common import provenance

MOST = 400_000  # characters of a diff that are kept
LONGEST = 120  # characters of a run's name
SHOWN = 5  # files in a tag
SHORT = 3  # changed parameters in a name


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one mapping, ``a.b.c: value``; lists stay as they are."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        key: leaf for name, child in value.items() for key, leaf in flat(child, f"{prefix}.{name}".strip(".")).items()
    }


def of_params(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that differ from the commit's ``params.yaml``, by key; None where a key is gone.

    It is empty outside git, where there is nothing to compare with.
    """
    return {key: now for key, (_, now) in since("HEAD", content).items()}


def since(commit: str, content: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the parameters that differ from a commit's ``params.yaml``: the commit's value and this one.

    It is empty where git does not know the commit or its file.
    """
    committed = provenance.git("show", f"{commit}:model/params.yaml")
    if committed is None:
        return {}
    before, now = flat(yaml.safe_load(committed)), flat(dict(content))
    keys = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    return {key: (before.get(key), now.get(key)) for key in keys}


def name(content: Mapping[str, Any], changed: Mapping[str, Any], verdict: str) -> str:
    """Return what a run is, in one line: the changed parameters, else the two estimators, and the verdict."""
    if not changed:
        what = f"{content['failure']['estimator']}, {content['anomaly']['detector']}"
    else:
        what = ", ".join(f"{key.rpartition('.')[2]}={changed[key]}" for key in list(changed)[:SHORT])
        what += f" and {len(changed) - SHORT} more" if len(changed) > SHORT else ""
    what += ", changed code" if any(not file.endswith("params.yaml") for file in files()) else ""
    space = LONGEST - len(verdict) - 2
    return f"{what if len(what) <= space else what[: space - 1] + '…'}: {verdict}"


def files() -> list[str]:
    """Return the files that differ from the commit, also untracked ones; empty outside git."""
    listed = provenance.git("-c", "core.quotePath=false", "status", "--porcelain", "--untracked-files=all") or ""
    return [line.strip().partition(" ")[2].strip() for line in listed.splitlines()]


def said(changed: list[str]) -> str:
    """Return changed files as a tag."""
    more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return ", ".join(changed[:SHOWN]) + more if changed else "none"


def diff() -> str:
    """Return the changes since the commit as a patch, cut where it is very long, and the names of new files."""
    patch = provenance.git("diff", "HEAD", "--no-color", "--no-ext-diff") or ""
    new = provenance.git("ls-files", "--others", "--exclude-standard", "--full-name", "--", ":/") or ""
    text = f"{patch}\n" if patch else ""
    if len(text) > MOST:
        text = f"{text[:MOST]}\n# cut here: the diff has {len(patch):,} characters\n"
    return text + "".join(f"# untracked, not in this diff: {file}\n" for file in new.splitlines())
