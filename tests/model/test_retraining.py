"""The pin that a retraining proposes, in laws; what its sinks keep; and its evidence in words."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closedloop.data.schema import DataError
from closedloop.log import pins
from closedloop.log.sink import Sink
from model import log_pins
from model.common import pin_making, request_log, retraining
from model.common.params import load

SIMULATOR = {"kind": "simulator", "profile": "default", "machines": 9, "days": 9, "seed": 1}
VERSIONS = st.fixed_dictionaries({"requests": st.integers(0, 9), "feedback": st.none() | st.integers(0, 9)})
PLACES = ("az://fleet/log", "s3://fleet/log", "gs://fleet/log")
LOGS = st.lists(st.sampled_from(PLACES), unique=True).flatmap(
    lambda places: st.tuples(
        *(st.fixed_dictionaries({"kind": st.just("log"), "location": st.just(place), "versions": VERSIONS})
          for place in places)
    )
)  # fmt: skip
PINS = st.tuples(st.lists(st.just(SIMULATOR), min_size=1, max_size=2), LOGS, st.randoms()).map(
    lambda found: {"fingerprint": "sha256:1", "parts": found[2].sample(parts := [*found[0], *found[1]], len(parts))}
)
NEWEST = {"requests": 30, "feedback": 20}


def candidate(pin, place="", asked_for=None):
    """The candidate's parts, where every log has the newest versions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pin_making, "moved", lambda part, _: {**part, "versions": NEWEST})
        patch.setattr(
            pin_making, "part_of", lambda place, _: {"kind": "log", "location": place.rstrip("/"), "versions": NEWEST}
        )
        return retraining.candidate(pin, place, asked_for or {}, load())


@given(PINS, st.sampled_from(["", *PLACES, "az://fleet/log/"]))
def test_a_candidate_moves_the_logs_adds_one_at_most_and_leaves_the_rest(pin, place):
    found = candidate(pin, place)
    assert [part["kind"] for part in pin["parts"]] == [part["kind"] for part in found[: len(pin["parts"])]]
    assert [part for part in pin["parts"] if part["kind"] != "log"] == [p for p in found if p["kind"] != "log"]
    logs = [part for part in found if part["kind"] == "log"]
    assert all(part["versions"] == NEWEST for part in logs)
    places = [part["location"] for part in logs]
    assert len(set(places)) == len(places)
    before = {part["location"] for part in pin["parts"] if part["kind"] == "log"}
    assert set(places) == before | ({place.rstrip("/")} if place else set())


@given(PINS, st.sampled_from(PLACES))
def test_moving_twice_is_moving_once(pin, place):
    once = candidate(pin, place)
    assert once == candidate({**pin, "parts": once}, place)


@given(PINS, st.sampled_from(PLACES), st.integers(0, 99))
def test_versions_are_of_the_log_that_is_named_alone(pin, place, version):
    found = {
        part["location"]: part["versions"]
        for part in candidate(pin, place, {"requests": version})
        if "location" in part
    }
    assert found.pop(place) == {"requests": version, "feedback": 20}
    assert all(versions == NEWEST for versions in found.values())


def test_versions_of_no_log_or_of_one_of_two_are_an_error():
    two = {"parts": [{"kind": "log", "location": place, "versions": {"requests": 1}} for place in PLACES[:2]]}
    for pin in ({"parts": [SIMULATOR]}, two):
        with pytest.raises(DataError, match=r"--versions: . logs are pinned; say with LOG_SINK which one they are of"):
            candidate(pin, asked_for={"requests": 3})


@pytest.mark.parametrize(
    ("text", "found"),
    [("", {}), ("requests=3", {"requests": 3}), ("requests=3,feedback=4", {"requests": 3, "feedback": 4}),
     ("requests=3 feedback=4", {"requests": 3, "feedback": 4})],
)  # fmt: skip
def test_versions_are_read(text, found):
    assert found == retraining.versions(text)


@pytest.mark.parametrize("text", ["3", "rejects=3", "requests=-1", "requests=", "requests=3;feedback=4"])
def test_versions_of_another_form_are_an_error(text):
    with pytest.raises(DataError, match=r"write for instance requests=12,feedback=3"):
        retraining.versions(text)


ABOUT = {
    "logs": [{"location": "az://fleet/log", "versions": {"requests": 9, "feedback": None}, "before": {"requests": 3}}],
    "holds": {"rows": 2000, "machines": 12, "failures": 5, "first": "2026-01-01T00:00:00Z", "last": "2026-03-01"},
    "pinned": {},
    "labels": {"positive": 10, "healthy": 20, "censored": 30, "immature": 40, "failures": 1, "prevented": 1,
               "found_sound": 2, "censoring": 2},
    "drift": {"verdict": "moved", "words": "volt went from 170 to 175"},
}  # fmt: skip


def test_the_text_has_every_figure_and_what_is_not_known_says_so():
    text = retraining.summary(ABOUT, "## ✅ Better\n")
    for said in ("| rows | not known | 2,000 |", "az://fleet/log at feedback none, requests 9 (before: requests 3)",
                 "matured: 10 rows before a failure and 20 healthy", "unknown: 40 rows", "censored: 30 rows",
                 "foreseen: 1 replacements found the component worn; 2 found it sound", "Moved: volt"):  # fmt: skip
        assert said in text
    assert text.endswith("## ✅ Better\n")
    assert "⚠️" not in text
    assert "A log joins" not in text


def test_it_warns_where_censoring_ate_most_of_the_failures():
    labels = ABOUT["labels"] | {"censoring": 3, "healthy": 0}
    text = retraining.summary(ABOUT | {"labels": labels}, "")
    assert "may have unlearned" in text
    assert "no row is known to be healthy" in text


@pytest.mark.parametrize(
    ("verdict", "before", "says"),
    [
        ("better", {"requests": 3}, "retrain.yml opens a pull request"),
        ("incomparable", None, "retrain.yml opens a pull request"),
        ("incomparable", {"requests": 3}, "nothing to propose, since the verdict is incomparable"),
        ("inconclusive", None, "nothing to propose"),
    ],
)
def test_its_last_line_says_what_is_next(verdict, before, says):
    about = {"verdict": verdict, "logs": [{"before": before}]}
    assert says in retraining.closing(about, retraining.Path("build/evidence"))[-1]


# --- what the sinks keep ---


@pytest.fixture(scope="module")
def sink(tmp_path_factory):
    """A log with four versions of requests."""
    place = Sink.at(str(tmp_path_factory.mktemp("log") / "sink"), {})
    place.create("requests")
    table = place.open("requests")
    for _ in range(3):
        table.alter.set_table_properties({"delta.appendOnly": "false"})
    return place


WANTED = st.fixed_dictionaries({kind: st.lists(st.integers(0, 3), unique=True, max_size=3) for kind in log_pins.KINDS})


def keep(sink, tmp_path, wanted):
    parts = {
        kind: [
            {"kind": "log", "location": sink.place, "versions": {"requests": version}, "commit": "c"} for version in of
        ]
        for kind, of in wanted.items()
    }
    (tmp_path / "wanted.json").write_text(json.dumps(parts))
    log_pins.main(["--wanted", str(tmp_path / "wanted.json"), "--log", sink.place])


def kept(sink):
    return sorted((pin.kind, pin.versions["requests"]) for pin in pins.find(sink) if not pin.id.startswith("data-"))


@given(st.lists(WANTED, min_size=1, max_size=3), st.integers(0, 5))
def test_the_sink_keeps_what_is_wanted_whatever_it_kept_and_wherever_it_was_cut_off(
    sink, tmp_path_factory, rounds, cut
):
    """Each round but the last is cut off at a write or removal; what a person pinned is always there."""
    folder = tmp_path_factory.mktemp("wanted")
    mine = request_log.pin_id({"versions": {"requests": 0}})
    pins.put(sink, pins.Pin(mine, "main", {"requests": 0}))
    for wanted in rounds[:-1]:
        left = iter(range(cut))

        def until_cut(do, left=left):
            def step(*words):
                if next(left, None) is None:
                    raise KeyboardInterrupt
                return do(*words)

            return step

        with pytest.MonkeyPatch.context() as patch:
            for name in ("put", "remove"):
                patch.setattr(pins, name, until_cut(getattr(pins, name)))
            with contextlib.suppress(KeyboardInterrupt):
                keep(sink, folder, wanted)
    keep(sink, folder, rounds[-1])
    assert sorted((kind, version) for kind, of in rounds[-1].items() for version in of) == kept(sink)
    assert mine in {pin.id for pin in pins.find(sink)}


def test_a_release_whose_versions_are_gone_is_a_warning_and_main_is_an_error(sink, tmp_path, capsys):
    keep(sink, tmp_path, {"main": [1], "proposal": [], "release": [77]})
    assert [("main", 1)] == kept(sink)
    assert "of a release cannot be trained again" in capsys.readouterr().err
    with pytest.raises(DataError, match="_pins: cannot be kept up to date"):
        keep(sink, tmp_path, {"main": [77], "proposal": [], "release": []})


def test_a_sink_that_is_named_in_two_ways_is_one_and_keeps_its_pins(sink, tmp_path, monkeypatch):
    """A part names a folder from the repository, LOG_SINK from where a person is: no pin goes and comes back."""
    keep(sink, tmp_path, {"main": [1], "proposal": [], "release": []})
    removed = []
    for module in ("places", "provenance"):
        monkeypatch.setattr(f"model.common.{module}.ROOT", Path(sink.place).parent)
    monkeypatch.setattr(pins, "remove", lambda _, name: removed.append(name))
    monkeypatch.chdir(Path(sink.place).parent)
    log_pins.main(["--wanted", str(tmp_path / "wanted.json"), "--log", "./sink/"])
    assert [] == removed
    assert [("main", 1)] == kept(sink)
