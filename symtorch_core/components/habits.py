"""Habits of others: attributes that users of other libraries reach for, and what to use here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final


def _each(names: str, use: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), use)


OF_RESULT: Final[Mapping[str, str]] = MappingProxyType(
    _each(
        "best best_ get_best best_equation best_program",
        "chosen() has the chosen equations, choose(rule) chooses others, equations() has them as sympy",
    )
    | _each(
        "equations_ equation_ df dataframe to_pandas to_csv",
        "to_frame() is a table of all equations, equations() has the chosen ones",
    )
    | _each(
        "equation sympy to_sympy expression expressions expr formula get_equation get_equations",
        "equations() has the chosen equations as sympy",
    )
    | _each(
        "pareto pareto_front pareto_front_ hof hall_of_fame get_hof candidates",
        "front(0) is the Pareto front of the first equation, fronts has all",
    )
    | _each(
        "r2 r2_ r2_score score scores metrics mse loss error",
        "fidelity[0].held_out.r2 is R2 on held-out rows; print(result) shows all",
    )
    | _each("fit distill", "a result is fitted; call st.distill(...) for another one")
    | _each("summary show describe", "print(result) shows it, report(path) writes a page")
    | _each("to_latex latex_table", "latex() is LaTeX")
    | _each("to_torch pytorch to_pytorch to_module module torch_format", "surrogate() is a torch module")
    | _each("to_json to_dict dump", "save(path) writes JSON, export(path) writes code")
    | _each("switch_to_symbolic switch_to_block", "the wrapped block has it: block.adopt(result)")
    | _each("variable_names feature_names feature_names_in_", "transforms.variable_names has them")
)
OF_FRONT: Final[Mapping[str, str]] = MappingProxyType(
    _each("best get_best best_equation chosen", 'select("score") and select(complexity=7) choose one')
    | _each("equations equations_ df dataframe to_pandas", "to_frame() is a table; iterate over the front")
    | _each("sympy equation latex expression text", "choose one first: select().equation, select().latex()")
    | _each("losses scores", "iterate over the front: [candidate.loss for candidate in front]")
)
OF_MODEL: Final[Mapping[str, str]] = MappingProxyType(
    _each("fit train_symbolic interpret distil symbolic_regression", "use distill(data, parent=model)")
    | _each(
        "get_equation get_equations equation equations_ sympy expression formula symbolic_expression",
        "equations() has the equations in use as sympy",
    )
    | _each("show_symbolic_expression result results best get_best", "print(block.distillation) shows all")
    | _each("pareto_front pareto equation_front fronts", "front(0) is the Pareto front of the first equation")
    | _each("predict transform", "call the module itself")
    | _each(
        "switch_to_neural switch_to_mlp switch_to_network to_neural switch_to_model unwrap",
        "use switch_to_block()",
    )
    | _each(
        "switch_to_equation switch_to_equations switch to_symbolic toggle set_mode",
        "use switch_to_symbolic()",
    )
    | _each("is_symbolic using_equation using_equations symbolic", 'mode is "block" or "symbolic"')
    | _each("pysr_regressor regressor", "distillation.provenance says how the equations were found")
    | _each(
        "setup_pruning prune pruning_schedule pruning_mask", "use st.OutputPruner(block, target_dim, steps)"
    )
    | _each("latex report plot save_equations fidelity", "the result has it: block.distillation")
    | _each("parent model parent_model", "a wrapper does not know its model: give parent=model")
    | _each("module inner wrapped original mlp InterpretSR_MLP", "block is the block inside")
)
OF_PACKAGE: Final[Mapping[str, str]] = MappingProxyType(
    _each("SymbolicMLP MLP_SR SymTorch", "use st.wrap(model, path), or st.SymbolicModel(block)")
    | _each("PySRRegressor PySR", 'use st.distill((X, Y), regressor="pysr")')
    | _each("GPRegressor GeneticProgramming", 'use st.distill((X, Y), regressor="torchgp")')
    | _each("PruningMLP Pruning_MLP PrunedMLP Pruner", "use st.OutputPruner(block, target_dim, total_steps)")
    | _each("SLIME Slime slime", 'import symtorch_slime, or st.distill(..., capture="slime")')
    | _each("fit interpret symbolic_regression", "use st.distill(block, data)")
    | _each("load_result load_distillation from_file", "use st.Distillation.load(path)")
    | _each("save", "use result.save(path), or torch.save(model.state_dict(), path)")
    | _each("regressors backends list_regressors", 'use st.available("regressors")')
)


def explain_attribute(what: str, name: str, habits: Mapping[str, str]) -> str:
    """Return the message about an attribute that something does not have."""
    hint = habits.get(name)
    return f"{what} has no attribute {name!r}{f': {hint}' if hint else ''}"


class Guide(ABC):
    """Object whose missing attributes are explained, if other libraries have them."""

    @classmethod
    @abstractmethod
    def _list_habits(cls) -> Mapping[str, str]:
        """Return what to use here in place of others' attributes."""

    if not TYPE_CHECKING:  # for a type checker, it would have every attribute

        def __getattr__(self, name: str) -> Any:
            text = explain_attribute(type(self).__name__, name, self._list_habits())
            raise AttributeError(text, name=name, obj=self)
