from __future__ import annotations

import pytest

from symtorch_core.testing import RegressorContract
from symtorch_sparse.regressor import SparseRegressor


class TestSparse(RegressorContract):
    deterministic = True

    @pytest.fixture
    def regressor(self) -> SparseRegressor:
        return SparseRegressor()
