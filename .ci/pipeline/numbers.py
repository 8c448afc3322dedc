"""The number of a release, as semver.org has it, for those who call the service: what a new one means for them.

| it rises in | where, since the release that is served |
| --- | --- |
| 1.x.x | a caller may have to change: something of the interface is gone, changed or newly asked for |
| x.1.x | the model or the data that taught it is another one, or the interface has something more |
| x.x.1 | the code alone is another one |

Nobody types it: it comes from the bundles' manifests and the OpenAPI documents of the two. It is given when the release
is published, one at a time, and is signed with the move that makes it the served one; a tag never has it, since a tag
is made before anything can be compared. No number is given twice: where a rollback has withdrawn the release with the
highest one, the next must say what it changes since that one too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pipeline import changes, github, release_facts

FORM = re.compile(r"\.".join([r"(0|[1-9][0-9]{0,99})"] * 3))  # whatever number is given must be read again
FIRST = "1.0.0"
BREAKS, ADDS, FIXES = range(3)  # which of the three parts rises
OPERATION = re.compile(r"[A-Z]+ /\S*")  # such an entry of an interface; a field may have a space in its name too
NAMED = ("components", "errors", "models")  # of a bundle's schema: what requests may name


def parts(one: release_facts.Release) -> tuple[int, ...]:
    """Return the number of a release as three whole numbers; none where it has no number, as older releases."""
    found = FORM.fullmatch(str(one.facts.get("number") or ""))
    return tuple(map(int, found.groups())) if found else ()


def bumped(number: tuple[int, ...], which: int) -> str:
    """Return the number after another one, of which a part rises and those behind it begin at nought."""
    new = [*number[:which], number[which] + 1, *[0] * (2 - which)]
    return ".".join(map(str, new))


def breaks(old: changes.Side, new: changes.Side) -> Iterator[str]:
    """Yield why a caller may have to change."""
    older, newer = old.manifest["schema"], new.manifest["schema"]
    if (older["sensors"], older["sampling_minutes"]) != (newer["sensors"], newer["sampling_minutes"]):
        yield "the sensors of a request are others"
    if older.get("machine_id") != newer.get("machine_id"):
        yield "machines are called otherwise"
    for key in NAMED:
        if gone := [name for name in older.get(key) or [] if name not in (newer.get(key) or [])]:
            yield f"a request may not name the {key} {changes.named(gone)} any more"
    if new.manifest["history_hours"] > old.manifest["history_hours"]:
        yield "a request needs more hours of history"
    if lost := sorted(changes.thresholds(old.manifest["heads"]).keys() - changes.thresholds(new.manifest["heads"])):
        yield f"gone alarms: {changes.named(lost)}"
    if new.document is None or old.document is None:
        yield "one of the two has no OpenAPI document"
        return
    before, now = changes.facts(old.document), changes.facts(new.document)
    lost = [name for name in before if name not in now or not keeps(name, before[name], now[name])]
    asked = [name for name in now if name not in before and now[name].endswith(changes.MUST) and is_of(name, before)]
    if lost:
        yield f"gone or changed in the interface: {changes.named(lost)}"
    if asked:
        yield f"newly asked for in the interface: {changes.named(asked)}"


def is_of(name: str, before: dict[str, str]) -> bool:
    """Return whether a field or parameter is of a schema or operation that an interface had before."""
    return any(name[: found.start()] in before for found in re.finditer(r"\.|: ", name))


def keeps(name: str, before: str, now: str) -> bool:
    """Return whether one entry of an interface still holds what it promised; an operation may have more answers."""
    if before == now:
        return True
    return bool(OPERATION.fullmatch(name)) and set(before.split(", ")) <= set(now.split(", "))


def adds(old: changes.Side, new: changes.Side) -> Iterator[str]:
    """Yield what is another one or more, without that a caller must change."""
    if old.manifest["model_digest"] != new.manifest["model_digest"]:
        yield "the model is another one"
    if old.manifest["training"].get("fingerprint") != new.manifest["training"].get("fingerprint"):
        yield "other data taught it"
    if changes.facts(old.document or {}) != changes.facts(new.document or {}):
        yield "the interface has more"


def since(one: release_facts.Release, now: Path) -> tuple[int, str]:
    """Return which part rises from a release to the one in a folder, and why.

    What cannot be compared counts as another interface: a number that is too high misleads nobody, and no release waits
    for a file that is gone.
    """
    try:
        new, old = changes.here(now), changes.of_release(one)
        for which, found in ((BREAKS, breaks), (ADDS, adds)):
            if why := list(found(old, new)):
                return which, f"since {one.tag}, {'; '.join(why)}"
    except (github.PipelineError, KeyError, TypeError, AttributeError, ValueError) as error:  # an older format
        return BREAKS, f"{one.tag} cannot be compared ({error})"
    return FIXES, f"since {one.tag}, the code alone is another one"


def given(known: list[release_facts.Release], now: Path, tag: str) -> tuple[str, str]:
    """Return the number of the release in a folder, and why it has that one; ``known`` are those that are published."""
    others = [one for one in known if one.tag != tag and one.facts.get("served")]
    served = release_facts.latest(others, "served")
    highest = max(others, key=parts, default=None)
    if highest is None or not parts(highest):
        return FIRST, "it is the first release that has a number"
    found = [since(one, now) for one in dict.fromkeys((served, highest)) if one is not None]
    return bumped(parts(highest), min(which for which, _ in found)), "; ".join(why for _, why in found)
