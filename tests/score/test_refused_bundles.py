"""A damaged bundle stops the start: exit code 3 and one line that names the file (fault 23)."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import pytest

from closedloop.heads.bundle import BundleError
from score import score

EVERY = 1024


@pytest.fixture
def folder(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle, tmp_path / "bundle")


def started(folder, tmp_path):
    """The exit code and stderr of a service started with this bundle."""
    settings = {
        "MODEL_DIR": str(folder),
        "LOG_DIR": str(tmp_path / "log"),
        "AUTH": "open",
        "PORT": "0",
        "LOG_SINK": "none",
    }
    done = subprocess.run(
        [sys.executable, "-m", "score"],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stderr


def largest(folder):
    return max((path for path in folder.rglob("*.safetensors")), key=lambda path: path.stat().st_size)


def missing(folder, tmp_path):
    largest(folder).unlink()


def truncated(folder, tmp_path):
    os.truncate(largest(folder), EVERY)


def flipped(folder, tmp_path):
    data = bytearray(largest(folder).read_bytes())
    data[len(data) // 2] ^= 4
    largest(folder).write_bytes(data)


def a_pickle(folder, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "pwned"),)

    largest(folder).write_bytes(pickle.dumps(Bomb()))


def other_schema(folder, tmp_path):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["schema"]["components"].reverse()
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("change", [missing, truncated, flipped, a_pickle, other_schema])
def test_a_changed_bundle_starts_no_service_and_says_why_in_one_line(change, folder, tmp_path):
    named = "manifest.json" if change is other_schema else largest(folder).name
    change(folder, tmp_path)
    code, said = started(folder, tmp_path)
    assert code == 3, said
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if "cannot start" in line]
    assert named in line
    assert not (tmp_path / "pwned").exists()


def test_cut_at_any_kilobyte_or_with_any_kilobyte_flipped_no_file_is_loaded(folder, monkeypatch):
    monkeypatch.setenv("MODEL_DIR", str(folder))
    tried = 0
    for path in [path for path in sorted(folder.rglob("*")) if path.is_file()]:
        whole = path.read_bytes()
        for at in range(0, len(whole), EVERY):
            for changed in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
                path.write_bytes(changed)
                with pytest.raises(BundleError) as caught:
                    score.init()
                assert "\n" not in str(caught.value)
                tried += 1
        path.write_bytes(whole)
    assert tried > 20
    score.init()
