"""Write the parameter file that a recorded run used, as it was.

The first letters of a run's id are enough. The runs are in MLflow: build/mlflow.db, or where MLFLOW_TRACKING_URI
points. `make run RUN=id` calls this and runs with the file; the tables are still those of the pin, or of PROFILE= or
DATA=.
"""

from __future__ import annotations

from model.common import cli, tracking


def main(words: list[str]) -> None:
    """Write build/params-of-run.yaml."""
    flags = cli.parser(__doc__, out=cli.BUILD / "params-of-run.yaml", writes="the parameter file to write")
    flags.add_argument("--run", required=True, metavar="ID", help="id of the run, or its first letters")
    args = flags.parse_args(words)
    with tracking.store(cli.BUILD, reading=True) as mlflow:
        run = tracking.find(mlflow, args.run)
        text = mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/{tracking.PARAMS}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text, encoding="utf-8")
    cli.say(f"wrote {args.out}: the parameters of run {run.info.run_id}")


if __name__ == "__main__":
    cli.main(main)
