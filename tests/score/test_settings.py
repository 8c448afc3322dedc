"""Settings fail closed: a missing or invalid one stops the start, and the message begins with its name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from score.settings import LOG_FIELDS, Settings, SettingsError, log_compact, model_dir, request_limits

NAMES = (
    "MODEL_DIR AZUREML_MODEL_DIR LOG_DIR LOG_DURABILITY LOG_SINK LOG_SAMPLE LOG_FIELDS LOG_REJECTS LOG_MAX_BYTES "
    "LOG_COMPACT LOG_VOLUME "
    "LOG_MAX_AGE_SECONDS "
    "AUTH AUTH_TOKENS_FILE PORT MAX_BODY_BYTES MAX_IN_FLIGHT MAX_IN_FLIGHT_BYTES MAX_CONNECTIONS "
    "CORS_ORIGINS ACCESS_LOG "
    "DRAIN_SECONDS STOP_SECONDS MAX_ROWS MAX_MACHINES MAX_ANSWER_BYTES MAX_AHEAD_HOURS IMAGE"
)
LEAST = {"LOG_DIR": "log", "AUTH": "open"}


def refusal(read, environ):
    with pytest.raises(SettingsError) as caught:
        read(environ)
    return str(caught.value).split(" ")[0].split("=")[0].rstrip(":")


def test_the_defaults_are_the_safe_ones():
    settings = Settings.from_environ(LEAST)
    assert settings == Settings(
        Path("log"), "fsync", None, 8000, 16 << 20, "", log_sink="log/delta", log_max_bytes=8 << 30
    )
    assert (settings.log_sample, settings.log_fields) == (1.0, frozenset(LOG_FIELDS))
    assert (settings.cors_origins, settings.access_log) == ((), 0.0)
    assert (settings.drain_seconds, settings.stop_seconds) == (1, 9)


def test_everything_can_be_set():
    environ = {
        "LOG_DIR": "/log",
        "LOG_DURABILITY": "os",
        "AUTH_TOKENS_FILE": "/tokens",
        "PORT": "80",
        "MAX_BODY_BYTES": "10",
        "IMAGE": "x",
        "LOG_SINK": "s3://bucket/log",
        "LOG_SAMPLE": "0.25",
        "LOG_FIELDS": "telemetry, answer",
        "LOG_REJECTS": "off",
        "LOG_MAX_BYTES": "2000",
        "LOG_MAX_AGE_SECONDS": "60",
        "MAX_IN_FLIGHT": "5",
        "MAX_IN_FLIGHT_BYTES": "20",
        "MAX_CONNECTIONS": "6",
        "CORS_ORIGINS": "https://a.example, http://localhost:3000",
        "ACCESS_LOG": "0.5",
        "DRAIN_SECONDS": "0",
        "STOP_SECONDS": "20",
    }
    assert Settings.from_environ(environ) == Settings(
        log_dir=Path("/log"),
        log_durability="os",
        tokens_file=Path("/tokens"),
        port=80,
        max_body_bytes=10,
        image="x",
        log_sink="s3://bucket/log",
        log_sample=0.25,
        log_fields=frozenset({"telemetry", "answer"}),
        log_rejects=False,
        log_max_bytes=2000,
        log_max_age_seconds=60,
        max_in_flight=5,
        max_in_flight_bytes=20,
        max_connections=6,
        cors_origins=("https://a.example", "http://localhost:3000"),
        access_log=0.5,
        drain_seconds=0,
        stop_seconds=20,
    )


@pytest.mark.parametrize(
    ("sink", "chosen", "compacts"),
    [
        ("", "", True),
        ("/log", "auto", True),
        ("s3://bucket/log", "auto", False),
        ("s3://bucket/log", "on", True),
        ("/log", "off", False),
        ("none", "on", False),
    ],
)
def test_the_shipper_compacts_a_folder_and_a_store_where_it_is_told_to(sink, chosen, compacts):
    assert compacts == log_compact({**LEAST, "LOG_SINK": sink, "LOG_COMPACT": chosen})


def test_a_sink_elsewhere_has_no_share_in_the_default_budget():
    assert 4 << 30 == Settings.from_environ({**LEAST, "LOG_SINK": "s3://bucket/log"}).log_max_bytes


def test_a_wrong_choice_of_compaction_stops_the_start():
    with pytest.raises(SettingsError, match="LOG_COMPACT=yes: choose auto, on or off"):
        Settings.from_environ({**LEAST, "LOG_COMPACT": "yes"})


def test_a_log_that_nobody_takes_away_may_fill_the_disk():
    settings = Settings.from_environ({**LEAST, "LOG_SINK": "none"})
    assert (settings.log_sink, settings.log_max_bytes, settings.log_max_age_seconds) == (None, None, None)


def test_a_large_body_may_be_in_flight_at_least_once():
    assert Settings.from_environ({**LEAST, "MAX_BODY_BYTES": str(1 << 28)}).max_in_flight_bytes == 1 << 28


def test_the_message_about_a_sink_does_not_show_its_credentials():
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ({**LEAST, "LOG_SINK": "ftp://user:secret@host"})
    assert "secret" not in str(caught.value)


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
        ("LOG_SINK", "ftp://x"),
        ("LOG_SINK", "s3://"),
        ("LOG_SAMPLE", "1.1"),
        ("LOG_SAMPLE", "-0.1"),
        ("LOG_SAMPLE", "nan"),
        ("LOG_SAMPLE", "half"),
        ("LOG_REJECTS", "no"),
        ("LOG_VOLUME", "disk"),
        ("LOG_VOLUME", "ephemeral"),
        ("AUTH", "platform"),
        ("LOG_FIELDS", "caller,body"),
        ("LOG_FIELDS", ","),
        ("LOG_MAX_BYTES", "-1"),
        ("LOG_MAX_BYTES", "1000"),
        ("LOG_MAX_AGE_SECONDS", "1h"),
        ("MAX_IN_FLIGHT", "0"),
        ("MAX_IN_FLIGHT_BYTES", "1000"),
        ("MAX_CONNECTIONS", "0"),
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "https://a.example/path"),
        ("ACCESS_LOG", "2"),
        ("DRAIN_SECONDS", "1.5"),
        ("STOP_SECONDS", "1"),
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


@pytest.mark.parametrize("sink", ["", "/log", "none"])
def test_a_log_that_ends_with_its_instance_needs_a_sink_that_does_not(sink):
    with pytest.raises(SettingsError, match="LOG_SINK must name an object store"):
        Settings.from_environ({**LEAST, "LOG_VOLUME": "ephemeral", "LOG_SINK": sink})


def test_what_an_instance_can_lose_is_bounded():
    environ = {**LEAST, "LOG_VOLUME": "ephemeral", "LOG_SINK": "az://logs/fleet"}
    assert Settings.from_environ(environ).log_ephemeral
    assert Settings.from_environ(environ).log_max_age_seconds == 60
    assert Settings.from_environ({**environ, "LOG_MAX_AGE_SECONDS": "20"}).log_max_age_seconds == 20
    assert Settings.from_environ({**environ, "LOG_MAX_AGE_SECONDS": "0"}).log_max_age_seconds is None


def test_the_platform_is_trusted_only_where_it_is_one():
    environ = {"LOG_DIR": "log", "AUTH": "platform"}
    assert refusal(Settings.from_environ, environ) == "AUTH"
    settings = Settings.from_environ({**environ, "AZUREML_MODEL_DIR": "/models/1"})
    assert (settings.tokens_file, settings.behind_platform) == (None, True)
    assert not Settings.from_environ(LEAST).behind_platform


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


def test_a_request_is_bounded_and_each_bound_can_be_set():
    assert request_limits({}) == {
        "max_rows": 200_000,
        "max_machines": 10_000,
        "max_answer_bytes": 16 << 20,
        "max_ahead_us": 24 * 3_600_000_000,
    }
    chosen = {"MAX_ROWS": "5", "MAX_MACHINES": "4", "MAX_ANSWER_BYTES": "3000", "MAX_AHEAD_HOURS": "2"}
    assert list(request_limits(chosen).values()) == [5, 4, 3000, 7_200_000_000]
    for name, value in {"MAX_ROWS": "0", "MAX_MACHINES": "0", "MAX_ANSWER_BYTES": "9", "MAX_AHEAD_HOURS": "-1"}.items():
        assert refusal(request_limits, {name: value}) == name


def test_every_setting_is_documented():
    readme = (Path(__file__).parents[2] / "score" / "README.md").read_text()
    for name in NAMES.split():
        assert f"| `{name}` |" in readme


def serve(environ, folder):
    """``python -m score`` with settings that it refuses, after it ended."""
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
