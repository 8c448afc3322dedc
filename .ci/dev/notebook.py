"""Execute notebooks/walkthrough.py from top to bottom, and write build/notebook/walkthrough.ipynb with all output.

What was executed until a cell failed is written too. Exits 1 where a cell failed; its error is printed.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "notebooks/walkthrough.py"
TARGET = ROOT / "build/notebook/walkthrough.ipynb"
CELL_SECONDS = 900
SKIPPED = re.compile(r"\*\*skipped: (.+?)\*\*: (.+)")


def skipped(notebook: Any) -> list[str]:
    """Return what the cells say that they skipped, and why."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            text = output.get("data", {}).get("text/markdown", "")
            found += [f"{step}: {why}" for step, why in SKIPPED.findall(text)]
    return found


def main() -> int:
    """Execute, write and tell; return the exit code."""
    notebook = jupytext.read(SOURCE)
    start = time.monotonic()
    code = 0
    kernel = AsyncKernelManager(kernel_name="python3", transport="ipc")  # a port would be open to every user here
    client = NotebookClient(notebook, km=kernel, timeout=CELL_SECONDS, resources={"metadata": {"path": ROOT}})
    try:
        client.execute()
    except CellExecutionError as error:
        print(error, file=sys.stderr)
        code = 1
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, TARGET)
    ran = sum(cell.get("execution_count") is not None for cell in notebook.cells if cell.cell_type == "code")
    cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    pictures = sum("image/png" in one.get("data", {}) for cell in notebook.cells for one in cell.get("outputs", []))
    for line in skipped(notebook):
        print(f"skipped: {line}")
    print(
        f"{TARGET.relative_to(ROOT)}: {ran} of {cells} cells executed, {pictures} pictures, "
        f"{time.monotonic() - start:.0f} seconds"
    )
    return code


if __name__ == "__main__":
    sys.exit(main())
