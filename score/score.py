"""The scoring contract, also for Azure's inference server: ``init()`` once, then ``run(raw_data)`` for each request."""

from __future__ import annotations

import json
import os
from typing import Any
from uuid import uuid4

from closedloop.data.request import RequestError
from closedloop.heads.bundle import load
from score.answer import Scorer
from score.problems import MEDIA_TYPE, Problem
from score.settings import model_dir, request_limits

try:
    from azureml_inference_server_http.api.aml_response import AMLResponse  # type: ignore[import-not-found]
except ImportError:  # exists only in that server, which answers 500 to anything raised
    AMLResponse = None

scorer: Scorer


def init() -> None:
    """Load the bundle that MODEL_DIR, or Azure's AZUREML_MODEL_DIR, names."""
    global scorer
    scorer = Scorer(load(model_dir(os.environ)), **request_limits(os.environ))


def run(raw_data: str) -> dict[str, Any]:
    """The answer to a request; a bad request gets a problem (RFC 9457), nothing is raised."""
    request_id = uuid4().hex
    try:
        return scorer.answer(raw_data, request_id)
    except RequestError as error:
        problem = Problem.of(error)
        body = problem.body(request_id)
        if AMLResponse is None:
            return body
        return AMLResponse(json.dumps(body), problem.status, {"Content-Type": MEDIA_TYPE})
