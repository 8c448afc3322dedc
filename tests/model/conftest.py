"""A small fleet, the model that the golden parameters train on it, and the commands with that fleet as their own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import model
from closedloop.data.schema import HOUR_US, Tables
from closedloop.data.simulate import simulate
from closedloop.heads.bundle import Bundle
from closedloop.judge.split import split
from closedloop.judge.truth import Intervals, JudgeSettings, Truth
from model.common.params import Params, load
from model.train import train
from simulated_fleet import PARAMS_FILE, PIN_FILE

MACHINES, DAYS, SEED = 24, 210, 11


@dataclass(frozen=True)
class Trained:
    """A trained model with the tables it was trained on and the truth to judge it by."""

    params: Params
    training: Tables
    truth: Truth
    settings: JudgeSettings
    bundle: Bundle


@pytest.fixture(scope="session")
def trained() -> Trained:
    """Train one model for all tests, on 24 machines of the azure profile and 210 days."""
    params = load()
    simulation = simulate("azure", MACHINES, DAYS, SEED, params.schema)
    tables = simulation.tables
    history_us = int(params.features["history_hours"] * HOUR_US)
    parts = split(tables, params.source, params.split["salt"], "fleet", params.horizon_us, history_us)
    training = tables.select(parts.training_machines)
    training = training.rows(training.time <= tables.time[parts.training].max())
    judged = tables.select(np.unique(tables.machine[parts.judged]))
    truth = Truth(
        judged.rows(judged.time > parts.cut_us - history_us),
        params.schema,
        params.source,
        Intervals.of(simulation.anomalies[simulation.anomalies["machineID"].isin(judged.machine_ids)]),
        parts.cut_us,
    )
    about = {"source": params.source, "fingerprint": tables.fingerprint()}
    made = train(training, params.schema, params, about)
    _, bundle = next(made)
    return Trained(params, training, truth, JudgeSettings.from_params(params.raw), bundle)


@pytest.fixture(scope="session")
def own_the_reference_fleet() -> Callable[[Path], None]:
    """Give a copy of the folder ``model/`` the reference fleet's parameters and pin, as if it were the copy's own."""

    def give(folder: Path) -> None:
        for file in (PARAMS_FILE, PIN_FILE):
            shutil.copyfile(file, folder / file.name)
        (folder / "simulated.yaml").unlink(missing_ok=True)  # a copy that adopted a fleet has it

    return give


@pytest.fixture(scope="session")
def commands_path(tmp_path_factory: pytest.TempPathFactory, own_the_reference_fleet: Callable[[Path], None]) -> str:
    """The PYTHONPATH with which a program finds the commands, with the reference fleet as their own."""
    folder = tmp_path_factory.mktemp("commands")
    shutil.copytree(Path(model.__file__).parent, folder / "model", ignore=shutil.ignore_patterns("__pycache__"))
    own_the_reference_fleet(folder / "model")
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
