"""Write build/openapi.json: how the service with the bundle of build/bundle describes itself to its callers.

Where the service's code is older than this program, as after a rollback, there is no document, and the page says so.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from pipeline import github

DOCUMENT = Path("build/openapi.json")
ASK = """
import json, score.score as score
from fastapi import FastAPI
from score.app import ROUTES
from score.pages import openapi
score.init()
app = FastAPI(title=openapi.TITLE, openapi_url=None, routes=ROUTES.copy())
print(json.dumps(openapi.document(app, score.scorer, closed=True), sort_keys=True, indent=1))
"""


def main() -> None:
    """Write the document, or say why there is none."""
    DOCUMENT.unlink(missing_ok=True)
    path = os.pathsep.join([str(Path.cwd() / "src"), str(Path.cwd())])
    try:
        text = github.call(sys.executable, "-c", ASK, env={"MODEL_DIR": "build/bundle", "PYTHONPATH": path})
        json.loads(text)
    except (github.PipelineError, ValueError) as error:
        github.tell(f"The service's OpenAPI document cannot be made, so its interface is not compared: {error}.")
        return
    DOCUMENT.write_text(text, encoding="utf-8")
    print(f"{DOCUMENT}: {len(text)} bytes")


if __name__ == "__main__":
    sys.exit(github.main({"": main}))
