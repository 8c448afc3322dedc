"""The machines that people have: macOS with its own make and shell, Linux on arm64, a development container."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

# What containers.dev documents of devcontainer.json, as far as we use it. A feature would be one more thing to pin.
PORT = {
    "type": "object",
    "properties": {
        "label": {"type": "string"},
        "onAutoForward": {"enum": ["notify", "openBrowser", "silent", "ignore"]},
    },
    "additionalProperties": False,
}
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "build": {
            "type": "object",
            "properties": {"dockerfile": {"type": "string"}},
            "required": ["dockerfile"],
            "additionalProperties": False,
        },
        "remoteUser": {"type": "string", "not": {"const": "root"}},
        "hostRequirements": {
            "type": "object",
            "properties": {
                "cpus": {"type": "integer", "minimum": 1},
                "memory": {"type": "string", "pattern": r"^\d+([tgmk]b)?$"},
            },
            "additionalProperties": False,
        },
        "postCreateCommand": {"type": "string"},
        "forwardPorts": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 65535}},
        "portsAttributes": {
            "type": "object",
            "patternProperties": {r"^\d+$": PORT},
            "additionalProperties": False,
        },
        "customizations": {
            "type": "object",
            "properties": {
                "vscode": {
                    "type": "object",
                    "properties": {
                        "extensions": {"type": "array", "items": {"type": "string", "pattern": r"^[\w-]+\.[\w-]+$"}},
                        "settings": {"type": "object"},
                    },
                    "additionalProperties": False,
                }
            },
            "additionalProperties": False,
        },
    },
    "required": ["name", "build", "remoteUser", "postCreateCommand"],
    "additionalProperties": False,
}
UNREACHABLE = re.compile(r"Failed to fetch|error sending request|dns error", re.IGNORECASE)
BASE = re.compile(r"^FROM (python:\S+@sha256:[0-9a-f]{64})", re.MULTILINE)
# What GNU's tools have and those of macOS do not: make 3.81, bash 3.2, and BSD's sed, grep, date, readlink and others.
OF_GNU = {
    "make": [r"^\.ONESHELL", r"\$\(file ", r"\$\(let ", r"\$\(intcmp ", r"^undefine ", r":::?=", r"^\w+ *!=", r"&:"],
    "bash": [r"\bmapfile\b", r"\breadarray\b", r"declare -A", r"\$\{\w+(,,|\^\^)", r"\|&", r"&>>", r"\$\{\w+@Q\}"],
    "tools": [
        r"\bsed -i\b", r"\bsed -r\b", r"\bgrep -\w*P", r"\bdate -d\b", r"\bdate --", r"\breadlink -f\b",
        r"\bsha256sum\b",
        r"\bmd5sum\b", r"\bxargs -r\b", r"\bcp --", r"\bsort -V\b", r"\bstat -c\b", r"\bmktemp --", r"\btac\b",
        r"\bnproc\b", r"\bhead -n -", r"\bfind .*-printf\b", r"\btimeout \d", r"\bln -sr\b", r"\bps .*--",
    ],
}  # fmt: skip


@pytest.fixture
def container(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    return found


def test_the_development_container_has_the_fields_that_editors_read(container: dict[str, Any]) -> None:
    jsonschema.validate(container, SCHEMA)


@pytest.mark.parametrize(
    "wrong",
    [
        {"postCreateCmd": "make run"},
        {"remoteUser": "root"},
        {"forwardPorts": ["8000"]},
        {"features": {"ghcr.io/devcontainers/features/node:1": {}}},
        {"hostRequirements": {"memory": "8 GB"}},
        {"portsAttributes": {"web": {}}},
    ],
)
def test_a_slip_in_it_is_found(container: dict[str, Any], wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(container | wrong, SCHEMA)


def test_it_has_the_base_of_the_image_its_ports_and_a_user(root: Path, container: dict[str, Any]) -> None:
    text = (root / ".devcontainer" / container["build"]["dockerfile"]).read_text(encoding="utf-8")
    served = (root / "docker/Dockerfile").read_text(encoding="utf-8")
    assert BASE.findall(text) == BASE.findall(served)[:1]
    user = container["remoteUser"]
    assert f"USER {user}\n" in text
    assert re.search(rf"useradd .*\b{user}\n", text)
    assert set(re.findall(r"\b(make|git)\b", text.partition("apt-get install")[2])) == {"make", "git"}
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    ports = [int(port) for port in re.findall(r"^(?:MLFLOW_)?PORT \?= (\d+)$", makefile, re.MULTILINE)]
    assert sorted(ports) == sorted(container["forwardPorts"]) == sorted(map(int, container["portsAttributes"]))


@pytest.mark.parametrize("venv", ["of another system", "good", "none"])
def test_its_first_command_makes_the_environment_also_where_another_system_left_one(
    container: dict[str, Any], tmp_path: Path, venv: str
) -> None:
    python = tmp_path / ".venv/bin/python"
    if venv != "none":
        python.parent.mkdir(parents=True)
        (tmp_path / ".venv/.installed").touch()
        python.symlink_to(sys.executable if venv == "good" else "/nowhere/python3")
    make = tmp_path / "bin/make"
    make.parent.mkdir()
    make.write_text('#!/bin/sh\necho "$@" > asked\n')
    make.chmod(0o755)
    environment = os.environ | {"PATH": f"{make.parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["sh", "-c", container["postCreateCommand"]], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "asked").read_text() == ".venv/.installed\n"
    assert (tmp_path / ".venv/.installed").exists() == (venv == "good")


def of_gnu(text: str, *kinds: str) -> list[str]:
    """What a text uses that macOS does not have."""
    return [one for kind in kinds for one in OF_GNU[kind] if re.search(one, text, re.MULTILINE)]


def test_make_and_shell_use_nothing_that_macos_lacks(root: Path) -> None:
    for name in ("Makefile", ".ci/steps.mk"):
        assert of_gnu((root / name).read_text(encoding="utf-8"), "make", "tools") == [], name
    assert of_gnu((root / ".ci/run").read_text(encoding="utf-8"), "bash", "tools") == []


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("make", "X := $(file < x)"),
        ("make", "X ::= 1"),
        ("make", "X != date"),
        ("bash", "declare -A x"),
        ("bash", "echo ${x,,}"),
        ("tools", "\tsed -i s/a/b/ x"),
        ("tools", "\tsha256sum x"),
        ("tools", "\tfind x -type f -printf %p"),
    ],
)
def test_what_macos_lacks_is_found(kind: str, text: str) -> None:
    assert len(of_gnu(text, kind)) == 1


@pytest.mark.parametrize("package", ["dev", "pipeline"])
def test_a_python_that_is_too_old_is_told_so(root: Path, package: str) -> None:
    """macOS brings 3.9, whose traceback would name a missing module."""
    code = f"import sys; sys.version_info = (3, 9); import {package}"
    environment = os.environ | {"PYTHONPATH": str(root / ".ci")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "needs Python >= 3.11" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("platform", ["aarch64-apple-darwin", "aarch64-manylinux_2_28"])
def test_every_library_of_the_locks_has_a_wheel(root: Path, tmp_path: Path, platform: str) -> None:
    """Resolved, not installed. The lock `dev` contains the others."""
    if not os.environ.get("WHEELS"):
        pytest.skip("it asks the package registry for every library: make wheels")
    words = [Path(sys.executable).with_name("uv"), "pip", "install", "--dry-run", "--quiet", "--no-deps"]
    words += ["--require-hashes", "--only-binary", ":all:", "--target", tmp_path, "--python-version", "3.13"]
    words += ["--python-platform", platform, "--requirement", root / "requirements/dev.txt"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=1200, check=False)
    if done.returncode and (reason := UNREACHABLE.search(done.stderr)):
        pytest.skip(f"the package registry cannot be asked: {reason[0]}")
    assert done.returncode == 0, done.stderr
