"""Programs that people call on their own machine, through the targets of the Makefile."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 # macOS brings 3.9
    sys.exit("this needs Python >= 3.11; run `make run` first, which installs one beside it, or name it: PYTHON=path")
