"""Record a run that CI made, and mirror its verdict, where MLFLOW_TRACKING_URI points.

The training job of CI has no credentials, so its figures, verdict, report and bundle come here as files, and become the
run that it would have recorded. Then the registry follows as ``python -m model.register`` does it.
"""

from __future__ import annotations

import os

from closedloop.data.schema import DataError
from model import register
from model.common import cli, tracking


def main(words: list[str]) -> None:
    """Record the run of build/, and promote it unless its verdict forbids it."""
    flags = cli.parser(__doc__, out=cli.BUILD, writes="folder of decision, metrics, report and bundle")
    args = flags.parse_args(words)
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise DataError("MLFLOW_TRACKING_URI is not set, and a mirror needs a server")
    files = {
        name: cli.read_json(path, "download the artifact `report` of the run")
        for name, path in {
            "data": args.data / "data.json",
            "metrics": args.out / "metrics.json",
            "decision": args.out / tracking.DECISION,
        }.items()
    }
    run = tracking.log(args.params, args.bundle, files["data"], files["metrics"], files["decision"], args.out)
    cli.say(f"recorded as run {run}")
    if files["decision"]["becomes_reference"]:
        register.main(["--run", run, "--out", str(args.out)])
    else:
        print(f"the alias stays: {files['decision']['verdict']}")


if __name__ == "__main__":
    cli.main(main)
