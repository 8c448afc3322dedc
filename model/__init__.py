"""The offline commands, one module each: ``python -m model.train``, each with ``--help``.

Importing this package sets what would otherwise change a model's bits from one machine to the next: OpenBLAS rounds
differently with the number of threads and the type of the core, and Numba compiles for the processor that it finds.
This must happen before NumPy loads, so it happens here and nowhere else. A variable that is set already is kept.
"""

import os
import platform

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_CPU_NAME", "generic")
if platform.machine() in {"x86_64", "AMD64"}:
    os.environ.setdefault("OPENBLAS_CORETYPE", "Haswell")
