"""Names of sensors and components stand in the pictures as they are, in any letters."""

import re
from html import unescape

import numpy as np
import pytest

from closedloop.report import plots


@pytest.mark.parametrize("name", ["ポンプ", "압력/bar", "Temp [°C]", "100 % <b>", r"a $\frac{b$ c", "$x_1$"])
def test_a_name_is_shown_as_it_is(name):
    """Matplotlib would warn that its own font lacks a letter, and read what stands between $ as a formula."""
    picture = plots.precision_recall({name: (np.array([True, False, True]), np.array([0.9, 0.2, 0.4]))})
    assert name in unescape(picture)


def test_numbers_on_a_logarithmic_axis_are_no_formulas():
    truth, score = np.arange(2000) % 50 == 0, np.linspace(0, 1, 2000)
    for picture in (plots.calibration(truth, score), plots.scores({"score": (truth, score)})):
        assert "$" not in picture
        assert "mathdefault" not in picture
    assert {"0.0001", "0.01", "1"} <= set(re.findall(r">([^<>]+)</text>", picture))
