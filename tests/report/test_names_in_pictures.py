"""Names of sensors and components stand in the pictures as they are, in any letters."""

from html import unescape

import numpy as np
import pytest

from closedloop.report import plots


@pytest.mark.parametrize("name", ["ポンプ", "압력/bar", "Temp [°C]", "100 % <b>", r"a $\frac{b$ c", "$x_1$"])
def test_a_name_is_shown_as_it_is(name):
    """Matplotlib would warn that its own font lacks a letter, and read what stands between $ as a formula."""
    picture = plots.precision_recall({name: (np.array([True, False, True]), np.array([0.9, 0.2, 0.4]))})
    assert name in unescape(picture)
