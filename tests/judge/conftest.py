"""The fleets of tests/support, as fixtures: one whose failures are known, and random ones."""

from judged_fleet import build, fleet
from random_fleets import random_fleet, schema, schema_of

__all__ = ["build", "fleet", "random_fleet", "schema", "schema_of"]
