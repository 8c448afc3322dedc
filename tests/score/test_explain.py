"""What an answer tells on request, over HTTP and against the bundle's own figures."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import jsonschema
import msgspec
import numpy as np
import pytest

from closedloop.data import untouched
from closedloop.heads.bundle import Bundle, load, write
from closedloop.heads.manifest import HORIZON
from closedloop.heads.reasons import Reasons
from closedloop.heads.scorers import Isolation
from score.answer import Scorer
from score.explain import LEVELS, PARTS, Explainer, _text

EVERY = frozenset(PARTS)


def alarming(bundle: Bundle, folder: Path, **more: object) -> Bundle:
    """The bundle, with every head in alarm whatever it says."""
    failures = {name: replace(head, threshold=-1.0, plateau=(-2.0, 2.0)) for name, head in bundle.failures.items()}
    anomaly = replace(bundle.anomaly, threshold=-1.0)
    provenance = bundle.provenance | {HORIZON: 24.0} | more
    write(replace(bundle, failures=failures, anomaly=anomaly, provenance=provenance, manifest=None), folder)
    return load(folder)


@pytest.fixture(scope="module")
def scorer(tiny_bundle, tmp_path_factory):
    return Scorer(alarming(load(tiny_bundle), tmp_path_factory.mktemp("loud") / "bundle"), 10_000)


def explained(scorer, request=None, parts=EVERY):
    tables = scorer.decode(json.dumps(request or scorer.example))
    shown = scorer.shown(scorer.answer_tables(tables, "x")["results"])
    return shown, scorer.explainer.add(shown, tables, frozenset(parts))


def heads(result):
    """The failure heads that there are."""
    found = [(name, head) for name, head in result["failure"].items() if head is not None]
    assert found
    return found


def test_nothing_else_changes_and_each_part_comes_alone(scorer):
    shown, (full,) = explained(scorer)
    for part, names in {
        "thresholds": {"horizon_hours"}, "severity": {"severity", "horizon_hours"}, "contributions": set(),
        "confidence": {"confidence"}, "warning_codes": {"warning_codes"},
    }.items():  # fmt: skip
        _, (one,) = explained(scorer, parts=[part])
        assert one.keys() - shown[0].keys() == names
    for name, head in heads(shown[0]):
        assert {key: full["failure"][name][key] for key in head} == head
    assert full["horizon_hours"] == 24.0
    assert {"threshold", "contributions"} <= full["anomaly"].keys()


def test_base_contributions_and_the_rest_are_the_logit(scorer):
    _, (full,) = explained(scorer)
    for name, head in heads(full):
        told = head["contributions"]
        assert 1 <= len(told) <= 3, name
        added = [one["logit"] for one in told]
        assert added == sorted(added, reverse=True)
        assert min(added) > 0
        logit = math.log(head["probability"] / (1 - head["probability"]))
        assert head["base_logit"] + sum(added) + head["other_logit"] == pytest.approx(logit, abs=1e-9)
    shares = [one["share"] for one in full["anomaly"]["contributions"]]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 1 + 1e-9


def test_a_sensor_that_moved_is_told_as_a_technician_says_it(scorer):
    schema = scorer.bundle.schema
    hours = [f"2015-01-{1 + hour // 24:02d}T{hour % 24:02d}:00:00Z" for hour in range(72)]
    telemetry = {"machineID": [1] * 72, "datetime": hours}
    for place, sensor in enumerate(schema.sensors):
        usual, spread = (getattr(scorer.bundle.constants, name)[0, place] for name in ("location", "scale"))
        telemetry[sensor] = [usual + spread * (hour % 3 - 1) for hour in range(72)]
    moved = schema.sensors[1]
    drop = 4 * scorer.bundle.constants.scale[0, 1]
    telemetry[moved] = [value - drop * (hour >= 58) for hour, value in enumerate(telemetry[moved])]
    _, (full,) = explained(scorer, {"telemetry": telemetry})
    first = full["anomaly"]["contributions"][0]
    assert (first["kind"], first["name"]) == ("sensor", moved)
    assert first["deviations"] < -1
    assert f"{moved} {-first['deviations']:.1f} deviations below its usual" in first["text"]


@pytest.mark.parametrize(
    ("kind", "figures", "words"),
    [
        ("error", {"count": 0, "within_hours": 72.0}, "no E7 within 72 h"),
        ("error", {"count": 1, "within_hours": 72.0}, "E7 once within 72 h"),
        ("error", {"count": 3, "within_hours": 36.0}, "E7 3 times within 36 h"),
        ("sensor", {"deviations": -3.14, "since_hours": 14.2}, "E7 3.1 deviations below its usual since 14 h"),
        ("sensor", {"deviations": 1e300, "since_hours": None}, "E7 1e+300 deviations above its usual"),
        ("replacement", {}, "no replacement of E7 known"),
        ("replacement", {"replaced_days_ago": 41.3}, "E7 replaced 41 days ago"),
        ("machine", {}, "the machine's E7"),
        ("feature", {}, "E7"),
    ],
)
def test_a_reason_is_said_in_words(kind, figures, words):
    assert words == _text((kind, "E7"), figures)


def test_severity_goes_by_the_threshold_and_its_plateau(scorer):
    name, entry = next((name, one) for name, one in scorer.explainer.heads.failure.items() if one is not None)
    explainer = Explainer(scorer.bundle)
    explainer.heads = replace_head(explainer.heads, name, entry, threshold=0.2, plateau=(0.1, 0.4))
    for probability, level in {0.05: "none", 0.1: "watch", 0.2: "warn", 0.39: "warn", 0.4: "act"}.items():
        failure = dict.fromkeys(explainer.heads.failure) | {
            name: {"probability": probability, "alarm": probability >= 0.2}
        }
        result = {"anomaly": {"score": 0.0, "alarm": False}, "failure": failure, "warnings": []}
        assert level == explainer._severity(result), probability
        alarmed = result | {"anomaly": {"score": 9.0, "alarm": True}}
        assert explainer._severity(alarmed) == max(level, "warn", key=LEVELS.index)
        assert "none" == explainer._severity(alarmed | {"warnings": [untouched.WARNING]})


def replace_head(heads, name, entry, **changed):
    return msgspec.structs.replace(heads, failure=heads.failure | {name: msgspec.structs.replace(entry, **changed)})


def test_confidence_is_the_share_of_the_history_that_was_sent(scorer):
    telemetry = scorer.example["telemetry"]
    rows = len(telemetry["datetime"])
    hours = scorer.bundle.spec.history_us // scorer.bundle.schema.period_us
    _, (full,) = explained(scorer, {"telemetry": telemetry})
    assert full["confidence"] == pytest.approx(rows / hours, abs=1e-3)
    gone = {sensor: [None] * rows for sensor in scorer.bundle.schema.sensors[:2]}
    _, (half,) = explained(scorer, {"telemetry": telemetry | gone})
    assert half["confidence"] == pytest.approx(full["confidence"] / 2, abs=1e-3)
    assert "missing" in half["warning_codes"]
    assert len(half["warning_codes"]) == len(half["warnings"])


def test_a_machine_that_is_kept_untouched_shows_no_reason_for_an_alarm(tiny_bundle, tmp_path):
    scorer = Scorer(alarming(load(tiny_bundle), tmp_path / "bundle", **{untouched.KEY: 1.0}), 10_000)
    _, (full,) = explained(scorer)
    assert full["severity"] == "none"
    assert "untouched" in full["warning_codes"]
    assert "contributions" not in json.dumps(full)


def test_a_bundle_from_before_has_no_contributions_of_failures(scorer, tmp_path):
    old = {
        name: replace(head, forest=replace(head.forest, cover=None)) for name, head in scorer.bundle.failures.items()
    }
    provenance = {key: value for key, value in scorer.bundle.provenance.items() if key != HORIZON}
    write(replace(scorer.bundle, failures=old, provenance=provenance, manifest=None), tmp_path / "bundle")
    _, (full,) = explained(Scorer(load(tmp_path / "bundle"), 10_000))
    assert all(head["alarm"] and "contributions" not in head for _, head in heads(full))
    assert "horizon_hours" not in full
    assert full["anomaly"]["contributions"]


def test_what_explains_is_compiled_before_the_first_request(tiny_bundle):
    """In a process of its own, since other tests compile it too."""
    code = """
import sys
from pathlib import Path

from closedloop.heads.bundle import load
from closedloop.heads.shap import _explain
from score.answer import Scorer

Scorer(load(Path(sys.argv[1])), 100)
print(len(_explain.signatures))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tiny_bundle)], capture_output=True, text=True, check=False)
    assert done.stdout == "1\n", done.stderr


def test_no_request_lays_out_a_forest(scorer):
    """Also that of an isolation forest without failure heads."""
    reasons = scorer.explainer.reasons
    assert set(reasons._laid_out) == set(scorer.bundle.failures)
    forest = next(iter(scorer.bundle.failures.values())).forest
    anomaly = replace(scorer.bundle.anomaly, scorer=Isolation(forest), columns=np.arange(forest.feature.max() + 1))
    alone = Reasons(replace(scorer.bundle, anomaly=anomaly, failures={}, manifest=None))
    alone.compile(np.zeros(len(scorer.bundle.spec.names)))
    assert set(alone._laid_out) == {""}


def test_the_features_of_every_name_have_a_source(scorer):
    reasons = Reasons(scorer.bundle)
    x = np.zeros(len(scorer.bundle.spec.names))
    assert reasons._add_up(x).shape == (len(reasons.sources),)
    kinds = {kind for kind, _ in reasons.sources}
    assert {"sensor", "error", "replacement", "machine"} <= kinds
    named = {name for kind, name in reasons.sources if kind == "sensor"}
    assert named == set(scorer.bundle.schema.sensors)


def test_over_http_it_is_asked_for_and_not_logged(server):
    with httpx.Client(base_url=server.url) as client:
        example = client.get("/example").json()
        full = client.post("/score", params={"include": ",".join(PARTS)}, json=example)
        plain = client.post("/score", json=example)
        assert 200 == full.status_code
        (told,), (lean,) = full.json()["results"], plain.json()["results"]
        assert {"severity", "confidence", "warning_codes"} == told.keys() - lean.keys() - {"horizon_hours"}
        document = client.get("/openapi.json").json()
        schema = {"$ref": "#/components/schemas/ScoreAnswer", "components": document["components"]}
        jsonschema.validate(full.json(), schema)
        refused = client.post("/score", params={"include": "severity,colour"}, json=example)
        assert 400 == refused.status_code
        assert "include 'colour' is unknown: choose among thresholds, severity" in refused.json()["detail"]
