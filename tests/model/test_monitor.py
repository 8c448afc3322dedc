"""``model.monitor``: a log with requests, answers and feedback becomes figures, a list of machines and an issue."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from answered_fleet import NAMES, write_log
from closedloop.data.schema import HOUR_US, DataError
from closedloop.data.simulate import simulate
from closedloop.heads.drift_reference_fit import fit_drift_reference
from closedloop.heads.manifest import TrainedOn
from model import monitor
from model.common import params


@pytest.fixture
def logged(tmp_path):
    """A log of an older and a newer model, of which the newer foresaw so many of the eight failures."""

    def go(foreseen: int, names: dict[int, str] | None = None) -> str:
        write_log(tmp_path / "log", str(tmp_path / "sink"), foreseen, names)
        return str(tmp_path / "sink")

    return go


@pytest.fixture
def release(tmp_path):
    """A folder that says what the newer model promised."""
    folder = tmp_path / "release"
    folder.mkdir()
    figures = {"event_recall": 0.9, "false_alarms_per_machine_year": 2.0}
    metrics = {"failure": figures, "holdout": {"failures": 60, "machine_years": 20.0, "machines": 30}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "decision.json").write_text(json.dumps({"challenger": {"model_digest": "sha256:new"}}))
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the command: the JSON, the page, and what it printed."""

    def go(*words: str) -> tuple[dict, str, str]:
        monkeypatch.chdir(tmp_path)
        monitor.main([*words, "--out", "out"])
        page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
        return json.loads((tmp_path / "out/monitor.json").read_text()), page, capsys.readouterr().out

    return go


def test_each_model_is_judged_on_its_own_answers_beside_what_was_promised(logged, release, run):
    found, page, said = run("--log", logged(8), "--promised", str(release))
    old, new = found["models"]
    assert ["sha256:old", "sha256:new"] == [old["model"], new["model"]]
    assert [0, 8] == [one["figures"]["failures"] for one in (old, new)]
    assert 1.0 == new["figures"]["event_recall"]["estimate"]
    assert 10 == new["figures"]["lead_time_hours"]["median"]
    assert new["figures"]["machine_years"] == pytest.approx(12 * (19 * 24 + 2) / 8760, rel=0.01)  # up to the marks
    assert {"model1": 6, "model2": 6} == {k: v["machines"] for k, v in new["figures"]["by_machine_model"].items()}
    assert (None, 0.9) == (old["promised"], new["promised"]["event_recall"])
    assert {"action": "none"} == found["issue"]
    assert "too little data" in said  # eight failures, but of half a machine-year
    assert "Each model version" in page
    assert not any(word in page for word in ("<script", "<link", 'src="http', "@import"))


def test_machines_with_names_are_judged_as_those_with_numbers(logged, release, run, tmp_path):
    found, _, _ = run("--log", logged(8), "--promised", str(release))
    for folder in ("log", "sink"):
        shutil.rmtree(tmp_path / folder)
    own = tmp_path / "text.yaml"
    own.write_text(params.PARAMS.read_text().replace("schema:\n", "schema:\n  machine_id: text\n"))
    named, page, _ = run("--log", logged(8, NAMES), "--promised", str(release), "--params", str(own))
    assert [one["figures"] for one in found["models"]] == [one["figures"] for one in named["models"]]
    assert [NAMES[one["machine"]] for one in found["attention"]] == [one["machine"] for one in named["attention"]]
    assert "א-7" in page
    assert '<b>"' not in page


def test_a_log_of_names_is_no_log_of_a_fleet_of_numbers(logged, run):
    """Also where the names are 7, 007 and 7.0, which stand for a number."""
    with pytest.raises(DataError, match=r"no telemetry of machines as .* \(they have numbers\): correct schema"):
        run("--log", logged(8, NAMES))


def test_a_model_that_does_worse_opens_an_issue_and_an_open_one_is_kept(logged, release, run, monkeypatch):
    monkeypatch.setattr("closedloop.watch.promise.MINIMUM_YEARS", 0.5)
    place = logged(1)
    found, page, said = run("--log", place, "--promised", str(release))
    assert "open" == found["issue"]["action"]
    assert "foresaw 12% of 8 failures, promised were 90%" in found["issue"]["body"]
    assert said.startswith("worse: ")
    assert "<h1>Worse in service than promised</h1>" in page
    assert "keep" == run("--log", place, "--promised", str(release), "--issue")[0]["issue"]["action"]


def test_machines_that_alarm_now_are_listed_with_their_answers(logged, run):
    found, page, _ = run("--log", logged(8))
    (listed,) = found["attention"]
    assert (12, ["comp1 fails soon, probability 0.90"]) == (listed["machine"], listed["reasons"])
    assert "Machines that need attention now" in page
    assert 'aria-label="machine 12 answers"' in page


def test_a_log_that_is_not_there_or_not_named_is_one_line(run, tmp_path, monkeypatch):
    monkeypatch.delenv("LOG_SINK", raising=False)
    with pytest.raises(DataError, match="no log is named; set LOG_SINK"):
        run()
    with pytest.raises(DataError, match="there is no log"):
        run("--log", str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"decision\.json is missing; name a folder"):
        run("--log", str(tmp_path / "none"), "--promised", str(tmp_path))


def test_what_nobody_vouches_for_is_not_judged(logged, run, monkeypatch):
    """Without marks the same log has no matured hour."""
    fetched = monitor.fetch

    def silent(place, params):
        tables, given = fetched(place, params)
        return replace(tables, marks=replace(tables.marks, until=np.full(len(tables.marks.until), -(2**62)))), given

    monkeypatch.setattr(monitor, "fetch", silent)
    found, page, said = run("--log", logged(8))
    assert [0.0, 0.0] == [one["figures"]["machine_years"] for one in found["models"]]
    assert "Too little is known yet" in page
    assert said.startswith("too little data")


def test_each_release_of_a_folder_promised_something_of_its_own(logged, release, run, tmp_path):
    """As monitor.yml has it: a folder for each served release, of which an old one kept no promise."""
    served = tmp_path / "served"
    shutil.copytree(release, served / "r2")
    (served / "r1/bundle").mkdir(parents=True)
    older = {"challenger": {"model_digest": "sha256:old"}}
    shutil.copytree(release, served / "r0")
    (served / "r0/decision.json").write_text(json.dumps(older))
    found, _, _ = run("--log", logged(8), "--promised", str(served))
    assert [0.9, 0.9] == [one["promised"]["event_recall"] for one in found["models"]]
    for one in ("r0", "r2"):
        shutil.rmtree(served / one)
    found, _, _ = run("--log", str(tmp_path / "sink"), "--promised", str(served))
    assert [None, None] == [one["promised"] for one in found["models"]]


def test_no_release_was_served_yet(logged, run, tmp_path, monkeypatch):
    """Then build/served is not there, or has nothing in it."""
    monkeypatch.chdir(tmp_path)
    found, _, _ = run("--log", logged(8), "--promised", "build/served", "--drift")
    assert [None, None] == [one["promised"] for one in found["models"]]
    assert "too little data" == found["drift"]["verdict"]
    assert "not at hand" in found["drift"]["words"]


def test_drift_is_looked_for_against_what_the_newest_model_learned_from(logged, run, tmp_path, monkeypatch):
    """Its bundle is found by its digest, and the page and the JSON have what moved."""
    asked = params.load()
    fleet = simulate("default", 12, 120, 5, asked.schema).tables
    learned = fit_drift_reference(fleet, asked.schema)
    loaded = []

    def load(folder):
        loaded.append(folder.parent.name)
        digest = {"r1": "sha256:old", "r2": "sha256:new"}[folder.parent.name]
        return SimpleNamespace(
            manifest=SimpleNamespace(model_digest=digest, bundle_digest="sha256:b"), schema=asked.schema,
            drift_reference=learned, anomaly=None, spec=SimpleNamespace(history_us=72 * HOUR_US),
            training=TrainedOn({"x": list(range(1, 13))}, ("2014-01-01T00:00:00Z", "2014-06-01T00:00:00Z"), ""),
        )  # fmt: skip

    monkeypatch.setattr(monitor, "load_bundle", load)
    for name in ("r1", "r2"):
        (tmp_path / name / "bundle").mkdir(parents=True)
        (tmp_path / name / "bundle/manifest.json").touch()
    found, page, said = run("--log", logged(8), "--promised", str(tmp_path), "--drift")
    assert ["r1", "r2"] == loaded
    assert "moved" == found["drift"]["verdict"]  # readings of the log do not vary at all
    assert "volt" in found["drift"]["words"]
    assert f"drift: moved: {found['drift']['words']}" in said
    assert "volt" in page
    assert "drift" not in run("--log", str(tmp_path / "sink"))[0]
