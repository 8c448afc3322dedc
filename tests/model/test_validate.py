"""``model.validate``: what it refuses and in which words, and how it compares new data with the champion's.

The commands run in this process, on a folder of CSV files such as an export.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from closedloop.data import sources
from closedloop.data.schema import DataError
from closedloop.data.simulate import simulate
from closedloop.heads import bundle
from closedloop.heads.drift_reference_fit import fit_drift_reference
from model import data, validate
from model.common import cli, proposed_params
from model.common.params import load


@pytest.fixture(scope="module")
def fleet():
    """Tables of ten machines for 40 days."""
    return simulate("azure", 10, 40, 3, load().schema).tables


@pytest.fixture
def frames(fleet):
    return sources.tables_to_frames(fleet, load().schema)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(proposed_params, "fleet_name", lambda place: place.name)  # the name decides who is held out
    return tmp_path


def run(folder, frames, *words):
    """Write the frames as CSV files, then run data and validate."""
    (folder / "plant").mkdir()
    for name, frame in frames.items():
        frame.to_csv(folder / "plant" / f"PdM_{name}.csv", index=False)
    data.main(["--source", "plant"])
    validate.main(list(words))


def cells(column, rows, value):
    """Return a change that puts a value into some rows."""

    def change(frame):
        mixed = frame[column].astype(object)
        mixed.iloc[rows] = value
        return frame.assign(**{column: mixed})

    return change


ROWS = [3, 7, 11, 15]
REFUSALS = {
    "presence of a value": ("telemetry", cells("machineID", ROWS, None), "telemetry.machineID: is missing: 4 of "),
    "type": ("telemetry", cells("volt", ROWS, "broken"), "telemetry.volt: is not a number: 4 of "),
    "range": ("telemetry", cells("volt", ROWS, 999), "telemetry.volt: is outside its range 0 to 400: 4 of "),
    "duplicate keys": (
        "telemetry",
        lambda frame: pd.concat([frame, frame.iloc[:2].assign(volt=1.0)]),
        "telemetry.machineID, datetime: the key occurs more than once: 4 of ",
    ),
    "unknown codes": (
        "errors",
        cells("errorID", ROWS, "error9"),
        "errors.errorID: is not one of error1, error2, ",
    ),
    "unknown models": (
        "machines",
        cells("model", [0, 1, 2], "model5"),
        "machines.model: is not one of model1, ",
    ),
    "unknown machines": (
        "failures",
        cells("machineID", [0, 1, 2], 77),
        "failures.machineID: is not in telemetry: 3 ",
    ),
    "references": ("machines", lambda frame: frame.iloc[:9], "telemetry.machineID: is not in machines: 960 of "),
}


@pytest.mark.parametrize("rule", REFUSALS)
def test_a_refusal_names_table_column_rule_count_and_three_rows(rule, folder, frames):
    table, change, said = REFUSALS[rule]
    with pytest.raises(cli.RefusedError) as caught:
        run(folder, frames | {table: change(frames[table])})
    head, line = str(caught.value).splitlines()
    assert head == "the data does not meet the expectations:"
    assert line.startswith(f"  {said}")
    assert re.search(r": [\d,]+ of [\d,]+ rows: row \d+ \(machineID [^)]+\)(; row \d+ \([^)]+\)){2}; \w", line)
    written = json.loads((folder / "build/validation.json").read_text())
    assert written["failures"] == [line.strip()]
    assert "The data was refused" in (folder / "build/validation/index.html").read_text(encoding="utf-8")
    assert not (folder / "build/holdout").exists()


def test_a_missing_column_is_refused_with_those_that_are_there(folder, frames):
    with pytest.raises(cli.RefusedError, match=r"telemetry\.volt: the column is missing: the table has datetime, mach"):
        run(folder, frames | {"telemetry": frames["telemetry"].drop(columns="volt")})


def test_a_folder_without_telemetry_is_refused_in_one_line(folder, frames):
    with pytest.raises(DataError, match="telemetry"):
        run(folder, {name: frame for name, frame in frames.items() if name != "telemetry"})


def test_gaps_give_a_warning_and_no_refusal(folder, frames, capsys):
    run(folder, frames | {"telemetry": frames["telemetry"].drop(index=[10, 500, 1000])})
    assert (
        "warning: telemetry.datetime: comes after a gap of more than 60 minutes: 3 of 9,597" in capsys.readouterr().err
    )
    assert "The data is valid" in (folder / "build/validation/index.html").read_text(encoding="utf-8")
    assert (folder / "build/holdout").exists()


def shifted(frames, volts):
    return frames | {"telemetry": frames["telemetry"].assign(volt=frames["telemetry"]["volt"] + volts)}


@pytest.fixture
def champion(folder, fleet, tiny_bundle):
    """A champion of the plant, with the drift reference of its own tables."""
    model = bundle.load(tiny_bundle)
    path = folder / "build/champion/plant/bundle"
    score = np.zeros(len(fleet.time))
    bundle.write(replace(model, drift_reference=fit_drift_reference(fleet, model.schema, score)), path)
    return path


def test_the_champions_own_fleet_gives_no_warning(champion, folder, frames, capsys):
    run(folder, frames)
    assert "warning" not in capsys.readouterr().err


def test_readings_outside_the_champions_range_give_a_warning_whatever_its_feature_code(
    champion, folder, frames, capsys, monkeypatch
):
    monkeypatch.setattr(bundle, "code_digest", lambda: "sha256:other")
    run(folder, shifted(frames, 40))
    said = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(said) == 1
    assert re.search(
        r"warning: telemetry\.volt: lies outside [\d.]+ to [\d.]+, where 99\.8% of the [a-z' ]+ readings lie: "
        r"[\d,]+ of 9,600 rows: row \d+ \(machineID \d+, datetime [^,]+, volt [\d.]+\); row .+; row .+; see whether",
        said[0],
    )


@pytest.mark.parametrize("days", [1, 10])
def test_the_held_out_tables_begin_the_longer_of_both_histories_before_the_first_judged_row(
    days, champion, folder, frames
):
    """Else a challenger with shorter features would take readings away from the champion's."""
    manifest = json.loads((champion / "manifest.json").read_text()) | {"history_hours": days * 24.0}
    (champion / "manifest.json").write_text(json.dumps(manifest))
    run(folder, frames)
    judged_from = json.loads((folder / "build/data/data.json").read_text())["judged_from"]
    first = pd.read_parquet(folder / "build/holdout/PdM_telemetry.parquet").groupby("machineID")["datetime"].min()
    before = {pd.Timestamp(judged_from[str(machine)], unit="us", tz="UTC") - time for machine, time in first.items()}
    assert {pd.Timedelta(hours=max(load().features["history_hours"], days * 24) - 1)} == before


def test_without_a_champion_there_is_nothing_to_compare_with(folder, frames, capsys):
    run(folder, shifted(frames, 40))
    assert "warning" not in capsys.readouterr().err


def test_the_drift_reference_is_that_of_another_bundle_where_one_is_named(champion, folder, frames, capsys):
    champion.rename(folder / "mine")
    run(folder, shifted(frames, 40), "--reference", "mine")
    assert "warning: telemetry.volt: lies outside" in capsys.readouterr().err


def test_a_champion_that_cannot_be_read_gives_a_warning_and_is_left_out(champion, folder, frames, capsys):
    (champion / "card.md").write_text("changed")
    run(folder, shifted(frames, 40))
    said = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(said) == 1
    assert "warning: not compared with the champion: bundle build/champion/plant/bundle: card.md was changed" in said[0]


@pytest.mark.parametrize("what", ["nowhere", "changed", "without"])
def test_a_bundle_that_is_named_must_have_a_drift_reference(what, champion, folder, frames, tiny_bundle):
    said = {
        "nowhere": "cannot be read",
        "changed": "card.md was changed",
        "without": "it has no drift reference; train",
    }
    (champion / "card.md").write_text("changed")
    path = {"nowhere": folder / "nowhere", "changed": champion, "without": tiny_bundle}[what]
    with pytest.raises(DataError, match=said[what]):
        run(folder, frames, "--reference", str(path))


def test_tables_with_marks_say_what_became_of_the_labels(folder, frames, capsys):
    last = frames["telemetry"].groupby("machineID")["datetime"].max()
    frames["marks"] = pd.DataFrame({"machineID": last.index, "until": last - pd.Timedelta(days=10)})
    run(folder, frames)
    said = capsys.readouterr().err
    (immature,) = re.findall(r"labels: [\d,]+ before a failure, .*, ([\d,]+) not yet reported on", said)
    assert 9_000 < int(immature.replace(",", "")) <= 10 * 4 * 24 * 11  # ten days and the horizon, but for failures
    assert "replacements without a finding hide more failures than were seen: send finding to /feedback" in said
    assert "nothing can train" not in said
    assert (folder / "build/holdout/PdM_marks.parquet").exists()


def test_a_log_for_which_nobody_vouches_says_what_to_send(folder, frames, capsys):
    frames["marks"] = pd.DataFrame({"machineID": frames["telemetry"]["machineID"].unique(), "until": pd.NaT})
    run(folder, frames)
    assert "no row is known to be healthy, so nothing can train: send complete_until" in capsys.readouterr().err


def test_an_unknown_finding_is_refused(folder, frames):
    frames["maint"]["finding"] = ["worn", "rusty"] + [None] * (len(frames["maint"]) - 2)
    with pytest.raises(cli.RefusedError, match=r"maint\.finding: is not one of worn, sound: 1 of"):
        run(folder, frames)
