"""The contract that every reducer keeps, for each method, with and without a linear part."""

from __future__ import annotations

import dataclasses

import pytest
from torch import Tensor

from symtorch_core import Reducer, Reduction
from symtorch_core.reduction import BlockFunction
from symtorch_core.testing import ReducerContract
from symtorch_projection.reducer import ProjectionReducer


class TestReducedRank(ReducerContract):
    @pytest.fixture(params=[True, False], ids=["linear", "plain"])
    def reducer(self, request: pytest.FixtureRequest) -> ProjectionReducer:
        return ProjectionReducer(k_in=2, k_out=2, linear=request.param)


class TestReducedRankOfInputs(ReducerContract):
    @pytest.fixture(params=[True, False], ids=["linear", "plain"])
    def reducer(self, request: pytest.FixtureRequest) -> ProjectionReducer:
        return ProjectionReducer(k_in=2, linear=request.param)


class TestMetric(ReducerContract):
    @pytest.fixture
    def reducer(self) -> ProjectionReducer:
        return ProjectionReducer(k_in=2, k_out=2, metric=[1.0, 0.0, 4.0])

    def fit(
        self,
        reducer: Reducer,
        X: Tensor | None = None,
        Y: Tensor | None = None,
        *,
        weights: Tensor | None = None,
        block: BlockFunction | None = None,
    ) -> Reduction:
        """Fit without the metric, which is for three outputs, in the one test with fewer."""
        if Y is not None and Y.shape[1] != 3:
            reducer = dataclasses.replace(reducer, metric=None)  # type: ignore[type-var]
        return super().fit(reducer, X, Y, weights=weights, block=block)


class TestActive(ReducerContract):
    @pytest.fixture(params=[True, False], ids=["linear", "plain"])
    def reducer(self, request: pytest.FixtureRequest) -> ProjectionReducer:
        return ProjectionReducer(method="active", k_in=2, k_out=2, linear=request.param)

    def fit(
        self,
        reducer: Reducer,
        X: Tensor | None = None,
        Y: Tensor | None = None,
        *,
        weights: Tensor | None = None,
        block: BlockFunction | None = None,
    ) -> Reduction:
        """Fit with the block in all tests with its six inputs."""
        if X is None or X.shape[1] == 6:
            block = self.block
        return super().fit(reducer, X, Y, weights=weights, block=block)


class TestTrained(ReducerContract):
    @pytest.fixture(params=[True, False], ids=["linear", "plain"])
    def reducer(self, request: pytest.FixtureRequest) -> ProjectionReducer:
        return ProjectionReducer(method="trained", k_in=2, k_out=2, epochs=3, linear=request.param)


class TestTrainedWithAllOutputs(ReducerContract):
    @pytest.fixture
    def reducer(self) -> ProjectionReducer:
        return ProjectionReducer(method="trained", k_in=3, epochs=2, hidden=8)
