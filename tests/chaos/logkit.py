"""``kit``: the functions of ``tests/log/conftest.py``, which makes spools with records in them and ships them."""

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location("kit", Path(__file__).parents[1] / "log" / "conftest.py")
kit = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(kit)
