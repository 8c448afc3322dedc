"""Record a run that CI made in the MLflow that MLFLOW_TRACKING_URI names, and let its registry follow the verdict.

The training job of CI has no credentials. So its figures, verdict, report and bundle come here as files, and become the
run that the job would have recorded. A model that becomes the champion is then registered, as by
python -m model.register.
"""

from __future__ import annotations

import os

from closedloop.data.schema import DataError
from model.common import cli, decisions, registry, tracking


def main(words: list[str]) -> None:
    """Record the run of build/, and register its model unless the verdict forbids it."""
    flags = cli.parser(__doc__, out=cli.BUILD, writes="folder of decision, metrics, report and bundle")
    args = flags.parse_args(words)
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise DataError("MLFLOW_TRACKING_URI is not set; set it to the address of the MLflow server")
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
    decision = decisions.with_todays_keys(files["decision"])
    if decision["becomes_champion"]:
        print(registry.register(run, args.out))
    else:
        print(f"the alias {registry.ALIAS} stays where it is: the verdict is {decision['verdict']}")


if __name__ == "__main__":
    cli.main(main)
