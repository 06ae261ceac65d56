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


def test_a_k_that_does_not_fit_says_what_would() -> None:
    with pytest.raises(SearchError, match="between 1 and 2"):
        VarianceReducer(k=3).fit(torch.ones(4, 2), torch.ones(4, 1), variable_names=["a", "b"])


@pytest.mark.parametrize(
    ("k", "message"), [(0, "k must be at least 1, got 0"), (2.5, "a whole number, got 2.5")]
)
def test_an_invalid_k_is_refused_when_the_reducer_is_made(k: int, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        VarianceReducer(k=k)
