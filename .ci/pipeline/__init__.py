"""Programs that workflows call, one for each make target in .ci/steps.mk that needs more than a line of make."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 # macOS brings 3.9
    sys.exit("this needs Python >= 3.11; run `make run` first, which installs one beside it, or name it: PYTHON=path")
