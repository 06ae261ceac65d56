"""The estimator: equations for arrays, with the methods and attributes that scikit-learn expects."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, final

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from symtorch_core.activations.frames import (
    Column,
    is_frame,
    is_table,
    name_outputs,
    name_variables,
    read_columns,
)
from symtorch_core.activations.rows import Activations
from symtorch_core.errors import SearchError
from symtorch_core.events import Callback
from symtorch_core.pipeline.distill import distill
from symtorch_core.reduction.reducer import Reducer
from symtorch_core.search.regressor import Regressor
from symtorch_core.search.selection import SelectionRule
from symtorch_core.search.space import SearchSpace
from symtorch_core.surrogates.transforms import Transform

if TYPE_CHECKING:
    import sympy as sp  # heavy: each function that needs it imports it

_NUMBERS = (np.float64, np.float32)


@final
class SymbolicRegressor(MultiOutputMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc]  # has no types
    """Regressor of scikit-learn that fits an equation to each output.

    It works in pipelines, searches over settings and cross-validation. Each parameter is that of
    :func:`symtorch_core.distill`, and is checked by ``fit``. A pickled estimator has no rows.

    Args:
        regressor: name of a backend, or an instance.
        regressor_options: options of a backend given by name, such as ``{"n_jobs": 2}``.
        reducer: name of a reducer, or an instance.
        reducer_options: options of a reducer given by name.
        transforms: derived variables that the equations are written in, instead of the inputs.
        variable_names: a name for each column of X; those of a data frame, or x0, x1, ... by default.
        select: the rule that chooses an equation from each front.
        test_fraction: share of the rows that ``fit`` holds out of the search, for fidelity and rules.
        random_state: seed, a generator of numpy's that draws one, or None for another one each time.
        resume: folder where finished fronts are saved at once, and looked up before searching.
        callbacks: functions called with every event.
        progress: draw progress bars if standard error is a terminal.
        binary_operators, unary_operators, niterations, maxsize, parsimony, complexity_of_operators,
            complexity_of_constants, complexity_of_variables, constraints, nested_constraints, loss, timeout_in_seconds,
            refine: fields of :class:`symtorch_core.SearchSpace`; None for its default.

    Attributes:
        distillation_: the result: fronts, fidelity, report, files.
        n_features_in_, feature_names_in_: number of the columns of X, and their names if X was a data frame.
        n_outputs_: number of the columns of y.

    >>> X = np.random.default_rng(0).normal(size=(100, 2))
    >>> model = SymbolicRegressor("sparse", unary_operators=["sin"]).fit(X, X[:, 0] * X[:, 1] + 2)
    >>> model.sympy()
    x0*x1 + 2
    >>> model.predict([[3.0, 5.0]])
    array([17.])
    """

    def __init__(
        self,
        regressor: str | Regressor = "pysr",
        *,
        regressor_options: Mapping[str, Any] | None = None,
        reducer: str | Reducer = "identity",
        reducer_options: Mapping[str, Any] | None = None,
        transforms: Mapping[str, Transform] | None = None,
        variable_names: Sequence[str] | None = None,
        select: SelectionRule = "knee",
        test_fraction: float = 0.2,
        random_state: int | np.random.RandomState | None = 0,
        resume: Path | str | None = None,
        callbacks: Sequence[Callback] = (),
        progress: bool = False,
        binary_operators: Sequence[str] | None = None,
        unary_operators: Sequence[str] | None = None,
        niterations: int | None = None,
        maxsize: int | None = None,
        parsimony: float | None = None,
        complexity_of_operators: Mapping[str, int] | None = None,
        complexity_of_constants: int | None = None,
        complexity_of_variables: int | Mapping[str, int] | None = None,
        constraints: Mapping[str, tuple[int, ...]] | None = None,
        nested_constraints: Mapping[str, Mapping[str, int]] | None = None,
        loss: str | Callable[..., Any] | None = None,
        timeout_in_seconds: float | None = None,
        refine: bool | None = None,
    ) -> None:
        # scikit-learn wants each parameter as it was given.
        self.regressor = regressor
        self.regressor_options = regressor_options
        self.reducer = reducer
        self.reducer_options = reducer_options
        self.transforms = transforms
        self.variable_names = variable_names
        self.select = select
        self.test_fraction = test_fraction
        self.random_state = random_state
        self.resume = resume
        self.callbacks = callbacks
        self.progress = progress
        self.binary_operators = binary_operators
        self.unary_operators = unary_operators
        self.niterations = niterations
        self.maxsize = maxsize
        self.parsimony = parsimony
        self.complexity_of_operators = complexity_of_operators
        self.complexity_of_constants = complexity_of_constants
        self.complexity_of_variables = complexity_of_variables
        self.constraints = constraints
        self.nested_constraints = nested_constraints
        self.loss = loss
        self.timeout_in_seconds = timeout_in_seconds
        self.refine = refine

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Search equations for y in the columns of X, and return the estimator.

        Args:
            X: inputs, shape (n, d): an array or data frame.
            y: outputs, shape (n,) or (n, k).
            sample_weight: a non-negative number for each row.

        Raises:
            ValueError: X and y are not finite numbers of these shapes (scikit-learn's own words), or a parameter is
                invalid (a :class:`symtorch_core.SearchError`).
            SymTorchError: as :func:`symtorch_core.distill` says.
        """
        # Before scikit-learn looks at the data: it does not name the columns that are no numbers.
        columns = read_columns(X) if is_frame(X) else ()
        output_names = name_outputs(y) if is_table(y) else ()
        X, y = validate_data(
            self, X, y, dtype=_NUMBERS, multi_output=True, y_numeric=True, ensure_min_samples=2
        )
        rows = Activations.of(
            X,
            y,
            weights=sample_weight,
            variable_names=self._name_variables(columns),
            output_names=output_names,
        )
        fields = {name: getattr(self, name) for name in SearchSpace.field_names()}
        self.distillation_ = distill(
            replace(rows, source=replace(rows.source, columns=columns)),
            regressor=self.regressor,
            regressor_options=self.regressor_options,
            reducer=self.reducer,
            reducer_options=self.reducer_options,
            variable_names=self.variable_names,
            transforms=self.transforms,
            select=self.select,
            test_fraction=self.test_fraction,
            seed=self._draw_seed(),
            resume=self.resume,
            callbacks=self.callbacks,
            progress=self.progress,
            **{name: value for name, value in fields.items() if value is not None},
        )
        self.n_outputs_ = 1 if y.ndim == 1 else y.shape[1]
        self._is_vector = y.ndim == 1
        return self

    def _name_variables(self, columns: Sequence[Column]) -> Sequence[str]:
        # scikit-learn sets these for data frames only, also for those of other libraries.
        named = getattr(self, "feature_names_in_", ())
        return name_variables(columns or [Column(name, "") for name in named])

    def _draw_seed(self) -> int:
        if isinstance(self.random_state, numbers.Integral):
            return int(self.random_state)
        drawn: int = check_random_state(self.random_state).randint(2**31 - 1)
        return drawn

    def predict(self, X: Any) -> np.ndarray:
        """Return what the chosen equations give for rows, shape (n,) or (n, k) as y had.

        A value is not finite where an equation has none, such as the logarithm of a negative number.

        Raises:
            NotFittedError: the estimator is not fitted.
            ValueError: X has other columns than in ``fit``, or values that are not finite.
            SearchError: the search was stopped before each output had an equation.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=_NUMBERS, reset=False)
        result = self.distillation_
        if len(result.outputs) < self.n_outputs_:
            raise SearchError(
                f"the search was stopped when only {', '.join(result.output_names)} had an equation: fit again, or use "
                "the result in distillation_"
            )
        outputs: np.ndarray = result.surrogate().predict(X)
        return outputs[:, 0] if self._is_vector else outputs

    @property
    def equations_(self) -> Any:
        """All equations as one pandas DataFrame, a row for each: its output, complexity, losses, score and text.

        Raises:
            NotFittedError: the estimator is not fitted.
            MissingDependencyError: pandas is not installed.
        """
        check_is_fitted(self)
        return self.distillation_.to_frame()

    def sympy(self, output: int | str = 0) -> sp.Expr:
        """Return the chosen equation of one output in sympy; with a reducer, of one reduced output.

        Args:
            output: its number or name.

        Raises:
            NotFittedError: the estimator is not fitted.
            SelectionError: there is no such output.
        """
        check_is_fitted(self)
        result = self.distillation_
        return result.chosen()[result.find_equation(output)].equation

    def latex(self, digits: int = 4) -> str:
        """Return the chosen equations as LaTeX, one ``name = equation`` per line.

        Raises:
            NotFittedError: the estimator is not fitted.
        """
        check_is_fitted(self)
        return self.distillation_.latex(digits)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        if "distillation_" in state:
            state = {**state, "distillation_": state["distillation_"].without_rows()}
        return state
