"""The contract that every reducer keeps, and what is special about this one."""

from __future__ import annotations

import pytest
import torch

from symtorch_core import SearchError
from symtorch_core.testing import ReducerContract
from symtorch_example_reducer.reducer import VarianceReducer


class TestContract(ReducerContract):
    @pytest.fixture
    def reducer(self) -> VarianceReducer:
        return VarianceReducer(k=2)


def test_weights_decide_what_varies() -> None:
    X = torch.tensor([[0.0, 1.0], [100.0, 2.0], [0.0, 3.0]])
    reducer = VarianceReducer(k=1)
    plain = reducer.fit(X, X, variable_names=["a", "b"])
    weighted = reducer.fit(X, X, variable_names=["a", "b"], weights=torch.tensor([1.0, 0.0, 1.0]))
    assert (plain.variable_names, weighted.variable_names) == (("a",), ("b",))


@pytest.mark.parametrize("k", [0, 3])
def test_a_k_that_does_not_fit_says_what_would(k: int) -> None:
    with pytest.raises(SearchError, match="between 1 and 2"):
        VarianceReducer(k=k).fit(torch.ones(4, 2), torch.ones(4, 1), variable_names=["a", "b"])
