"""The fused torch surrogate: two ways to compute, one result."""

from __future__ import annotations

import copy
import io
import shutil
from collections import Counter

import pytest
import sympy as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from symtorch_core.errors import ExpressionError
from symtorch_core.expressions import Call, Constant, Expression, Program, constants, evaluate, parse
from symtorch_core.reduction.linear import IdentityReducer, Reduction
from symtorch_core.surrogates.surrogate import TorchSurrogate
from symtorch_core.surrogates.transforms import Transforms
from symtorch_core.testing.strategies import expressions

NAMES = ("x", "y")
EQUATIONS = (
    "2.5*x + sin(y)",
    "sin(y)*x^2 - 0.75",
    "1.5",
    "exp(-x)/(2.0 + cos(y))",
    "y",
    "clamp(x, -1.0, y) + max(x, 0.25)^3",
)


def surrogate_of(
    *equations: str | Expression, transforms: Transforms | None = None, reduction: Reduction | None = None
) -> TorchSurrogate:
    reduction = reduction or IdentityReducer.restore({"variable_names": list(NAMES)})
    trees = [parse(equation) if isinstance(equation, str) else equation for equation in equations]
    return TorchSurrogate.build(trees, transforms or Transforms.none(NAMES), reduction)


def rows(*leading: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return 4 * torch.rand(*leading, 2, generator=torch.Generator().manual_seed(1), dtype=dtype) - 2


def by_graph(surrogate: TorchSurrogate, x: Tensor) -> Tensor:
    """The values along the path that autograd follows."""
    y: Tensor = surrogate(x.clone().requires_grad_())
    return y.detach()


@pytest.fixture(scope="module")
def surrogate() -> TorchSurrogate:
    return surrogate_of(*EQUATIONS)


def test_plain_inference_and_autograd_compute_the_same(surrogate: TorchSurrogate) -> None:
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-14)):
        x = rows(500, dtype=dtype)
        torch.testing.assert_close(surrogate(x), by_graph(surrogate, x), rtol=tolerance, atol=tolerance)


@settings(max_examples=100)
@given(st.lists(expressions(numbers=st.floats(-4, 4)), min_size=1, max_size=4))
def test_both_paths_agree_with_the_interpreter(trees: list[Expression]) -> None:
    x = rows(5, dtype=torch.float64)
    surrogate = surrogate_of(*trees)
    columns = dict(zip(NAMES, x.unbind(-1), strict=True))
    expected = torch.stack([evaluate(tree, columns).expand(5) for tree in trees], dim=-1)
    for got in (surrogate(x), by_graph(surrogate, x)):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("count", [5_000, 20_001])
def test_few_and_many_rows_take_different_ways_to_the_same_numbers(count: int) -> None:
    # 300 different subexpressions: up to about 7,000 rows are batched.
    wide = surrogate_of(*(f"sin(x + {number}.5)*y" for number in range(100)))
    x = rows(count)
    torch.testing.assert_close(wide(x), by_graph(wide, x), rtol=1e-6, atol=1e-6)


def test_inputs_that_are_not_contiguous(surrogate: TorchSurrogate) -> None:
    x = rows(6, 5).transpose(0, 1)[::2]
    torch.testing.assert_close(surrogate(x), surrogate(x.contiguous()))
    assert surrogate(x).shape == (3, 6, len(EQUATIONS))


def test_it_compiles_into_one_graph_and_exports(surrogate: TorchSurrogate) -> None:
    x = rows(16)
    torch.testing.assert_close(torch.compile(surrogate, fullgraph=True, backend="aot_eager")(x), surrogate(x))
    dynamic = {"x": {0: torch.export.Dim("rows")}}
    program = torch.export.export(surrogate, (x,), dynamic_shapes=dynamic)
    longer = rows(33)
    torch.testing.assert_close(program.module()(longer), surrogate(longer))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's default compiler writes C++")
def test_the_default_compiler() -> None:
    small = surrogate_of(*EQUATIONS[:3])
    x = rows(16)
    torch.testing.assert_close(torch.compile(small, fullgraph=True)(x), small(x))


def test_autocast(surrogate: TorchSurrogate) -> None:
    x = rows(16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = surrogate(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, surrogate(x))


def test_functional_transforms(surrogate: TorchSurrogate) -> None:
    x = rows(4, dtype=torch.float64)
    jacobian = torch.vmap(torch.func.jacrev(surrogate))(x)
    assert jacobian.shape == (4, len(EQUATIONS), 2)
    torch.testing.assert_close(jacobian[:, 0, 0], torch.full((4,), 2.5, dtype=torch.float64))
    zeros = {"constants": torch.zeros_like(surrogate.constants)}
    without = torch.func.functional_call(surrogate, zeros, (x,))
    torch.testing.assert_close(without[:, 0], torch.sin(x[:, 1]))
    many = {"constants": torch.stack([surrogate.constants, torch.zeros_like(surrogate.constants)])}
    ensemble = torch.vmap(lambda numbers: torch.func.functional_call(surrogate, numbers, (x,)))(many)
    torch.testing.assert_close(ensemble, torch.stack([surrogate(x), without]))


def test_gradients_of_constants_go_through_second_order() -> None:
    trained = surrogate_of(*EQUATIONS[:4]).trainable()
    x = rows(3, dtype=torch.float64)

    def of(values: Tensor) -> Tensor:
        return torch.func.functional_call(trained, {"constants": values}, (x,))

    start = trained.constants.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(of, (start,))
    assert torch.autograd.gradgradcheck(of, (start,))


def test_equal_subexpressions_are_computed_once() -> None:
    program = Program(
        [parse(text) for text in ("sin(x*y) + x", "sin(x*y)*2", "exp(sin(x*y))", "cos(x*y)")], NAMES
    )
    operations = Counter(node.target for node in program._graph.graph.nodes if node.op == "call_function")
    assert operations[torch.sin] == 1
    assert operations[torch.cos] == 1
    assert operations[torch.mul] == 2  # x*y, and the one by 2
    assert sum(step.stop - step.start for step in program._batched._steps) == 6


def test_operations_of_a_kind_run_together() -> None:
    # What makes it fast: 32 equations of one shape need as many torch calls as one of them.
    one, many = surrogate_of("sin(2.0*x) + y"), surrogate_of(*(f"sin({n}.5*x) + y" for n in range(32)))
    assert len(many._program._batched._steps) == len(one._program._batched._steps) == 3


def sums_of_terms() -> st.SearchStrategy[Expression]:
    """Trees of +, - and neg over terms with and without numbers."""
    numbers = st.floats(-4, 4).map(Constant)
    terms = st.sampled_from(["x*y", "x*x", "x", "y", "x^3", "exp(x)", "2.0*3.0", "1.5*x*y", "y/2.0"]).map(
        parse
    )
    parts = st.one_of(
        numbers,
        terms,
        st.builds(lambda number, term: Call("*", number, term), numbers, terms),
        st.builds(lambda number, term: Call("*", term, number), numbers, terms),
    )
    return st.recursive(
        parts,
        lambda inner: st.one_of(
            st.builds(lambda a, b: Call("+", a, b), inner, inner),
            st.builds(lambda a, b: Call("-", a, b), inner, inner),
            inner.map(lambda a: Call("neg", a)),
        ),
        max_leaves=30,
    )


@settings(max_examples=100)
@given(st.lists(sums_of_terms(), min_size=1, max_size=4), st.sampled_from([torch.float32, torch.float64]))
def test_sums_agree_with_the_interpreter(trees: list[Expression], dtype: torch.dtype) -> None:
    x = rows(5, dtype=dtype)
    numbers = torch.tensor([number for tree in trees for number in constants(tree)], dtype=dtype)
    columns = dict(zip(NAMES, x.unbind(-1), strict=True))
    expected = torch.stack([evaluate(tree, columns).expand(5) for tree in trees], dim=-1)
    tolerance = 1e-3 if dtype == torch.float32 else 1e-11
    torch.testing.assert_close(Program(trees, NAMES)(x, numbers), expected, rtol=1e-4, atol=tolerance)


SUMS = (
    "0.5*(x*y) - 1.5*x + y*2.0 - (x - 3.0*x^2) + 4.0",
    "-(x + 2.0*x^2 - 0.25*x^3 + 1.5*x^5) - 2.0*3.0",
    "y^2 + y + 2.0*y^3 - y^5",
    "1.0 + 2.0 - 3.5 + 4.0 + 1.0",
    "x + y",
)


def test_long_sums_are_no_steps_of_their_own() -> None:
    kinds = {step.operator for step in surrogate_of(*SUMS[:3])._program._batched._steps}
    assert kinds == {"*", "power"}  # the product of the numbers 2 and 3, x*y


@pytest.mark.parametrize("spoiled", [float("inf"), float("-inf"), float("nan"), 1e300])
@pytest.mark.parametrize("column", [0, 1])
def test_values_that_are_not_finite_spoil_only_the_sums_they_are_in(column: int, spoiled: float) -> None:
    surrogate = surrogate_of(*SUMS)
    x = rows(6, dtype=torch.float64)
    x[2, column] = spoiled
    with torch.no_grad():
        y = surrogate(x)
    torch.testing.assert_close(y, by_graph(surrogate, x), equal_nan=True)
    assert bool(y[:, 2 - column].isfinite().all())


def test_zero_weights_of_infinite_terms() -> None:
    surrogate = surrogate_of("0.0*x + y + 2.0*y^2 + y^3", "y + y^2 + y^3 + 0.0*y^5")
    x = torch.tensor([[float("inf"), 1.0], [1.0, 1.0]])
    assert surrogate(x).nan_to_num(-1).tolist() == [[-1.0, 3.0], [4.0, 3.0]]


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_sums_keep_their_digits_whatever_precision_matrix_products_have(precision: str) -> None:
    surrogate, x = surrogate_of(*SUMS), rows(300)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = surrogate(x)
    finally:
        torch.set_float32_matmul_precision(before)
    torch.testing.assert_close(y, by_graph(surrogate, x), rtol=1e-5, atol=1e-5)


def test_sums_follow_their_numbers() -> None:
    surrogate = surrogate_of(*SUMS).trainable()
    x = rows(7, dtype=torch.float64)
    with torch.no_grad():
        before = surrogate(x)
        surrogate.constants.mul_(-1.5).add_(0.25)
        after = surrogate(x)
    torch.testing.assert_close(after, by_graph(surrogate, x))
    assert not torch.equal(before[:, 3], after[:, 3])
    assert surrogate(rows(0)).shape == (0, len(SUMS))
    again = copy.deepcopy(surrogate)
    with torch.no_grad():
        assert torch.equal(again(x), after)


def test_tracers_see_one_operation_per_node() -> None:
    surrogate, x = surrogate_of(*SUMS), rows(3)
    traced = make_fx(surrogate)(x)
    torch.testing.assert_close(traced(x), by_graph(surrogate, x))


def test_numbers_alone_and_outputs_that_repeat() -> None:
    surrogate = surrogate_of("1.5", "sin(2.0) + 3.0^2", "x", "x", "1.5")
    x = rows(3, dtype=torch.float64)
    two = torch.tensor(2.0, dtype=torch.float64)
    for y in (surrogate(x), by_graph(surrogate, x)):
        assert torch.equal(y[:, 0], torch.full((3,), 1.5, dtype=torch.float64))
        torch.testing.assert_close(y[:, 1], (torch.sin(two) + 9).expand(3))
        assert torch.equal(y[:, 2], x[:, 0])
        assert torch.equal(y[:, 3], x[:, 0])
        assert torch.equal(y[:, 4], y[:, 0])
    assert surrogate(rows(0)).shape == (0, 5)


def test_only_constants() -> None:
    surrogate = surrogate_of("1.5", "-2.0")
    assert surrogate(rows(2)).tolist() == [[1.5, -2.0], [1.5, -2.0]]
    assert by_graph(surrogate, rows(2)).tolist() == [[1.5, -2.0], [1.5, -2.0]]


def test_inputs_that_no_equation_uses() -> None:
    x = rows(4)
    x[:, 1] = float("nan")
    assert bool(surrogate_of("2*x")(x).isfinite().all())


def test_whole_numbers_are_computed_as_numbers() -> None:
    y = surrogate_of("0.5*x + y")(torch.tensor([[1, 2], [3, 4]]))
    assert y.dtype == torch.float32
    assert y.tolist() == [[2.5], [5.5]]


@pytest.mark.parametrize("columns", [1, 3])
def test_another_number_of_inputs_names_those_it_takes(columns: int) -> None:
    with pytest.raises(ExpressionError, match=f"take 2 inputs .x, y., got {columns} columns"):
        surrogate_of("2*x")(torch.zeros(5, columns))


def test_a_constant_is_recovered_by_training_and_read_back() -> None:
    trained = surrogate_of("1.0*x^2 + sin(1.5*y)").trainable()
    x = rows(200, dtype=torch.float64)
    target = 3.0 * x[:, :1] ** 2 + torch.sin(2.0 * x[:, 1:])
    optimizer = torch.optim.LBFGS([trained.constants], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (trained(x) - target).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    equation = trained.equations()[0]
    x_, y_ = sp.symbols("x y")
    difference = equation - (3 * x_**2 + sp.sin(2 * y_))
    assert abs(float(difference.subs({x_: 1.3, y_: 0.7}))) < 1e-4
    assert constants(trained.expressions()[0]) == pytest.approx((3.0, 2.0), abs=1e-4)


def test_casting_with_gradients_goes_on_training() -> None:
    trained = surrogate_of("1.25*x").trainable()
    trained(rows(5)).sum().backward()
    trained.half()
    trained(rows(5)).sum().backward()
    optimizer = torch.optim.SGD([trained.constants], lr=0.1)
    optimizer.step()
    assert trained.constants.dtype == torch.float64
    assert trained.constants.grad is not None
    assert trained.constants.grad.dtype == torch.float64


def test_whole_exponents_are_structure_and_others_are_numbers() -> None:
    surrogate = surrogate_of("x^3 + abs(y)^2.5")
    assert surrogate.constants.tolist() == [2.5]
    state = surrogate.state_dict()
    state["constants"] = torch.tensor([3.0], dtype=torch.float64)  # trained until it became whole
    surrogate.load_state_dict(state)
    x = rows(6)
    torch.testing.assert_close(surrogate(x)[:, 0], x[:, 0] ** 3 + x[:, 1].abs() ** 3)
    assert surrogate.expressions() == (parse("x^3 + abs(y)^3"),)


def test_powers_of_negative_numbers() -> None:
    x = torch.tensor([[-2.0, 1.0]])
    surrogate = surrogate_of("x^3", "x^-2", "x^2.5", "x^0")
    for y in (surrogate(x), by_graph(surrogate, x)):
        assert y[0, 0] == -8
        assert y[0, 1] == 0.25
        assert y[0, 2].isnan()
        assert y[0, 3] == 1


def test_a_state_dict_of_another_size_is_refused() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        surrogate_of("2*x + 3").load_state_dict(surrogate_of("2*x").state_dict())


def test_the_state_dict_is_one_vector(surrogate: TorchSurrogate) -> None:
    assert list(surrogate.state_dict()) == ["constants"]
    assert surrogate.state_dict()["constants"].dtype == torch.float64


def test_a_whole_module_is_saved_and_copied_with_its_transforms(tmp_path) -> None:
    transforms = Transforms(["a", "b"], {"x": "sqrt(a^2 + b^2)", "y": "0.5*b"})
    original = surrogate_of("2.5*x - y", transforms=transforms)
    inputs = rows(10)
    torch.save(original, tmp_path / "whole.pt")
    loaded = torch.load(tmp_path / "whole.pt", weights_only=False)
    for copied in (loaded, copy.deepcopy(original)):
        assert torch.equal(copied(inputs), original(inputs))
    with torch.no_grad():
        loaded.constants.zero_()
    assert not torch.equal(loaded(inputs), original(inputs))


def test_weights_only_refuses_the_whole_module(surrogate: TorchSurrogate) -> None:
    buffer = io.BytesIO()
    torch.save(surrogate, buffer)
    buffer.seek(0)
    with pytest.raises(Exception, match="weights_only|Weights only"):
        torch.load(buffer, weights_only=True)


class Affine(nn.Module):
    def __init__(self, matrix: list[list[float]]) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.tensor(matrix))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix.to(x.dtype)


def test_reducing_maps_come_before_and_after() -> None:
    reduction = Reduction(
        down=Affine([[1.0], [1.0]]),
        up=Affine([[2.0, 0.0, 1.0]]),
        project=nn.Identity(),
        linear=Affine([[0.0, 10.0, 0.0]]),
        variable_names=["s"],
        shape={},
    )
    surrogate = surrogate_of("s^2", reduction=reduction)
    y = surrogate(torch.tensor([[1.0, 2.0]]))
    assert y.tolist() == [[18.0, 30.0, 9.0]]
    y16 = surrogate(torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16))
    assert y16.dtype == torch.bfloat16
    assert y16.tolist() == [[18.0, 30.0, 9.0]]


def test_it_prints_its_equations() -> None:
    polar = Transforms(["a", "b"], {"x": "sqrt(a^2 + b^2)", "y": "0.5*b"})
    text = str(surrogate_of("2.5*x + sin(y)", transforms=polar))
    assert text.startswith("TorchSurrogate(\n  2.5*x + sin(y)")
    assert "x = sqrt(a^2 + b^2)" in text
    assert len(text.splitlines()) < 20  # not the machinery inside
