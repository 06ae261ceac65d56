"""The core's contract, held by Operon."""

from __future__ import annotations

import pytest

from symtorch_core.testing import RegressorContract
from symtorch_operon.regressor import OperonRegressor


class TestOperon(RegressorContract):
    @pytest.fixture
    def regressor(self) -> OperonRegressor:
        return OperonRegressor(population_size=200, islands=2)
