"""A copy takes the template's later changes: by a pull request that is offered, or by the commands of the docs.

docs.github.com/repositories/creating-and-managing-repositories/creating-a-repository-from-a-template: the copy starts
with the files in one commit, without the history. git-scm.com/docs/git-merge-tree: exit status 1 is a conflict.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline import release, template

from .test_release import Repository

WHO = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main")


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *WHO, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"git {' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def commit(folder: Path, **contents: str) -> str:
    for name, text in contents.items():
        (folder / name).write_text(text, encoding="utf-8")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", ", ".join(contents))
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def told(root: Path) -> list[str]:
    """The git commands of that section, with their comments."""
    text = (root / "docs/living-with-it.md").read_text(encoding="utf-8")
    block = re.search(r"^```\n(git remote add template.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    assert "make pr " in block[1].splitlines()[-1]
    return [line for line in block[1].splitlines() if line.startswith("git ")]


def follow(told: list[str], copy: Path, template: Path, began: str, again: bool = False) -> None:
    for line in told:
        command, _, comment = line.partition(" #")
        if again and comment.strip() == "once":
            continue
        words = re.findall(r"'([^']*)'|(\S+)", command)
        plain = [quoted or bare for quoted, bare in words][1:]
        git(copy, *(str(template) if "OWNER/REPO" in word else began if word == "BEGAN" else word for word in plain))


def squash(copy: Path, branch: str) -> None:
    """As `make pr` has GitHub merge: one commit on main, which knows nothing of the branch's merges."""
    git(copy, "switch", "--quiet", "main")
    git(copy, "merge", "--quiet", "--squash", branch)
    git(copy, "commit", "--quiet", "--message", "squashed")
    assert git(copy, "rev-list", "--count", "--min-parents=2", "HEAD") == "0"


LINES = "".join(f"line {number}\n" for number in range(20))


def test_a_copy_takes_later_changes_again_and_again_and_keeps_its_own(told: list[str], tmp_path: Path) -> None:
    template, copy = tmp_path / "template", tmp_path / "copy"
    for folder in (template, copy):
        folder.mkdir()
        git(folder, "init", "--quiet")
    began = commit(template, params="a: 1\n", code=LINES)
    commit(copy, params="a: 1\n", code=LINES)  # "Use this template": the files, and none of the history
    commit(copy, params="a: 2\n", code=LINES.replace("line 1\n", "ours\n"))
    commit(template, code=LINES.replace("line 18\n", "theirs\n"), new="new\n")

    follow(told, copy, template, began)
    assert (copy / "params").read_text() == "a: 2\n"
    assert (copy / "new").read_text() == "new\n"
    assert (copy / "code").read_text() == LINES.replace("line 1\n", "ours\n").replace("line 18\n", "theirs\n")

    took = git(copy, "rev-parse", "template/main")
    squash(copy, "template-update")
    commit(copy, params="a: 3\n")
    commit(template, new="newer\n", code=LINES.replace("line 18\n", "theirs again\n"))
    follow(told, copy, template, took, again=True)
    assert (copy / "new").read_text() == "newer\n"
    assert (copy / "params").read_text() == "a: 3\n"
    assert (copy / "code").read_text() == LINES.replace("line 1\n", "ours\n").replace("line 18\n", "theirs again\n")


def test_without_the_first_step_it_would_be_conflicts(tmp_path: Path) -> None:
    template, copy = tmp_path / "template", tmp_path / "copy"
    for folder, value in ((template, "a: 1\n"), (copy, "a: 2\n")):
        folder.mkdir()
        git(folder, "init", "--quiet")
        commit(folder, params=value)
    git(copy, "remote", "add", "template", str(template))
    git(copy, "fetch", "--quiet", "template")
    words = ["git", *WHO, "merge", "--allow-unrelated-histories", "template/main"]
    assert subprocess.run(words, cwd=copy, capture_output=True, check=False).returncode == 1


# --- the pull request that refresh.yml offers ---

FLOW = ".github/workflows/a.yml"
THEIRS = "line 18\n", "theirs\n"


class Copy:
    """A copy of a template: the template beside it, and what GitHub says of both."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.template = folder / "site/them/template"
        self.template.mkdir(parents=True)
        git(self.template, "init", "--quiet")
        self.began = self.add({"params": "a: 1\n", "code": LINES, FLOW: "on: push\n"})
        self.repo = Repository(folder, root, release.NAME)
        self.repo.environment |= {"GITHUB_SERVER_URL": f"file://{folder}/site", "AS_APP": "true"}
        self.repo.git("switch", "--quiet", "--orphan", "fresh")
        self.here({"params": "a: 1\n", "code": LINES, FLOW: "on: push\n"})
        self.here({"params": "a: 2\n", "code": LINES.replace("line 1\n", "ours\n")})
        self.about(template_repository={"full_name": "them/template", "private": False})

    def about(self, **known: Any) -> None:
        self.repo.state["api"]["repos/someone/fleet"] = known
        self.repo.keep()

    def add(self, contents: dict[str, str]) -> str:
        for name, text in contents.items():
            (self.template / name).parent.mkdir(parents=True, exist_ok=True)
            (self.template / name).write_text(text)
        git(self.template, "add", "--all")
        git(self.template, "commit", "--quiet", "--message", f"change {', '.join(contents)} #7 @someone")
        return git(self.template, "rev-parse", "HEAD")

    def here(self, contents: dict[str, str]) -> str:
        commit = self.repo.commit(contents)
        self.repo.git("push", "--quiet", "--force", "origin", "HEAD:main")
        self.repo.git("fetch", "--quiet", "origin")
        return commit

    def run(self, *words: str, **extra: str) -> str:
        done = self.repo.run("template", *words, **extra)
        self.repo.git("fetch", "--quiet", "origin")
        return done.stdout + done.stderr

    def show(self, path: str, branch: str = template.BRANCH) -> str:
        return self.repo.git("show", f"origin/{branch}:{path}") + "\n"

    def record(self) -> dict[str, Any]:
        return dict(json.loads(self.show(template.RECORD)))


@pytest.fixture
def made(tmp_path: Path, root: Path) -> Copy:
    return Copy(tmp_path, root)


def test_a_clean_merge_is_one_pull_request_and_the_next_one_starts_there(made: Copy) -> None:
    newest = made.add({"code": LINES.replace(*THEIRS), "new": "new\n"})
    assert "Offered: them/template up to" in made.run()
    assert "a: 2\n" == made.show("params")
    assert LINES.replace("line 1\n", "ours\n").replace(*THEIRS) == made.show("code")
    assert {"commit": newest, "open": []} == made.record()
    assert made.repo.git("rev-parse", "origin/main") == made.repo.git("rev-parse", f"origin/{template.BRANCH}^@")
    (pull,) = made.repo.calls("pr", "create")
    assert f"<!-- template {newest} -->" in pull["stdin"]
    assert "- change code, new #7" not in pull["stdin"]  # would mention an issue and a person
    assert "make template" not in pull["stdin"]
    made.repo.git("switch", "--quiet", "--detach", f"origin/{template.BRANCH}")  # merged, squashed
    made.here({"own": "own\n"})
    assert "Nothing offered: this copy has all of them/template" in made.run()
    made.add({"new": "newer\n"})
    assert "1 files" in made.run()
    assert "newer\n" == made.show("new")


def test_conflicts_and_workflow_files_stay_ours_are_named_and_open_until_a_person_has_merged_them(made: Copy) -> None:
    newest = made.add({"params": "a: 3\n", FLOW: "on: pull_request\n", "new": "new\n"})
    assert f"left for a person: {FLOW}, params" in made.run()
    assert ("a: 2\n", "on: push\n", "new\n") == (made.show("params"), made.show(FLOW), made.show("new"))
    assert {"commit": newest, "open": [FLOW, "params"], "since": made.began} == made.record()
    (pull,) = made.repo.calls("pr", "create")
    assert f"- `{FLOW}`\n- `params`" in pull["stdin"]
    assert "git fetch && git switch template-update\nmake template TEMPLATE=them/template" in pull["stdin"]
    assert "are not merged yet" in str(still_open(made.record()))
    made.repo.git("switch", "--quiet", template.BRANCH)
    assert "Resolve, then commit: params" in made.run("take", TEMPLATE="them/template")
    assert "on: pull_request\n" == (made.repo.work / FLOW).read_text()
    assert "<<<<<<<" in (made.repo.work / "params").read_text()
    assert still_open(json.loads((made.repo.work / template.RECORD).read_text())) is None
    assert "some files are not committed" in made.run("take", TEMPLATE="them/template")


def test_what_a_person_committed_there_is_not_overwritten(made: Copy) -> None:
    made.add({"new": "new\n"})
    made.run()
    made.repo.git("switch", "--quiet", template.BRANCH)
    made.repo.commit({"params": "a: resolved\n"})
    made.repo.git("push", "--quiet", "origin", f"HEAD:{template.BRANCH}")
    made.repo.git("fetch", "--quiet", "origin")
    assert "has commits of a person" in made.run()
    assert "a: resolved\n" == made.show("params")


def test_what_was_closed_is_offered_again_only_when_the_template_has_moved(made: Copy) -> None:
    newest = made.add({"new": "new\n"})
    pull = {
        "number": 7,
        "state": "closed",
        "merged_at": None,
        "head": {"sha": "x"},
        "body": f"<!-- template {newest} -->",
    }
    made.repo.state["api"][f"pulls?state=all&base=main&head=someone:{template.BRANCH}"] = [pull]
    made.repo.keep()
    assert "#7 offered the same and was closed" in made.run()
    made.add({"new": "newer\n"})
    assert "Offered:" in made.run()


@pytest.mark.parametrize(
    ("about", "setting", "says"),
    [
        ({}, "", "skipped: the template's later changes, since GitHub knows of no template"),
        ({"template_repository": {"full_name": "them/template", "private": True}}, "", "skipped: the template's later"),
        ({"template_repository": {"full_name": "them/template"}}, "none", "since the variable TEMPLATE is none"),
        ({}, "--upload-pack=x/y", "TEMPLATE is no OWNER/NAME"),
        ({}, "https://example.invalid/a/b", "TEMPLATE is no OWNER/NAME"),
        ({}, "them/gone", "the template them/gone cannot be fetched"),
        ({}, "them/template", "Offered: them/template"),
    ],
)
def test_without_an_address_nothing_is_offered_and_the_page_says_why(
    made: Copy, about: dict[str, Any], setting: str, says: str
) -> None:
    made.add({"new": "new\n"})
    made.about(**about)
    assert says in made.run(TEMPLATE=setting)
    assert bool(made.repo.calls("pr", "create")) == says.startswith("Offered")


def test_a_copy_whose_first_commit_is_no_commit_of_the_template_is_told_what_to_write(made: Copy) -> None:
    made.add({"new": "new\n"})
    made.repo.git("switch", "--quiet", "--orphan", "other")
    made.here({"code": "something else\n"})
    assert f"write it into {template.RECORD} on main" in made.run()
    made.here({template.RECORD: json.dumps({"commit": "e" * 40})})
    assert "which is no commit of the template" in made.run()
    made.here({template.RECORD: json.dumps({"commit": made.began})})
    assert "Offered:" in made.run()


@pytest.mark.parametrize("record", [b"{garbage", b"[1]", b'"x"', b'{"commit": 5}', b'{"open": []}', b"\xff"])
def test_a_record_that_cannot_be_read_is_one_clear_error(made: Copy, record: bytes) -> None:
    made.add({"new": "new\n"})
    (made.repo.work / ".ci").mkdir()
    (made.repo.work / template.RECORD).write_bytes(record)
    made.here({})
    said = made.run()
    assert template.RECORD in said or "no UTF-8" in said
    assert "Traceback" not in said


def test_a_name_is_never_a_pattern(made: Copy) -> None:
    odd = ["a*", ":(glob)z", " lead", "trail ", "caf\u00e9", "new\nline", "qu\"ote's", "back\\slash", "-dash"]
    both = dict.fromkeys([*odd, "ab"], "1\n")
    base = made.add(both)
    made.here(both | {template.RECORD: json.dumps({"commit": base})})
    made.here(dict.fromkeys(odd, "ours\n"))
    made.add(dict.fromkeys(both, "theirs\n"))
    assert "1 files; left for a person" in made.run()
    assert "theirs\n" == made.show("ab")
    assert {"ours\n"} == {made.show(name) for name in odd}
    assert sorted(odd) == made.record()["open"]


def test_a_folder_where_this_copy_has_a_file_leaves_the_file_and_the_other_way_round(made: Copy) -> None:
    base = made.add({"x": "1\n"})
    made.here({"x": "1\n", template.RECORD: json.dumps({"commit": base})})
    made.here({"x": "ours\n", "z/a": "ours\n"})
    (made.template / "x").unlink()
    made.add({"x/a": "theirs\n", "z": "theirs\n"})
    made.run()
    assert ("ours\n", "ours\n") == (made.show("x"), made.show("z/a"))
    assert ["x", "z"] == made.record()["open"]


def test_what_was_merged_while_some_was_open_is_offered_again(made: Copy) -> None:
    made.add({"params": "a: 3\n"})
    made.run()
    made.repo.git("switch", "--quiet", "--detach", f"origin/{template.BRANCH}")
    made.here({"own": "own\n"})
    made.add({"new": "new\n"})
    assert "1 files; left for a person: params" in made.run()
    assert {"open": ["params"], "since": made.began}.items() <= made.record().items()


def test_the_template_s_own_record_is_nobody_s_conflict(made: Copy) -> None:
    for name in ("one", "two"):
        made.add({template.RECORD: json.dumps({"commit": name * 9}), name: "new\n"})
        assert "1 files." in made.run()
        assert [] == made.record()["open"]
        made.repo.git("switch", "--quiet", "--detach", f"origin/{template.BRANCH}")
        made.here({"own": name})


def test_the_button_that_updates_a_branch_is_no_person_s_work(made: Copy) -> None:
    made.add({"new": "new\n"})
    made.run()
    made.here({"own": "own\n"})
    made.repo.git("switch", "--quiet", template.BRANCH)
    made.repo.git("merge", "--quiet", "--no-edit", "origin/main")
    made.repo.git("push", "--quiet", "origin", f"HEAD:{template.BRANCH}")
    made.repo.git("fetch", "--quiet", "origin")
    made.add({"new": "newer\n"})
    assert "Offered:" in made.run()


@pytest.mark.parametrize("name", ["mine", "mine/deep"])
def test_no_file_that_git_does_not_know_is_overwritten_ignored_or_not(made: Copy, name: str) -> None:
    made.here({".gitignore": "mine\n"})
    made.add({"mine": "theirs\n"})
    (made.repo.work / name).parent.mkdir(exist_ok=True)
    (made.repo.work / name).write_text("precious\n")
    assert f"move yours away: {name}" in made.run("take", TEMPLATE="them/template")
    assert "precious\n" == (made.repo.work / name).read_text()


def test_what_was_resolved_and_committed_is_no_conflict_again(made: Copy) -> None:
    made.add({"params": "a: 3\n"})
    made.run("take", TEMPLATE="them/template")
    made.repo.commit({"params": "a: 23\n"})
    made.add({"new": "new\n"})
    assert "nothing is left" in made.run("take", TEMPLATE="them/template")


def test_the_text_of_a_large_update_is_one_that_github_takes(made: Copy) -> None:
    many = {f"d/{'x' * 100}{n}": "1\n" for n in range(400)}
    made.here(dict.fromkeys(many, "2\n"))
    made.add(many)
    subject = b"caf\xe9 " + b"word " * 9000
    words = ["git", *WHO, "commit", "--quiet", "--allow-empty", "--file", "-"]
    subprocess.run(words, cwd=made.template, input=subject, check=True)
    made.run()
    (pull,) = made.repo.calls("pr", "create")
    assert len(pull["stdin"]) < 65536
    assert "- and 370 more" in pull["stdin"]


def test_a_record_written_by_hand_has_the_commit_alone() -> None:
    assert still_open({"commit": "e" * 40}) is None


def still_open(record: dict[str, Any]) -> str | None:
    """What of an update nobody has merged yet."""
    left = record.get("open")  # who writes the record by hand gives the commit alone
    return f"{', '.join(left)} are not merged yet: run make template on this branch" if left else None


def test_nothing_of_an_update_is_left_open(root: Path) -> None:
    path = root / template.RECORD
    assert not path.exists() or still_open(json.loads(path.read_text(encoding="utf-8"))) is None
    marks = subprocess.run(
        ["git", "grep", "-lE", "^(<{7}|>{7}) "], cwd=root, capture_output=True, text=True, check=False
    )
    assert not marks.stdout, f"these have the marks of a merge: {marks.stdout}"
