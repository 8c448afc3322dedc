"""Validate tables with a great_expectations suite that is generated from the schema.

A failed critical expectation refuses the data; a failed warning is shown. Each failure is one line with the table, the
column, the rule, the count, three offending rows and the fix.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import pass_context
from numpy.typing import NDArray

from closedloop.data import machines
from closedloop.data.frames import (
    FINDING,
    NAME_COLUMN,
    TWICE,
    WANTED,
    Frames,
    convert,
    expected_columns,
    filling,
    known_names,
    not_one_of,
    refusal,
    typed,
    wanted,
)
from closedloop.data.schema import FINDINGS, HOUR_US, KEYS, MAX_AHEAD_US, Schema

with warnings.catch_warnings():  # great_expectations imports deprecated names itself
    warnings.simplefilter("ignore")
    import great_expectations as gx
    import great_expectations.expectations as gxe
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view.view import DefaultJinjaPageView

STEP = "minutes since the machine's previous row"  # a column added to telemetry for the rules on order and gaps
UNNAMED = "1 where the machine has no name that it can have, 0 else"  # a column added where machines have names
ERA = "-1 before 1970, 1 too far ahead of the clock, 0 else"  # a column added to tables with times
_DTYPES = {"time": ["datetime64[us]"], "whole": ["int64", "Int64Dtype"], "number": ["float64"]}
_SILENT = 0.05  # warn above this share of rows without a reading, for a sensor without a drift reference
_ODD_PERIOD = 1.5  # refuse a median step that is so many times the declared one, or so many times less
_OUTSIDE = 0.01  # warn above this share of readings outside the usual range: five times the training data's share


@dataclass(frozen=True)
class Validation:
    """The verdict on a set of tables.

    ``ok`` is False if there is any failure. ``failures`` and ``warnings`` have one line for each failed expectation.
    ``result`` holds both and great_expectations' results by table, as JSON; ``outcomes`` are those results as objects.
    """

    ok: bool
    failures: list[str]
    warnings: list[str]
    result: dict[str, Any]
    outcomes: dict[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Usual:
    """A sensor's readings in the training data: 998 of 1,000 lay from ``low`` to ``high``.

    ``missing`` is the share of rows without a reading.
    """

    low: float
    high: float
    missing: float


def validate(frames: Frames, schema: Schema, usual: Mapping[str, Usual] | None = None) -> Validation:
    """Validate frames against the schema: presence, types, ranges, order, gaps, keys, codes and machine ids.

    The readings of sensors that ``usual`` names are also compared with the training data.
    """
    context = gx.get_context(
        project_config=DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(),
            analytics_enabled=False,
            progress_bars=ProgressBarsConfig(globally=False),
        )
    )
    failures = [] if "telemetry" in frames else ["telemetry: the table is missing; it is the only one that is required"]
    warned: list[str] = []
    outcomes: dict[str, Any] = {}
    kind = schema.machine_id
    read = {table: typed(table, frame.reset_index(drop=True), kind) for table, frame in frames.items() if table in KEYS}
    sound = {table: _sound(table, frame, schema) for table, frame in read.items()}
    source = context.data_sources.add_pandas("tables")
    for table, frame in read.items():
        suite = gx.ExpectationSuite(table, expectations=list(_rules(table, schema, read, sound, usual or {})))
        asset = source.add_dataframe_asset(table).add_batch_definition_whole_dataframe("all rows")
        definition = gx.ValidationDefinition(name=table, data=asset, suite=context.suites.add(suite))
        shown = _shown(table, frame, sound[table], schema)
        outcome = context.validation_definitions.add(definition).run(
            batch_parameters={"dataframe": shown}, result_format="SUMMARY"
        )
        for name in list(shown):
            del shown[name]  # great_expectations would keep them until the process ends
        outcomes[table] = outcome
        result: Any
        for result in outcome.results:
            if isinstance(value := result.result.get("observed_value"), np.generic | list):
                result.result["observed_value"] = np.asarray(value).tolist()  # it cannot render NumPy 2 numbers
            if not result.success:
                critical = result.expectation_config.severity == "critical"
                (failures if critical else warned).append(_line(table, frame, result, kind))
    tables = {table: outcome.describe_dict() for table, outcome in outcomes.items()}
    summary = {"ok": not failures, "failures": failures, "warnings": warned, "tables": tables}
    return Validation(not failures, failures, warned, summary, outcomes)


def write_docs(validation: Validation, folder: Path) -> Path:
    """Write great_expectations' Data Docs on one page that needs no network, and return its path.

    The verdict is worded here, each expectation by great_expectations. Its own site loads style sheets and scripts from
    seven hosts, and cannot be read offline.
    """
    renderer = ValidationResultsPageRenderer(run_info_at_end=True)
    tables = []
    for table, outcome in validation.outcomes.items():
        sections = renderer.render(outcome).to_json_dict()["sections"]
        counts = outcome.statistics
        # the first section links into its own site, the last describes the call
        tables.append((table, counts["successful_expectations"], counts["evaluated_expectations"], sections[1:-1]))
    view = _View(custom_views_directory=str(Path(__file__).parent))
    page = view.env.get_template("docs.html.j2").render(
        failures=validation.failures, warnings=validation.warnings, tables=tables
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.html").write_text(page + "\n", encoding="utf-8")
    return folder / "index.html"


class _View(DefaultJinjaPageView):
    """great_expectations' view, with values of the data escaped: it would write them as markup."""

    @pass_context
    def render_content_block(self, context: Any, content_block: Any, *args: Any, **named: Any) -> Any:
        if isinstance(content_block, str):
            return escape(content_block)
        if isinstance(content_block, list):
            content_block = [escape(item) if isinstance(item, str) else item for item in content_block]
        return super().render_content_block(context, content_block, *args, **named)


def _sound(table: str, frame: pd.DataFrame, schema: Schema) -> set[str]:
    """The expected columns that are present and of the right type. Only these are checked for their values."""
    names = [name for name in expected_columns(schema)[table] if name in frame]
    return {name for name in names if not convert(frame[name], wanted(table, name, schema.machine_id))[1].any()}


def _shown(table: str, frame: pd.DataFrame, sound: set[str], schema: Schema) -> pd.DataFrame:
    """The frame for great_expectations: times without their zone, and what rules ask that no column says."""
    shown = frame.copy(deep=False)
    if schema.has_names and "machineID" in frame:
        shown[UNNAMED] = convert(frame["machineID"], "id")[1].astype(np.float64)
    if "datetime" in sound:
        shown["datetime"] = frame["datetime"].dt.tz_localize(None)
        shown[ERA] = _era(frame["datetime"])
        if table == "telemetry" and "machineID" in sound:
            step = frame["datetime"].groupby(frame["machineID"], sort=False).diff()
            shown[STEP] = step.dt.total_seconds() / 60
    return shown


def _era(times: pd.Series) -> NDArray[np.float64]:
    """The value of ``ERA`` for each time, NaN where it is missing. The rules themselves hold no clock reading."""
    last = pd.Timestamp.now("UTC") + pd.Timedelta(microseconds=MAX_AHEAD_US)
    era = (times > last).astype(np.float64).to_numpy() - (times < pd.Timestamp(0, tz="UTC")).to_numpy()
    return np.where(times.isna(), np.nan, era)


def _rule(kind: str, about: str, rule: str, remedy: str, *, warn: bool = False, **asked: Any) -> Any:
    """One expectation, with the rule and remedy to report for column ``about`` where it fails."""
    severity = "warning" if warn else "critical"
    return getattr(gxe, f"Expect{kind}")(
        meta={"column": about, "rule": rule, "remedy": remedy}, severity=severity, **asked
    )


def _rules(
    table: str, schema: Schema, frames: Frames, sound: dict[str, set[str]], usual: Mapping[str, Usual]
) -> Iterator[Any]:
    """Yield the expectations of one table. A column that is missing or mistyped gets no rules about its values."""
    known = sound[table]
    for name in expected_columns(schema)[table]:
        kind, remedy = (
            wanted(table, name, schema.machine_id),
            f"add it, or map yours under columns.{table} in params.yaml",
        )
        yield _rule("ColumnToExist", name, "the column is missing", remedy, column=name)
        if name in frames[table] and kind == "id":
            yield _rule("ColumnValuesToBeBetween", name, *WANTED[kind], column=UNNAMED, max_value=0)
        elif name in frames[table] and kind in WANTED:
            yield _rule("ColumnValuesToBeInTypeList", name, *WANTED[kind], column=name, type_list=_DTYPES[kind])
    for name in [name for name in KEYS[table] if name in known]:
        yield _rule("ColumnValuesToNotBeNull", name, "is missing", filling(name, schema), column=name)
    if "datetime" in known:
        remedy = "correct the clock or the export that wrote it"
        said = ("datetime", "is before 1970", remedy)
        yield _rule("ColumnValuesToBeBetween", *said, column=ERA, min_value=0)
        said = ("datetime", f"is more than {MAX_AHEAD_US / HOUR_US:g} hours ahead of this machine's clock", remedy)
        yield _rule("ColumnValuesToBeBetween", *said, column=ERA, max_value=0)
    if known.issuperset(KEYS[table]):
        said = (", ".join(KEYS[table]), "the key occurs more than once", TWICE)
        if len(KEYS[table]) > 1:
            yield _rule("CompoundColumnsToBeUnique", *said, column_list=list(KEYS[table]))
        else:
            yield _rule("ColumnValuesToBeUnique", *said, column=KEYS[table][0])
    if NAME_COLUMN.get(table) in known:
        name, names = NAME_COLUMN[table], known_names(schema)[table]
        said = (name, not_one_of(names), "correct it, or add it to the schema in params.yaml")
        yield _rule("ColumnValuesToBeInSet", *said, column=name, value_set=list(names))
    if table == "maint" and FINDING in frames[table]:
        said = (FINDING, not_one_of(FINDINGS), "correct it, or leave it empty where it is not known")
        yield _rule("ColumnValuesToBeInSet", *said, column=FINDING, value_set=list(FINDINGS))
    if table == "telemetry":
        yield _rule("TableRowCountToBeBetween", "datetime", "there are no rows", "export the table again", min_value=1)
        if len(frames[table]):
            yield from _reading_rules(schema, known, usual)
            yield from _time_rules(schema, known, frames[table])
    if table == "machines" and "age" in known:
        said = ("age", "is below 0", "give years, or leave it empty")
        yield _rule("ColumnValuesToBeBetween", *said, column="age", min_value=0)
    other = "machines" if table == "telemetry" else "telemetry"
    if "machineID" in known and "machineID" in sound.get(other, ()) and len(frames[other]):
        ids = frames[other]["machineID"].dropna().unique().tolist()
        said = ("machineID", f"is not in {other}", f"add the machine to {other}")
        yield _rule("ColumnValuesToBeInSet", *said, warn=table == "machines", column="machineID", value_set=ids)


def _reading_rules(schema: Schema, known: set[str], usual: Mapping[str, Usual]) -> Iterator[Any]:
    """Yield the expectations on each sensor's readings."""
    for name, (low, high) in zip(schema.sensors, schema.ranges, strict=True):
        if name not in known:
            continue
        remedy = f"leave a missing reading empty, or widen schema.sensors.{name} in params.yaml"
        rule = f"is outside its range {low:g} to {high:g}"
        yield _rule("ColumnValuesToBeBetween", name, rule, remedy, column=name, min_value=low, max_value=high)
        said = (name, "has no reading at all", "export it, or take it out of schema.sensors in params.yaml")
        kind = "ColumnProportionOfNonNullValuesToBeBetween"
        yield _rule(kind, *said, column=name, min_value=0, strict_min=True)
        yield from _usual_rules(name, usual.get(name))


def _usual_rules(name: str, before: Usual | None) -> Iterator[Any]:
    """Yield warnings for a sensor that fell silent or left its usual range: both may be right."""
    silent, than = _SILENT, ""
    if before is not None:
        silent = min(2 * before.missing + _OUTSIDE, (1 + before.missing) / 2)  # twice the gaps, or half the readings
        than = f"; the training data had none in {before.missing:.1%}"
        rule = f"lies outside {before.low:.4g} to {before.high:.4g}, where 99.8% of the training data's readings lie"
        remedy = "see whether the sensor or its work changed; a model trained on it learns the new range"
        limits = {"min_value": before.low, "max_value": before.high, "mostly": 1 - _OUTSIDE}
        yield _rule("ColumnValuesToBeBetween", name, rule, remedy, warn=True, column=name, **limits)
    rule = f"has no reading in more than {100 * silent:.3g}% of the rows{than}"
    yield _rule(
        "ColumnValuesToNotBeNull", name, rule, "see why it is silent", warn=True, column=name, mostly=1 - silent
    )


def _time_rules(schema: Schema, known: set[str], frame: pd.DataFrame) -> Iterator[Any]:
    """Yield the expectations on the order of telemetry, its gaps and its sampling period."""
    if not known.issuperset({"datetime", "machineID"}):
        return
    if frame["datetime"].groupby(frame["machineID"], sort=False).diff().isna().all():
        return  # no machine has a previous row, so there is no step to judge
    period = schema.sampling_minutes
    said = ("datetime", "is before the machine's previous row", "sort the table by machineID and datetime")
    yield _rule("ColumnValuesToBeBetween", *said, column=STEP, min_value=0)
    said = ("datetime", f"comes after a gap of more than {period} minutes", "nothing to do where the machine was off")
    yield _rule("ColumnValuesToBeBetween", *said, warn=True, column=STEP, max_value=period)
    remedy = "set schema.sampling_minutes in params.yaml to the sampling period"
    wrong = (
        f"the median step of a machine is not {period} minutes, so machine-years and what is counted in them are wrong"
    )
    most = period * _ODD_PERIOD
    said = ("datetime", wrong, remedy)
    yield _rule("ColumnMedianToBeBetween", *said, column=STEP, min_value=period / _ODD_PERIOD, max_value=most)
    said = ("datetime", f"most rows are not {period} minutes after the machine's previous one", remedy)
    kind = "ColumnMostCommonValueToBeInSet"
    yield _rule(kind, *said, warn=True, column=STEP, value_set=[period], ties_okay=True)


def _line(table: str, frame: pd.DataFrame, result: Any, machine_id: str = machines.NUMBER) -> str:
    """One failed expectation as one line: what is wrong, where, and how to fix it."""
    told, found = result.expectation_config.meta, result.result
    column, rule, remedy = told["column"], told["rule"], told["remedy"]
    if not found and result.exception_info and result.exception_info.get("raised_exception", True):
        raise RuntimeError(
            f"great_expectations could not check whether {table}.{column} {rule}: {result.exception_info}"
        )
    if result.expectation_config.type == "expect_column_to_exist":
        return f"{table}.{column}: {rule}: the table has {', '.join(map(str, frame.columns))}; {remedy}"
    if result.expectation_config.type == "expect_column_values_to_be_in_type_list":
        rows = np.flatnonzero(convert(frame[column], wanted(table, column, machine_id))[1])
        return refusal(table, column, rule, frame, rows, len(rows), remedy)
    if "unexpected_count" in found:
        rows = np.array(found.get("partial_unexpected_index_list", []), np.intp)
        return refusal(table, column, rule, frame, rows, found["unexpected_count"], remedy)
    seen = ", ".join(f"{value:g}" for value in np.atleast_1d(found["observed_value"]))
    return f"{table}.{column}: {rule}: found {seen} in {len(frame):,} rows; {remedy}"
