"""Run while the image is built: the service answers its own example, and Numba keeps what it compiled for that.

init() answers the example, and so compiles all that an answer needs. A bundle that cannot answer fails here.
"""

from __future__ import annotations

import itertools

from numba.core.annotations.type_annotations import TypeAnnotation
from numba.np.ufunc import array_exprs

from score import score

if __name__ == "__main__":
    # Numba writes addresses into two places of what it keeps, so that no two builds were alike: a comment beside the
    # machine code, and the names of inner functions, which it makes of hash(expression).
    TypeAnnotation.__str__ = lambda self: ""  # type: ignore[method-assign]
    count = itertools.count()
    vars(array_exprs)["hash"] = lambda expression: next(count)
    score.init()
