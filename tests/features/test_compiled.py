"""The compiled loops give the same bits as their source, interpreted by Python with bounds checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

from closedloop.data.schema import Schema, Tables
from closedloop.features import baseline, blocks, compiled, events, kernel, medians, shifts
from closedloop.features.kernel import Features, compute
from closedloop.features.spec import FeatureSpec, fit_constants

Fleet = Callable[..., Tables]
FULL = {
    "history_hours": 30,
    "rolling": {"windows_hours": [0.5, 3, 24]},
    "trend": {"half_lives_hours": [2, 6], "cusum_slack": 0.5},
    "change": {"windows_hours": [5, 24]},
    "shift": {"steps": 6, "weight": 0.5},
    "errors": {"windows_hours": [3, 24]},
}
BARE = {"history_hours": 30, "rolling": {"windows_hours": [3]}}


@pytest.fixture
def interpret(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function that takes numba out of the kernel until the test ends."""

    def take_out() -> None:
        for module in (blocks, compiled, events, medians, baseline, shifts, kernel):
            for name, value in list(vars(module).items()):
                if isinstance(value, Dispatcher):
                    monkeypatch.setattr(module, name, value.py_func)
        monkeypatch.setattr(kernel, "_compiled", lambda: kernel._loops(0))

    return take_out


def run(tables: Tables, schema: Schema, params: dict, last_only: bool) -> Features:
    constants = fit_constants(tables, schema, 2**62)
    shape = constants.location.shape
    trusts = np.resize([0.3, 0.0], shape), np.resize([0.2, 0.0, 0.2], shape)  # all four combinations
    constants = replace(constants, location_trust=trusts[0], scale_trust=trusts[1])
    with np.errstate(all="ignore"):  # 0 / 0 is how the loops say that there was no reading
        return compute(tables, FeatureSpec.from_params(params, schema), constants, schema, last_only)


@pytest.mark.parametrize(("sampling", "missing"), [("even", 0.0), ("even", 0.02), ("gaps", 0.0), ("jitter", 0.3)])
@pytest.mark.parametrize("params", [FULL, BARE])
@pytest.mark.parametrize("last_only", [False, True])
def test_interpreted_loops_give_the_same_bits(
    sampling, missing, params, last_only, interpret, schema_of, fleet: Fleet
) -> None:
    schema = schema_of(60, ("volt", "rotate"))
    tables = fleet(schema, machines=2, rows=90, sampling=sampling, missing=missing)
    expected = run(tables, schema, params, last_only)
    interpret()
    found = run(tables, schema, params, last_only)
    np.testing.assert_array_equal(found.X, expected.X)
    np.testing.assert_array_equal(found.history_hours, expected.history_hours)


def test_a_weight_halves_with_every_half_life() -> None:
    for age in range(0, 100_000, 777):
        assert compiled.decay(age, 5_000) == pytest.approx(0.5 ** (age / 5_000), rel=1e-15)


def test_the_logarithm_is_one() -> None:
    for x in np.geomspace(1.0, 1e30, 999).tolist():
        assert shifts._log(x) == pytest.approx(np.log(x), rel=1e-15, abs=1e-15)
