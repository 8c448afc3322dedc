"""Fill Numba's cache during the image build: the service answers its own example.

init() answers the example, which compiles everything that an answer needs. A bundle that cannot answer fails the build.
"""

from __future__ import annotations

import itertools

from numba.core.annotations.type_annotations import TypeAnnotation
from numba.np.ufunc import array_exprs

from score import score

if __name__ == "__main__":
    # Numba writes memory addresses into two places of its cache, so that no two builds would be equal: a comment beside
    # the machine code, and the names of inner functions, which contain hash(expression).
    TypeAnnotation.__str__ = lambda self: ""  # type: ignore[method-assign]
    count = itertools.count()
    vars(array_exprs)["hash"] = lambda expression: next(count)
    score.init()
