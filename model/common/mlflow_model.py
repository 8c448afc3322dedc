"""The bundle as an MLflow model: what ``mlflow.pyfunc.load_model`` runs. MLflow copies this file beside the bundle.

The model takes a *request*, the value that ``/score`` reads: a mapping of the tables, each a mapping of columns, of
which only ``telemetry`` is required. One form serves everywhere: in the service, in its log and in MLflow's own
``/invocations`` (below ``inputs``). The signature names every column of every table, and the service's decoder checks
their content. A frame of telemetry with the other tables as parameters would be a second form with its own rules.
From frames (``machines`` has no ``datetime`` to turn into text)::

    request = {name: frame.astype({"datetime": str}).to_dict("list") for name, frame in frames.items()}

The answer is a frame with one row for each telemetry row, sorted by machine and time (UTC). Its columns are the hours
of history, the anomaly score and, for each component, the probability of failure, each with its alarm. The columns of a
head that the bundle lacks hold NaN and False. Several requests are a frame with a row for each request and a column for
each table, None where a table is absent.

Nothing is pickled: this file and ``closedloop`` are stored as code, and loading verifies the bundle. The first answer
on a new machine takes some seconds, since the kernel is compiled then.
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


class BundleModel(PythonModel):
    """A bundle that answers requests."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the bundle that was logged with this file."""
        self.bundle = load(Path(context.artifacts["bundle"]))
        self._decode = Decoder(self.bundle.schema, max_rows=sys.maxsize)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return the answers to all requests, in their order.

        Raises:
            RequestError: a request does not fit the bundle's schema; every faulty column is named.
        """
        answers: list[pd.DataFrame] = [self._answer(request) for request in model_input.to_dict("records")]
        return pd.concat(answers, ignore_index=True)

    def _answer(self, request: dict[Hashable, Any]) -> pd.DataFrame:
        given = {name: table for name, table in request.items() if isinstance(table, dict)}
        body = msgspec.json.encode(given, enc_hook=np.ndarray.tolist)  # this also writes NaN as null
        tables = self._decode(body)
        found = self.bundle.predict(tables)
        columns: dict[str, Any] = {
            "machineID": tables.named(found.machine),
            "datetime": pd.to_datetime(found.time, unit="us"),
            "history_hours": found.history_hours,
            "anomaly": found.anomaly_score,
            "anomaly_alarm": found.anomaly_alarm,
        }
        for c, component in enumerate(self.bundle.schema.components):
            columns[component] = found.probability[c]
            columns[f"{component}_alarm"] = found.alarm[c]
        return pd.DataFrame(columns)


set_model(BundleModel())
