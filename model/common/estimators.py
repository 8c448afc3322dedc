"""What each estimator's parameters may be, read from the source of scikit-learn and of our own detectors.

scikit-learn declares them as ``_parameter_constraints``. Importing it takes seconds, and a slip in ``params.yaml`` is
to be found before that. So the declarations are read from the source, and nothing is run. What this module does not
understand it lets pass, since the estimator checks its parameters again.
"""

from __future__ import annotations

import ast
import math
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CLASSES = {  # the name in params.yaml: package, file and class
    "hist_gradient_boosting": (
        "sklearn",
        "ensemble/_hist_gradient_boosting/gradient_boosting.py",
        "HistGradientBoostingClassifier",
    ),
    "evidence_chart": ("closedloop", "heads/detectors.py", "EvidenceChart"),
    "mean_chart": ("closedloop", "heads/detectors.py", "MeanChart"),
    "isolation_forest": ("sklearn", "ensemble/_iforest.py", "IsolationForest"),
    "pca": ("closedloop", "heads/detectors.py", "PCADetector"),
    "random_forest": ("closedloop", "spark/estimators.py", "RandomForest"),
    "gradient_boosted_trees": ("closedloop", "spark/estimators.py", "GradientBoostedTrees"),
}
OWN = {"early_stopping", "categorical_features", "random_state"}  # set by training, not by params.yaml
NUMBERS = {"Integral": "a whole number", "Real": "a number", "RealNotInt": "a decimal number"}
NAMES = {"str": "a text", "dict": "a mapping", "list": "a list", "tuple": "a list", **NUMBERS}
WORDS = {"boolean": "true or false", "array-like": "a list", "verbose": "true, false or a whole number"}


@cache
def parameters(estimator: str) -> dict[str, list[ast.expr]]:
    """Return the constraints of each parameter that ``params.yaml`` may set for an estimator."""
    package, file, name = CLASSES[estimator]
    spec = find_spec(package)  # finds the folder and imports nothing
    assert spec is not None  # noqa: S101  # both are installed with this code
    assert spec.submodule_search_locations  # noqa: S101
    tree = ast.parse((Path(spec.submodule_search_locations[0]) / file).read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    return {key: allowed for key, allowed in _declared(classes, name).items() if key not in OWN}


def _declared(classes: dict[str, ast.ClassDef], name: str) -> dict[str, list[ast.expr]]:
    """Return what a class, or the first of its bases that says so, declares."""
    for item in classes[name].body:
        if isinstance(item, ast.AnnAssign) and getattr(item.target, "id", "") == "_parameter_constraints":
            return _entries(classes, item.value)
    for base in classes[name].bases:
        if isinstance(base, ast.Name) and base.id in classes and (found := _declared(classes, base.id)):
            return found
    return {}


def _entries(classes: dict[str, ast.ClassDef], declared: ast.expr | None) -> dict[str, list[ast.expr]]:
    """Return the entries of a dict; ``**Base._parameter_constraints`` brings those of the base."""
    found: dict[str, list[ast.expr]] = {}
    if isinstance(declared, ast.Dict):
        for key, value in zip(declared.keys, declared.values, strict=True):
            if isinstance(key, ast.Constant):
                found[str(key.value)] = value.elts if isinstance(value, ast.List) else [value]
            elif isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name) and value.value.id in classes:
                found |= _declared(classes, value.value.id)
    return found


def refusal(estimator: str, parameter: str, value: Any) -> str | None:
    """Return what the parameter must be, where this value is refused; None where it is accepted."""
    allowed = parameters(estimator)[parameter]
    if any(_accepts(node, value) for node in allowed):
        return None
    return " or ".join(dict.fromkeys(said for node in allowed if (said := _says(node))))


def _accepts(node: ast.expr, value: Any) -> bool:
    """Return whether one constraint accepts a value that was read from YAML."""
    match node:
        case ast.Constant(value=None):
            return value is None
        case ast.Constant(value="boolean"):
            return isinstance(value, bool)
        case ast.Constant(value="array-like"):
            return isinstance(value, list)
        case ast.Constant(value="verbose"):
            return isinstance(value, bool) or (isinstance(value, int) and value >= 0)
        case ast.Name(id=kind):  # another class, such as BaseLoss, cannot be written in YAML
            types = {"str": str, "dict": dict, "list": list}
            return _is_number(kind, value) if kind in NUMBERS else kind in types and isinstance(value, types[kind])
        case ast.Call(func=ast.Name(id="Interval"), args=[ast.Name(id=kind), low, high], keywords=[closed]):
            return _is_number(kind, value) and _within(value, *_ends(low, high), _text(closed.value))
        case ast.Call(func=ast.Name(id="StrOptions"), args=[ast.Set(elts=options), *_]):
            return value in [_text(option) for option in options]
    return True


def _is_number(kind: str, value: Any) -> bool:
    """Return whether a value is a finite number of a kind; true and false are none, though Python says so."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    return {"Integral": isinstance(value, int), "RealNotInt": isinstance(value, float)}.get(kind, True)


def _within(value: float, low: float, high: float, closed: str) -> bool:
    above = value >= low if closed in ("left", "both") or low == -math.inf else value > low
    return above and (value <= high if closed in ("right", "both") or high == math.inf else value < high)


def _ends(low: ast.expr, high: ast.expr) -> tuple[float, float]:
    return _bound(low, -math.inf), _bound(high, math.inf)


def _bound(node: ast.expr, unbounded: float) -> float:
    """Return an end of an interval; ``unbounded`` where it is None or no plain number."""
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return unbounded
    return unbounded if value is None else float(value)


def _text(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else ""


def _says(node: ast.expr) -> str:
    """Return a constraint in words; empty where YAML cannot meet it."""
    match node:
        case ast.Constant(value=None):
            return "null"
        case ast.Constant(value=str(word)):
            return WORDS.get(word, "")
        case ast.Name(id=kind):
            return NAMES.get(kind, "")
        case ast.Call(func=ast.Name(id="Interval"), args=[ast.Name(id=kind), low, high], keywords=[closed]):
            return f"{NUMBERS.get(kind, kind)}{span(*_ends(low, high), _text(closed.value))}"
        case ast.Call(func=ast.Name(id="StrOptions"), args=[ast.Set(elts=options), *_]):
            return " or ".join(sorted(_text(option) for option in options))
    return ""


def span(low: float, high: float, closed: str) -> str:
    """Return an interval in words: ``, 1 or more``, `` above 0``, `` from 0 to 1`` …; an end may be infinite."""
    left, right = closed in ("left", "both"), closed in ("right", "both")
    if not math.isfinite(low) or not math.isfinite(high):
        if math.isfinite(low):
            return f", {low:g} or more" if left else f" above {low:g}"
        return (f", {high:g} or less" if right else f" below {high:g}") if math.isfinite(high) else ""
    if left and right:
        return f" from {low:g} to {high:g}"
    return f"{f' from {low:g}' if left else f' above {low:g}'} and {'at most' if right else 'below'} {high:g}"
