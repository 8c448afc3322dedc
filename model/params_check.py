"""Check the parameter file, before any work: every slip with its line, its cause and its fix.

It takes less than a second, since no table is read and no library that trains is imported. Ranges, duplicates, unknown
keys, features and parameters of the estimators are found. `make run`, `make batch` and `make sweep` begin with it.
"""

from __future__ import annotations

from model.common import cli, params


def main(words: list[str]) -> None:
    """Exit 2 with a line for each slip, or print nothing."""
    params.load(cli.parser(__doc__).parse_args(words).params)


if __name__ == "__main__":
    cli.main(main)
