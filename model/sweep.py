"""Try every combination of a small grid of parameters, on the training machines only.

SWEEP="failure.parameters.max_iter=50,100; anomaly.detector=mean_chart,pca" make sweep tries four combinations, and the
file as it is. Each is judged by out-of-fold answers: three folds of training machines, each answered by a model that
trained on the other two. The holdout is never read, so the gate's verdict on the winner stays honest.

Every result is written to build/sweep/ as soon as it is there. A sweep that was stopped goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from closedloop.data import sources
from closedloop.data.schema import DataError, microseconds
from closedloop.judge.truth import JudgeSettings
from model.common import cli, params, sweeping, yaml_lines
from model.common.closing import FIGURES, number
from model.common.training import training_rows

COLUMNS = {
    "failure": ("event_recall", "false_alarms_per_machine_year", "pr_auc"),
    "anomaly": ("event_recall", "pr_auc"),
}


def stored(path: Path) -> dict[str, Any] | None:
    """Return a result that is there already; None where it is missing, or was cut off by a kill."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def keep(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result so that it is there whole or not at all."""
    part = path.with_suffix(".part")
    cli.write_json(part, result)
    part.replace(path)


def table(results: list[dict[str, Any]]) -> list[str]:
    """Return the results as a table, the one that saves most first; the file as it is comes first in ``results``."""
    current = results[0]
    judged = [part for part in COLUMNS if all(one[part] is not None for one in results)]
    columns = [(part, key) for part in judged for key in COLUMNS[part]]
    head = [f"{FIGURES[part][key][0]}" for part, key in columns]
    rows = []
    for one in results:
        estimate, low, high = sweeping.saved(current, one)
        bounds = f"{number(low, 0)} to {number(high, 0)}" if low is not None or high is not None else "not known"
        worth = ["—", "—"] if one is current else [number(estimate, 0), bounds]
        figures = [number(one[part][key], FIGURES[part][key][1]) for part, key in columns]
        rows.append((-(estimate or 0.0), [sweeping.said(one["point"]), *worth, *figures]))
    ordered = [cells for _, cells in sorted(rows, key=lambda row: row[0])]
    lines = [["parameters", "saved per machine-year", "interval", *head], *ordered]
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def advice(results: list[dict[str, Any]], path: Path) -> list[str]:
    """Return what to change in the parameter file, if anything is proven better than the file as it is."""
    current = results[0]
    best = max(results, key=lambda one: sweeping.saved(current, one)[0] or 0.0)
    if best is current:
        return ["Nothing is better than the file as it is."]
    low = sweeping.saved(current, best)[1]
    proven = low is not None and low > 0
    lines = ["The first row saves most." if proven else "The first row saves most, but its interval holds 0: no proof."]
    found = yaml_lines.read(path.read_text(encoding="utf-8-sig")).lines
    for key, value in best["point"].items():
        where = tuple(key.split("."))
        written = json.dumps(value) if isinstance(value, list | bool) or value is None else value
        place = (
            f"{path}:{found[where]}: change it to" if where in found else f"{path}: add below {'.'.join(where[:-1])}:"
        )
        lines.append(f"  {place}  {where[-1]}: {written}")
    return [*lines, "Then: make run, and the gate judges it on machines that no sweep has seen."]


def main(words: list[str]) -> None:
    """Judge each point of the grid, and print the table; params.yaml stays as it is."""
    flags = cli.parser(__doc__, out=cli.BUILD / "sweep", writes="folder of the results")
    flags.add_argument("--grid", required=True, metavar="KEY=V,V;…", help="values to try, of one key or of several")
    args = flags.parse_args(words)
    asked, wanted = params.load(args.params), sweeping.grid(args.grid)
    about = cli.read_json(args.data / "data.json", "run: make run")
    if "train_until" not in about:
        raise DataError(f"{args.data}: these tables were not validated; run: make run")
    tried: list[dict[str, Any]] = [{}, *sweeping.points(wanted)]
    schema, settings = sweeping.schema_of(asked, about), JudgeSettings.from_params(asked.of(about).raw)
    each = [sweeping.parsed(asked.raw, point, about) for point in tried]
    tables = training_rows(sources.read_tables(args.data, schema, {}), about, asked.delay_us)
    history_us = max(microseconds(one.features["history_hours"]) for one in each)
    truth = sweeping.truth_of(tables, schema, about, args.data, history_us)
    results = []
    for n, (point, one) in enumerate(zip(tried, each, strict=True), start=1):
        path = args.out / f"{sweeping.digest(one.raw, about, history_us)[:20]}.json"
        result = stored(path)
        cli.say(f"{n} of {len(tried)}: {sweeping.said(point)}{', there already' if result else ''}")
        if result is None:
            answers = sweeping.out_of_fold(tables, schema, one, about)
            result = {"parameters": one.raw, **sweeping.judged(answers, truth, settings)}
            keep(path, result)
        results.append(result | {"point": point})
    shown = args.params.relative_to(Path.cwd()) if args.params.is_relative_to(Path.cwd()) else args.params
    print("\n".join([*table(results), "", *advice(results, shown)]))


if __name__ == "__main__":
    cli.main(main)
