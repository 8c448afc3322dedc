"""The model card: it describes the bundle it lies in, and beside the report it has the verdict too."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest

from closedloop.judge.checks import Candidate
from closedloop.judge.gate import decide
from closedloop.judge.metrics import judge
from closedloop.report import card, report
from model.common.predictions import predict


def tables_of(text: str) -> list[list[list[str]]]:
    """Return every Markdown table as rows of cells."""
    lines = groupby(text.splitlines(), lambda line: line.startswith("|"))
    return [
        [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in group]
        for is_row, group in lines
        if is_row
    ]


@pytest.fixture(scope="module")
def judged(trained, tmp_path_factory):
    """The card beside the report, and the metrics in it."""
    predictions = predict(trained.bundle, trained.truth.tables)
    ablations = {"no_telemetry": predictions, "no_errors": predictions}
    metrics = judge(predictions, trained.truth, trained.settings, ablations)
    manifest = {"provenance": {"commit": "d" * 40}, "model_digest": "sha256:m", "training": {"machines": {}}}
    decision = decide(None, Candidate(predictions, manifest, "sha256:i"), trained.truth, trained.settings)
    folder = tmp_path_factory.mktemp("report")
    model = card.describe(trained.bundle, trained.params.raw, "fleet")
    report.write(folder, metrics, decision, predictions, trained.truth, trained.settings, model=model)
    return (folder / "card.md").read_text(encoding="utf-8"), metrics


def test_the_card_says_what_the_bundle_learned_from_and_when_it_alarms(trained):
    text = trained.bundle.card
    assert f"{len(np.unique(trained.training.machine))} machines, {len(trained.training.time):,} rows" in text
    assert trained.bundle.training.fingerprint in text
    heads = {row[0]: row for row in tables_of(text)[1]}
    assert f"score {trained.bundle.anomaly.threshold:.3f}" == heads["anomaly"][3]
    counts = trained.bundle.provenance["learned_from"]["failures"]
    assert sum(counts.values()) > 0
    for component, count in counts.items():
        head = trained.bundle.failures.get(component)
        says = "no head: too few failures"
        if head:
            low, high = head.plateau
            assert low < head.threshold <= high
            says = f"probability {head.threshold:.3f} (as good: {low:.2g} to {high:.2g})"
        assert [str(count), says] == heads[component][2:]
    assert f"{len(trained.bundle.spec.names)} features, each from the last 72 hours" in text
    assert all(f"- {name} (features/custom.py)" in text for name in trained.bundle.spec.custom)


def test_the_card_in_the_bundle_has_no_figure_and_the_one_beside_the_report_all_of_them(trained, judged):
    full, metrics = judged
    assert "PR-AUC" not in trained.bundle.card
    assert "First model" in full
    assert f"{metrics['failure']['pr_auc']:.3f}" in full
    assert "### Ablations" in full
    assert "| no telemetry |" in full
    for part in ("## Data", "## Heads", "## Use and limits"):  # the same words in both
        ours, theirs = (text.partition(part)[2].partition("\n## ")[0] for text in (trained.bundle.card, full))
        assert ours == theirs != ""


def test_every_row_of_a_table_has_as_many_cells(trained, judged):
    for text in (trained.bundle.card, judged[0]):
        assert tables_of(text)
        for table in tables_of(text):
            assert {len(table[0])} == {len(row) for row in table}, table
            assert all(re.fullmatch(r":?-+:?", cell) for cell in table[1])


def test_names_cannot_break_the_card_and_an_anomaly_model_promises_no_failures(trained):
    learned = {"rows": 10, "failures": {"pump|<b>": 3}}
    odd = replace(trained.bundle, provenance={"learned_from": learned}, failures={})
    text = card.render(odd, trained.params.raw, "fleet")
    assert r"| pump\|&lt;b> | — | 3 | no head: too few failures |" in text
    alone = replace(odd, provenance={"learned_from": learned | {"failures": {}}})
    text = card.render(alone, trained.params.raw, "prefix")
    assert "The first rows of each machine trained the model" in text
    assert "how likely each component" not in text
    assert "probabilities of the failure heads are calibrated" not in text
