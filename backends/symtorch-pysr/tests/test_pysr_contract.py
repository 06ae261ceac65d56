"""The contract every regressor keeps: on a stand-in for PySR here, and on PySR itself where Julia is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from symtorch_core.testing import RegressorContract
from symtorch_pysr.regressor import PySRRegressor

STAND_INS = Path(__file__).with_name("stand_ins")
WORKER = ("env", f"PYTHONPATH={STAND_INS}", sys.executable, "-m", "symtorch_pysr.worker")


class TestPySROnAStandIn(RegressorContract):
    deterministic = True  # the stand-in draws nothing

    @pytest.fixture
    def regressor(self) -> PySRRegressor:
        return PySRRegressor(worker=WORKER)
