"""Recipes: ways from an MLP's activations to equations that take its place, each put together from public parts."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from symtorch_core import Activations, Distillation, Moments, Reduction, SymbolicModel, distill, load
from symtorch_core.events import Callback
from symtorch_core.reduction import Size
from symtorch_core.search import SelectionRule
from symtorch_core.studies import require_finished
from symtorch_llm.fitting import fit_outputs
from symtorch_llm.tuning import Tuning

_ROWS_AT_ONCE = 8192


@final
@dataclass(frozen=True)
class Recipe:
    """How an MLP becomes equations: y = b + W z + U f(z), z = D x, with or without W.

    Attributes:
        name: for tables.
        reducer, reducer_options: which maps D, U and W.
        regressor, options: which search, and its options, those of :class:`symtorch_core.SearchSpace` among them.
        select: the rule that chooses from the fronts.
        exact_between: fit the equations to what the MLP gives for inputs that are rebuilt from z, as in the paper,
            rather than to what it gave: then a perfect search ends at the exact MLP between the maps.
        together: fit constants and maps together to what the MLP gave, by gradients, once the equations are found; each
            was found with the others as they were.
        tuning: of constants and maps afterwards, against the model as it was; None for none.
    """

    name: str
    reducer: str
    reducer_options: Mapping[str, Any]
    regressor: str
    options: Mapping[str, Any]
    select: SelectionRule
    exact_between: bool = False
    together: bool = False
    tuning: Tuning | None = field(default_factory=Tuning)

    def distill(
        self,
        rows: Activations,
        mlp: nn.Module,
        *,
        seed: int = 0,
        callbacks: Sequence[Callback] = (),
        resume: Path | None = None,
    ) -> Distillation:
        """Equations of one MLP.

        Args:
            rows: that passed it.
            mlp: itself.
            seed: of the maps and the search.
            callbacks: told of progress.
            resume: a folder where finished searches are kept and looked up.

        Raises:
            SearchError: sizes do not fit the rows.
            BackendError: the search was stopped.
        """
        if self.exact_between:
            reduction = (
                load("reducers", self.reducer)
                .with_options(self.reducer_options)
                .fit(rows.inputs, rows.outputs, variable_names=rows.input_names, seed=seed)
            )
            rows = replace(rows, outputs=computed(mlp, rebuild(reduction, rows.inputs)(rows.inputs)))
        return require_finished(
            distill(
                rows,
                reducer=self.reducer,
                reducer_options=self.reducer_options,
                regressor=self.regressor,
                select=self.select,
                seed=seed,
                callbacks=callbacks,
                resume=resume,
                progress=False,
                **self.options,
            )
        )

    def blocks(
        self,
        rows: Mapping[str, Activations],
        mlps: Mapping[str, nn.Module],
        *,
        seed: int = 0,
        callbacks: Sequence[Callback] = (),
        resume: Path | None = None,
    ) -> dict[str, SymbolicModel]:
        """Wrapped MLPs that run on their equations, by path; not tuned yet."""
        found = {}
        for path, some in rows.items():
            result = self.distill(some, mlps[path], seed=seed, callbacks=callbacks, resume=resume)
            found[path] = SymbolicModel(mlps[path], path).adopt(result).switch_to_symbolic()
            if self.together:
                _fit_together(found[path], some, seed, callbacks)
        return found


def paper(k_in: Size, k_out: Size, *, regressor: str = "operon", timeout: float | None = 5.0) -> Recipe:
    """The recipe of the SymTorch paper (4.1): PCA in, a search on the exact MLP between, PCA out; nothing is tuned.

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
        {"niterations": 5000, "timeout_in_seconds": timeout},
        select="best",
        exact_between=True,
        tuning=None,
    )


def best(k_in: Size, k_out: Size, *, terms: int = 24, tuning: Tuning | None = None) -> Recipe:
    """A learned projection with a linear part beside sums of products of two variables, fitted and tuned as a whole.

    Args:
        k_in, k_out: dimensions.
        terms: most terms in an equation.
        tuning: how.
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
        {
            "degree": 2,
            "max_terms": terms,
            "binary_operators": ("+", "*"),
            "unary_operators": (),
            "maxsize": 6 * terms + 8,
            # Coefficients are the best there are, and short forms are not what is wanted.
            "refine": False,
        },
        select="accuracy",
        together=True,
        tuning=tuning or Tuning(),
    )


def _fit_together(block: SymbolicModel, rows: Activations, seed: int, callbacks: Sequence[Callback]) -> None:
    """Fit constants and maps of a block's equations; flags are as before."""
    assert block.surrogate is not None
    # On the CPU, where the rows are.
    surrogate = copy.deepcopy(block.surrogate).cpu().trainable(True, maps=True)
    parameters = [p for p in surrogate.parameters() if p.requires_grad and p.numel()]
    fit_outputs(surrogate, rows, parameters, seed=seed, callbacks=callbacks)
    block.surrogate.load_state_dict(surrogate.state_dict())


def rebuild(reduction: Reduction, X: Tensor) -> nn.Linear:
    """The best linear guess of the inputs from what a reduction keeps of them, as a map of the inputs themselves.

    Args:
        reduction: whose ``down`` is linear, or keeps all.
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


def computed(mlp: nn.Module, X: Tensor) -> Tensor:
    """What an MLP gives for rows on the CPU, computed where and how it is, shape (n, d), float32 on the CPU."""
    like = next(mlp.parameters())
    with torch.no_grad():
        return torch.cat([mlp(part.to(like)).float().cpu() for part in X.split(_ROWS_AT_ONCE)])
