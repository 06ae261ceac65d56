"""The core's own components against the contract suites that third parties run."""

from __future__ import annotations

import pytest

from symtorch_core.surrogates.surrogate import Surrogate, TorchSurrogate
from symtorch_core.testing.surrogates import SurrogateContract


class TestTorchSurrogate(SurrogateContract):
    @pytest.fixture
    def surrogate_type(self) -> type[Surrogate]:
        return TorchSurrogate
