"""Plain FastAPI on uvicorn. An ``async`` handler, since a thread for each request is slower on one core."""

from typing import Any

import handler
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

app = FastAPI()


class Tables(BaseModel):
    """The request: columns of each table."""

    telemetry: dict[str, list[Any]]
    errors: dict[str, list[Any]]
    maint: dict[str, list[Any]]
    machines: dict[str, list[Any]]


if handler.COLUMN == "A":
    answer = handler.of_tables()

    @app.post("/score")
    async def score(tables: Tables) -> dict[str, Any]:
        """Answer in pandas."""
        return answer(tables.model_dump())

else:
    answer_body = handler.of_body()

    @app.post("/score")
    async def score_body(request: Request) -> JSONResponse:
        """Answer with our own predict."""
        return JSONResponse(answer_body(await request.body()))
