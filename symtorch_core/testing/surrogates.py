"""The test suite that every surrogate must pass."""

from __future__ import annotations

import copy
import pickle
from abc import ABC
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from symtorch_core.expressions import constants, evaluate, parse, with_constants
from symtorch_core.reduction.linear import IdentityReducer
from symtorch_core.surrogates.surrogate import Surrogate
from symtorch_core.surrogates.transforms import Transforms

EQUATIONS = ("2.5*x + sin(y)", "x*y^2 - 0.75", "1.5", "exp(-x)/(2.0 + cos(y))")
NAMES = ("x", "y")


class SurrogateContract(ABC):  # noqa: B024 - the fixture that a subclass gives is pytest's business
    """Tests of a surrogate: subclass it, define a fixture ``surrogate_type``, and run pytest.

    class TestMine(SurrogateContract):
        @pytest.fixture
        def surrogate_type(self):
            return MySurrogate
    """

    @pytest.fixture
    def surrogate(self, surrogate_type: type[Surrogate]) -> Surrogate:
        return build_surrogate(surrogate_type, EQUATIONS)

    @pytest.mark.parametrize("shape", [(7,), (3, 4), (), (0,), (1,), (2, 0), (2, 3, 4)])
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
    def test_any_leading_shape(
        self, surrogate: Surrogate, shape: tuple[int, ...], dtype: torch.dtype, tolerance: float
    ) -> None:
        x = rows(*shape, dtype=dtype)
        y = surrogate(x)
        assert y.shape == (*shape, len(EQUATIONS))
        assert y.dtype == dtype
        torch.testing.assert_close(y, compute_expected(x), rtol=tolerance, atol=tolerance)

    def test_rows_do_not_depend_on_each_other(self, surrogate: Surrogate) -> None:
        x = rows(50)
        torch.testing.assert_close(
            torch.stack([surrogate(row) for row in x]), surrogate(x), rtol=1e-6, atol=1e-6
        )

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_in_and_out(self, surrogate: Surrogate, dtype: torch.dtype) -> None:
        x = rows(20).to(dtype)
        y = surrogate(x)
        assert y.dtype == dtype
        torch.testing.assert_close(y, compute_expected(x.float()).to(dtype))

    def test_the_inputs_are_unchanged(self, surrogate: Surrogate) -> None:
        x = rows(9)
        before = x.clone()
        surrogate(x)
        assert torch.equal(x, before)

    def test_gradients_reach_the_inputs(self, surrogate: Surrogate) -> None:
        x = rows(4, dtype=torch.float64).requires_grad_()
        assert torch.autograd.gradcheck(surrogate, (x,))
        assert torch.autograd.gradgradcheck(surrogate, (x,))

    def test_constants_are_frozen_until_asked(self, surrogate: Surrogate) -> None:
        assert not any(parameter.requires_grad for parameter in surrogate.parameters())
        assert surrogate.trainable() is surrogate
        surrogate(rows(5)).sum().backward()
        assert any(parameter.grad is not None for parameter in surrogate.parameters())
        surrogate.trainable(False)
        assert not any(parameter.requires_grad for parameter in surrogate.parameters())

    def test_maps_are_frozen_until_asked(self, surrogate_type: type[Surrogate]) -> None:
        X = rows(50)
        reduction = IdentityReducer(linear=True).fit(X, X[:, :1], variable_names=NAMES)
        surrogate = surrogate_type.build([parse("2.5*x + sin(y)")], Transforms.none(NAMES), reduction)

        def count_trainable() -> int:
            return sum(parameter.numel() for parameter in surrogate.parameters() if parameter.requires_grad)

        surrogate.trainable()
        constants_only = count_trainable()
        surrogate.trainable(maps=True)
        assert count_trainable() > constants_only
        surrogate(rows(5)).square().sum().backward()
        assert all(p.grad is not None for p in surrogate.parameters() if p.requires_grad)
        surrogate.trainable(False)
        assert count_trainable() == 0

    def test_training_changes_the_equations(self, surrogate_type: type[Surrogate]) -> None:
        surrogate = build_surrogate(surrogate_type, ("0.5*x + 0.5*y",)).trainable()
        x = rows(100)
        target = 2.0 * x[:, :1] - 3.0 * x[:, 1:]
        optimizer = torch.optim.SGD([p for p in surrogate.parameters() if p.requires_grad], lr=0.2)
        for _ in range(200):
            optimizer.zero_grad()
            (surrogate(x) - target).square().mean().backward()
            optimizer.step()
        assert constants(surrogate.expressions()[0]) == pytest.approx((2.0, -3.0), abs=1e-3)
        assert constants(surrogate.structure()[0]) == (0.5, 0.5)

    def test_equations_hold_all_digits_whatever_the_module_is_cast_to(
        self, surrogate_type: type[Surrogate]
    ) -> None:
        number = 1.2345678901234567
        surrogate = build_surrogate(surrogate_type, (f"{number}*x",))
        for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            surrogate = surrogate.to(dtype)
            assert surrogate.expressions() == (parse(f"{number}*x"),)
        x = rows(3, dtype=torch.float64)
        torch.testing.assert_close(surrogate(x)[:, 0], number * x[:, 0], rtol=1e-15, atol=0.0)

    def test_the_state_dict_holds_the_constants(
        self, surrogate_type: type[Surrogate], tmp_path: object
    ) -> None:
        surrogate = build_surrogate(surrogate_type, EQUATIONS)
        others = [
            with_constants(tree, [2.0 * value + 1.0 for value in constants(tree)])
            for tree in surrogate.structure()
        ]
        changed = build_surrogate(surrogate_type, tuple(map(str, others)))
        path = f"{tmp_path}/state.pt"
        torch.save(changed.state_dict(), path)
        surrogate.load_state_dict(torch.load(path, weights_only=True))
        assert surrogate.expressions() == changed.expressions()
        x = rows(10)
        assert torch.equal(surrogate(x), changed(x))

    def test_copies_compute_the_same(self, surrogate: Surrogate) -> None:
        x = rows(10)
        for copied in (copy.deepcopy(surrogate), pickle.loads(pickle.dumps(surrogate))):
            assert torch.equal(copied(x), surrogate(x))
            assert copied.equations() == surrogate.equations()

    def test_vmap_and_inference_mode(self, surrogate: Surrogate) -> None:
        x = rows(6)
        y = surrogate(x)
        torch.testing.assert_close(torch.vmap(surrogate)(x), y, rtol=1e-6, atol=1e-6)
        with torch.inference_mode():
            assert torch.equal(surrogate(x), y)

    def test_another_number_of_columns_is_an_error(self, surrogate: Surrogate) -> None:
        for columns in (1, 3):
            with pytest.raises((ValueError, RuntimeError)):
                surrogate(torch.zeros(4, columns))


def build_surrogate(surrogate_type: type[Surrogate], equations: Sequence[str]) -> Surrogate:
    """Build a surrogate for equations in x and y."""
    reduction = IdentityReducer.restore({"variable_names": list(NAMES)})
    return surrogate_type.build([parse(text) for text in equations], Transforms.none(NAMES), reduction)


def rows(*leading: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return seeded inputs (*leading, 2) in [-2, 2]."""
    return 4 * torch.rand(*leading, 2, generator=torch.Generator().manual_seed(0), dtype=dtype) - 2


def compute_expected(x: Tensor) -> Tensor:
    """Return the values of EQUATIONS, by the interpreter."""
    columns = dict(zip(NAMES, x.unbind(-1), strict=True))
    values = [evaluate(parse(text), columns) for text in EQUATIONS]
    return torch.stack([value.expand(x.shape[:-1]) for value in values], dim=-1)
