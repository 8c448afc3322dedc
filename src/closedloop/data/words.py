"""Words in the names of files and columns that hint at what they hold. Earlier ones count more."""

from __future__ import annotations

import re

FILE_WORDS = {
    "failures": (
        "failure",
        "fail",
        "breakdown",
        "breakage",
        "outage",
        "incident",
        "fault",
        "downtime",
        "stop",
        "stillstand",
        "stillstände",
        "arrêt",
        "störung",
        "stoerung",
        "ausfall",
        "ausfälle",
        "ausfaelle",
        "defekt",
        "panne",
        "avería",
        "averia",
    ),
    "maint": (
        "maint",
        "service",
        "repair",
        "replace",
        "overhaul",
        "workorder",
        "work",
        "cmms",
        "wartung",
        "instandhaltung",
        "reparatur",
        "austausch",
        "entretien",
        "mantenimiento",
    ),
    "errors": ("error", "alarm", "alert", "warning", "event", "log", "fehler", "meldung", "erreur", "alerte"),
    "machines": (
        "machine",
        "asset",
        "device",
        "equipment",
        "unit",
        "fleet",
        "inventory",
        "master",
        "maschine",
        "anlage",
        "stammdaten",
        "máquina",
        "maquina",
        "équipement",
        "equipo",
    ),
}
COLUMN_WORDS = {
    "datetime": (
        "datetime", "timestamp", "time", "date", "ts", "when", "recorded", "reported", "occurred", "raised", "start",
        "zeit", "datum", "zeitstempel", "fecha", "hora", "heure", "时间", "日期", "時間", "日時",
    ),
    "machineID": (
        "machine", "asset", "equipment", "device", "unit", "engine", "vehicle", "turbine", "pump", "motor", "robot",
        "compressor", "station", "node", "maschine", "anlage", "serial", "tag", "name", "id",
    ),
    "errorID": ("error", "alarm", "code", "alert", "warning", "event", "type", "message", "fehler", "meldung"),
    "comp": (
        "comp", "component", "part", "item", "komponente", "bauteil", "baugruppe", "composant", "componente", "action",
        "task", "problem", "type", "code",
    ),
    "failure": (
        "failure", "component", "comp", "part", "komponente", "bauteil", "baugruppe", "composant", "componente", "mode",
        "fault", "cause", "reason", "ursache", "problem", "type", "code",
    ),
    "model": ("model", "type", "kind", "class", "variant", "make", "series", "typ", "modell", "modèle", "modelo"),
    "age": ("age", "years", "alter"),
    "built": ("built", "build", "year", "commissioned", "manufactured", "installed", "baujahr", "yob"),
    "tag": (
        "tag", "tagname", "signal", "parameter", "variable", "metric", "point", "channel", "sensor", "measurement",
        "attribute", "quantity", "property", "series", "item",
    ),
    "value": ("value", "val", "reading", "measurement", "measured", "wert", "valor", "pv"),
    "done": ("completed", "done", "finished", "closed", "replaced", "end"),
    "work": ("type", "category", "kind", "class", "art"),
    "quality": ("quality", "status", "good"),
}  # fmt: skip
TRUTHS = (
    "label", "anomaly", "outlier", "failure", "fail", "failed", "fault", "target", "class", "rul", "changepoint",
    "attack", "broken", "breakdown", "defect", "truth",
)  # fmt: skip
FAILED = ("failure", "fail", "failed", "fault", "broken", "breakdown", "defect")
IDS = ("id", "no", "nr", "number", "num", "name", "code", "key", "serial")
STATES = ("state", "status", "mode", "type", "model", "class", "alarm", "error", "quality", "operator", "shift",
          "product", "recipe", "comment", "note", "message", "unit", "grade")  # fmt: skip
CORRECTIVE = ("cm", "corrective", "breakdown", "emergency", "unplanned", "reactive", "failure", "repair", "em", "pm02")
PREVENTIVE = ("pm", "preventive", "preventative", "planned", "scheduled", "inspection", "predictive", "pdm", "routine",
              "pm01", "pm03", "lubrication")  # fmt: skip


def words(name: str) -> list[str]:
    """The words of a name in snake, kebab or camel case, in lower case."""
    found: list[str] = []
    for part in re.findall(r"[^\W\d_]+", name):
        found += re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", part) if part.isascii() else [part]
    return [word.lower() for word in found]


def rank(name: str, hints: tuple[str, ...]) -> int | None:
    """The place of the first hint that a word of the name equals, or starts with if the hint is long; else None."""
    own = words(name)
    own += ["".join(own)]
    for place, hint in enumerate(hints):
        if any(word == hint or (len(hint) > 3 and word.startswith(hint)) for word in own):
            return place
    return None


def only(name: str, *vocabularies: tuple[str, ...]) -> bool:
    """Whether all words of a name, of which there is at least one, are of these."""
    known = set().union(*vocabularies)
    own = words(name)
    return bool(own) and all(word in known or "".join(own) in known or word.rstrip("s") in known for word in own)
