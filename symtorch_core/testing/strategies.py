"""Random expressions for property tests (needs hypothesis)."""

from __future__ import annotations

from collections.abc import Collection

from hypothesis import strategies as st

from symtorch_core.expressions import OPERATORS, Call, Constant, Expression, Variable


def expressions(
    names: Collection[str] = ("x", "y"),
    operators: Collection[str] = tuple(OPERATORS),
    numbers: st.SearchStrategy[float] | None = None,
    max_leaves: int = 12,
) -> st.SearchStrategy[Expression]:
    """Return a strategy for trees over the given variables and operators.

    Args:
        names: names of the variables.
        operators: names of operators of the table.
        numbers: strategy for constants, which must be finite; None for any float.
        max_leaves: approximate largest number of leaves.
    """
    if numbers is None:
        numbers = st.floats(allow_nan=False, allow_infinity=False)
    leaves = st.one_of(st.sampled_from(list(names)).map(Variable), numbers.map(Constant))

    def calls(children: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
        def call(operator: str) -> st.SearchStrategy[Expression]:
            return st.tuples(*[children] * OPERATORS[operator].arity).map(lambda args: Call(operator, *args))

        return st.sampled_from(list(operators)).flatmap(call)

    return st.recursive(leaves, calls, max_leaves=max_leaves)
