"""The random fleets of tests/support, as fixtures."""

from random_fleets import random_fleet as fleet
from random_fleets import schema, schema_of

__all__ = ["fleet", "schema", "schema_of"]
