"""Recipes: ways from an MLP's activations to equations in its place, each composed of public parts."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from symtorch_core import Distillation, Reduction, SearchSpace, SymbolicModel, distill, load
from symtorch_core.events import Callback
from symtorch_core.reduction import Moments, Size
from symtorch_core.search import SelectionRule
from symtorch_core.studies import require_finished
from symtorch_llm.fitting.baselines import choose_ridge
from symtorch_llm.fitting.outputs import fit_outputs
from symtorch_llm.fitting.rows import Rows
from symtorch_llm.fitting.tuning import Tuning

_ROWS_AT_ONCE = 8192


@final
@dataclass(frozen=True)
class Recipe:
    """How an MLP becomes equations: y = b + W z + U f(z), z = D x, with or without W.

    Attributes:
        name: for tables.
        reducer, reducer_options: the maps D, U and W.
        regressor, regressor_options: the backend.
        search: the search space.
        select: the rule that chooses from the fronts.
        exact_between: fit the equations to the MLP's outputs for inputs that are rebuilt from z, as in the paper, and
            not to its original outputs. A perfect search then ends at the exact MLP between the maps.
        regularise: choose the ridge of the reducer's linear part by rows of other text.
        together: once the equations are found, fit constants and maps together to the MLP's outputs, by gradients.
        tuning: of constants and maps afterwards, against the original model; None for none.
    """

    name: str
    reducer: str
    reducer_options: Mapping[str, Any]
    regressor: str
    regressor_options: Mapping[str, Any]
    search: SearchSpace
    select: SelectionRule
    exact_between: bool = False
    regularise: bool = False
    together: bool = False
    tuning: Tuning | None = field(default_factory=Tuning)

    def distill(
        self,
        rows: Rows,
        mlp: nn.Module,
        *,
        seed: int = 0,
        callbacks: Sequence[Callback] = (),
        resume: Path | None = None,
    ) -> Distillation:
        """Distill one MLP into equations.

        Args:
            rows: inputs and outputs of the MLP.
            mlp: the MLP.
            seed: of the maps and the search.
            callbacks: told of progress.
            resume: a folder where finished searches are kept.

        Raises:
            SearchError: the dimensions do not fit the rows.
            BackendError: the search was stopped.
        """
        some, options = rows.fit, dict(self.reducer_options)
        if self.regularise:
            k_in = options["k_in"]
            options["ridge"] = choose_ridge(rows, k_in if isinstance(k_in, int) else None)
        if self.exact_between:
            reduction = (
                load("reducers", self.reducer)
                .with_options(options)
                .fit(some.inputs, some.outputs, variable_names=some.input_names, seed=seed)
            )
            some = replace(
                some, outputs=evaluate_mlp(mlp, fit_rebuilding_map(reduction, some.inputs)(some.inputs))
            )
        return require_finished(
            distill(
                some,
                reducer=self.reducer,
                reducer_options=options,
                regressor=self.regressor,
                select=self.select,
                seed=seed,
                callbacks=callbacks,
                resume=resume,
                progress=False,
                regressor_options=self.regressor_options,
                search=self.search,
            )
        )

    def build_blocks(
        self,
        rows: Mapping[str, Rows],
        mlps: Mapping[str, nn.Module],
        *,
        seed: int = 0,
        callbacks: Sequence[Callback] = (),
        resume: Path | None = None,
    ) -> dict[str, SymbolicModel]:
        """Return wrapped MLPs that run on their equations, by path; they are not tuned yet."""
        found = {}
        for path, some in rows.items():
            result = self.distill(some, mlps[path], seed=seed, callbacks=callbacks, resume=resume)
            found[path] = SymbolicModel(mlps[path], path).adopt(result).switch_to_symbolic()
            if self.together:
                _fit_together(found[path], some, seed, callbacks)
        return found


def build_paper_recipe(
    k_in: Size, k_out: Size, *, regressor: str = "operon", timeout: float | None = 5.0
) -> Recipe:
    """Build the recipe of the SymTorch paper (4.1): PCA in, a search on the exact MLP between, PCA out; no tuning.

    Args:
        k_in, k_out: dimensions.
        regressor: the paper's is ``"pysr"``.
        timeout: seconds for each output.
    """
    return Recipe(
        "paper",
        "pca",
        {"k_in": k_in, "k_out": k_out},
        regressor,
        {},
        SearchSpace(niterations=5000, timeout_in_seconds=timeout),
        select="best",
        exact_between=True,
        tuning=None,
    )


def build_best_recipe(k_in: Size, k_out: Size, *, terms: int = 24, tuning: Tuning | None = None) -> Recipe:
    """Build our best recipe: a learned projection, a linear part, and sums of products of two variables; all are tuned.

    Args:
        k_in, k_out: dimensions.
        terms: largest number of terms in an equation.
        tuning: settings.
    """
    return Recipe(
        "best",
        "projection",
        {
            "method": "trained" if isinstance(k_in, int) else "rrr",
            "k_in": k_in,
            "k_out": k_out,
            "linear": True,
        },
        "sparse",
        {"degree": 2, "max_terms": terms},
        SearchSpace(
            binary_operators=("+", "*"),
            unary_operators=(),
            maxsize=6 * terms + 8,
            # The coefficients are optimal already, and short forms are not needed.
            refine=False,
        ),
        select="accuracy",
        regularise=True,
        together=True,
        tuning=tuning or Tuning(),
    )


def _fit_together(block: SymbolicModel, rows: Rows, seed: int, callbacks: Sequence[Callback]) -> None:
    """Fit constants and maps of a block's equations; flags stay as they are."""
    assert block.surrogate is not None
    # On the CPU, where the rows are.
    surrogate = copy.deepcopy(block.surrogate).cpu().trainable(True, maps=True)
    parameters = [p for p in surrogate.parameters() if p.requires_grad and p.numel()]
    fit_outputs(surrogate, rows, parameters, seed=seed, callbacks=callbacks)
    block.surrogate.load_state_dict(surrogate.state_dict())


def fit_rebuilding_map(reduction: Reduction, X: Tensor) -> nn.Linear:
    """Fit the best linear estimate of the inputs from what a reduction keeps of them, as a map of the inputs.

    Args:
        reduction: with a linear ``down``, or one that keeps all inputs.
        X: rows to learn from, shape (n, d).
    """
    d = X.shape[1]
    result = nn.utils.skip_init(nn.Linear, d, d)
    with torch.no_grad():
        moments = Moments.of(reduction.reduce_inputs(X), X)
        widen = moments.linear_map(1e-9).to(X)
        down = reduction.down.weight if isinstance(reduction.down, nn.Linear) else torch.eye(d).to(X)
        projector = widen @ down
        mean = moments.y.to(X)
        result.weight.copy_(projector)
        result.bias.copy_(mean - projector @ mean)
    return result.requires_grad_(False)


def evaluate_mlp(mlp: nn.Module, X: Tensor) -> Tensor:
    """Evaluate an MLP on rows (n, d), on its own device and in its own dtype; return float32 on the CPU."""
    like = next(mlp.parameters())
    with torch.no_grad():
        return torch.cat([mlp(part.to(like)).float().cpu() for part in X.split(_ROWS_AT_ONCE)])
