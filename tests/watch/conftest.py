"""The fleets of tests/support, as fixtures."""

from random_fleets import random_fleet, schema, schema_of

__all__ = ["random_fleet", "schema", "schema_of"]
