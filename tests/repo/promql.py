"""What an expression of PromQL names: metrics and labels, and those that are not there."""

from __future__ import annotations

import re

# Of kube-state-metrics and Prometheus itself, as far as rules and panels use them, with their labels.
OTHERS: dict[str, set[str]] = {
    "up": set(),
    "kube_persistentvolumeclaim_info": {"persistentvolumeclaim", "storageclass", "volumename"},
    "kube_pod_spec_volumes_persistentvolumeclaims_info": {"persistentvolumeclaim", "volume"},
}
OF_THE_TARGET = {"namespace", "pod", "container", "endpoint", "instance", "job", "cluster"}
WORDS = {"and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring", "group_left", "group_right"}
NAME = re.compile(r"(?<![\w:$])[a-zA-Z_:][\w:]*(?!\w)")
SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}")
GROUPED = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def metrics(expression: str) -> set[str]:
    """The metrics that an expression names: each word that is no function, label, duration or variable."""
    bare = GROUPED.sub(" ", re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]', " ", expression))
    called = set(re.findall(r"([a-zA-Z_]\w*)\s*\(", bare))  # functions and aggregations
    called |= set(re.findall(r"([a-zA-Z_]\w*)\s+(?:by|without)\s*\(", expression))
    return set(NAME.findall(bare)) - called - WORDS


def unknown(expression: str, known: dict[str, set[str]]) -> list[str]:
    """What an expression names and is not there, one line each; ``known``: the service's metrics with their labels."""
    there = known | OTHERS
    found = sorted(metrics(expression))
    said = [f"there is no metric {name}" for name in found if name not in there]
    for name, matchers in SELECTOR.findall(expression):
        asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', '""', matchers)))
        wrong = asked - there.get(name, asked) - OF_THE_TARGET
        said += [f"{name} has no label {label}" for label in sorted(wrong)]
    any_of = OF_THE_TARGET.union(*(there.get(name, set()) for name in found))
    grouped = {label for _, labels in GROUPED.findall(expression) for label in _words(labels)}
    return said + [f"no metric of it has a label {label}" for label in sorted(grouped - any_of)]


def result(expression: str, known: dict[str, set[str]]) -> set[str]:
    """The labels that a result may have: those it is grouped by, else those of its metrics."""
    kept = [_words(labels) for how, labels in GROUPED.findall(expression) if how == "by"]
    there = known | OTHERS
    return (
        set().union(*kept) if kept else OF_THE_TARGET.union(*(there.get(name, set()) for name in metrics(expression)))
    )
