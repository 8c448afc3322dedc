"""The simulation of the gate's error rates runs, and says what it found."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "bench" / "gate_error_rates.py"


def test_the_bench_of_the_gate_prints_a_table_and_writes_its_figures(tmp_path):
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path / "gate.json"), "--comparisons", "15"]
    done = subprocess.run(command, capture_output=True, text=True)
    found = json.loads((tmp_path / "gate.json").read_text())
    assert done.returncode == (0 if found["holds"] else 1), done.stderr
    rates = {row["scenario"]: row for row in found["scenarios"]}
    assert all(name in done.stdout for name in rates)
    assert rates["better by 40%"]["better"] > 0.8
    assert rates["better by 40%"]["worse"] == 0
    assert rates["worse by 40%"]["better"] == 0
    assert rates["better by 10%"]["better"] <= rates["better by 20%"]["better"] <= rates["better by 40%"]["better"]
