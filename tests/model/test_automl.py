"""The search for parameters: what it may change, that an interruption changes nothing, and what it writes."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import yaml

from closedloop.data.schema import DataError
from model import automl
from model.common import params, searching, sweeping
from simulated_fleet import PARAMS, PARAMS_FILE


class StoppedError(Exception):
    """An interruption."""


@pytest.fixture
def optuna(monkeypatch):
    found = pytest.importorskip("optuna", reason="optuna is not installed (make automl installs it)")
    found.logging.set_verbosity(found.logging.ERROR)
    monkeypatch.setattr(automl, "FIRST", 4)
    return found


class First:
    """A trial that takes the first choice, or the last, of everything."""

    def __init__(self, last=False):
        self.at = -1 if last else 0

    def suggest_categorical(self, name, choices):
        return choices[self.at]

    def suggest_int(self, name, low, high, log=False):
        return (low, high)[self.at]

    suggest_float = suggest_int


def judged(jobs):
    """Made-up figures that prefer few leaves and many iterations."""
    found = []
    for job in jobs:
        value = job.point.get("failure.parameters.max_leaf_nodes", 6) * 10.0
        value -= job.point.get("failure.parameters.max_iter", 100) / 10.0
        found.append({"machines": {"years": [1.0, 1.0], "cost": [value, value + len(job.point)]}})
    return found


def searched(optuna, place, seed=7, trials=10, judge=judged):
    asked = params.parse(PARAMS)
    study = optuna.create_study(storage=f"sqlite:///{place}", study_name="s", load_if_exists=True)
    automl.search(study, asked, lambda point: searching.Job(None, None, point), judge, seed, trials, None)
    return [(trial.number, trial.user_attrs["point"], trial.value) for trial in study.trials]


def test_the_same_seed_gives_the_same_trials_and_another_one_others(optuna, tmp_path):
    once = searched(optuna, tmp_path / "a.db")
    assert once == searched(optuna, tmp_path / "b.db")
    assert once != searched(optuna, tmp_path / "c.db", seed=8)
    assert len(once) == len({json.dumps(point) for _, point, _ in once}) == 10


@pytest.mark.parametrize("at", [0, 2])
def test_a_search_that_was_stopped_goes_on_as_if_it_never_was(optuna, tmp_path, monkeypatch, at):
    """While a batch is judged, or between two tellings of one batch."""
    batches, told = [], []

    def judge(jobs):
        batches.append(len(jobs))
        if len(batches) == 2 and not at:
            raise StoppedError
        return judged(jobs)

    real = optuna.study.Study.tell

    def tell(study, *words):
        told.append(words)
        if at and len(told) == 4 + at:
            raise StoppedError
        return real(study, *words)

    monkeypatch.setattr(optuna.study.Study, "tell", tell)
    with pytest.raises(StoppedError):
        searched(optuna, tmp_path / "a.db", judge=judge)
    monkeypatch.setattr(optuna.study.Study, "tell", real)
    assert searched(optuna, tmp_path / "a.db") == searched(optuna, tmp_path / "b.db")


@pytest.mark.parametrize("last", [False, True])
def test_every_point_is_a_parameter_file_without_slips(last):
    asked = params.parse(PARAMS)
    point = searching.suggested(First(last), asked)
    params.parse(sweeping.changed(PARAMS, point))
    assert {key.partition(".")[0] for key in point} <= {"features", "failure"}
    assert any(value == {} for value in point.values()) == last  # the last choice leaves a family out


def test_a_fleet_without_failures_searches_the_detector():
    alone = PARAMS | {"schema": PARAMS["schema"] | {"components": []}}
    point = searching.suggested(First(last=True), params.parse(alone))
    assert point["anomaly.detector"] == "pca"
    assert not [key for key in point if key.startswith("failure")]


def test_nothing_that_judges_is_searched():
    points = [searching.suggested(First(last), params.parse(PARAMS)) for last in (False, True)]
    assert not [key for point in points for key in point if key.partition(".")[0] in sweeping.FIXED]


def test_the_file_keeps_its_comments_and_gets_the_values(tmp_path):
    out = tmp_path / "params.yaml"
    automl.written(PARAMS_FILE, {"failure.parameters.max_iter": 50, "features.change": {}}, out)
    before, after = PARAMS_FILE.read_text().splitlines(), out.read_text()
    assert yaml.safe_load(after)["failure"]["parameters"]["max_iter"] == 50
    assert params.load(out).features["change"] == {}
    comments = [line.partition("#")[2].strip() for line in before if "#" in line]
    assert [one for one in comments if one not in after and "mean of the newer" not in one] == []


@pytest.mark.parametrize("local", [True, False])
def test_the_file_holds_out_the_machines_that_the_search_never_saw(optuna, tmp_path, monkeypatch, capsys, local):
    """The name of the fleet decides which they are, and a folder has its own."""
    found = {"point": {}, "saved": None, "low": None, "trials": 4, "source": "pumps" if local else "simulated"}
    monkeypatch.setattr(automl, "_found", lambda asked, args: found | {"local": local})
    automl.main(["--trials", "4", "--params", str(PARAMS_FILE), "--out", str(tmp_path)])
    assert params.load(tmp_path / "params.yaml").source == found["source"]
    assert ("with the same DATA= or PROFILE= judges" in capsys.readouterr().out) == local


@pytest.mark.parametrize(
    ("parts", "source"),
    [
        ([{"kind": "cmapss"}], "engines"),
        ([{"kind": "files"}, {"kind": "log"}], "engines"),
        ([{"kind": "simulator"}], "simulated"),  # make run PROFILE=azure names it after the file and the profile
    ],
)
def test_the_name_of_the_fleet_is_that_of_its_folder(parts, source):
    assert automl.of_file(params.parse(PARAMS), {"source": "engines", "parts": parts}) == source


def test_tables_of_another_parameter_file_are_refused():
    """Else the file that a search writes would hold the schema of one fleet and the name of another."""
    schema = PARAMS["schema"] | {"components": []}
    about = {"source": "pumps", "local": True, "schema": schema}
    with pytest.raises(DataError, match=r"build/data has the tables of pumps, whose schema .*; name the file of the"):
        sweeping.schema_of(params.parse(PARAMS), about)
    in_order = json.loads(json.dumps(about | {"schema": PARAMS["schema"]}, sort_keys=True))  # as data.json has it
    assert sweeping.schema_of(params.parse(PARAMS), in_order).components
    brought = about | {"brings": {"schema": schema, "split": {}, "history_hours": 72}}
    assert sweeping.schema_of(params.parse(PARAMS), brought).components == ()


@pytest.fixture
def found(optuna, tmp_path, monkeypatch):
    """Run a search of made-up figures on a public set that brings its own schema; what it found."""
    schema = params.parse(PARAMS | {"schema": PARAMS["schema"] | {"components": []}}).schema
    about = {"source": "nab", "local": True, "parts": []}
    ground = searching.Ground(None, schema, None, None, about)
    figures = {"machines": {"years": [1.0], "cost": [9.0]}}
    monkeypatch.setattr(searching.Ground, "of", lambda asked, data: ground)
    monkeypatch.setattr(searching.Ground, "figures", lambda self, raw, point: figures)
    monkeypatch.setattr(automl.cli, "read_json", lambda *_: about)
    monkeypatch.setattr(automl.sweeping, "digest", lambda *_: "0" * 64)
    monkeypatch.setattr(automl, "record", lambda *_: None)

    def run(trials, judge=judged):
        monkeypatch.setattr(automl, "judging", lambda *_: nullcontext(judge))
        words = SimpleNamespace(data=tmp_path, out=tmp_path, params=PARAMS_FILE, seed=7, minutes=None, trials=trials)
        words.engine, words.processes = "local", 1
        return automl._found(params.parse(PARAMS), words)

    run.study = lambda: optuna.load_study(storage=f"sqlite:///{tmp_path}/study.db", study_name=f"{'0' * 20}-7")
    return run


def test_a_public_set_without_failures_searches_the_detector(found):
    found(4)
    keys = {key for trial in found.study().trials for key in trial.user_attrs["point"]}
    assert not [key for key in keys if key.startswith("failure")]
    assert "anomaly.detector" in keys


def test_trials_that_an_interruption_left_do_not_count(found):
    """Neither as trials that were judged nor as the last one that was refused."""

    def judge(jobs):
        if len(found.study().trials) > automl.BATCH:
            raise StoppedError
        return [{"refused": "too few rows"} for _ in jobs]

    with pytest.raises(StoppedError):
        found(8, judge)
    assert len(found.study().trials) == 8
    with pytest.raises(DataError, match="no trial can be trained; the last: too few rows"):
        found(4, judge)
    assert found(8)["trials"] == 8


@pytest.mark.parametrize(
    "budget",
    [
        ["--trials", "0"],
        ["--trials", "-3"],
        ["--minutes", "0"],
        ["--minutes", "nan"],
        ["--minutes", "inf"],
        ["--trials", "4", "--processes", "0"],
    ],
)
def test_a_budget_of_nothing_is_refused(optuna, budget):
    with pytest.raises(DataError, match="give a budget above 0 that ends"):
        automl.main(budget)


def test_without_optuna_it_says_what_installs_it(monkeypatch):
    monkeypatch.setattr(automl, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="optuna is not installed; run: make automl"):
        automl.main(["--trials", "4"])


def test_a_point_that_cannot_be_trained_is_no_end_of_the_search(optuna, tmp_path):
    """The next trials go on, and the same command does not try it again."""
    asked_for = []

    def judge(jobs):
        asked_for.append(len(jobs))
        return [{"refused": "too few rows"} if k == 1 else one for k, one in enumerate(judged(jobs))]

    found = searched(optuna, tmp_path / "a.db", trials=8, judge=judge)
    assert [value is None for _, _, value in found] == [False, True, False, False] * 2
    assert searched(optuna, tmp_path / "a.db", trials=8, judge=judge) == found
    assert asked_for == [4, 4]


def test_what_is_refused_is_told_with_its_trial(monkeypatch):
    class Refusing:
        def figures(self, raw, point):
            raise DataError("no row\nis left")

    monkeypatch.setattr(searching, "_read", lambda path, data: (params.parse(PARAMS), Refusing()))
    assert searching.run(searching.Job(None, None, {})) == {"refused": "no row is left"}


@pytest.mark.parametrize("of", ["a folder", "another file"])
def test_a_study_that_cannot_be_opened_is_one_line(optuna, tmp_path, of):
    place = tmp_path / "study.db"
    place.mkdir() if of == "a folder" else place.write_text("no database" * 100)
    with pytest.raises(DataError, match=r"study\.db: .+; make the folder writable, or delete the file") as refused:
        automl._study(tmp_path, "s")
    assert len(str(refused.value).splitlines()) == 1


def test_two_searches_do_not_share_a_study(tmp_path):
    with (
        automl.alone(tmp_path),
        pytest.raises(DataError, match="another search is at work there; wait for it"),
        automl.alone(tmp_path),
    ):
        pass
    with automl.alone(tmp_path):  # the first has ended
        pass


WORKER = """
import os, sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from model.common import searching
if __name__ == "__main__":
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=searching.end_with_parent) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 600).result()
"""


def test_a_search_that_is_killed_leaves_no_process_behind(tmp_path):
    program = tmp_path / "worker.py"
    program.write_text(WORKER)
    path = os.pathsep.join(filter(None, [*sys.path, os.environ.get("PYTHONPATH")]))
    started = subprocess.Popen(
        [sys.executable, str(program)], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}
    )
    assert started.stdout is not None
    worker = int(started.stdout.readline())
    started.send_signal(signal.SIGKILL)
    started.wait()
    started.stdout.close()
    until = time.monotonic() + 60
    while there(worker) and time.monotonic() < until:
        time.sleep(0.05)
    assert not there(worker)


def there(process):
    """Whether a process is at work."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
