"""The tag of a release: it is made as soon as the release is decided, and says which of two releases is the newer one.

GitHub refuses a run's token a tag on a commit that is no branch's head, where that commit touches workflow files
(docs.github.com, "Create a release": that takes the permission `workflows`, which GITHUB_TOKEN cannot have). After a
reviewer's wait it is too late. So the tag is made outside of every queue, while the commit is still main's head.
"""

from __future__ import annotations

import json
import re

from pipeline import github, release_facts

TAG = re.compile(r"refs/tags/(r(\d+)-[0-9a-f]{9})")


def own() -> str:
    """Return the tag of this run's release: the number of the run, so that tags sort, and the commit."""
    return f"r{github.setting('GITHUB_RUN_NUMBER')}-{github.setting('GITHUB_SHA')[:9]}"


def there(tag: str) -> str:
    """Return the commit that a tag names; an empty text where there is no such tag."""
    refs = github.objects(f"git/matching-refs/tags/{tag}")
    return next((str(one["object"]["sha"]) for one in refs if one["ref"] == f"refs/tags/{tag}"), "")


def reserve() -> str:
    """Make the tag of this run's release; return in words why it cannot be made, or an empty text.

    Raises:
        PipelineError: a tag of that name is at another commit, or GitHub cannot be asked.
    """
    commit, tag = github.setting("GITHUB_SHA"), own()
    if found := there(tag):
        refuse_moved(tag, found, commit)
        return ""  # by an earlier attempt of this run
    path = f"repos/{github.repository()}/git"
    head = json.loads(github.gh("api", f"{path}/ref/heads/main"))["object"]["sha"]
    if head != commit:
        return f"main has moved on to {head[:12]}, whose own run releases it"
    body = json.dumps({"ref": f"refs/tags/{tag}", "sha": commit})
    try:
        github.gh("api", "--method", "POST", f"{path}/refs", "--input", "-", stdin=body)
    except github.PipelineError as error:
        return f"GitHub refused its tag ({error}); main's next commit releases it too"
    return ""


def refuse_moved(tag: str, found: str, commit: str) -> None:
    """Refuse a release whose tag names another commit than its own.

    Raises:
        PipelineError: it does, or there is no such tag.
    """
    if found != commit:
        how = f"its tag was moved to commit {found[:12]}" if found else "its tag is gone"
        raise github.PipelineError(f"release {tag} is refused: {how}, and it is of {commit[:12]}")


def newer(on_its_way: bool) -> str:
    """Return in words which newer release is published, or (``on_its_way``) still in a run; else an empty text.

    So that an older commit is not deployed over a newer one, and never takes its place in a queue.
    """
    number = int(github.setting("GITHUB_RUN_NUMBER"))
    found = [
        (int(match[2]), match[1], str(ref["object"]["sha"]))
        for ref in github.objects("git/matching-refs/tags/r")
        if (match := TAG.fullmatch(ref["ref"])) and int(match[2]) > number
    ]
    for count, tag, commit in sorted(found, reverse=True):
        if release_facts.is_release(tag):
            return f"{tag} is newer, and released"
        runs = github.objects(f"actions/workflows/ci.yml/runs?head_sha={commit}", "workflow_runs") if on_its_way else []
        if any(one["run_number"] == count and one["status"] != "completed" for one in runs):
            return f"{tag} is newer, and on its way"
    return ""
