"""The other tests of this folder need Azure's SDK, whose libraries are older than ours."""

from __future__ import annotations

import pytest

from .conftest import there


def test_the_tests_beside_this_one_run_in_their_own_environment() -> None:
    if not there():
        pytest.skip("Azure's SDK is not installed here; run: make azureml-test")
