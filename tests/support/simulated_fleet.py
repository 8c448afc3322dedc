"""The reference fleet of the tests: the simulator's, as tests/golden describes it, whatever fleet this copy has."""

from pathlib import Path

import yaml

from closedloop.data.schema import Schema

GOLDEN = Path(__file__).parents[1] / "golden"
PARAMS_FILE, PIN_FILE = GOLDEN / "params.yaml", GOLDEN / "data.lock.json"
PARAMS = yaml.safe_load(PARAMS_FILE.read_text(encoding="utf-8"))
SCHEMA = Schema.from_dict(PARAMS["schema"])
