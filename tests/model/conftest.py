"""A small fleet, and the model that this commit's params.yaml trains on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from closedloop.data.schema import HOUR_US, Tables
from closedloop.data.simulate import simulate
from closedloop.heads.bundle import Bundle
from closedloop.judge.split import split
from closedloop.judge.truth import Intervals, JudgeSettings, Truth
from model.common.params import Params, load
from model.train import train

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
