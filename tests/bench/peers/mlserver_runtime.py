"""MLServer: a custom runtime with a custom handler, as its documentation shows for payloads that are no tensors."""

from typing import Any

import handler
from mlserver import MLModel
from mlserver.handlers import custom_handler
from starlette.requests import Request
from starlette.responses import JSONResponse


class Bench(MLModel):
    """Both columns."""

    async def load(self) -> bool:
        """Load the model once."""
        self.answer: Any = handler.of_tables() if handler.COLUMN == "A" else handler.of_body()
        return True

    @custom_handler(rest_path="/score")
    async def score(self, request: Request) -> JSONResponse:
        """Answer the body or the tables in it."""
        return JSONResponse(self.answer(await (request.json() if handler.COLUMN == "A" else request.body())))
