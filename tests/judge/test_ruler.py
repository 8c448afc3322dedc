"""What a ruler is made of, and which changes of a commit make its ruler another one."""

import json
import re
import shutil
from pathlib import Path

import pytest

import closedloop
from closedloop.judge.ruler import changes, ruler

PARAMS = {
    "labels": {"horizon_hours": 24},
    "judge": {"neutral_hours": 96, "costs": {"planned": 2000}},
    "gate": {"false_alarm_ratio": 1.1},
    "split": {"rule": "fleet"},
    "source": "plant",
    "seed": 1,
}
DELTA = {"kind": "delta", "location": "az://log/requests", "version": 3, "versions": [1, 3]}
SIMULATOR = {"kind": "simulator", "profile": "default", "machines": 100, "days": 365, "seed": 7}
PIN = {"parts": [SIMULATOR], "fingerprint": "sha256:tables"}


@pytest.fixture
def package(tmp_path):
    """A copy of the library."""
    without = shutil.ignore_patterns("__pycache__")
    return shutil.copytree(Path(closedloop.__file__).parent, tmp_path / "closedloop", ignore=without)


@pytest.fixture
def commit(tmp_path):
    """Write the modules of a commit; gives its package."""

    def write(modules: dict[str, str]) -> Path:
        package = tmp_path / "closedloop"
        shutil.rmtree(package, ignore_errors=True)
        for name, source in modules.items():
            path = package / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        return package

    return write


def code_of(package: Path) -> dict[str, str]:
    return {name: value for name, value in ruler(package, PARAMS, PIN).items() if name.startswith("code ")}


def test_a_leak_check_that_finds_nothing_is_another_ruler(package):
    """With ``overlap()`` disarmed a model may train on what judges it: nobody may compare it silently."""
    before = ruler(package, PARAMS, PIN)
    checks = package / "judge/checks.py"
    disarmed = re.sub(r"(def overlap\(.*?\"\"\"\n)", r"\1    return []\n", checks.read_text(), flags=re.DOTALL)
    assert disarmed != checks.read_text()
    checks.write_text(disarmed)
    assert changes(before, ruler(package, PARAMS, PIN)) == ["code of judge/"]


def test_every_file_of_judge_and_every_module_of_data_that_it_imports_is_the_ruler_and_no_other(package):
    before = ruler(package, PARAMS, PIN)
    judge = sorted(path.relative_to(package).as_posix() for path in (package / "judge").iterdir())
    assert {"judge/checks.py", "judge/holdout.py", "judge/labels.py", "judge/ruler.py", "judge/split.py"} <= set(judge)
    data = ("data/machines.py", "data/marks.py", "data/order.py", "data/schema.py")
    measuring = dict.fromkeys(judge, "code of judge/") | {name: f"code of {name}" for name in data}
    for path in sorted(package.rglob("*.*")):
        name, content = path.relative_to(package).as_posix(), path.read_bytes()
        path.write_bytes(content + b"\n")
        expected = [measuring[name]] if name in measuring else []
        if name == "data/__init__.py":
            expected = ["code of data/__init__.py"]
        assert expected == changes(before, ruler(package, PARAMS, PIN)), name
        path.write_bytes(content)
    (package / "judge/limits.json").write_text("{}")
    assert changes(before, ruler(package, PARAMS, PIN)) == ["code of judge/"]


def test_neither_place_nor_line_ends_nor_what_python_leaves_behind_matter(package, tmp_path):
    before = ruler(package, PARAMS, PIN)
    assert ruler(Path(closedloop.__file__).parent, PARAMS, PIN) == before
    (package / "judge/__pycache__").mkdir()
    (package / "judge/__pycache__/gate.cpython-311.pyc").write_bytes(b"\0")
    (package / "judge/.gate.py.swp").write_bytes(b"\0")
    for path in (package / "judge").glob("*.py"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    moved = (package.parent / "another place").joinpath("closedloop")
    shutil.move(package, moved)
    assert ruler(moved, PARAMS, PIN) == before


def test_a_renamed_or_emptied_file_is_another_ruler(commit):
    found = [
        code_of(commit({"judge/gate": "a = 1\n", "judge/checks": ""})),
        code_of(commit({"judge/gates": "a = 1\n", "judge/checks": ""})),
        code_of(commit({"judge/gate": "", "judge/checks": "a = 1\n"})),
        code_of(commit({"judge/gate": "a = 1\n"})),
        code_of(commit({"judge/sub/gate": "a = 1\n"})),
    ]
    assert len({code["code of judge/"] for code in found}) == len(found)


@pytest.mark.parametrize(
    "statement",
    [
        "from closedloop.data.schema import Schema",
        "from closedloop.data import schema",
        "from closedloop.data import schema as other",
        "import closedloop.data.schema",
        "import os, closedloop.data.schema as other",
        "from ..data.schema import Schema",
        "from ..data import schema",
        "def later():\n    from closedloop.data import schema",
        "from closedloop.data import readers",  # which imports schema
        "if True:\n    from closedloop.judge import gate\n    import closedloop.data.readers",
    ],
)
def test_imports_of_data_are_found_however_they_are_written(commit, statement):
    package = commit(
        {
            "judge/gate": statement + "\n",
            "data/__init__": "",
            "data/schema": "",
            "data/readers": "from closedloop.data.schema import Schema\n",
            "data/simulate": "import closedloop.data.schema\n",
        }
    )
    code = code_of(package)
    assert {"code of judge/", "code of data/__init__.py", "code of data/schema.py"} <= set(code)
    assert "code of data/simulate.py" not in code
    assert ("code of data/readers.py" in code) is ("readers" in statement)


def test_modules_of_data_that_import_each_other_end_the_search(commit):
    package = commit(
        {
            "judge/gate": "from closedloop.data import one\n",
            "data/__init__": "",
            "data/one": "from . import two\n",
            "data/two": "from .one import x\nfrom closedloop.data.deep.three import y\n",
            "data/deep/__init__": "",
            "data/deep/three": "import closedloop.data.two\n",
        }
    )
    assert sorted(code_of(package)) == [
        "code of data/__init__.py",
        "code of data/deep/__init__.py",
        "code of data/deep/three.py",
        "code of data/one.py",
        "code of data/two.py",
        "code of judge/",
    ]


def test_a_commit_of_another_age_or_language_has_a_ruler_too(commit, tmp_path):
    """Before the move, the judge imported features and drew the report; a later Python may have other syntax."""
    old = commit(
        {
            "judge/gate": "from closedloop.features.labels import labels\n",
            "judge/report": "from closedloop.heads.bundle import Bundle\nfrom closedloop.data.schema import Tables\n",
            "features/labels": "from closedloop.data.schema import Events\n",
            "data/schema": "",
        }
    )
    assert sorted(code_of(old)) == ["code of data/schema.py", "code of judge/"]
    broken = code_of(
        commit({"judge/gate": "def = 1\n", "judge/truth": "from closedloop.data import schema\n", "data/schema": ""})
    )
    assert sorted(broken) == ["code of data/schema.py", "code of judge/"]
    assert sorted(code_of(tmp_path / "nothing")) == ["code of judge/"]


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("labels", {"horizon_hours": 48}),
        ("judge", PARAMS["judge"] | {"neutral_hours": 48}),
        ("judge", PARAMS["judge"] | {"costs": {}}),
        ("gate", {"false_alarm_ratio": 2.0}),
        ("split", {"rule": "unit"}),
        ("source", "another plant"),
        ("gate", None),
    ],
)
def test_labels_judge_costs_gate_split_and_source_are_the_ruler(package, section, value):
    mine, theirs = ruler(package, PARAMS, PIN), ruler(package, PARAMS | {section: value}, PIN)
    assert changes(mine, theirs) == changes(theirs, mine) == [f"{section} in params.yaml"]


def test_features_estimator_and_the_order_of_keys_are_not_the_ruler(package):
    other = dict(reversed(PARAMS.items())) | {"features": 1, "failure": 2, "seed": 2}
    assert ruler(package, PARAMS, PIN) == ruler(package, other, PIN)


TABLES = "tables that the data pin gives"


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [
        ({"parts": [DELTA]}, {"parts": [DELTA]}, []),
        ({"parts": [DELTA]}, {"parts": [DELTA | {"version": 4}]}, []),
        ({"parts": [DELTA]}, {"parts": [DELTA | {"versions": [2, 4]}]}, []),
        ({"parts": [DELTA]}, {"parts": [DELTA, SIMULATOR]}, ["parts of the data pin"]),
        (PIN, PIN | {"parts": [SIMULATOR | {"seed": 8}]}, ["parts of the data pin"]),
        (PIN, {"parts": [SIMULATOR | {"seed": 8}], "fingerprint": "sha256:other"}, ["parts of the data pin"]),
        (PIN, PIN | {"fingerprint": "sha256:other"}, [TABLES]),
        (PIN, {"parts": [SIMULATOR]}, []),
        (
            {"parts": [DELTA], "fingerprint": "sha256:older"},
            {"parts": [DELTA | {"version": 4}], "fingerprint": "sha256:newer"},
            [],
        ),
        ({"parts": [DELTA], "fingerprint": "a"}, {"parts": [DELTA], "fingerprint": "b"}, [TABLES]),
        (PIN, {}, ["parts of the data pin"]),
    ],
)
def test_other_parts_are_another_ruler_and_so_are_other_tables_from_the_same_parts(package, mine, theirs, expected):
    """A newer version of the same Delta tables is not: its tables are other ones because time went by."""
    one, other = ruler(package, PARAMS, mine), ruler(package, PARAMS, theirs)
    assert changes(one, other) == changes(other, one) == expected


FILES = {"kind": "files", "location": "az://c/plant", "account": "one", "files": [{"path": "a.csv", "sha256": "0"}]}
LOG = {"kind": "log", "location": "s3://b/log", "versions": {"requests": 3, "feedback": None}}


@pytest.mark.parametrize(
    ("part", "other", "expected"),
    [
        (FILES, FILES | {"location": "s3://b/plant", "region": "eu-west-1", "public": True}, []),
        (FILES, FILES | {"account": "two"}, []),
        (FILES, FILES | {"files": [{"path": "a.csv", "sha256": "1"}]}, ["parts of the data pin"]),
        (FILES, FILES | {"files": [{"path": "b.csv", "sha256": "0"}]}, ["parts of the data pin"]),
        (LOG, LOG | {"versions": {"requests": 9, "feedback": 2}}, []),
        (LOG, LOG | {"endpoint": "https://store.example"}, []),
        (LOG, LOG | {"location": "s3://b/other"}, ["parts of the data pin"]),
        (LOG, LOG | {"account": "two"}, ["parts of the data pin"]),
        (DELTA, DELTA | {"until": "2026-01-01"}, ["parts of the data pin"]),
    ],
)
def test_the_same_files_elsewhere_and_newer_versions_of_the_same_log_are_the_same_ruler(package, part, other, expected):
    one, two = ruler(package, PARAMS, {"parts": [part]}), ruler(package, PARAMS, {"parts": [other]})
    assert changes(one, two) == expected


def test_files_that_moved_and_are_read_otherwise_are_another_ruler(package):
    one = ruler(package, PARAMS, {"parts": [FILES], "fingerprint": "a"})
    two = ruler(package, PARAMS, {"parts": [FILES | {"location": "s3://b/x"}], "fingerprint": "b"})
    assert changes(one, two) == [TABLES]


def test_a_ruler_survives_a_file(package):
    one = ruler(package, PARAMS, PIN)
    assert json.loads(json.dumps(one)) == one
    assert changes(one, json.loads(json.dumps(one))) == []


def test_what_only_one_of_two_rulers_has_is_a_change():
    assert changes({"a": "1"}, {"a": "1", "b": "2"}) == ["b"]
    assert changes({"b": "1", "a": "1"}, {"b": "2"}) == ["a", "b"]
