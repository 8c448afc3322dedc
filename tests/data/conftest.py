"""The schema of the simulated fleets, a small simulated fleet, and ways to damage its tables."""

from pathlib import Path

import pandas as pd
import pytest

from closedloop.data import simulate, sources
from closedloop.data.schema import Schema
from simulated_fleet import SCHEMA


class Faults:
    """Ways to damage telemetry. Each returns a damaged copy of a frame; ``rows`` are positions."""

    @staticmethod
    def missing(telemetry: pd.DataFrame, rows: list[int]) -> pd.DataFrame:
        return telemetry.drop(telemetry.index[rows])

    @staticmethod
    def duplicate(telemetry: pd.DataFrame, rows: list[int]) -> pd.DataFrame:
        return pd.concat([telemetry, telemetry.iloc[rows]]).sort_values(["machineID", "datetime"], kind="stable")

    @staticmethod
    def out_of_order(telemetry: pd.DataFrame, rows: list[int]) -> pd.DataFrame:
        """Swap each row with the one before it."""
        order = list(range(len(telemetry)))
        for row in rows:
            order[row - 1], order[row] = order[row], order[row - 1]
        return telemetry.iloc[order]

    @staticmethod
    def out_of_range(telemetry: pd.DataFrame, rows: list[int], sensor: str, value: float) -> pd.DataFrame:
        damaged = telemetry.copy()
        damaged.iloc[rows, damaged.columns.get_loc(sensor)] = value
        return damaged


@pytest.fixture(scope="session")
def schema() -> Schema:
    return SCHEMA


@pytest.fixture(scope="session")
def simulation() -> simulate.Simulation:
    """Frames of three machines for forty days. Each test gets its own copies."""
    return simulate.simulate("default", 3, 40, 7, SCHEMA)


@pytest.fixture
def frames(simulation) -> sources.Frames:
    return sources.tables_to_frames(simulation.tables, SCHEMA)


@pytest.fixture(scope="session")
def faults() -> type[Faults]:
    return Faults


@pytest.fixture
def folder(frames, tmp_path) -> Path:
    """The small fleet as CSV files, with times in Microsoft's format."""
    for name, frame in frames.items():
        frame.to_csv(tmp_path / f"PdM_{name}.csv", index=False, date_format="%Y-%m-%d %H:%M:%S")
    return tmp_path
