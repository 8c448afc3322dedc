"""The copy of the repository in which the demonstration runs."""

from __future__ import annotations

import shutil
from pathlib import Path

from model.common import loop_copy, provenance, starting_params


def test_where_a_fleet_was_adopted_the_copy_has_the_simulated_ones_parameters(tmp_path, monkeypatch):
    """The demonstration simulates a fleet, so it cannot have the sensors of another."""
    root = tmp_path / "checkout"
    for name in loop_copy.FOLDERS:
        (root / name).mkdir(parents=True)
    before = starting_params.path().read_bytes()
    for name, content in (("params.yaml", b"source: plant\n"), ("simulated.yaml", before), ("accepted.json", b"{}")):
        (root / "model" / name).write_bytes(content)
    shutil.copy(Path(__file__).parents[2] / ".gitignore", root)
    monkeypatch.setattr(provenance, "ROOT", root)
    monkeypatch.setattr(starting_params, "SIMULATED", root / "model/simulated.yaml")
    copy = loop_copy.Copy(tmp_path / "copy")
    copy.make()
    assert {"params.yaml": before} == {path.name: path.read_bytes() for path in (copy.folder / "model").iterdir()}
    assert "model/params.yaml" in copy.git("ls-files").split()
