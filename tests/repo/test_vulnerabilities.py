"""Which findings of a scan stop a release, and which do not."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import github, release_facts, vulnerabilities

OPENSSL, ZLIB = ("CVE-2026-1", "openssl"), ("CVE-2026-2", "zlib1g")


def scanned(path: Path, *found: tuple[str, str]) -> None:
    """Write a scan as Trivy does."""
    listed = [
        {
            "VulnerabilityID": one,
            "PkgName": package,
            "Severity": "HIGH",
            "InstalledVersion": "1",
            "FixedVersion": "2",
        }
        for one, package in found
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"SchemaVersion": 2, "Results": [{"Target": "x"}, {"Vulnerabilities": listed}]}))


def waive(until: str, entry: str = 'id = "CVE-2026-1"\npackage = "openssl"\nreason = "Not called."\n') -> None:
    vulnerabilities.WAIVERS.parent.mkdir(exist_ok=True)
    vulnerabilities.WAIVERS.write_text(f"[[waiver]]\n{entry}{until}\n")


def after(days: int) -> str:
    return f"until = {datetime.now(UTC).date() + timedelta(days=days)}"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"):
        monkeypatch.setenv(name, str(tmp_path / name))
    vulnerabilities.WAIVERS.parent.mkdir()
    vulnerabilities.WAIVERS.write_text("")
    return tmp_path


def test_a_finding_that_is_served_too_stops_nothing(place: Path) -> None:
    scanned(vulnerabilities.NEW, OPENSSL)
    scanned(vulnerabilities.SERVED, OPENSSL, ZLIB)
    vulnerabilities.main()
    assert "| CVE-2026-1 | openssl | HIGH, 1, fixed in 2 | served too |" in (place / "GITHUB_STEP_SUMMARY").read_text()


@pytest.mark.parametrize("served", [(), (ZLIB,), (("CVE-2026-1", "libssl"),)])
def test_a_finding_that_is_not_served_is_red_and_names_the_remedy(served: tuple[tuple[str, str], ...]) -> None:
    scanned(vulnerabilities.NEW, OPENSSL)
    scanned(vulnerabilities.SERVED, *served)
    with pytest.raises(github.PipelineError, match=r"CVE-2026-1 in openssl: take newer versions.*refresh\.yml"):
        vulnerabilities.main()


def test_without_a_served_release_every_finding_counts() -> None:
    scanned(vulnerabilities.NEW, *[(f"CVE-{n}", "x") for n in range(7)])
    with pytest.raises(github.PipelineError, match="and 2 more: take newer versions"):
        vulnerabilities.main()


def test_no_finding_is_green(place: Path) -> None:
    scanned(vulnerabilities.NEW)
    vulnerabilities.main()
    assert "No vulnerability" in (place / "GITHUB_STEP_SUMMARY").read_text()


def test_a_waiver_holds_until_its_end(place: Path) -> None:
    scanned(vulnerabilities.NEW, OPENSSL)
    for days in (0, 90):
        waive(after(days))
        vulnerabilities.main()
    waive(after(-1))
    with pytest.raises(github.PipelineError, match="CVE-2026-1"):
        vulnerabilities.main()
    assert "The waiver of CVE-2026-1 in openssl ended on" in (place / "GITHUB_STEP_SUMMARY").read_text()


@pytest.mark.parametrize(
    ("entry", "until", "says"),
    [
        ('id = "CVE-2026-1"\npackage = "openssl"\n', after(1), "waiver 1 lacks reason"),
        ('id = "CVE-2026-1"\npackage = "openssl"\nreason = " "\n', after(1), "waiver 1 lacks reason"),
        ('id = "CVE-2026-1"\npackage = "x"\nreason = "y"\n', "", "lacks until, a date"),
        ('id = "CVE-2026-1"\npackage = "x"\nreason = "y"\n', 'until = "2027"', "lacks until, a date"),
        ('id = "CVE-2026-1"\npackage = "x"\nreason = "y"\n', after(91), "more than 90 days"),
        ("id =", "", "docker/waivers.toml: "),
    ],
)
def test_a_waiver_without_a_reason_or_an_end_is_refused(entry: str, until: str, says: str) -> None:
    scanned(vulnerabilities.NEW)
    waive(until, entry)
    with pytest.raises(github.PipelineError, match=re.escape(says)):
        vulnerabilities.main()


@pytest.mark.parametrize("text", [None, "", "[]", '{"Results": [{"Vulnerabilities": [{}]}]}'])
def test_a_scan_that_cannot_be_read_is_red_and_not_green(text: str | None) -> None:
    vulnerabilities.NEW.parent.mkdir(parents=True)
    if text is not None:
        vulnerabilities.NEW.write_text(text)
    with pytest.raises(github.PipelineError, match=r"new\.json is no scan of Trivy"):
        vulnerabilities.main()


def test_on_a_laptop_nothing_is_scanned(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS")
    vulnerabilities.main()
    assert "skipped" in capsys.readouterr().out


@pytest.mark.parametrize("image", ["ghcr.io/x@sha256:1", None])
def test_the_served_image_is_named_by_its_digest(
    place: Path, monkeypatch: pytest.MonkeyPatch, image: str | None
) -> None:
    monkeypatch.setenv("GITHUB_REPOSITORY", "someone/fleet")
    monkeypatch.setattr(vulnerabilities.shutil, "which", lambda name: name)
    known = {"commit": "c", "image": image, "served": "2026-01-01"}
    found = [release_facts.Release("r1", "", known)] if image else []
    monkeypatch.setattr(release_facts, "published", lambda: found)
    vulnerabilities.served()
    assert (place / "GITHUB_OUTPUT").read_text() == f"image={image or ''}\n"


@pytest.mark.parametrize("text", ['[waiver]\nid = "x"\n', "waiver = [1]\n", "waiver = 1\n", '[[waivers]]\nid = "x"\n'])
def test_waivers_of_another_shape_are_refused_in_words(place: Path, text: str) -> None:
    vulnerabilities.WAIVERS.write_text(text)
    with pytest.raises(github.PipelineError, match=r"a waiver begins with \[\[waiver\]\]"):
        vulnerabilities.waivers(datetime.now(UTC).date())


def test_where_the_file_was_taken_away_nothing_is_waived(place: Path) -> None:
    vulnerabilities.WAIVERS.unlink()
    assert vulnerabilities.waivers(datetime.now(UTC).date()) == (set(), [])


def test_the_waivers_of_this_repository_are_valid(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    vulnerabilities.waivers(datetime.now(UTC).date())


def test_pull_requests_releases_and_what_is_served_are_scanned(root: Path) -> None:
    for name in ("image.yml", "release.yml", "daily.yml"):
        jobs: dict[str, Any] = yaml.safe_load((root / ".github/workflows" / name).read_text())["jobs"]
        runs = [step.get("run") for job in jobs.values() for step in job.get("steps", [])]
        assert "make scan" in runs, name
