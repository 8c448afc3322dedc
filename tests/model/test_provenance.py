"""The digest of a model's inputs: every file that could change the model or its verdict is part of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from model.common import provenance

TABLES = "sha256:tables"


@pytest.fixture
def root(tmp_path):
    """A commit in small: one file in each folder that counts."""
    for name, text in {
        "requirements/train.txt": "numpy==2\n",
        "src/closedloop/judge/gate.py": "LIMIT = 1\n",
        "model/params.yaml": "seed: 7\n",
        "model/data.lock.json": "{}\n",
        "model/train.py": "RATE = 1\n",
        "model/common/thresholds.py": "CANDIDATES = 40\n",
        "model/common/deeper/still.py": "DEPTH = 3\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def digest(root: Path) -> str:
    return provenance.inputs_digest(root / "model" / "params.yaml", TABLES, root, root / "src" / "closedloop")


@pytest.mark.parametrize(
    "name",
    [
        "requirements/train.txt",
        "src/closedloop/judge/gate.py",
        "model/params.yaml",
        "model/data.lock.json",
        "model/train.py",
        "model/common/thresholds.py",
        "model/common/deeper/still.py",
    ],
)
def test_one_changed_byte_changes_the_digest_at_any_depth(root, name):
    before = digest(root)
    path = root / name
    path.write_bytes(path.read_bytes()[:-2] + b"9\n")
    assert before != digest(root)


@pytest.mark.parametrize("name", ["model/common/more.py", "model/common/table.csv", "model/deep/er/new.yaml"])
def test_a_new_file_below_model_changes_the_digest_whatever_it_is(root, name):
    before = digest(root)
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("new\n")
    assert before != digest(root)


def test_every_file_of_this_checkouts_own_model_folder_is_an_input(root):
    shutil.rmtree(root / "model")
    ours = Path(provenance.__file__).parents[1]
    shutil.copytree(ours, root / "model", ignore=shutil.ignore_patterns("__pycache__", "accepted.json"))
    before = digest(root)
    files = [path for path in (root / "model").rglob("*") if path.is_file()]
    assert root / "model/common/thresholds.py" in files
    for path in files:
        content = path.read_bytes()
        path.write_bytes(content + b"\n")
        assert before != digest(root), path
        path.write_bytes(content)
    assert before == digest(root)


def test_a_file_that_moves_changes_the_digest(root):
    before = digest(root)
    (root / "model/common/thresholds.py").rename(root / "model/thresholds.py")
    assert before != digest(root)


@pytest.mark.parametrize(
    "name",
    [
        "model/accepted.json",
        "model/__pycache__/train.cpython-311.pyc",
        "model/common/__pycache__/thresholds.cpython-311.pyc",
        "model/.ipynb_checkpoints/notes.ipynb",
        "model/.train.py.swp",
        "src/closedloop/judge/__pycache__/gate.cpython-311.pyc",
        "build/decision.json",
    ],
)
def test_the_acceptance_and_what_tools_leave_behind_are_no_inputs(root, name):
    before = digest(root)
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("anything\n")
    assert before == digest(root)


def test_only_the_acceptance_of_model_itself_is_left_out(root):
    """A file of that name elsewhere is an input like any other."""
    before = digest(root)
    (root / "model/common/accepted.json").write_text("{}\n")
    assert before != digest(root)


def test_the_tables_and_the_parameters_in_use_are_inputs(root):
    before = digest(root)
    (root / "other.yaml").write_text("seed: 8\n")
    library = root / "src" / "closedloop"
    assert before != provenance.inputs_digest(root / "other.yaml", TABLES, root, library)
    assert before != provenance.inputs_digest(root / "model/params.yaml", "sha256:other", root, library)


def test_two_folders_with_the_same_files_have_the_same_digest(root, tmp_path_factory):
    """Whatever the order in which a file system lists them, and wherever the folder lies."""
    other = tmp_path_factory.mktemp("other")
    for path in sorted((path for path in root.rglob("*") if path.is_file()), reverse=True):
        target = other / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    assert digest(root) == digest(other)
