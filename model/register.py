"""Register a run's model in MLflow, and move the registry's alias `champion` to it.

The verdict decides: only a model that is first, better or accepted by a person moves the alias. The registry mirrors
the releases, which say what is served and which model is the champion.
"""

from __future__ import annotations

from model.common import cli, registry


def main(words: list[str]) -> None:
    """Register the model and print what was done."""
    flags = cli.parser(__doc__, out=cli.BUILD, writes="folder of the last decision and of mlflow.db")
    flags.add_argument("--run", default="", metavar="ID", help="id of a run, or its first letters (default: the last)")
    args = flags.parse_args(words)
    print(registry.register(args.run, args.out))


if __name__ == "__main__":
    cli.main(main)
