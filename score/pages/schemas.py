"""The named schemas of the OpenAPI document, from which generators of clients take the names of their types."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from closedloop.data import feedback, findings
from closedloop.data.schema import FINDINGS, Schema
from closedloop.heads.manifest import AnomalyEntry, FailureEntry
from score import explain
from score.answer import Scorer
from score.pages.examples import REQUEST_ID, faulty_requests, refusals

Json = dict[str, Any]
Named = dict[str, Json]
_TABLES = {"telemetry": "Telemetry", "errors": "Errors", "maint": "Replacements", "machines": "Machines"}
_COLUMNS = {
    "datetime": "Times in RFC 3339, UTC where there is no offset, to the microsecond at most.",
    "machineID": "The machine of each row, as the fleet's own files have it.",
    "errorID": "The error of each row.",
    "comp": "The component that was replaced.",
    "failure": "The component that failed.",
    "model": "The model (type) of each machine.",
    "age": "The age of each machine in years.",
}
_ENUMS = {"comp": "Component", "failure": "Component", "errorID": "ErrorCode", "model": "MachineModel"}
_COUNT = {"type": "integer", "minimum": 0}
_STATE = {
    "uptime_seconds": "Seconds since the service started.",
    "machines_scored": "Results answered since the start.",
    "offered": "Requests of /score and /feedback since the start.",
    "stored": "Of these, those that are in the log.",
    "sampled_out": "Of these, those that LOG_SAMPLE left out of the log.",
    "dry_run": "Of these, those with the header Closed-Loop-Dry-Run.",
    "rejected": "Of these, those that were refused, or answered without a record.",
    "in_flight": "Requests of /score and /feedback that wait for their answer now.",
}


def ref(name: str) -> Json:
    """The ``$ref`` to a named schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def named(scorer: Scorer) -> Named:
    """The schemas of one bundle by name."""
    schema = scorer.bundle.schema
    schemas: Named = {"DryRun": {"type": "string", "enum": ["1"]}}
    schemas |= {name: {"type": "string", "enum": list(values)} for name, values in _enums(schema).items()}
    _request(schemas, scorer)
    _answer(schemas, scorer)
    if schema.components:
        _feedback(schemas, schema)
    _problem(schemas, scorer)
    _service(schemas, scorer.answer_schema["properties"]["results"]["items"]["properties"]["machineID"])
    return schemas


def _enums(schema: Schema) -> dict[str, tuple[str, ...]]:
    known: dict[str, tuple[str, ...]] = {
        "Component": schema.components,
        "ErrorCode": schema.errors,
        "MachineModel": schema.models,
    }
    known |= {"Finding": FINDINGS} if schema.components else {}
    return {name: values for name, values in known.items() if values}


def _request(schemas: Named, scorer: Scorer) -> None:
    schema, whole = scorer.bundle.schema, scorer.request_schema
    readings = {
        sensor: f"In the sensor's own unit. null is a missing reading; outside {low:g} to {high:g} the answer warns."
        for sensor, (low, high) in zip(schema.sensors, schema.ranges, strict=True)
    }
    for table, content in whole["properties"].items():
        schemas[_TABLES[table]] = _table(content, readings if table == "telemetry" else {})
    hours = f"{scorer.manifest.history_hours:g}"
    text = f"{whole['description']} Send the last {hours} hours of each machine, and the last replacement of each "
    schemas["ScoreRequest"] = whole | {
        "description": f"{text}component, however old. Only telemetry is required.",
        "properties": {table: ref(_TABLES[table]) for table in whole["properties"]},
    }


def _table(table: Json, told: dict[str, str], enums: dict[str, str] = _ENUMS) -> Json:
    """A table whose columns are described, with a ``$ref`` to what has a name."""
    columns = {}
    for name, column in table["properties"].items():
        items = column["items"]
        if name in told:
            column = {**column, "description": told[name]}
        elif name in _COLUMNS:
            column = {**column, "description": _COLUMNS[name]}
        if name not in told and name in enums and "enum" in items:
            items = ref(enums[name])
        elif items is findings.JSON_SCHEMA:
            items = _nullable("Finding", str(items["description"]))
        columns[name] = {**column, "items": items}
    return table | {"properties": columns}


def _answer(schemas: Named, scorer: Scorer) -> None:
    whole, heads = scorer.answer_schema, scorer.manifest.heads
    result = whole["properties"]["results"]["items"]
    properties = result["properties"]
    score = {"type": "number", "description": "How unusual the machine is: 0 is as ever, and higher is more unusual."}
    alarm = {"type": "boolean", "description": "Whether the figure has reached the head's threshold."}
    told = _told(schemas)
    shared = {"score": score, "alarm": alarm}
    schemas["AnomalyHead"] = _object(shared | told, required=shared)
    chance = "The probability that the component fails within the horizon that the model was trained for."
    probability = {"type": "number", "minimum": 0, "maximum": 1, "description": chance}
    if scorer.bundle.schema.components:
        own = {"probability": probability, "alarm": alarm}
        logits = {
            "base_logit": _NUMBER | {"description": "The logit of a machine of which nothing is known."},
            "other_logit": _NUMBER | {"description": "What all that is not listed adds. All three give the logit."},
        }
        schemas["FailureHead"] = _object(own | told | logits, required=own)
        # named too: openapi-typescript fails on a choice below a name with a percent sign, as a component's may be
        schemas["FailureHeadOrNull"] = _nullable("FailureHead", "null: there is no head, or nothing to judge by.")
    failure = {
        name: ref("FailureHeadOrNull") | {"description": _alarms("probability", heads.failure.get(name))}
        for name in properties["failure"]["properties"]
    }
    schemas["MachineFailures"] = properties["failure"] | {"properties": failure, "required": list(failure)}
    anomaly = _nullable("AnomalyHead", _alarms("score", heads.anomaly))
    warned = "What the machine's data lacked. The figures were made without it, so they are worth less."
    schemas["MachineResult"] = result | {
        "properties": properties
        | {
            "machineID": properties["machineID"] | {"description": "The machine, as it was sent."},
            "anomaly": anomaly,
            "failure": ref("MachineFailures"),
            "warnings": properties["warnings"] | {"description": warned},
        }
        | _of_machine(schemas)
    }
    request_id = {"type": "string", "description": "The request's id, as in the header X-Request-ID."}
    results = {"type": "array", "items": ref("MachineResult"), "description": "One for each machine of the request."}
    schemas["ScoreAnswer"] = whole | {
        "properties": whole["properties"] | {"request_id": request_id, "results": results},
    }


def _told(schemas: Named) -> Json:
    """What a head tells on request; its parts are added to the schemas."""
    schemas["Part"] = {"type": "string", "enum": list(explain.PARTS)}
    schemas["Contribution"] = _object(
        {
            "kind": {"type": "string", "description": "sensor, error, replacement, machine or feature."},
            "name": {"type": "string", "description": "Of the sensor, the error code, the component and so on."},
            "text": {"type": "string", "description": "The same in words."},
            "logit": _NUMBER | {"description": "What it adds to the logit of a failure head's probability."},
            "share": _NUMBER | {"description": "Its share of the anomaly score, from 0 to 1."},
            "deviations": _NUMBER | {"description": "How far the sensor's mean lies above its usual."},
            "since_hours": {"type": ["number", "null"], "description": "Hours since it moved; null: not known."},
            "count": {"type": "integer", "description": "How often the error was reported."},
            "within_hours": _NUMBER | {"description": "Within so many hours."},
            "replaced_days_ago": _NUMBER | {"description": "Days since the component was replaced."},
        },
        required=("kind", "name", "text"),
    )
    raised = "The sensors and events that raised it most, the strongest first. Only in alarm."
    return {
        "threshold": _NUMBER | {"description": "The head alarms from this figure on."},
        explain.CONTRIBUTIONS: {"type": "array", "items": ref("Contribution"), "description": raised},
    }


def _of_machine(schemas: Named) -> Json:
    """What is told of a machine on request."""
    schemas["Severity"] = {"type": "string", "enum": list(explain.LEVELS)}
    schemas["WarningCode"] = {"type": "string", "enum": list(explain.WARNING_CODES)}
    urgent = (
        "none; watch: below an alarm, where one would cost as much; warn: an alarm; act: an alarm that even the "
        "strictest threshold of equal cost raises."
    )
    return {
        explain.SEVERITY: ref("Severity") | {"description": urgent},
        "horizon_hours": _NUMBER | {"description": "How far ahead a failure is foreseen."},
        explain.CONFIDENCE: {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "description": "The share of the history's readings that was sent.",
        },
        explain.CODES: {
            "type": "array",
            "items": ref("WarningCode"),
            "description": "Of each warning, in order.",
        },
    }


def _alarms(figure: str, head: AnomalyEntry | FailureEntry | None) -> str:
    if head is None:
        return "null: this model has no such head."
    return f"Alarm from a {figure} of {head.threshold:.4g}. null: there was nothing to judge by."


def _nullable(name: str, description: str) -> Json:
    return {"anyOf": [ref(name), {"type": "null"}], "description": description}


def _feedback(schemas: Named, schema: Schema) -> None:
    whole = feedback.openapi(schema)
    parts = whole["properties"]
    within = parts["retracted"]["properties"]
    schemas["Failures"] = _table(parts["failures"], {})
    schemas["ReportedReplacements"] = _table(parts["maint"], {})
    schemas["RetractedFailures"] = _table(within["failures"], {})
    schemas["RetractedReplacements"] = _table(within["maint"], {})
    retracted = {"failures": ref("RetractedFailures"), "maint": ref("RetractedReplacements")}
    schemas["Retracted"] = parts["retracted"] | {"properties": retracted}
    whom = parts["complete_until"]["properties"]["machineID"]["items"]["description"]
    schemas["CompleteUntil"] = _table(parts["complete_until"], {"machineID": whom})
    names = {
        "failures": "Failures",
        "maint": "ReportedReplacements",
        "retracted": "Retracted",
        "complete_until": "CompleteUntil",
    }
    some_row = {"anyOf": whole["anyOf"]}  # inside allOf generators of clients do not take it for a choice of types
    schemas["FeedbackRequest"] = {
        **{key: value for key, value in whole.items() if key != "anyOf"},
        "properties": {part: ref(name) for part, name in names.items()},
        "allOf": [some_row],
    }
    schemas["StoredRows"] = _object(dict.fromkeys(names, _COUNT)) | {
        "description": "Rows of each part that are now in the log; of a dry run 0.",
        "examples": [{"failures": 1, "maint": 1, "retracted": 0, "complete_until": 1}],
    }
    answer = {"request_id": {"type": "string"}, "stored": ref("StoredRows")}
    example = {"request_id": REQUEST_ID, "stored": schemas["StoredRows"]["examples"][0]}
    schemas["FeedbackAnswer"] = _object(answer) | {"examples": [example]}


def _problem(schemas: Named, scorer: Scorer) -> None:
    """A problem (RFC 9457) and its faults."""
    pointer = {"type": "string", "description": "An RFC 6901 pointer into the body; empty for the whole body."}
    detail = {"type": "string", "description": "What is wrong, and how to fix it."}
    schemas["Fault"] = _object({"pointer": pointer, "detail": detail})
    faults = {"type": "array", "items": ref("Fault"), "description": "Each fault of the body, for 400 and 422."}
    members = {
        "type": {"type": "string"},
        "title": {"type": "string", "description": "The status in words."},
        "status": {"type": "integer", "description": "The HTTP status."},
        "detail": detail,
    }
    request_id = {"type": "string", "description": "Quote it when you report an error of the service."}
    example = next(iter(refusals(scorer.decode, faulty_requests(scorer)).values()))
    schemas["Problem"] = _object(members) | {
        "properties": members | {"request_id": request_id, "errors": faults},
        "examples": [example],
    }


def _service(schemas: Named, machine: Json) -> None:
    """What the routes about the service itself answer."""
    text = {"type": ["string", "null"]}
    told = {
        "model_digest": "Digest of the model: what X-Model-Digest and an answer's model say.",
        "bundle_digest": "Digest of the whole bundle.",
        "data": "Fingerprint of the training data.",
        "commit": "The commit that trained the model.",
        "image": "The container image.",
    }
    window = {"volume": {"type": "string"}, **dict.fromkeys(("sealed_after_seconds", "lost_at_most_seconds"), _NUMBER)}
    schemas["LogWindow"] = _object(window) | {"description": "What may be lost where the log's volume is ephemeral."}
    version = _object({name: text | {"description": about} for name, about in told.items()})
    schemas["Version"] = version | {"properties": version["properties"] | {"log": ref("LogWindow")}}
    figure = {"type": ["number", "null"]}
    schemas["RecentResult"] = _object(
        {
            "machineID": machine,
            "datetime": {"type": "string", "format": "date-time"},
            "anomaly": figure | {"description": "The anomaly head's score."},
            "component": text | {"description": "The component that is most likely to fail."},
            "probability": figure | {"description": "The probability that it fails."},
            "alarm": {"type": "boolean", "description": "Whether any head of the machine is in alarm."},
        }
    )
    recent = {"type": ["array", "null"], "items": ref("RecentResult"), "description": "null: send a token."}
    unsent = {"type": ["integer", "null"], "description": "null: unknown, or the log is not shipped."}
    unready = text | {"description": "Why no requests are accepted now; null: they are."}
    counts = {name: _COUNT | {"description": about} for name, about in _STATE.items()}
    schemas["State"] = _object({"unready": unready, **counts, "unsent_segments": unsent, "recent": recent})


_NUMBER = {"type": "number"}


def _object(properties: Json, required: Iterable[str] | None = None) -> Json:
    """An object; all its properties are required unless told otherwise."""
    return {"type": "object", "properties": properties, "required": list(properties if required is None else required)}
