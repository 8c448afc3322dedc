"""This copy's own params.yaml, and the model that it trains on a made-up fleet of its schema."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from closedloop.data.schema import HOUR_US, Float64, Tables
from closedloop.heads.bundle import Bundle, load, write
from made_up_fleet import make_up
from model.common.params import Params
from model.common.params import load as load_params
from model.train import train

ROOT = Path(__file__).resolve().parents[2]
JUDGED = (3, 6, 9, 12)


@dataclass(frozen=True)
class Own:
    """A model with the parameters and tables that trained it, and machines that it never saw."""

    params: Params
    training: Tables
    judged: Tables
    drift: Float64  # of each judged row
    bundle: Bundle
    folder: Path


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Own:
    """Train one model for all tests of this folder."""
    params = load_params(ROOT / "model/params.yaml")
    history_us = int(params.features["history_hours"] * HOUR_US)
    made = make_up(params.schema, history_us, params.horizon_us, 3 * (params.failure["minimum_failures"] + 3))
    training = made.tables.select(np.setdiff1d(np.unique(made.tables.machine), JUDGED))
    about = {"source": params.source, "fingerprint": training.fingerprint()}
    _, bundle = next(train(training, params.schema, params, about))
    folder = tmp_path_factory.mktemp("own") / "bundle"
    write(bundle, folder)
    drift = made.drift[np.isin(made.tables.machine, JUDGED)]
    return Own(params, training, made.tables.select(np.array(JUDGED)), drift, load(folder), folder)
