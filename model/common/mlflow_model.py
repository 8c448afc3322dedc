"""The bundle as an MLflow model: what ``mlflow.pyfunc.load_model`` runs. MLflow copies this file beside the bundle.

It is asked with a *request*, the very value that ``/score`` reads: a mapping of the tables, each a mapping of columns,
of which only ``telemetry`` is required. So there is one form everywhere: in the service, in its log and in MLflow's own
``/invocations`` (below ``inputs``); the signature names every column of every table, and the service's decoder checks
what is in them. A frame of telemetry with the other tables as parameters would be a second form with rules of its own.
From frames (those with a ``datetime``; ``machines`` has none to turn into text)::

    request = {name: frame.astype({"datetime": str}).to_dict("list") for name, frame in frames.items()}

The answer is a frame of one row for each telemetry row, by machine and time (UTC): the hours of history it rests on,
the anomaly score and, by component, the probability of failure, each with its alarm. A head that the bundle lacks is
NaN and False. Several requests are a frame with a row for each and a column for each table, None where one is absent.

Nothing is pickled: this file and ``closedloop`` travel as code, and reading the bundle verifies it. The first answer in
a new place takes some seconds, in which the kernel is compiled.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from closedloop.data.request import Decoder
from closedloop.heads.bundle import load


class Fleet(PythonModel):
    """A bundle that answers requests."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the bundle that was logged with this file."""
        self.bundle = load(Path(context.artifacts["bundle"]))
        self._decode = Decoder(self.bundle.schema, max_rows=sys.maxsize)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """The answers to each request, one after the other.

        Raises:
            RequestError: a request is not one of this bundle's schema; every faulty column is named.
        """
        answers: list[pd.DataFrame] = [self._answer(request) for request in model_input.to_dict("records")]
        return pd.concat(answers, ignore_index=True)

    def _answer(self, request: dict[Hashable, Any]) -> pd.DataFrame:
        given = {name: table for name, table in request.items() if isinstance(table, dict)}
        body = msgspec.json.encode(given, enc_hook=np.ndarray.tolist)  # which also makes NaN null
        found = self.bundle.predict(self._decode(body))
        columns: dict[str, Any] = {
            "machineID": found.machine,
            "datetime": pd.to_datetime(found.time, unit="us"),
            "history_hours": found.history_hours,
            "anomaly": found.anomaly_score,
            "anomaly_alarm": found.anomaly_alarm,
        }
        for c, component in enumerate(self.bundle.schema.components):
            columns[component] = found.probability[c]
            columns[f"{component}_alarm"] = found.alarm[c]
        return pd.DataFrame(columns)


set_model(Fleet())
