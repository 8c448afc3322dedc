"""The offline verbs: ``python -m model.<verb>``, each with ``--help``.

Importing this package pins what would otherwise change a model's bits from one machine to the next: OpenBLAS rounds
differently by thread count and core type, and Numba compiles for the processor it finds. It must happen before NumPy
loads, so it happens here and nowhere else; a value that is already set is respected.
"""

import os
import platform

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_CPU_NAME", "generic")
if platform.machine() in {"x86_64", "AMD64"}:
    os.environ.setdefault("OPENBLAS_CORETYPE", "Haswell")
