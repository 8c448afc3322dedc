"""The data pin: what its parts name, and that a run reads exactly that or says what is wrong."""

from __future__ import annotations

import http.server
import json
import threading
from types import SimpleNamespace

import pandas as pd
import pytest
from deltalake import DeltaTable, write_deltalake

import pinned_fleet as fleet
from closedloop.data.schema import DataError
from model import data, validate
from model.common import cli, commits, params, pin_rules, pinned_files, places
from model.common import data_pin as pins


@pytest.fixture
def repo(tmp_path, monkeypatch):
    return fleet.repository(tmp_path, monkeypatch)


@pytest.fixture
def plant(repo):
    return fleet.write(repo.top / "data" / "plant")


def say(capsys):
    return capsys.readouterr().out


# --- files of the repository ------------------------------------------------------------------------------------------


def test_a_folder_is_pinned_by_size_and_digest_and_read_through_the_pin(repo, plant, capsys):
    pin = fleet.pin("--source", "data/plant")
    (part,) = pin["parts"]
    assert ("files", "data/plant") == (part["kind"], part["location"])
    assert ["PdM_failures.csv", "PdM_telemetry.csv"] == [file["path"] for file in part["files"]]
    assert [(plant / file["path"]).stat().st_size for file in part["files"]] == [f["size"] for f in part["files"]]
    assert {"rows": 7200, "machines": 12, "failures": 12, "first": "2026-01-01T00:00:00Z"}.items() <= pin[
        "holds"
    ].items()
    said = say(capsys)
    assert "data.lock.json pins files data/plant (before: simulator)" in said
    assert "rows      unknown → 7,200" in said
    telemetry, about = fleet.run()
    assert (7200, False, pin["parts"]) == (len(telemetry), about["local"], about["parts"])
    assert json.dumps(pin, indent=1, sort_keys=True) + "\n" == repo.lock.read_text()


def test_a_folder_of_files_may_have_a_name_that_delta_tables_cannot_have(repo, plant):
    folder = plant.rename(plant.with_name("line #1 [a]"))
    (part,) = fleet.pin("--source", f"data/{folder.name}")["parts"]
    assert ("files", f"data/{folder.name}") == (part["kind"], part["location"])
    assert 7200 == len(fleet.run()[0])


def test_what_adopt_writes_is_fetched_and_then_pinned(repo, plant):
    part = pinned_files.part_of(plant, {})
    pins.write([part])
    data.main([])
    validate.main(["--pin"])
    pin = pins.load()
    assert [part] == pin["parts"]
    assert pin["fingerprint"].startswith("sha256:")


def test_what_the_pin_does_not_name_is_not_read(plant):
    fleet.pin("--source", "data/plant")
    pd.DataFrame({"machineID": [1], "model": "model1", "age": 1}).to_csv(plant / "PdM_machines.csv", index=False)
    data.main([])
    assert {"PdM_failures.parquet", "PdM_telemetry.parquet", "data.json"} == {path.name for path in cli.DATA.iterdir()}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.unlink(), "is pinned by data.lock.json and is not there; restore the file, or pin what"),
        (lambda path: path.write_text("machineID\n"), "has 10 of the [0-9,]+ bytes that data.lock.json pins; restore"),
        (lambda path: path.write_text(path.read_text() + "\n"), "has more than the [0-9,]+ bytes that data.lock.json"),
        (lambda path: path.write_text(path.read_text().replace("comp1", "comp2")), "is sha256 .*with: make data-pin$"),
        (
            lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
            ".*; run: git lfs pull$",
        ),
    ],
)
def test_a_file_that_is_not_the_pinned_one_is_refused(plant, spoil, says):
    fleet.pin("--source", "data/plant")
    spoil(plant / "PdM_failures.csv")
    with pytest.raises(DataError, match=f"data/plant/PdM_failures.csv: {says}") as refused:
        data.main([])
    assert 1 == len(str(refused.value).splitlines())


def test_after_an_honest_change_data_pin_moves_the_pin_and_says_what_changed(plant, capsys):
    before = fleet.pin("--source", "data/plant")
    fleet.readings(hours=700).to_csv(plant / "PdM_telemetry.csv", index=False)
    with pytest.raises(DataError, match="more than the"):
        data.main([])
    say(capsys)
    after = fleet.pin()
    said = say(capsys)
    assert "rows      7,200 → 8,400" in said
    assert "machines  12\n" in said
    assert "last      2026-01-25T23:00:00Z → 2026-01-30T03:00:00Z" in said
    assert before["fingerprint"] != after["fingerprint"]
    assert 8400 == len(fleet.run()[0])
    fleet.pin()
    assert "data.lock.json is unchanged: files data/plant" in say(capsys)
    assert after == pins.load()


def test_a_pin_whose_tables_are_refused_is_not_written(repo, plant):
    before = repo.lock.read_text()
    fleet.readings(volt=-5.0).to_csv(plant / "PdM_telemetry.csv", index=False)
    with pytest.raises(cli.RefusedError, match=r"telemetry\.volt"):
        fleet.pin("--source", "data/plant")
    assert before == repo.lock.read_text()


def test_a_reader_that_makes_other_tables_of_the_same_files_is_refused(repo, plant):
    pin = fleet.pin("--source", "data/plant")
    fleet.dump(repo.lock, pin | {"fingerprint": "sha256:other"})
    with pytest.raises(cli.RefusedError, match=r"not judged: the tables are sha256:.*make data-pin"):
        fleet.run()


def test_a_folder_outside_the_repository_is_refused(repo, tmp_path_factory):
    with pytest.raises(DataError, match="lies outside the repository, so only this machine has it; copy it"):
        fleet.pin("--source", str(fleet.write(tmp_path_factory.mktemp("elsewhere"))))


def test_only_the_files_that_params_yaml_names_are_pinned(plant):
    (plant / "2026").mkdir()
    for month in ("01", "02"):
        (plant / "2026" / f"{month}.csv").write_text("a\n1\n")
    (plant / "notes.txt").write_text("by hand")
    part = pinned_files.part_of(plant, {"telemetry": "2026/*.csv"})
    assert ["2026/01.csv", "2026/02.csv"] == [file["path"] for file in part["files"]]
    assert (plant / "2026/01.csv").read_text() == (pinned_files.fetch(part) / "2026/01.csv").read_text()


def test_the_profile_of_a_pin_without_a_simulator_is_refused(plant):
    fleet.pin("--source", "data/plant")
    with pytest.raises(DataError, match="pins data that is not simulated; read your own with --source"):
        data.main(["--profile", "azure"])


# --- a web server -----------------------------------------------------------------------------------------------------


@pytest.fixture
def web(tmp_path_factory):
    """A web server on this machine; the next requests of a path fail as ``faults[path]`` says."""
    folder = tmp_path_factory.mktemp("web")
    state = SimpleNamespace(folder=fleet.write(folder / "fleet a"), faults={}, seen=[])

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            state.seen.append((self.path, self.headers.get("Range")))
            fault = state.faults.get(self.path, [])
            what = fault.pop(0) if fault else None
            if isinstance(what, int):
                self.send_response(what)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if isinstance(what, str) and what.startswith("http"):
                self.send_response(302)
                self.send_header("Location", what)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            path = folder / http.server.urllib.parse.unquote(self.path).lstrip("/")
            if not path.is_file():
                self.send_error(404)
                return
            content = path.read_bytes()
            if self.headers.get("Range") and what != "no ranges":
                start, whole = int(self.headers["Range"][6:-1]), len(content)
                content = content[start:]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", '"the only version"')
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if what == "half" else content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.place = f"http://127.0.0.1:{server.server_port}/fleet%20a"
    state.files = " ".join(f"{state.place}/PdM_{table}.csv" for table in ("telemetry", "failures"))
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(places, "_PAUSE_SECONDS", 0.01)


def test_files_of_a_web_server_are_pinned_by_name_and_downloaded_once(repo, web):
    pin = fleet.pin("--source", web.files)
    (part,) = pin["parts"]
    assert web.place == part["location"]
    assert ["PdM_failures.csv", "PdM_telemetry.csv"] == [file["path"] for file in part["files"]]
    asked = len(web.seen)
    assert 7200 == len(fleet.run()[0])
    assert asked == len(web.seen)  # read from build/pinned/files
    for path in pinned_files.cache().iterdir():
        path.write_bytes(b"broken")
    assert 7200 == len(fleet.run()[0])
    assert asked + 2 == len(web.seen)


@pytest.mark.parametrize("fault", [503, 429, 500, "half", "no ranges"])
def test_a_server_that_fails_once_is_asked_again(repo, web, fault):
    for table in ("telemetry", "failures"):
        faults = ["half", "no ranges"] if fault == "no ranges" else [fault]
        web.faults[f"/fleet%20a/PdM_{table}.csv"] = faults
    (part,) = fleet.pin("--source", web.files)["parts"]
    assert {file["path"]: file["sha256"] for file in part["files"]} == {
        path.name: pinned_files.digest_of(path) for path in web.folder.iterdir()
    }
    assert 4 == len(web.seen)
    if fault == "half":
        assert all(kept for _, kept in web.seen[-1:])  # it goes on where it broke off


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        ([503] * 9, "cannot be read .*503.*; run it again when the server answers"),
        ([403], "cannot be read .*403.*; correct the address"),
        (
            ["http://example.invalid/x.csv"],
            "cannot be read .*redirects to .*, which is not https",
        ),
    ],
)
def test_a_server_that_goes_on_failing_is_one_clear_line(repo, web, faults, says):
    web.faults["/fleet%20a/PdM_failures.csv"] = faults
    with pytest.raises(DataError, match=f"/PdM_failures.csv: {says}") as refused:
        fleet.pin("--source", web.files)
    assert 1 == len(str(refused.value).splitlines())
    assert not list(pinned_files.cache().glob(".*"))


def test_a_file_that_changed_on_the_server_is_refused_until_it_is_pinned_again(repo, web):
    fleet.pin("--source", web.files)
    for path in pinned_files.cache().iterdir():
        path.unlink()
    fleet.readings(hours=601).to_csv(web.folder / "PdM_telemetry.csv", index=False)
    with pytest.raises(DataError, match=r"PdM_telemetry\.csv: has more than the"):
        data.main([])
    assert 12 * 601 == fleet.pin()["holds"]["rows"]


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("https://example.invalid/folder/", "is not the address of a file; a web server has no listing, so name each"),
        ("https://example.invalid/PdM_telemetry.csv?sig=abc", "holds what may be secret; remove"),
        ("https://me:secret@example.invalid/PdM_telemetry.csv", "holds what may be secret; remove"),
        ("http://example.invalid/PdM_telemetry.csv", "anybody on the way can change; write https"),
        ("https://a.invalid/x/a.csv https://b.invalid/x/b.csv", "is on another server than"),
        ("ftp://example.invalid/a", "choose a folder of the repository, or one of az://, .*, https://"),
        ("s3://bucket/folder?X-Amz-Signature=abc", "holds what may be secret; remove"),
    ],
)
def test_addresses_that_cannot_be_pinned(repo, place, says):
    with pytest.raises(DataError, match=says) as refused:
        fleet.pin("--source", place)
    assert "abc" not in str(refused.value)


def test_another_commit_that_is_trained_uses_our_downloads(repo, web, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        commits.subprocess, "run", lambda *_, env, **__: seen.update(env) or SimpleNamespace(returncode=0)
    )
    commits._call(["true"], repo.top)
    assert str(repo.top / "build/pinned/files") == seen["PINNED_CACHE"]


# --- Delta tables -----------------------------------------------------------------------------------------------------


@pytest.fixture
def lake(repo):
    """Two Delta tables, with column names of their own, in the folder ``data/lake`` of the repository."""
    folder = repo.top / "data" / "lake"
    folder.mkdir(parents=True)
    theirs = fleet.readings().rename(columns={"datetime": "ts", "machineID": "asset"})
    theirs["ts"] = pd.to_datetime(theirs["ts"], utc=True)
    write_deltalake(str(folder / "PdM_telemetry"), theirs, partition_by=["asset"])
    write_deltalake(str(folder / "failures"), fleet.failures())
    return folder


MAPPED = {"columns": {"telemetry": {"ts": "datetime", "asset": "machineID"}}}


def test_delta_tables_are_read_at_the_pinned_versions_and_moved_to_the_newest(repo, lake, monkeypatch, capsys):
    monkeypatch.setattr(params, "PARAMS", mapped_params(repo))
    pin = fleet.pin("--source", "data/lake", "--params", "params.yaml")
    (part,) = pin["parts"]
    assert {"telemetry": "PdM_telemetry", "failures": "failures"} == part["tables"]
    assert {"telemetry": 0, "failures": 0} == part["versions"]
    write_deltalake(str(lake / "failures"), fleet.failures([1]).assign(failure="comp2"), mode="append")
    data.main(["--params", "params.yaml"])
    assert 12 == len(pd.read_parquet("build/data/PdM_failures.parquet"))
    say(capsys)
    moved = fleet.pin("--params", "params.yaml")
    assert {"telemetry": 0, "failures": 1} == moved["parts"][0]["versions"]
    assert "failures  12 → 13" in say(capsys)


def mapped_params(repo):
    """A parameter file that maps the columns of the lake."""
    text = params.PARAMS.read_text().replace("columns: {}", f"columns: {json.dumps(MAPPED['columns'])}")
    (repo.top / "params.yaml").write_text(text)
    return repo.top / "params.yaml"


def test_a_part_brings_its_own_column_names_and_a_range_of_time(repo, lake):
    part = {"kind": "delta", "location": "data/lake", "tables": {"telemetry": "PdM_telemetry", "failures": "failures"}}
    part |= {"versions": {"telemetry": 0, "failures": 0}, **MAPPED}
    part |= {"from": "2026-01-02", "until": "2026-01-20T06:00:00Z"}
    pins.write([part])
    data.main([])
    telemetry = pd.read_parquet("build/data/PdM_telemetry.parquet")
    assert ("2026-01-02 00:00", "2026-01-20 05:00") == (
        f"{telemetry.datetime.min():%F %R}",
        f"{telemetry.datetime.max():%F %R}",
    )
    assert 12 == telemetry.machineID.nunique()
    pins.write([part | {"until": "2026-01-09T07:00:00Z"}])
    data.main([])
    assert 0 == len(pd.read_parquet("build/data/PdM_failures.parquet"))  # text times, cut where the range ends


def test_a_table_is_pinned_within_its_folder(repo, lake, monkeypatch):
    monkeypatch.setattr(params, "PARAMS", mapped_params(repo))
    words = ("--source", "data/lake/PdM_telemetry", "--from", "2026-01-03")
    (part,) = fleet.pin(*words, "--params", "params.yaml")["parts"]
    assert ("data/lake", {"telemetry": "PdM_telemetry"}, "2026-01-03") == (
        part["location"],
        part["tables"],
        part["from"],
    )


def test_a_version_that_is_gone_is_one_clear_line(repo, lake):
    part = {"kind": "delta", "location": "data/lake", "tables": {"telemetry": "PdM_telemetry"}, **MAPPED}
    pins.write([part | {"versions": {"telemetry": 7}}])
    with pytest.raises(DataError, match="data/lake/PdM_telemetry at version 7: cannot be read") as refused:
        data.main([])
    assert 1 == len(str(refused.value).splitlines())
    write_deltalake(str(lake / "PdM_telemetry"), DeltaTable(str(lake / "PdM_telemetry")).to_pandas(), mode="overwrite")
    DeltaTable(str(lake / "PdM_telemetry")).vacuum(0, dry_run=False, enforce_retention_duration=False)
    pins.write([part | {"versions": {"telemetry": 0}}])
    with pytest.raises(DataError, match=r"at version 0: .*were vacuumed; pin what is there with: make data-pin"):
        data.main([])


# --- several parts ----------------------------------------------------------------------------------------------------


def test_parts_are_joined_by_key_and_the_later_one_stands(repo, plant, capsys):
    fleet.pin("--source", "data/plant")
    newer = repo.top / "data" / "newer"
    newer.mkdir()
    more = fleet.readings(hours=100, start="2026-01-25", machines=[1, 2])
    more.loc[0, "volt"] = 333.0  # corrected
    more.loc[1, "rotate"] = None  # lost: what the earlier part has is kept
    more.to_csv(newer / "PdM_telemetry.csv", index=False)
    say(capsys)
    data_only = fleet.pin("--source", "data/newer", "--add")
    assert 2 == len(data_only["parts"])
    telemetry, _ = fleet.run()
    assert 7200 + 2 * (100 - 24) == len(telemetry) == data_only["holds"]["rows"]
    at = telemetry[(telemetry.machineID == 1) & (telemetry.datetime >= "2026-01-25")].reset_index()
    assert 333.0 == at.volt[0]
    assert at.rotate[1] > 440
    assert "files data/newer: 48 rows of telemetry are in an earlier part with other values" in capsys.readouterr().err


def test_a_key_twice_within_one_part_is_left_for_validation(repo, plant):
    frame = fleet.readings()
    twice = pd.concat([frame, frame.head(1).assign(volt=1.0)])
    twice.to_csv(plant / "PdM_telemetry.csv", index=False)
    with pytest.raises(cli.RefusedError, match="telemetry"):
        fleet.pin("--source", "data/plant")


def test_simulated_and_real_parts_are_one_fleet(repo, plant):
    simulated = pins.load()["parts"][0] | {"days": 10}
    pins.write([simulated, pinned_files.part_of(plant, {})])
    data.main([])
    validate.main(["--pin"])
    assert 7200 + 12 * 24 * 10 - 12 * 6 <= pins.load()["holds"]["rows"] <= 7200 + 12 * 24 * 10


# --- what the pin may hold --------------------------------------------------------------------------------------------

FILES = {"kind": "files", "location": "data/a", "files": [{"path": "a.csv", "size": 1, "sha256": "0" * 64}]}
DELTA = {"kind": "delta", "location": "s3://b/t", "tables": {"telemetry": "t"}, "versions": {"telemetry": 3}}
LOG = {"kind": "log", "location": "az://c/log", "versions": {"requests": 1, "feedback": None}}
SIMULATOR = {"kind": "simulator", "profile": "default", "machines": 2, "days": 3, "seed": 4}
FILE = FILES["files"][0]


@pytest.mark.parametrize("part", [FILES, DELTA, LOG, SIMULATOR, FILES | {"location": "gs://b/x", "public": True}])
def test_a_right_part_has_no_slip(part):
    assert [] == pin_rules.check({"fingerprint": "", "parts": [part]})


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (SIMULATOR | {"kind": "simulater"}, "parts[1].kind is 'simulater'; did you mean simulator?"),
        (SIMULATOR | {"machines": 0}, "parts[1].machines is 0; it must be a whole number, 1 or more"),
        (SIMULATOR | {"profile": "defualt"}, "parts[1].profile is 'defualt'; did you mean default?"),
        ({k: v for k, v in SIMULATOR.items() if k != "seed"}, "parts[1].seed is missing; add it below parts[1]:"),
        (FILES | {"sized": 1}, "parts[1].sized is not a known key; known are kind, location, files"),
        (FILES | {"files": []}, "parts[1].files is not a list of files; write it with: make data-pin DATA=place"),
        (FILES | {"files": [FILE | {"path": "../a"}]}, "parts[1].files[1].path is '../a'; write a path inside"),
        (FILES | {"files": [FILE | {"sha256": "00"}]}, "parts[1].files[1].sha256 is '00'; it must be 64 digits"),
        (FILES | {"files": [FILE | {"size": "1"}]}, "parts[1].files[1].size is '1'; it must be a whole number"),
        (FILES | {"files": [FILE, FILE]}, "parts[1].files[2].path is 'a.csv', a second time; remove one of the two"),
        (FILES | {"location": "/data/a"}, "parts[1].location is '/data/a'; write a path inside the repository"),
        (FILES | {"location": "ftp://a/b"}, "parts[1].location is 'ftp://a/b'; choose a folder of the repository, or"),
        (FILES | {"public": "yes"}, "parts[1].public is 'yes'; it must be true, or be left out"),
        (FILES | {"location": "https://a/b?sig=1"}, "parts[1].location holds what may be secret; remove user name"),
        (DELTA | {"versions": {"telemetry": -1}}, "parts[1].versions.telemetry is -1; it must be a whole number"),
        (DELTA | {"versions": {}}, "parts[1].versions is {}, not a mapping; write it with: make data-pin"),
        (DELTA | {"versions": {"telemetry": 3, "maint": 1}}, "parts[1].versions.maint is not in both tables and ver"),
        (DELTA | {"tables": {"telemetrie": "t"}}, "parts[1].tables.telemetrie is not a known key; did you mean tele"),
        (DELTA | {"from": "yesterday"}, "parts[1].from is 'yesterday'; it must be a time, such as"),
        (DELTA | {"columns": {"telemetry": "ts"}}, "parts[1].columns.telemetry is 'ts'; write your column names with"),
        (DELTA | {"location": "https://a/b"}, "parts[1].location is on a web server, which has no tables; name a"),
        (LOG | {"versions": {"feedback": 2}}, "parts[1].versions.requests is missing; add it below parts[1].versions:"),
        (LOG | {"versions": {"requests": None}}, "parts[1].versions.requests has no value; it must be a whole number"),
        ("simulator", "parts[1] is not a part; write one with: make data-pin DATA=place"),
    ],
)
def test_each_slip_is_one_line(repo, part, says):
    fleet.dump(repo.lock, {"fingerprint": "", "parts": [part]})
    with pytest.raises(DataError) as refused:
        data.main([])
    assert any(line.startswith(f"model/data.lock.json: {says}") for line in str(refused.value).splitlines())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}", "model/data.lock.json: fingerprint is missing; add it"),
        (
            '{"fingerprint": "", "parts": []}',
            "model/data.lock.json: parts is not a list of parts; write one with: make",
        ),
        ('{"fingerprint": "", "part": 1}', "model/data.lock.json: part is not a known key; did you mean parts?"),
        ("[]", "model/data.lock.json:  ?is .*not a mapping"),
        ("{", "is not JSON .*; restore it from git"),
    ],
)
def test_a_pin_that_is_none_is_one_clear_line(repo, text, says):
    repo.lock.write_text(text)
    with pytest.raises(DataError, match=says.replace("?", "[?]") if "mean" in says else says):
        data.main([])
