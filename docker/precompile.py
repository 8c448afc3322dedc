"""Fill Numba's cache while the image is built.

``init()`` answers the bundle's example, which compiles all code that an answer needs. A bundle that cannot answer fails
the build here.
"""

from __future__ import annotations

import itertools

from numba.core.annotations.type_annotations import TypeAnnotation
from numba.np.ufunc import array_exprs

from score import score

if __name__ == "__main__":
    # Numba writes memory addresses into its cache, so that no two builds would be equal. They are in a comment beside
    # the machine code, and in the names of inner functions, which contain hash(expression).
    TypeAnnotation.__str__ = lambda self: ""  # type: ignore[method-assign]
    count = itertools.count()
    vars(array_exprs)["hash"] = lambda expression: next(count)
    score.init()
