"""The core's contract, held by gplearn."""

from __future__ import annotations

import pytest

from symtorch_core.testing import RegressorContract
from symtorch_gplearn.regressor import GplearnRegressor


class TestGplearn(RegressorContract):
    @pytest.fixture
    def regressor(self) -> GplearnRegressor:
        return GplearnRegressor(population_size=200)
