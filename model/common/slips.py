"""Find every slip in ``params.yaml`` before any work: in under a second, each with its line, its cause and its fix.

Only the file, the names of the features and the declared parameters of the estimators are read. No table is opened, and
none of the libraries that train is imported.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from closedloop.data import reading
from closedloop.data.schema import DataError, microseconds
from closedloop.features import names
from model.common import estimators, feature_names, param_rules
from model.common.param_rules import SECTIONS, Rule
from model.common.yaml_lines import Located, Where

MACHINE_NUMBERS = "machine_numbers"
SHOWN = 5  # slips of one file in a message


@dataclass(frozen=True)
class Slip:
    """One fault: what the value at ``where`` is, and how to fix it."""

    where: Where
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{dotted(self.where)} {self.problem}; {self.fix}".lstrip()


def dotted(where: Where) -> str:
    """Return a place as people write it: ``judge.costs.planned``, ``anomaly.features[2]``."""
    name = ""
    for part in where:
        name += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if name else part
    return name


def closest(name: object, known: Iterable[object]) -> str | None:
    """Return the known name that was probably meant, or None."""
    names = [str(one) for one in known]
    near = difflib.get_close_matches(str(name).lower(), [one.lower() for one in names], 1)
    return next((one for one in names if near and one.lower() == near[0]), None)


def meant(name: object, known: Iterable[object], otherwise: str) -> str:
    """Return the fix for an unknown name: the name that was probably meant, else ``otherwise``."""
    found = closest(name, known)
    return f"did you mean {found}?" if found else otherwise


class SlipCheck:
    """The slips of one parameter file's content, in the order in which they are found."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.raw = raw
        self.found: list[Slip] = []

    def say(self, where: Where, problem: str, fix: str) -> None:
        """Note a slip."""
        self.found.append(Slip(where, problem, fix))

    def value(self, where: Where, value: Any, rule: Rule) -> bool:
        """Check one value, and return whether it can be used."""
        if rule.accepts(value):
            return True
        if value is None:
            self.say(where, "has no value", f"it must be {rule.wanted()}")
        elif rule.choices:
            choose = f"choose one of {', '.join(rule.choices)}"
            self.say(where, f"is {value!r}", meant(value, rule.choices, choose))
        else:
            self.say(where, f"is {_shown(value)}", f"it must be {rule.wanted()}{_hint(value, rule)}")
        return False

    def keys(self, where: Where, value: Any, known: Iterable[str], needed: Iterable[str] = ()) -> dict[str, Any]:
        """Check the keys of a mapping, and return it; empty where it is none."""
        if not isinstance(value, Mapping):
            found = "has no value" if value is None else f"is {_shown(value)}, not a mapping"
            self.say(where, found, f"write its keys below it, indented: {', '.join(known)}")
            return {}
        known, taken = list(known), set()
        for key in value:
            if key not in known:
                near = closest(key, [name for name in known if name not in value])
                home = next((name for name, keys in SECTIONS.items() if key in keys and (name,) != where), None)
                taken |= {near}
                fix = f"did you mean {near}?" if near else f"known are {', '.join(known)}"
                self.say((*where, str(key)), "is not a known key", f"move it to {home}:" if home else fix)
        for key in needed:
            if key not in value and key not in taken:
                self.say((*where, key), "is missing", f"add it{' below ' + dotted(where) + ':' if where else ''}")
        return dict(value)

    def names(self, where: Where, values: list[Any], what: str) -> None:
        """Check a list of names: texts or numbers, each once."""
        seen: dict[str, int] = {}
        for n, value in enumerate(values):
            if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
                self.say((*where, n), f"is {_shown(value)}, not the name of {what}", "put the name in quotes")
            elif str(value) in seen:
                self.say((*where, n), f"is {value}, a second time", "remove one of the two")
            else:
                seen[str(value)] = n


def _shown(value: Any) -> str:
    """Return a value as it stands in a message, cut to one short line."""
    said = {True: "true", False: "false"}.get(value, repr(value)) if isinstance(value, bool) else repr(value)
    return said if len(said) <= 60 else f"{said[:57]}…"


def _hint(value: Any, rule: Rule) -> str:
    """Return what to write instead of a text that means a number, or of a number that is nearly whole."""
    if rule.kind in (int, float) and isinstance(value, str):
        for text in (value, value.replace(",", "."), value.split()[0] if value.split() else ""):
            try:
                number = float(text)
            except ValueError:
                continue
            return f"; write {number:g} without quotes" if rule.accepts(number) or number == int(number) else ""
    if rule.kind is int and isinstance(value, float) and value.is_integer():
        return f"; write {int(value)}"
    return ""


def check(raw: Mapping[str, Any]) -> list[Slip]:
    """Return every slip in the content of a parameter file."""
    to = SlipCheck(raw)
    known = (*param_rules.TOP, *param_rules.OPTIONAL)
    to.keys((), {key: value for key, value in raw.items() if key != MACHINE_NUMBERS}, known, param_rules.TOP)
    if MACHINE_NUMBERS in raw:
        fix = "remove it and write 'machine_id: text' below schema:, and names decide which machines are held out"
        to.say((MACHINE_NUMBERS,), "is a key of earlier versions; machines keep their names now", fix)
    if "source" in raw:
        _source(to, raw["source"])
    if "seed" in raw:
        to.value(("seed",), raw["seed"], param_rules.SEED)
    for name, rules in SECTIONS.items():
        if name in raw:
            needed = [key for key, rule in rules.items() if not rule.optional]
            section = to.keys((name,), raw[name], rules, needed)
            for key in rules:
                if key in section:
                    to.value((name, key), section[key], rules[key])
    if "loop" in raw:
        for key, value in to.keys(("loop",), raw["loop"], param_rules.LOOP, ()).items():
            if key in param_rules.LOOP:
                to.value(("loop", key), value, param_rules.LOOP[key])
    if "schema" in raw:
        _schema(to, raw["schema"])
    if "features" in raw:
        _features(to, raw["features"])
    _mapping(to)
    _across(to)
    _alarm_features(to)
    _parameters(to, "anomaly", "detector")
    if _engine(to):
        _parameters(to, "failure", "estimator")
    return to.found


def _source(to: SlipCheck, value: Any) -> None:
    """Check the fleet's name, which is the name of a folder and of an experiment too."""
    if isinstance(value, bool | dict | list) or value is None or not str(value).strip():
        to.say(("source",), "is not a name" if value is not None else "has no value", "write the fleet's name")
    elif set("/\\") & set(str(value)) or str(value).startswith("."):
        to.say(("source",), f"is {value!r}, which cannot be a folder's name", "write it without / and leading dots")


def _schema(to: SlipCheck, value: Any) -> None:
    """Check the names, ranges and sampling period of the fleet."""
    schema = to.keys(("schema",), value, (*param_rules.SCHEMA, "machine_id"), param_rules.SCHEMA)
    if "machine_id" in schema:
        to.value(("schema", "machine_id"), schema["machine_id"], param_rules.MACHINE_ID)
    if "sampling_minutes" in schema:
        to.value(("schema", "sampling_minutes"), schema["sampling_minutes"], param_rules.SAMPLING)
    for key, what in (("components", "a component"), ("errors", "an error code"), ("models", "a machine model")):
        if isinstance(schema.get(key), list):
            to.names(("schema", key), schema[key], what)
        elif key in schema:
            to.say(("schema", key), f"is {_shown(schema[key])}, not a list", "write [] where there is none")
    sensors = schema.get("sensors")
    if "sensors" in schema and not (isinstance(sensors, Mapping) and sensors):
        to.say(("schema", "sensors"), "names no sensor", "write 'name: [low, high]' below it for each sensor")
        return
    for name, limits in (sensors or {}).items():
        where = ("schema", "sensors", str(name))
        if not isinstance(name, str) or not name:
            to.say(where, "is not a name to YAML", f'put it in quotes: "{name}"')
        elif name in ("datetime", "machineID"):
            to.say(where, "is the name of a key column", "give the sensor another name")
        elif not _is_range(limits):
            to.say(where, f"is {_shown(limits)}, not a range", "write its lowest and highest plausible value: [0, 100]")
        elif not limits[0] < limits[1]:
            swapped = f"[{limits[1]}, {limits[0]}]"
            fix = f"write the lower one first: {swapped}" if limits[0] != limits[1] else "the highest must be larger"
            to.say(where, f"is {limits}, a range that admits no reading", fix)


def _is_range(limits: Any) -> bool:
    """Return whether these are two finite numbers."""
    return isinstance(limits, list) and len(limits) == 2 and all(Rule(float).accepts(limit) for limit in limits)


def _features(to: SlipCheck, value: Any) -> None:
    """Check the families of features and their windows."""
    families = names.FAMILIES
    features = to.keys(("features",), value, ("history_hours", *families), ("history_hours",))
    history = features.get("history_hours")
    if "history_hours" in features and not to.value(("features", "history_hours"), history, param_rules.HISTORY):
        history = None
    for name, known in families.items():
        if not features.get(name):
            continue  # absent or empty: the family is off
        where = ("features", name)
        family = to.keys(where, features[name], known, known)
        if known[0] in family and known[0].endswith("_hours"):
            _lengths(to, (*where, known[0]), family[known[0]], history)
        for key, rule in (
            ("cusum_slack", param_rules.SLACK),
            ("steps", param_rules.STEPS),
            ("weight", param_rules.WEIGHT),
        ):
            if key in known and key in family:
                to.value((*where, key), family[key], rule)


def _lengths(to: SlipCheck, where: Where, values: Any, history: float | None) -> None:
    """Check a list of windows or half-lives."""
    if not isinstance(values, list):
        fix = f"write [{values}]" if names.is_length(values) else "write hours in brackets, such as [3, 24]"
        to.say(where, f"is {_shown(values)}, not a list of hours", fix)
        return
    for n, hours in enumerate(values):
        if not names.is_length(hours):
            hint = _hint(hours, param_rules.HISTORY)
            to.say((*where, n), f"is {_shown(hours)}", f"it must be a number of hours above 0{hint}")
        elif hours in values[:n]:
            to.say((*where, n), f"is {hours}, a second time", "remove one of the two")
        elif history and microseconds(hours) > microseconds(history):
            fix = "raise features.history_hours or shorten it"
            to.say((*where, n), f"is {hours}, longer than features.history_hours ({history})", fix)


def _mapping(to: SlipCheck) -> None:
    """Check the section that maps your columns to ours, and how your files are called and written."""
    tables, raw = param_rules.COLUMNS, to.raw
    sensors = (raw.get("schema") or {}).get("sensors") if isinstance(raw.get("schema"), Mapping) else {}
    columns = to.keys(("columns",), raw["columns"], tables) if raw.get("columns") else {}
    for table in (name for name in columns if name in tables):
        known = [*tables[table], *(sensors or {} if table == "telemetry" else ())]
        if not isinstance(columns[table], Mapping):
            to.say(("columns", table), "is not a mapping", "write {your column: our column}")
            continue
        for theirs, ours in columns[table].items():
            where = ("columns", table, str(theirs))
            if ours not in known:
                otherwise = f"{table} has {', '.join(map(str, known))}"
                to.say(where, f"is {_shown(ours)}, which {table} does not have", meant(ours, known, otherwise))
            elif (first := next(name for name, of in columns[table].items() if of == ours)) != theirs:
                to.say(where, f"is {ours}, as {first} is", "map one of the two columns")
    _reading(to)


def _reading(to: SlipCheck) -> None:
    """Check how the fleet's own files are named and written: files and read."""
    for check, section in ((reading.check_files, "files"), (reading.check, "read")):
        try:
            check(to.raw.get(section))
        except DataError as error:
            name, _, rest = str(error).partition(": ")[2].partition(" ")
            problem, _, fix = rest.partition("; ")
            to.say(tuple(name.rstrip(":").split(".")), problem, fix)


def _section(to: SlipCheck, name: str) -> Mapping[str, Any]:
    """Return a section, or an empty one where it is missing or no mapping."""
    section = to.raw.get(name)
    return section if isinstance(section, Mapping) else {}


def _across(to: SlipCheck) -> None:
    """Check what two values must be together, and the mappings inside judge and gate."""
    prefix: Any = _section(to, "split").get("prefix")
    if Rule(float, 1).accepts(prefix) and prefix != int(prefix):
        to.say(("split", "prefix"), f"is {prefix}", "it must be a share below 1 or a whole number of rows")
    judge = _section(to, "judge")
    horizon: Any = _section(to, "labels").get("horizon_hours")
    lead: Any = judge.get("minimum_lead_hours")
    if names.is_length(lead) and names.is_length(horizon) and lead >= horizon:
        said = f"is {lead}, not below labels.horizon_hours ({horizon}), so that no alarm could be true"
        to.say(("judge", "minimum_lead_hours"), said, "choose a shorter lead or a longer horizon")
    if isinstance(judge.get("costs"), Mapping):
        costs = to.keys(("judge", "costs"), judge["costs"], param_rules.COSTS, param_rules.COSTS)
        for key in param_rules.COSTS:
            if key in costs:
                to.value(("judge", "costs", key), costs[key], param_rules.COST)
    floors = _section(to, "gate").get("floors")
    if isinstance(floors, Mapping):
        known = (*param_rules.FLOORS, *param_rules.CEILINGS)
        for key, value in to.keys(("gate", "floors"), floors, known).items():
            rule = param_rules.SHARE if key in param_rules.FLOORS else param_rules.COST
            to.value(("gate", "floors", str(key)), value, rule)


def _engine(to: SlipCheck) -> bool:
    """Check the engine, and return whether it has the estimator, so that its parameters can be checked."""
    engine = to.raw.get("engine", param_rules.ENGINES[0])
    if not to.value(("engine",), engine, param_rules.ENGINE):
        return False
    chosen, own = _section(to, "failure").get("estimator"), param_rules.ESTIMATORS[engine]
    if chosen in SECTIONS["failure"]["estimator"].choices and chosen not in own:
        other = next(name for name, known in param_rules.ESTIMATORS.items() if chosen in known)
        fix = f"choose {' or '.join(own)}, or set engine: {other}"
        to.say(("failure", "estimator"), f"is {chosen}, which engine: {engine} does not have", fix)
        return False
    return True


def _alarm_features(to: SlipCheck) -> None:
    """Check that each feature of the anomaly head exists, and occurs once."""
    features, schema = _section(to, "features"), _section(to, "schema")
    wanted, sensors = _section(to, "anomaly").get("features"), schema.get("sensors")
    if not isinstance(wanted, list) or not isinstance(sensors, Mapping):
        return
    if not wanted:
        to.say(("anomaly", "features"), "is empty", "name at least one feature, such as ewma_6h")
    parts = feature_names.of_sensor(features)
    _, skipped = feature_names.custom(features, schema)
    whole = [f"{sensor}_{part}" for sensor in sensors for part in parts]
    whole += feature_names.of_fleet(features, schema)
    for n, name in enumerate(wanted):
        where = ("anomaly", "features", n)
        if name in wanted[:n]:
            to.say(where, f"is {name}, a second time", "remove one of the two")
        elif not isinstance(name, str) or name not in (*parts, *whole, *skipped):
            some = f"choose a whole name, or of every sensor one of {', '.join(parts)}"
            to.say(where, f"is {_shown(name)}, and there is no such feature", meant(name, [*parts, *whole], some))


def _parameters(to: SlipCheck, section: str, key: str) -> None:
    """Check the parameters of the estimator that a section names against what the estimator declares."""
    chosen, given = _section(to, section).get(key), _section(to, section).get("parameters")
    if not isinstance(chosen, str) or chosen not in SECTIONS[section][key].choices or not isinstance(given, Mapping):
        return
    known = estimators.parameters(chosen)
    for name, value in given.items():
        where = (section, "parameters", str(name))
        if name in estimators.OWN:
            to.say(where, "is set by training, not here", "remove it")
        elif name not in known:
            to.say(where, f"is not a parameter of {chosen}", meant(name, known, f"it has {', '.join(sorted(known))}"))
        elif (must := estimators.refusal(chosen, name, value)) is not None:
            to.say(where, f"is {_shown(value)}", f"it must be {must}{_instead(chosen, name, value)}")


def _instead(chosen: str, name: str, value: Any) -> str:
    """Return how to write a number that has the wrong form for an estimator, where another form is accepted."""
    forms: list[Any] = [float(value), int(value)] if isinstance(value, int | float) and math.isfinite(value) else []
    if isinstance(value, str):
        try:
            number = float(value.replace(",", "."))
            forms = [int(number), number] if number.is_integer() else [number]
        except ValueError:
            forms = []
    right = [form for form in forms if estimators.refusal(chosen, name, form) is None and form == forms[0]]
    return f"; write {right[0]}" if right else ""


def slips_of(found: Located) -> list[tuple[int, Slip]]:
    """Return the slips of a file that was read, each with its line, in the order of the lines."""
    slips = [
        (line, Slip(where, f"is written twice, the first time in line {first}", "remove one of the two"))
        for where, line, first in found.twice
    ]
    if not isinstance(found.value, dict):
        return [*slips, (1, Slip((), "the file is not a mapping", "start again from the file in git"))]
    return sorted(slips + [(line_of(slip.where, found), slip) for slip in check(found.value)], key=lambda pair: pair[0])


def line_of(where: Where, found: Located) -> int:
    """Return the line of a place, or of the nearest thing around it that the file has."""
    for length in range(len(where), 0, -1):
        if where[:length] in found.lines:
            return found.lines[where[:length]]
    return found.last
