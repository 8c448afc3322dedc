"""Coverage-guided fuzzing of the decoders, the scorer and the segment reader, with the golden corpus as seeds."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden"
FOUND = HERE.parents[1] / "build/fuzz/found"
LONGEST_BYTES = 8192


@pytest.mark.parametrize(
    ("target", "seeds"),
    [("decode", "requests"), ("answer", "requests"), ("feedback", "feedback"), ("segment", "segment.bin")],
)
def test_only_the_refusals_that_are_promised_are_raised(
    fuzzers: Path, seconds: int, site: str, tiny_bundle: Path, tmp_path: Path, target: str, seeds: str
) -> None:
    """What is accepted is sorted, answered and accounted for to the last byte (see target.py)."""
    if subprocess.run([fuzzers, "-c", "import atheris"], capture_output=True, check=False).returncode:
        pytest.skip("atheris has no wheel for this platform")
    FOUND.mkdir(parents=True, exist_ok=True)
    (tmp_path / "seeds").mkdir()
    for path in [GOLDEN / seeds] if seeds.endswith(".bin") else (GOLDEN / seeds).iterdir():
        (tmp_path / "seeds" / path.name).write_bytes(path.read_bytes())
    options = [f"-max_total_time={seconds}", f"-max_len={LONGEST_BYTES}", "-timeout=20", "-print_final_stats=1"]
    command = [fuzzers, HERE / "target.py", target, tiny_bundle, *options, f"-artifact_prefix={FOUND}/", "seeds"]
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([site, str(HERE)])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds + 240,
        check=False,
    )
    assert done.returncode == 0, f"the input is in {FOUND}\n{done.stdout[-3000:]}{done.stderr[-6000:]}"
    assert "stat::number_of_executed_units" in done.stderr, done.stderr[-3000:]
