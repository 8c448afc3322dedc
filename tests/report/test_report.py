"""The report: for every verdict one page that stands alone, and a summary whose tables hold."""

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from closedloop.judge.checks import Candidate
from closedloop.judge.episodes import FALSE, TRUE, Outcome
from closedloop.judge.gate import decide
from closedloop.judge.metrics import judge
from closedloop.judge.truth import PredictionTable
from closedloop.report import report
from closedloop.report.plots import Lane, timeline

HEADS = {"anomaly": {"threshold": 0.5}, "failure": {"comp1": {}, "comp2": {}}}
WORTH = {
    "volt": {
        "cost_per_machine_year": 1200.0,
        "failure_recall": -0.25,
        "anomaly_recall": 0.0,
        "false_alarms_per_machine_year": 3.5,
    },
    "model": {
        "cost_per_machine_year": -10.0,
        "failure_recall": 0.0,
        "anomaly_recall": 0.0,
        "false_alarms_per_machine_year": -0.1,
    },
}
VOID = {"meta", "link", "br", "hr", "img", "input"}


def candidate(predictions, name) -> Candidate:
    training = {"machines": {"hand-made": [900]}}
    heads = HEADS if any(predictions.head != "anomaly") else {"anomaly": {}, "failure": {}}
    manifest = {"provenance": {"commit": name}, "model_digest": f"sha256:{name}", "heads": heads, "training": training}
    return Candidate(predictions, manifest, f"sha256:inputs-{name}")


class Page(HTMLParser):
    """Tags in balance, the ids, and whatever would be fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.ids, self.fetched, self.tags = [], [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.fetched += [value for name, value in attrs if name in ("src", "href", "xlink:href") and value[0] != "#"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert tag == self.open.pop()


@pytest.fixture(scope="module")
def cases(build):
    """For each kind of run: what to judge."""
    fleet = build.fleet(machines=6, per_machine=3, hours=1500)
    truth, quiet = fleet.truth, build.fleet(machines=6, per_machine=3, hours=1500, supervised=False)
    table = fleet.model(recall=0.9, seed=1)
    score = table.score.copy()
    score[5] = np.nan
    broken = PredictionTable(table.machine, table.time, table.head, score, table.alarm)
    replaced = build.events(*((machine, 300 * k, 0) for machine in range(1, 7) for k in range(1, 5)))
    truth = build.replace(truth, tables=build.replace(truth.tables, maint=replaced))
    anomaly = quiet.model(seed=2)
    mine = anomaly.head == "anomaly"
    anomaly = PredictionTable(*(column[mine] for column in vars(anomaly).values()))
    bare = build.replace(quiet.truth, anomalies=None)
    return {
        "first": (None, table, truth, fleet.settings),
        "better": (fleet.model(recall=0.0, seed=1), fleet.model(recall=1.0, seed=1), truth, fleet.settings),
        "worse": (table, fleet.model(recall=0.0, false_alarms=60, seed=1), truth, fleet.settings),
        "inconclusive": (table, fleet.model(recall=0.9, seed=2), truth, fleet.settings),
        "refused": (table, broken, truth, fleet.settings),
        "incomparable": (broken, table, truth, fleet.settings),
        "identical": (table, table, truth, fleet.settings),
        "anomaly only": (None, anomaly, quiet.truth, quiet.settings),
        "no truth": (None, anomaly, bare, quiet.settings),
        "of no use": (None, fleet.model(recall=0.0, false_alarms=0.0), truth, fleet.settings),
    }


@pytest.fixture(scope="module")
def written(cases, tmp_path_factory):
    """Write the report of a case once; gives its folder, its metrics and its decision."""
    done = {}

    def write(name):
        if name not in done:
            old, challenger, truth, settings = cases[name]
            champion = None if old is None else candidate(old, "old")
            new = candidate(challenger, "old" if name == "identical" else "new")
            ablations = {"no_telemetry": challenger, "no_errors": challenger}
            metrics = judge(challenger, truth, settings, ablations)
            decision = decide(champion, new, truth, settings)
            folder: Path = tmp_path_factory.mktemp("report") / "deep"
            report.write(folder, metrics, decision, challenger, truth, settings, champion, WORTH)
            done[name] = folder, metrics, decision
        return done[name]

    return write


CASES = [
    "first",
    "better",
    "worse",
    "inconclusive",
    "refused",
    "incomparable",
    "identical",
    "anomaly only",
    "no truth",
    "of no use",
]


@pytest.mark.parametrize("case", CASES)
def test_the_page_stands_alone_and_is_well_formed(written, case):
    folder, _, decision = written(case)
    text = (folder / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert page.fetched == []
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert len(page.ids) == len(set(page.ids))
    assert "nan" not in re.sub(r"<[^>]*>", "", text).lower().split()
    assert decision["verdict"] in text
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(re.sub(r"xlink:", "", svg))  # noqa: S314 - our own
        assert not re.findall(r"#[0-9a-f]{6}\b", svg), "a colour that does not follow the theme"


@pytest.mark.parametrize("case", CASES)
def test_the_summary_leads_with_the_verdict_and_its_tables_hold(written, case):
    folder, _, decision = written(case)
    lines = (folder / "summary.md").read_text(encoding="utf-8").splitlines()
    useless = decision["verdict"] == "worse" and decision["champion"] is None
    assert (report.OF_NO_USE[0] if useless else report.HEADLINES[decision["verdict"]][1]) in lines[0]
    assert lines[2].startswith(decision["reason"][:40])
    width = None
    for number, line in enumerate(lines):
        if not line.startswith("|"):
            width = None
            continue
        cells = len(re.findall(r"(?<!\\)\|", line))
        if width is None:
            assert lines[number - 1] == ""
            assert set(lines[number + 1]) <= set("|:- ")
            width = cells
        assert cells == width


def test_the_page_shows_champion_and_challenger_side_by_side(written):
    folder, metrics, decision = written("better")
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert f"{metrics['failure']['pr_auc']:.3f}" in text
    assert "Champion" in text
    assert f"{decision['delta']['cost_per_machine_year']['estimate']:,.0f}" in text
    assert "commit old" in text
    assert "commit new" in text


def test_the_ways_without_a_model_stand_beside_both_models(written):
    for name in ("index.html", "summary.md"):
        text = (written("better")[0] / name).read_text(encoding="utf-8")
        ways = ("Never act", "Best schedule", "Act always", "The champion", "This model")
        assert sorted(ways, key=text.partition("Beside ways")[2].index) == list(ways)
        assert "Never act" not in (written("no truth")[0] / name).read_text(encoding="utf-8")


def test_pictures_are_those_that_the_truth_allows(written):
    def titles(case):
        text = (written(case)[0] / "index.html").read_text(encoding="utf-8")
        return set(re.findall(r"<h3>([^<:]*?)(?: \d+: [^<]*)?</h3>", text))

    heads, quality = {"Failure heads", "Anomaly head"}, {"Precision and recall", "Scores", "Feature importance"}
    assert heads | quality | {"Calibration", "Lead time", "Machine"} == titles("first")
    assert {"Anomaly head", "Machine"} | quality == titles("anomaly only")
    assert {"Feature importance"} == titles("no truth")


def test_both_models_are_read_at_each_number_of_false_alarms(written):
    folder, metrics, _ = written("better")
    for name in ("index.html", "summary.md"):
        text = re.sub(r"</?t[dhr]>|[|*]", " ", (folder / name).read_text(encoding="utf-8"))
        words = " ".join(text.split())
        assert "False alarms per machine-year, at most 1 1.5 2 5" in words
        for part, label in (("failure", "Failures foreseen"), ("anomaly", "Anomalies seen")):
            found = " ".join(f"{recall:.2f}" for recall in metrics[part]["event_recall_at"].values())
            assert f"{label} {found} {label}, champion " in words
    assert "champion</text>" in (folder / "index.html").read_text(encoding="utf-8")
    assert "champion</text>" not in (written("first")[0] / "index.html").read_text(encoding="utf-8")


def test_of_many_families_the_most_important_are_shown_and_their_number_is_told(cases, written, tmp_path):
    _, metrics, decision = written("no truth")
    _, challenger, truth, settings = cases["no truth"]
    worth = {f"sensor{k}": WORTH["volt"] | {"cost_per_machine_year": 100.0 - k} for k in range(25)}
    report.write(tmp_path, metrics, decision, challenger, truth, settings, importance=worth)
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "Shown are the 20 most important of 25." in text
    assert "sensor19<" in text
    assert "sensor20<" not in text


def test_a_failure_that_no_alarm_foresaw_stands_out():
    time = np.arange(500) * 3_600_000_000
    none = time[:0]

    def drawn(lead):
        outcome = Outcome(np.array([lead]), none, none, np.empty(0, np.int8))
        return timeline("machine 1", time, [Lane("comp1", np.zeros(500), outcome, time[[300]], none, (none, none))])

    assert "var(--bad)" in drawn(np.nan)
    assert "var(--bad)" not in drawn(20.0)


def test_of_one_machine_one_life_is_shown(build, tmp_path):
    fleet = build.fleet(machines=1, per_machine=3, hours=1500)
    table = fleet.model(seed=1)
    metrics, decision = (
        judge(table, fleet.truth, fleet.settings),
        decide(None, candidate(table, "new"), fleet.truth, fleet.settings),
    )
    report.write(tmp_path, metrics, decision, table, fleet.truth, fleet.settings)
    assert (tmp_path / "index.html").read_text(encoding="utf-8").count("<h3>Machine 1: ") == 1


def test_writing_twice_gives_the_same_bytes(cases, written, tmp_path):
    folder, metrics, decision = written("first")
    _, challenger, truth, settings = cases["first"]
    report.write(tmp_path, metrics, decision, challenger, truth, settings, None, WORTH)
    for name in ("index.html", "summary.md"):
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()


def test_names_cannot_break_out_of_the_page(cases, written, build, tmp_path):
    _, metrics, decision = written("first")
    _, challenger, truth, settings = cases["first"]
    nasty = "<script>alert(1)</script> | x\ny"
    report.write(
        tmp_path, metrics, dict(decision) | {"reason": nasty}, challenger, build.replace(truth, source=nasty), settings
    )
    assert "script" not in Page((tmp_path / "index.html").read_text(encoding="utf-8")).tags
    assert "<script" not in (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "\\| x y" in (tmp_path / "summary.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"verdict": "worse", "accepted": True}, "Accepted by a code owner"),
        ({"verdict": "inconclusive", "green": False}, "asks for a person to decide here"),
    ],
)
def test_the_advice_follows_acceptance_and_the_parameters(cases, written, tmp_path, changes, words):
    _, metrics, decision = written("first")
    _, challenger, truth, settings = cases["first"]
    report.write(tmp_path, metrics, dict(decision) | changes, challenger, truth, settings)
    assert words in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_a_timeline_keeps_a_peak_of_one_hour():
    """Thinning keeps the highest row of each stretch, so no alarm stands on a line that looks quiet."""
    time = np.arange(20_000) * 3_600_000_000
    score = np.zeros(20_000)
    score[12_345] = 1.0
    outcome = Outcome(np.empty(0), time[[12_345, 15_000]], time[[12_345, 15_010]], np.array([TRUE, FALSE], np.int8))
    none = time[:0]
    flat = timeline("machine 1", time, [Lane("comp1", score * 0, outcome, none, none, (none, none))])
    peak = timeline("machine 1", time, [Lane("comp1", score, outcome, none, none, (none, none))])
    assert flat != peak
    assert "var(--good)" in peak
    assert "var(--bad)" in peak
