"""BentoML: one service of one worker. An ``async`` handler, since a thread for each request is slower on one core."""

from typing import Any

import bentoml
import handler

if handler.COLUMN == "A":

    @bentoml.service(workers=1, traffic={"timeout": 600})
    class Bench:
        """The tables are the handler's arguments."""

        def __init__(self) -> None:
            self.answer = handler.of_tables()

        @bentoml.api(route="/score")
        async def score(
            self,
            telemetry: dict[str, list[Any]],
            errors: dict[str, list[Any]],
            maint: dict[str, list[Any]],
            machines: dict[str, list[Any]],
        ) -> dict[str, Any]:
            """Answer in pandas."""
            return self.answer({"telemetry": telemetry, "errors": errors, "maint": maint, "machines": machines})

else:

    @bentoml.service(workers=1, traffic={"timeout": 600})
    class Bench:  # type: ignore[no-redef]
        """The body is plain text, so that BentoML does not parse what our decoder parses."""

        def __init__(self) -> None:
            self.answer = handler.of_body()

        @bentoml.api(route="/score")
        async def score(self, body: str, /) -> dict[str, Any]:
            """Answer with our own predict."""
            return self.answer(body)
