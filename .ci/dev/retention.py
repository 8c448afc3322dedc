"""Remove images of old releases from the registry, and drafts that nobody will publish: ``make retention``.

It prints what would go; with CONFIRM=OWNER/NAME it goes. What is served, the champion, and what a rollback may take
stay: the newest KEEP releases that were served and not withdrawn, and all of the last DAYS days. Only images that a
release or an old draft names are removed, with the tag beside each that has its signatures: what this program does not
know stays. Releases themselves, their files and tags stay, since the log's answers are given again with their bundles.

docs.github.com/rest/packages/packages: the name of a container's version is its digest. A version that is public and
was pulled more than 5,000 times cannot be deleted; GitHub says so.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from dev.origin import Origin, origin
from pipeline import github, release_facts
from pipeline.github import PipelineError

KEEP = 10  # releases that a rollback may take, whatever their age
DAYS = 90
DRAFT_DAYS = 35  # a reviewer has 30 to approve one


def day(now: datetime, days: int) -> str:
    """Return the time some days ago, as texts sort."""
    return (now - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")


def digest(known: dict[str, Any]) -> str:
    """Return the digest of a release's image; an empty text where it names none."""
    return str(known.get("image") or "").partition("@")[2]


def kept(known: list[release_facts.Release], now: datetime) -> dict[str, str]:
    """Return the digests of the images that stay, each with the reason."""
    titled = {title: release_facts.latest(known, title) for title in ("served", "champion")}
    found = {digest(one.facts): f"{title}: {one.tag}" for title, one in titled.items() if one}
    standing = [one for one in known if one.facts.get("served") and not one.facts.get("withdrawn")]
    standing.sort(key=lambda one: str(one.facts["served"]), reverse=True)
    for number, one in enumerate(standing):
        if number < KEEP or str(one.facts["served"]) > day(now, DAYS):
            found.setdefault(digest(one.facts), f"a rollback may take {one.tag}")
    for one in known:  # one that was withdrawn of late may still be looked into; one that waits to be served is new
        moved = max(str(release_facts.at(one.facts.get(title))) for title in ("served", "champion", "withdrawn"))
        if not moved or moved > day(now, DAYS):
            found.setdefault(digest(one.facts), f"{one.tag} is of the last {DAYS} days, or was never served")
    return found


def old_drafts(releases: list[dict[str, Any]], now: datetime) -> list[dict[str, Any]]:
    """Return the pipeline's own drafts that are older than any approval."""
    return [
        one
        for one in releases
        if one["draft"] and release_facts.facts(one.get("body") or "") and one["created_at"] < day(now, DRAFT_DAYS)
    ]


def old_images(
    versions: list[dict[str, Any]],
    known: list[release_facts.Release],
    drafts: list[dict[str, Any]],
    waiting: list[dict[str, Any]],
    now: datetime,
) -> list[dict[str, Any]]:
    """Return the versions of the image's package that go; ``waiting`` are drafts that stay, and keep their image."""
    stays = set(kept(known, now)) | {digest(release_facts.facts(one.get("body") or "") or {}) for one in waiting}
    named = {digest(one.facts) for one in known} | {digest(release_facts.facts(one["body"]) or {}) for one in drafts}
    gone = {one for one in named - stays if one}
    signatures = {one.replace(":", "-") for one in gone}  # the tag under which the signatures of an image are found
    return [one for one in versions if one["name"] in gone or signatures & set(tags(one))]


def tags(version: dict[str, Any]) -> list[str]:
    """Return the tags of a version of a package."""
    return list(((version.get("metadata") or {}).get("container") or {}).get("tags") or [])


def run(here: Origin, confirmed: bool, now: datetime) -> list[str]:
    """Return a line for each thing that goes, or would go, and remove it where that was confirmed.

    Raises:
        PipelineError: GitHub cannot be asked, or refuses.
    """
    about = here.api()
    os.environ |= {
        "GITHUB_REPOSITORY": here.name,
        "GITHUB_SERVER_URL": f"https://{here.host}",
        "GH_REPO": f"{here.host}/{here.name}",
        "PRIVATE": str(bool(about["private"])).lower(),
    }
    known, releases = release_facts.published(), here.objects("releases")
    if not release_facts.latest(known, "served"):
        raise PipelineError("no release is served, so that it is not known what may go; nothing is removed")
    drafts = old_drafts(releases, now)
    waiting = [one for one in releases if one["draft"] and one not in drafts]
    owner, name = here.name.lower().split("/")
    kind = "orgs" if about["owner"]["type"] == "Organization" else "users"
    package = f"/{kind}/{owner}/packages/container/{name}/versions"
    versions = listed(here, package)
    lines = []
    for one in old_images(versions, known, drafts, waiting, now):
        lines.append(f"image {one['name'][:19]} of {one['created_at'][:10]} {' '.join(tags(one))}".rstrip())
        if confirmed:
            here.gh("api", "--method", "DELETE", f"{package}/{one['id']}")
    for one in drafts:  # after its image, which only it names
        lines.append(f"draft {one['tag_name']} of {one['created_at'][:10]}")
        if confirmed:
            here.gh("api", "--method", "DELETE", f"repos/{here.name}/releases/{one['id']}")
    return lines


def listed(here: Origin, package: str) -> list[dict[str, Any]]:
    """Return every version of a package; none where there is no package yet."""
    try:
        return github.listed(package, env={"GH_REPO": f"{here.host}/{here.name}"})
    except PipelineError as error:
        if "HTTP 404" not in str(error):
            raise
    return []


def main() -> int:
    """Run ``make retention`` and return the exit code; 1: refused; 2: CONFIRM names another repository."""
    try:
        here, confirm = origin(), os.environ.get("CONFIRM", "")
        if confirm and confirm != here.name:
            print(f"make retention: CONFIRM={confirm}: this repository is {here.name}", file=sys.stderr)
            return 2
        lines = run(here, bool(confirm), datetime.now(UTC))
    except PipelineError as error:
        print(f"make retention: {error}", file=sys.stderr)
        return 1
    how = "is removed" if confirm else f"would be removed; to remove it: make retention CONFIRM={here.name}"
    print("\n".join([*lines, "", f"What is listed {how}." if lines else "Nothing is old enough to be removed."]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
