"""Settings fail closed: what is missing or wrong stops the start, and the message begins with its name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from score.settings import Settings, SettingsError, max_rows, model_dir

NAMES = "MODEL_DIR AZUREML_MODEL_DIR LOG_DIR LOG_DURABILITY AUTH AUTH_TOKENS_FILE PORT MAX_BODY_BYTES MAX_ROWS IMAGE"
LEAST = {"LOG_DIR": "log", "AUTH": "open"}


def refusal(read, environ):
    with pytest.raises(SettingsError) as caught:
        read(environ)
    return str(caught.value).split(" ")[0].split("=")[0].rstrip(":")


def test_the_defaults_are_the_safe_ones():
    settings = Settings.from_environ(LEAST)
    assert settings == Settings(Path("log"), "fsync", None, 8000, 16 << 20, "")


def test_everything_can_be_set():
    environ = {
        "LOG_DIR": "/log",
        "LOG_DURABILITY": "os",
        "AUTH_TOKENS_FILE": "/tokens",
        "PORT": "80",
        "MAX_BODY_BYTES": "10",
        "IMAGE": "x",
    }
    assert Settings.from_environ(environ) == Settings(Path("/log"), "os", Path("/tokens"), 80, 10, "x")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOG_DIR", ""),
        ("LOG_DURABILITY", "sometimes"),
        ("LOG_DURABILITY", "FSYNC"),
        ("AUTH", "none"),
        ("AUTH", "OPEN"),
        ("AUTH", "false"),
        ("PORT", "http"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "\uff18\uff10"),
        ("MAX_BODY_BYTES", "0"),
        ("MAX_BODY_BYTES", "1e6"),
        ("MAX_BODY_BYTES", "9" * 30),
    ],
)
def test_a_wrong_value_is_refused_by_name(name, value):
    assert name == refusal(Settings.from_environ, {**LEAST, name: value})


@pytest.mark.parametrize("environ", [{}, {"AUTH": ""}, {"AUTH": "tokens"}])
def test_without_tokens_and_without_saying_so_nothing_is_open(environ):
    assert refusal(Settings.from_environ, {"LOG_DIR": "log", **environ}) == "AUTH_TOKENS_FILE"


def test_open_is_only_open_when_it_is_said():
    assert Settings.from_environ({"LOG_DIR": "log", "AUTH_TOKENS_FILE": "/tokens"}).tokens_file == Path("/tokens")
    assert Settings.from_environ({**LEAST, "AUTH_TOKENS_FILE": "/tokens"}).tokens_file is None


def bundle(folder):
    folder.mkdir(parents=True)
    (folder / "manifest.json").touch()
    return folder


def test_the_bundle_is_where_model_dir_says(tmp_path):
    ours, azures = bundle(tmp_path / "a"), bundle(tmp_path / "b")
    assert model_dir({"MODEL_DIR": str(ours), "AZUREML_MODEL_DIR": str(azures)}) == ours
    assert model_dir({"AZUREML_MODEL_DIR": str(azures)}) == azures


def test_azure_may_put_the_bundle_one_folder_below(tmp_path):
    inner = bundle(tmp_path / "models" / "bundle")
    (tmp_path / "models" / "a-file").touch()
    assert model_dir({"AZUREML_MODEL_DIR": str(tmp_path / "models")}) == inner
    bundle(tmp_path / "models" / "another")
    assert refusal(model_dir, {"AZUREML_MODEL_DIR": str(tmp_path / "models")}) == "AZUREML_MODEL_DIR"


def test_without_a_bundle_the_setting_is_named(tmp_path):
    assert refusal(model_dir, {}) == "MODEL_DIR"
    assert refusal(model_dir, {"MODEL_DIR": str(tmp_path)}) == "MODEL_DIR"
    assert refusal(model_dir, {"MODEL_DIR": str(tmp_path / "nowhere")}) == "MODEL_DIR"
    assert refusal(model_dir, {"AZUREML_MODEL_DIR": str(tmp_path / "nowhere")}) == "AZUREML_MODEL_DIR"


def test_the_rows_are_bounded_and_the_bound_can_be_set():
    assert max_rows({}) == 200_000
    assert max_rows({"MAX_ROWS": "5"}) == 5
    assert refusal(max_rows, {"MAX_ROWS": "0"}) == "MAX_ROWS"


def test_every_setting_is_documented():
    readme = (Path(__file__).parents[2] / "score" / "README.md").read_text()
    for name in NAMES.split():
        assert f"| `{name}` |" in readme


def serve(environ, folder):
    """What ``python -m score`` says when it cannot start."""
    clean = {name: value for name, value in os.environ.items() if name not in NAMES.split()} | environ
    return subprocess.run(
        [sys.executable, "-m", "score"], env=clean, cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )


def test_a_wrong_setting_ends_the_start_with_one_line(tmp_path):
    ended = serve({"LOG_DIR": "log"}, tmp_path)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("score: AUTH_TOKENS_FILE is not set: ")


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({}, "cannot start: MODEL_DIR is not set"),
        ({"MODEL_DIR": "{broken}"}, "cannot start: bundle "),
        ({"MODEL_DIR": "{bundle}", "LOG_DIR": "{file}/log"}, "cannot start: [Errno 20] Not a directory"),
        ({"MODEL_DIR": "{bundle}", "MAX_ROWS": "x"}, "cannot start: MAX_ROWS=x"),
        ({"AUTH": "", "AUTH_TOKENS_FILE": "{file}/tokens"}, "cannot start: AUTH_TOKENS_FILE="),
    ],
)
def test_what_is_refused_later_ends_the_start_with_one_line_too(tmp_path, tiny_bundle, environ, reason):
    (tmp_path / "file").touch()
    places = {"bundle": tiny_bundle, "broken": bundle(tmp_path / "broken"), "file": tmp_path / "file"}
    ended = serve({**LEAST, **{name: value.format(**places) for name, value in environ.items()}}, tmp_path)
    assert ended.returncode == 3
    (line,) = [line for line in ended.stderr.splitlines() if "cannot start" in line]
    assert reason in line
    assert "Traceback" not in ended.stderr
