"""How good the untuned template is on public data sets: each figure with both ablations, or its false-alarm rate.

    python tests/bench/public_sets.py azure-pdm=PATH skab=PATH cmapss=PATH nab=PATH

Name the sets that you have, with the folder of each. For ``azure-pdm`` the model is trained on the simulator's
``azure`` profile alone and judged on all real machines and rows. The others train and judge by their own split: SKAB
and NAB train on the first rows of each file, C-MAPSS splits by unit. Parameters and pin are those of the
reference fleet, whatever fleet this copy has.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import PARAMS, Point, finish, say

from closedloop.data import sources
from closedloop.heads.bundle import load
from closedloop.judge.metrics import judge
from closedloop.judge.truth import JudgeSettings, Truth
from model.common import cli, data_pin, params
from model.predict import predict
from model.train import ABLATIONS

FORMATS = ("azure-pdm", "skab", "cmapss", "nab")
SHOWN = {
    "failure": ("f1", "precision", "recall", "pr_auc", "event_recall", "false_alarms_per_machine_year"),
    "anomaly": ("f1", "false_alarm_rate", "pr_auc", "event_recall", "false_alarms_per_machine_year"),
}


def run(folder: Path, *words: str) -> None:
    """Run one command in ``folder``. A red verdict of evaluate is no failure, since only its figures are wanted.

    Raises:
        SystemExit: the command failed.
    """
    environment = {name: value for name, value in os.environ.items() if name != "BASE_COMMIT"}
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode > (words[0] == "model.evaluate"):
        raise SystemExit(f"{' '.join(words)} exited with {done.returncode}:\n{done.stderr}")


def named(folder: Path, source: str) -> str:
    """Write the reference fleet's parameters under another fleet's name; the path."""
    text = PARAMS.read_text(encoding="utf-8")
    asked = re.sub("^source: simulated", f"source: {source}", text, flags=re.MULTILINE)
    (folder / "params.yaml").write_text(asked, encoding="utf-8")
    return str(folder / "params.yaml")


def simulated(folder: Path) -> None:
    """Write the reference fleet's tables, simulated with the profile ``azure``, as model.data does."""
    asked = params.load(PARAMS)
    pin = cli.read_json(PARAMS.with_name("data.lock.json"), "restore it from git")
    parts = [part | {"profile": "azure"} for part in pin["parts"]]
    frames, anomalies = data_pin.fetch(parts, asked)
    about = {"source": f"{asked.source}-azure", "schema": asked.schema.to_dict(), "rule": asked.split["rule"]}
    data_pin.store(folder / cli.DATA, frames, anomalies, about | {"parts": parts, "local": True})


def simulated_judged_on(location: Path, folder: Path) -> dict[str, Any]:
    """The figures on all real tables of a model that was trained on the simulator's ``azure`` profile."""
    simulated(folder)
    for command in ("model.validate", "model.train"):
        run(folder, command, "--params", str(PARAMS))
    bundle = load(folder / "build" / "bundle")
    tables = sources.read_tables(location, bundle.schema, {})
    without = {name: predict(load(folder / "build" / "ablations" / name), tables) for name in ABLATIONS}
    truth = Truth(tables, bundle.schema, "azure-pdm")
    return judge(predict(bundle, tables), truth, JudgeSettings.from_params(params.load(PARAMS).raw), without)


def of_itself(location: Path, folder: Path) -> dict[str, Any]:
    """The figures of a set that is trained and judged by its own split."""
    asked = ("--params", named(folder, location.name))
    run(folder, "model.data", "--source", str(location), *asked)
    for command in ("model.validate", "model.train"):
        run(folder, command, *asked)
    run(folder, "model.predict")
    run(folder, "model.evaluate", *asked)
    metrics: dict[str, Any] = json.loads((folder / "build" / "metrics.json").read_text(encoding="utf-8"))
    return metrics


def points(name: str, metrics: dict[str, Any]) -> list[Point]:
    """The figures of one set that are shown."""
    found = [
        Point(f"{name}: {part} {key}", float(metrics[part][key]), "")
        for part, keys in SHOWN.items()
        for key in keys
        if metrics[part] is not None and metrics[part][key] is not None
    ]
    ablations = {what: figures for what, figures in metrics["ablations"].items() if figures is not None}
    return found + [
        Point(f"{name}: failure {key}, {what}", float(figures[key]), "")
        for what, figures in ablations.items()
        for key in ("f1", "pr_auc")
        if figures[key] is not None
    ]


def main(words: list[str]) -> int:
    """Train and judge each named set, print the table and write the JSON file. Returns the exit code."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("sets", nargs="+", metavar="SET=PATH", help=f"SET is one of {', '.join(FORMATS)}")
    flags.add_argument("--out", type=Path)
    args = flags.parse_args(words)
    places = dict(one.partition("=")[::2] for one in args.sets)
    if unknown := sorted(set(places) - set(FORMATS)):
        flags.error(f"{unknown[0]!r} is not one of {', '.join(FORMATS)}")
    found, every = [], {}
    for name, place in places.items():
        say(name)
        with tempfile.TemporaryDirectory(prefix="public-set-") as temporary:
            way = simulated_judged_on if name == "azure-pdm" else of_itself
            every[name] = way(Path(place).resolve(), Path(temporary))
        found += points(name, every[name])
    return finish("public_sets", found, args.out, metrics=every)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
