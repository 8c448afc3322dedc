"""Run the tests of this folder: the first word is where .venv keeps its packages, the rest goes to pytest.

pytest and what our own code needs stand behind the libraries of requirements/azureml.txt, which win.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

if __name__ == "__main__":
    sys.path.append(sys.argv[1])
    sys.path[:1] = [str(ROOT), str(ROOT / "src")]
    import pytest

    # their own deprecations are no fault of ours
    sys.exit(pytest.main(["-W", "ignore", "--show-capture=no", *sys.argv[2:], str(ROOT / "tests/azureml")]))
