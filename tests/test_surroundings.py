"""What runs is what was fitted: blocks that do more than return a value, and models that go round the wrapper."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import symtorch_core as st
from symtorch_core.testing.scripted import ScriptedRegressor
from symtorch_core.verification.whole_model import run_model


def scripted(*equations: str) -> ScriptedRegressor:
    return ScriptedRegressor(equations=equations)


def data(n: int = 200) -> Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(0))


class Doubling(nn.Module):
    """2 x0 + 3 x1 for each row; a law that is met exactly."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x[..., :1] + 3 * x[..., 1:2]


class Around(nn.Module):
    """A model with a block that it may call in several ways."""

    def __init__(self, block: nn.Module | None = None) -> None:
        super().__init__()
        self.enc = Doubling() if block is None else block

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.enc(x)
        return y


def distilled(
    model: nn.Module, law: str = "2*x0 + 3*x1", path: str = "enc", **options: Any
) -> st.SymbolicModel:
    block = st.wrap(model, path)
    block.distill(data(), parent=model, regressor=scripted(law), progress=False, **options)
    return block


class TestCallsThatGoRound:
    def test_a_wrapper_that_is_not_in_the_model_is_not_switched(self) -> None:
        model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1))
        block = st.SymbolicModel(model[2])
        result = block.distill(data(), parent=model, regressor=scripted("x0"), progress=False)
        with pytest.raises(st.SwitchError, match="never calls this wrapper"):
            block.switch_to_symbolic()
        assert block.mode == "block"
        placed = st.wrap(model, "2").adopt(result).switch_to_symbolic()  # as the message says
        assert torch.equal(model(data())[:, 0], placed.get_symbolic_function()(model[1](model[0](data()))))

    @pytest.mark.parametrize("how", ["call", "forward"])
    def test_some_calls_that_stay_neural_are_counted(self, how: str) -> None:
        class Encoder(Doubling):
            def encode(self, x: Tensor) -> Tensor:
                y: Tensor = self(x) if how == "call" else self.forward(x)
                return y

        class Both(Around):
            def forward(self, x: Tensor) -> Tensor:
                y: Tensor = self.enc(x) + self.enc.encode(x)
                return y

        block = distilled(Both(Encoder()))
        with pytest.warns(
            RuntimeWarning, match="1 of 2 calls by its model go round this wrapper and stay neural"
        ):
            block.switch_to_symbolic()

    def test_a_model_that_only_calls_a_method_is_not_switched(self) -> None:
        class Encoder(Doubling):
            def encode(self, x: Tensor) -> Tensor:
                y: Tensor = self(x)
                return y

        class Only(Around):
            def forward(self, x: Tensor) -> Tensor:
                y: Tensor = self.enc.encode(x)
                return y

        block = distilled(Only(Encoder()))
        with pytest.raises(st.SwitchError, match="1 calls of the block go round it"):
            block.switch_to_symbolic()

    def test_a_block_whose_forward_is_called_is_never_captured(self) -> None:
        class Forward(Around):
            def forward(self, x: Tensor) -> Tensor:
                y: Tensor = self.enc.forward(x)
                return y

        with pytest.raises(st.CaptureError, match="calls the block's forward"):
            st.distill((model := Forward()).enc, data(), parent=model, progress=False)

    def test_the_block_is_left_as_it_was(self) -> None:
        model = Around()
        block = distilled(model)
        assert "forward" not in vars(block.block)
        assert not block.block._forward_hooks
        assert not block._forward_hooks

    def test_a_forward_of_the_blocks_own_is_put_back(self) -> None:
        model = Around()
        model.enc.forward = own = functools.partial(Doubling.forward, model.enc)  # type: ignore[method-assign]
        block = distilled(model)
        assert block.block.forward is own
        assert torch.allclose(block.switch_to_symbolic()(data()), Doubling()(data()))

    def test_weights_that_the_model_computes_with_refuse_the_switch(self) -> None:
        class Weights(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.enc = nn.Linear(2, 1)

            def forward(self, x: Tensor) -> Tensor:
                return self.enc(x) + functional.linear(x, self.enc.weight)

        block = distilled(Weights())
        with pytest.raises(st.SwitchError, match="linear asks for a weight"):
            block.switch_to_symbolic()


class TestBlocksThatDoMore:
    def test_an_output_written_over_the_input_is_written_there_by_equations_too(self) -> None:
        class Rectified(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.act = nn.ReLU(inplace=True)

            def forward(self, x: Tensor) -> Tensor:
                h = x * 1
                y: Tensor = self.act(h)
                return h + 2 * y  # h is rectified too

        model = Rectified()
        before = model(data())
        block = st.wrap(model, "act")
        result = block.distill(
            data(), parent=model, regressor=scripted("max(x0, 0)", "max(x1, 0)"), progress=False
        )
        assert result.provenance.source.overwrites == "0"
        block.switch_to_symbolic()
        assert torch.allclose(model(data()), before)
        x = data()
        assert block(x) is x
        x = data()
        assert block(input=x) is x
        assert torch.equal(x, data().clamp_min(0))

    def test_another_change_that_the_model_needs_refuses_the_switch(self) -> None:
        class Centering(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                x -= 1
                return 2 * x[:, :1]

        class Reading(Around):
            def forward(self, x: Tensor) -> Tensor:
                h = x * 1
                y: Tensor = self.enc(h)
                return y + h[:, 1:]

        block = distilled(Reading(Centering()), "2*(x0 - 1)")
        with pytest.raises(st.SwitchError, match="It changes its argument 0 in place"):
            block.switch_to_symbolic()

    @pytest.mark.parametrize("share", [0.001, 0.005, 0.02, 0.5])
    def test_what_is_lost_is_measured_by_the_spread_of_the_models_output(self, share: float) -> None:
        spread = float((2 * data()[:, 0] + data()[:, 1]).std(correction=0))

        class Shifting(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                x += share * spread
                return 2 * x[:, :1]

        class Reading(Around):
            def forward(self, x: Tensor) -> Tensor:
                h = 1 * x
                y: Tensor = self.enc(h)
                return y + h[:, 1:]

        block = distilled(Reading(Shifting()), f"2*(x0 + {share * spread!r})")
        if share < 0.01:  # within the rounding of what a model does
            assert block.switch_to_symbolic().mode == "symbolic"
        else:
            with pytest.raises(
                st.SwitchError, match=rf"\(by {share:.2g} of its spread\): enc does something"
            ):
                block.switch_to_symbolic()

    def test_a_change_that_nobody_reads_does_not_matter(self) -> None:
        class Centering(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                x -= 1
                return 2 * x[:, :1]

        class NotReading(Around):
            def forward(self, x: Tensor) -> Tensor:
                y: Tensor = self.enc(x * 1)
                return y

        model = NotReading(Centering())
        distilled(model, "2*(x0 - 1)").switch_to_symbolic()
        assert torch.allclose(model(data()), 2 * (data()[:, :1] - 1))
        # Without the model, nobody knows.
        alone = st.SymbolicModel(Centering())
        alone.distill(data(), regressor=scripted("2*(x0 - 1)"), progress=False)
        with pytest.raises(st.SwitchError, match="changes its argument 0 in place"):
            alone.switch_to_symbolic()

    def test_an_attribute_that_the_model_reads_is_not_stale(self) -> None:
        class Keeping(Doubling):
            def forward(self, x: Tensor) -> Tensor:
                self.last = super().forward(x)
                return self.last

        class Reading(Around):
            def forward(self, x: Tensor) -> Tensor:
                y: Tensor = self.enc(x) + self.enc.last
                return y

        block = distilled(Reading(Keeping()))
        with pytest.raises(st.SwitchError, match="last is set by enc when it runs"):
            block.switch_to_symbolic()

    def test_an_attribute_that_nobody_reads_does_not_matter(self) -> None:
        class Counting(Doubling):
            calls = 0

            def forward(self, x: Tensor) -> Tensor:
                self.calls += 1
                return super().forward(x)

        model = Around(Counting())
        block = distilled(model)
        assert block.distillation.provenance.source.set_attributes == ("calls",)
        block.switch_to_symbolic()
        assert torch.allclose(model(data()), Doubling()(data()))
        with pytest.raises(st.SwitchError, match="calls is set by enc"):
            block.calls  # noqa: B018
        block.switch_to_block()
        assert block.calls > 0

    def test_a_model_that_draws_random_numbers_is_not_judged(self) -> None:
        class Noisy(Around):
            def forward(self, x: Tensor) -> Tensor:
                y: Tensor = self.enc(x)
                return y + torch.randn(len(x), 1)

        class Drawing(Doubling):
            def forward(self, x: Tensor) -> Tensor:
                torch.rand(1)  # so that the model's own numbers are others on equations
                return super().forward(x)

        distilled(Noisy(Drawing())).switch_to_symbolic()


class TestOutputOfTheModel:
    def test_the_change_of_the_models_output_is_reported(self) -> None:
        model = Around()
        exact = distilled(model).distillation
        assert exact.model_fidelity is not None
        assert exact.model_fidelity.r2 == pytest.approx(1, abs=1e-9)
        wrong = distilled(Around(), "2*x0").distillation
        # The output lacks 3 x1, of variance 9 in 13.
        assert wrong.model_fidelity is not None
        assert wrong.model_fidelity.r2 == pytest.approx(4 / 13, abs=0.1)
        assert f"{wrong.model_fidelity.max_error:.3g}" in str(wrong)

    def test_a_block_distilled_without_a_wrapper_has_it_too(self) -> None:
        model = Around()
        result = st.distill(model.enc, data(), parent=model, regressor=scripted("2*x0"), progress=False)
        assert result.model_fidelity is not None
        assert result.model_fidelity.r2 < 0.6

    def test_without_a_model_there_is_none(self) -> None:
        result = st.distill(Doubling(), data(), regressor=scripted("x0"), progress=False)
        assert result.model_fidelity is None

    @pytest.mark.parametrize("form", ["generator", "loader", "list", "dict"])
    def test_whatever_form_the_data_have_every_batch_is_captured_once(self, form: str) -> None:
        X, model, taken = data(), Around(), []

        def batches() -> Iterator[Tensor]:
            for batch in X.split(50):
                taken.append(len(batch))
                yield batch

        forms: dict[str, Any] = {
            "generator": batches(),
            "loader": DataLoader(TensorDataset(X), batch_size=50),
            "list": list(X.split(50)),
            "dict": {"x": X},
        }
        block = st.wrap(model, "enc")
        result = block.distill(forms[form], parent=model, regressor=scripted("x0"), progress=False)
        assert result.provenance.source.rows_seen == 200
        assert result.model_fidelity is not None
        assert taken == ([50] * 4 if form == "generator" else [])

    def test_a_model_that_fails_on_equations_loses_nothing(self) -> None:
        class Picky(Around):
            def forward(self, x: Tensor) -> Tensor:
                y: Tensor = self.enc(x)
                if not torch.allclose(y, Doubling()(x), atol=0.1):
                    raise ValueError("not exact")
                return y

        model = Picky()
        block = st.wrap(model, "enc")
        with pytest.warns(RuntimeWarning, match="the whole model could not be measured \\(not exact\\)"):
            result = block.distill(data(), parent=model, regressor=scripted("x0"), progress=False)
        assert result.model_fidelity is None
        assert len(result.fronts) == 1

    def test_results_have_the_name_of_the_wrapper(self) -> None:
        assert distilled(Around()).distillation.provenance.source.block == "enc"

    def test_it_is_saved_and_shown(self, tmp_path: Any) -> None:
        result = distilled(Around(), "2*x0").distillation
        result.save(tmp_path / "found.json")
        assert st.Distillation.load(tmp_path / "found.json").model_fidelity == result.model_fidelity
        assert "The whole model" in result.report(tmp_path / "page.html").read_text()

    def test_the_largest_floating_point_tensor_is_the_output(self) -> None:
        logits = torch.arange(6.0).view(2, 3)
        outputs = {"loss": torch.tensor(0.5), "ids": torch.arange(99), "logits": logits}
        found = run_model(lambda x: outputs, data())
        assert found is not None
        assert found.tolist() == [0, 1, 2, 3, 4, 5]
        assert run_model(lambda x: torch.arange(99), data()) is None

    @pytest.mark.parametrize(
        ("size", "step"), [(1_000_000, 1), (1_000_001, 2), (2_000_000, 2), (2_500_000, 3)]
    )
    def test_of_a_long_output_evenly_spaced_numbers_are_compared(self, size: int, step: int) -> None:
        whole = torch.arange(float(size))
        found = run_model(lambda x: whole, data())
        assert found is not None
        assert torch.equal(found, whole[::step])

    def test_it_runs_as_in_use_and_is_left_as_it_was(self) -> None:
        model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.9))
        first, second = run_model(model, data()), run_model(model, data())
        assert first is not None
        assert second is not None
        assert torch.equal(first, second)
        assert not first.requires_grad
        assert all(module.training for module in model)
        assert model[1].num_batches_tracked == 0
