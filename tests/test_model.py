"""The wrapper: nothing changes until it is switched, then equations run; checkpoints bring all of it back."""

from __future__ import annotations

import copy
import io
import json
import runpy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
import sympy as sp
import torch
from torch import Tensor, nn

import symtorch_core as st
from symtorch_core.events import Event, StageStarted
from symtorch_core.results.files import encode_distillation
from symtorch_core.storage.documents import write_document
from symtorch_core.testing.scripted import ScriptedRegressor

EQUATIONS = ("1.0*x0 + 0.1", "1.0*x0 + 1.0*x1 + 0.1", "1.0*sin(1.0*x0) + 1.0*x1")


def reseal(text: str) -> Tensor:
    """Return a changed state with a checksum that fits it, to show that more than the checksum is checked."""
    content = {key: value for key, value in json.loads(text).items() if key != "sha256"}
    return torch.tensor(list(write_document(content).encode()), dtype=torch.uint8)


def scripted(*equations: str) -> ScriptedRegressor:
    return ScriptedRegressor(equations=equations or EQUATIONS)


def data(n: int = 200, d: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def mlp(d_in: int = 2, d_out: int = 2) -> nn.Sequential:
    return nn.Sequential(nn.Linear(d_in, 8), nn.Tanh(), nn.Linear(8, d_out))


class Net(nn.Module):
    """A block between two layers; the block has a child named ``block``."""

    def __init__(self, d_out: int = 2) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.mlp = nn.Sequential()
        self.mlp.add_module("block", mlp(2, d_out))
        self.last = nn.Linear(d_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.mlp(self.first(x)))


class Result(NamedTuple):
    value: Tensor
    extra: Tensor


class Keywords(nn.Module):
    """Positional or keyword arguments, a flag, a named tuple out."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)

    def forward(self, x: Tensor, *, scale: float = 1.0, shift: Tensor | None = None) -> Result:
        y = self.inner(x) * scale
        return Result(y if shift is None else y + shift, x.sum())


def distilled(
    block: st.SymbolicModel, X: Tensor, parent: nn.Module | None = None, **options: Any
) -> st.Distillation:
    options = {"regressor": scripted(), "progress": False, "select": "accuracy"} | options
    return block.distill(X, parent=parent, **options)


def wrapped(d_out: int = 2, **options: Any) -> tuple[Net, st.SymbolicModel]:
    model = Net(d_out)
    block = st.wrap(model, "mlp")
    distilled(block, data(), model, **options)
    return model, block


def reloaded(model: nn.Module) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    state: dict[str, Any] = torch.load(file, weights_only=True)
    return state


class TestWrappingChangesNothing:
    CASES: ClassVar[dict[str, tuple[Callable[[], nn.Module], str, Callable[[nn.Module], Any]]]] = {
        "mlp": (mlp, "2", lambda m: m(data())),
        "lstm": (
            lambda: nn.ModuleDict({"rnn": nn.LSTM(2, 3, num_layers=2, batch_first=True)}),
            "rnn",
            lambda m: m["rnn"](data().reshape(20, 10, 2)),
        ),
        "attention": (
            lambda: nn.ModuleDict({"a": nn.MultiheadAttention(4, 2)}),
            "a",
            lambda m: m["a"](data(d=4), data(d=4), value=data(d=4), need_weights=True),
        ),
        "keywords and tuple": (
            lambda: nn.ModuleDict({"k": Keywords()}),
            "k",
            lambda m: m["k"](x=data(), scale=2.0, shift=torch.ones(2)),
        ),
        "batch norm and dropout": (
            lambda: nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1)),
            "1",
            lambda m: m(data()),
        ),
        "encoder layer": (
            lambda: nn.ModuleDict({"e": nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)}),
            "e.self_attn",
            lambda m: m["e"](data(d=4).reshape(20, 10, 4)),
        ),
    }

    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("case", CASES)
    def test_outputs_are_equal_to_the_last_bit(self, case: str, training: bool) -> None:
        make, path, run = self.CASES[case]
        model = make().train(training)
        twin = copy.deepcopy(model)
        block = st.wrap(twin, path)
        flags = [module.training for module in model.modules()]
        assert [m.training for m in twin.modules() if m is not block] == flags
        state = torch.get_rng_state()
        expected = run(model)
        after = torch.get_rng_state()
        torch.set_rng_state(state)
        torch.testing.assert_close(run(twin), expected, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(torch.get_rng_state(), after)
        buffers = zip(model.buffers(), twin.buffers(), strict=True)
        assert all(torch.equal(a, b) for a, b in buffers)

    def test_distilling_leaves_flags_buffers_and_random_state_alone(self) -> None:
        model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1)).train()
        model[2].eval()
        block = st.wrap(model, "3")
        flags = [(module, module.training) for module in model.modules()]
        buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        parameters = [(p, p.requires_grad, p.clone()) for p in model.parameters()]
        torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()
        result = distilled(block, data(), model, regressor=scripted("x0 + x1"))
        assert all(module.training == flag for module, flag in flags)
        assert all(torch.equal(buffer, value) for buffer, value in buffers)
        assert all(p.requires_grad == flag and torch.equal(p, value) for p, flag, value in parameters)
        assert torch.equal(torch.get_rng_state(), torch_state)
        assert np.random.get_state()[1].tolist() == numpy_state
        assert result.provenance.source.rows_seen == 200

    def test_the_model_finds_what_it_looked_for_in_its_block(self) -> None:
        model = nn.Sequential(nn.Linear(2, 3))
        weight = model[0].weight
        st.wrap(model, "0")
        assert model[0].weight is weight
        assert model[0].out_features == 3
        with pytest.raises(AttributeError, match="nothing_like_it"):
            model[0].nothing_like_it  # noqa: B018

    def test_train_and_eval_pass_through(self) -> None:
        model, block = wrapped()
        assert not model.eval().mlp.block.training
        assert model.train().mlp.block.training
        assert block.surrogate.training

    def test_a_block_in_several_places_is_replaced_in_all_of_them(self) -> None:
        shared = nn.Linear(2, 2)
        model = nn.Sequential(shared, nn.Tanh(), nn.ModuleList([shared]), shared)
        block = st.wrap(model, "2.0")
        assert model[0] is block
        assert model[2][0] is block
        assert model[3] is block

    def test_what_cannot_be_wrapped(self) -> None:
        model = Net()
        with pytest.raises(st.CaptureError, match="no submodule 'mpl'. Close: mlp"):
            st.wrap(model, "mpl")
        with pytest.raises(st.SwitchError, match="use SymbolicModel"):
            st.wrap(model, "")
        st.wrap(model, "mlp")
        with pytest.raises(st.SwitchError, match="wrapped already"):
            st.wrap(model, "mlp")
        with pytest.raises(st.SwitchError, match="wrapped already"):
            st.wrap(model, "mlp.block")
        with pytest.raises(st.SwitchError, match="block must be a module or a function, not 3"):
            st.SymbolicModel(3)  # type: ignore[arg-type]

    def test_a_function_can_be_wrapped(self) -> None:
        block = st.SymbolicModel(lambda x: x[..., :1] * 2)
        assert torch.equal(block(data()), data()[:, :1] * 2)
        distilled(block, data(), regressor=scripted("1.0*x0"))
        block.switch_to_symbolic()
        assert torch.allclose(block(data()), data()[:, :1] * 2)


class TestSymbolicMode:
    def test_the_numbers_are_those_of_the_equations(self) -> None:
        model, block = wrapped()
        X = data(50, seed=1)
        expected = block.block(model.first(X))
        assert torch.equal(model.mlp(model.first(X)), expected)
        assert block.switch_to_symbolic() is block
        assert (block.mode, block.symbolic_outputs) == ("symbolic", (0, 1))
        inputs = model.first(X).detach().double().numpy()
        for column, equation in enumerate(block.equations().values()):
            values = sp.lambdify(sp.symbols("x0 x1"), equation)(*inputs.T)
            assert np.allclose(block(model.first(X))[:, column].detach(), values, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(block(model.first(X)), expected, atol=1e-3)
        block.switch_to_block()
        assert torch.equal(block(model.first(X)), expected)
        assert block.symbolic_outputs == ()

    @pytest.mark.parametrize("shape", [(2,), (7, 2), (3, 4, 2), (0, 2)])
    def test_any_leading_shape(self, shape: tuple[int, ...]) -> None:
        _, block = wrapped()
        X = torch.randn(*shape)
        neural = block(X).shape
        assert block.switch_to_symbolic()(X).shape == neural

    def test_only_some_outputs(self) -> None:
        _, block = wrapped(3)
        X = data()
        neural = block(X)
        block.switch_to_symbolic()
        symbolic = block(X)
        block.switch_to_symbolic(outputs=[2, 0])
        mixed = block(X)
        assert block.symbolic_outputs == (0, 2)
        assert torch.equal(mixed[:, 1], neural[:, 1])
        assert torch.equal(mixed[:, [0, 2]], symbolic[:, [0, 2]])

    def test_distilled_columns_in_any_order_land_where_they_belong(self) -> None:
        _, block = wrapped(2, outputs=[1, 0])
        block.switch_to_symbolic()
        for column in (0, 1):
            assert torch.equal(block(data())[:, column], block.get_symbolic_function(column)(data()))
        assert list(block.equations()) == ["y1", "y0"]

    def test_other_tensors_of_the_result_stay(self) -> None:
        block = st.SymbolicModel(Keywords())
        distilled(block, [(data(),)], regressor=scripted("2.0*x0 + 3.0*x1 + 0.1"))
        neural = block(data(), scale=1.0)
        block.switch_to_symbolic()
        symbolic = block(data(), scale=1.0)
        assert isinstance(symbolic, Result)
        assert torch.equal(symbolic.extra, neural.extra)
        assert torch.allclose(symbolic.value, neural.value, atol=1e-5)  # a linear block is met exactly
        assert not torch.equal(symbolic.value, neural.value)

    def test_calls_by_position_and_by_keyword_are_the_same(self) -> None:
        for batch in ((data(),), {"x": data()}):
            block = st.SymbolicModel(Keywords())
            distilled(block, [batch], regressor=scripted("x0", "x0 + x1"))
            block.switch_to_symbolic()
            assert torch.equal(block(data()).value, block(x=data()).value)

    def test_a_released_block_still_takes_keywords(self) -> None:
        block = st.SymbolicModel(nn.Linear(2, 1))
        distilled(block, data(), regressor=scripted("x0 + x1"))
        block.switch_to_symbolic(release_block=True)
        assert torch.equal(block(input=data()), block(data()))

    def test_numbers_without_a_feature_dimension(self) -> None:
        class Energy(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x.square().sum(-1)

        block = st.SymbolicModel(Energy())
        distilled(block, data(), regressor=scripted("x0*x0 + x1*x1"))
        block.switch_to_symbolic()
        assert torch.allclose(block(data()), data().square().sum(-1), rtol=1e-4)
        assert block(data()[0]).shape == ()

    def test_whole_numbers_in(self) -> None:
        class Half(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x / 2

        block, X = st.SymbolicModel(Half()), torch.arange(20)[:, None]
        distilled(block, X, regressor=scripted("0.4*x0"))
        block.switch_to_symbolic()
        assert torch.allclose(block(X), X / 2)

    def test_half_precision_in_half_precision_out(self) -> None:
        _, block = wrapped()
        block.switch_to_symbolic()
        exact = block(data())
        block.bfloat16()
        half = block(data().bfloat16())
        assert half.dtype == torch.bfloat16
        assert torch.allclose(half.float(), exact, rtol=0.05, atol=0.05)

    def test_release_frees_the_weights_for_good(self) -> None:
        _, block = wrapped()
        count = sum(p.numel() for p in block.block.parameters())
        block.switch_to_symbolic(release_block=True)
        assert block.released
        assert sum(p.numel() for p in block.parameters()) < count
        assert block(data()).shape == (200, 2)
        with pytest.raises(st.SwitchError, match="no block to switch back to"):
            block.switch_to_block()
        with pytest.raises(st.SwitchError, match="no block left to distill"):
            block.distill(data())
        with pytest.raises(st.SwitchError, match="it was released"):
            block.switch_to_symbolic(outputs=[0])
        assert block.switch_to_symbolic(complexity=1).mode == "symbolic"

    def test_a_released_block_of_a_tuple_leaves_none_for_the_rest(self) -> None:
        block = st.SymbolicModel(Keywords())
        distilled(block, [(data(),)], regressor=scripted("x0"), capture_options={"select_output": 0})
        block.switch_to_symbolic(release_block=True)
        (value,) = block(data())
        assert value.shape == (200, 2)

    def test_trainable_constants_learn_and_are_read_back(self) -> None:
        _, block = wrapped()
        block.switch_to_symbolic()
        assert not any(p.requires_grad for p in block.surrogate.parameters())
        block.switch_to_symbolic(trainable=True)
        before = block.equations()
        constants = [p for p in block.surrogate.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(constants, lr=1e-4)
        loss = (block(data()) - 3).square().mean()
        loss.backward()
        optimizer.step()
        assert (block(data()) - 3).square().mean() < loss
        assert block.equations() != before
        trained = block(data())
        block.switch_to_block().switch_to_symbolic()
        assert torch.equal(block(data()), trained)  # picked again, so nothing learnt is lost
        block.switch_to_symbolic(complexity=1).switch_to_symbolic()
        assert block.equations() == before  # other equations in between: as they were found

    def test_inputs_receive_gradients_through_the_equations(self) -> None:
        model, block = wrapped()
        block.switch_to_symbolic()
        model(data()).sum().backward()
        assert model.first.weight.grad is not None
        assert bool(model.first.weight.grad.abs().sum() > 0)

    def test_a_deep_copy_is_independent(self) -> None:
        model, block = wrapped()
        twin = copy.deepcopy(model)
        block.switch_to_symbolic()
        assert twin.mlp.mode == "block"
        twin.mlp.switch_to_symbolic()
        assert torch.equal(twin(data()), model(data()))
        with torch.no_grad():
            twin.mlp.surrogate.constants.add_(1)
        assert not torch.equal(twin(data()), model(data()))

    @pytest.mark.parametrize("outputs", [None, [1]])
    def test_compiles_into_one_graph(self, outputs: list[int] | None) -> None:
        model, block = wrapped()
        block.switch_to_symbolic(outputs=outputs)
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        assert torch.allclose(compiled(data()), model(data()), atol=1e-6)
        block.switch_to_block()
        assert torch.allclose(compiled(data()), model(data()), atol=1e-6)

    def test_moves_with_the_model(self) -> None:
        model, block = wrapped(
            reducer="pca", reducer_options={"k_in": 1}, regressor=scripted("z0", "sin(z0)")
        )
        block.switch_to_symbolic()
        model.to("meta")
        assert model(data().to("meta")).device.type == "meta"
        assert block.distillation.surrogate()(data()).device.type == "cpu"


class TestGoingRound:
    """Modules that compute with a child's weights without calling it must not go round its equations."""

    @pytest.mark.parametrize("path", ["layers.0.linear1", "layers.1.linear2", "layers.1.norm1"])
    @pytest.mark.parametrize("padded", [False, True])
    @pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
    def test_fused_encoder_layers_run_the_equations(self, path: str, padded: bool) -> None:
        model = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 2).eval()
        X = data(60, 4).reshape(6, 10, 4)
        padding = torch.zeros(6, 10, dtype=torch.bool)
        padding[:, 7:] = padded
        arguments = {"src": X, "src_key_padding_mask": padding} if padded else {"src": X}
        with torch.no_grad():
            neural = model(**arguments)
            block = st.wrap(model, path)
            assert torch.equal(model(**arguments), neural)  # still the fused path
        distilled(block, [arguments], model, regressor=scripted("2.0*x0", "x0"))
        block.switch_to_symbolic()
        with torch.no_grad():
            fused = model(**arguments)
        with torch.enable_grad():  # never fused
            plain = model(**arguments)
        assert torch.allclose(fused[:, :7], plain[:, :7], atol=1e-5)
        assert not torch.allclose(fused[:, :7], neural[:, :7], atol=1e-3)

    def test_attention_as_a_block_of_an_encoder_layer(self) -> None:
        model = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval()
        X = data(60, 4).reshape(6, 10, 4)
        neural = model(X)
        block = st.wrap(model, "self_attn")
        with pytest.warns(RuntimeWarning, match="MultiheadAttention.* mixes rows"):
            distilled(block, X, model, regressor=scripted("2.0*x0"))
        block.switch_to_symbolic()
        with torch.no_grad():
            assert not torch.allclose(model(X), neural, atol=1e-3)
        weights = model.self_attn(X, X, X)[1]
        assert weights.shape == (6, 10, 10)  # the other output of the tuple is still there

    def test_who_uses_the_weights_instead_of_calling_is_refused(self) -> None:
        attention = nn.MultiheadAttention(4, 2, batch_first=True).eval()
        X = data(60, 4).reshape(6, 10, 4)
        neural, _ = attention(X, X, X)
        block = st.wrap(attention, "out_proj")
        assert torch.equal(attention(X, X, X)[0], neural)
        with pytest.raises(st.CaptureError, match="never called"):
            distilled(block, [(X, X, X)], attention)
        distilled(block, X, regressor=scripted("x0"))
        block.switch_to_symbolic()
        with pytest.raises(st.SwitchError, match="would go round them"):
            attention(X, X, X)
        block.switch_to_block()
        assert torch.equal(attention(X, X, X)[0], neural)

    def test_shapes_and_types_may_be_seen(self) -> None:
        _, block = wrapped()
        block = st.SymbolicModel(nn.Linear(2, 2))
        distilled(block, data())
        block.switch_to_symbolic()
        assert (block.weight.shape, block.weight.dtype, len(block.weight)) == ((2, 2), torch.float32, 2)
        with pytest.raises(st.SwitchError, match="switch_to_block"):
            block.weight.sum()


class TestErrorsChangeNothing:
    @pytest.fixture
    def block(self) -> st.SymbolicModel:
        return wrapped(2, outputs=[1])[1].switch_to_symbolic()

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            (
                {"complexity": 99},
                st.SelectionError,
                r"equation 1 \(y1\): no equation of complexity 99.*there are: 1",
            ),
            ({"complexity": {5: 1}}, st.SelectionError, "no equation 5"),
            ({"select": "luck"}, st.SelectionError, "unknown rule 'luck'"),
            ({"outputs": [0]}, st.SwitchError, r"no output 0; there are: 1 \(y1\)"),
            ({"outputs": []}, st.SwitchError, "cannot become symbolic"),
            ({"outputs": [1, 1]}, st.SwitchError, "different ones"),
            ({"outputs": [False, True]}, st.SwitchError, "not a mask of True and False"),
            ({"outputs": torch.tensor([False, True])}, st.SwitchError, "not a mask of True and False"),
            ({"trainable": 1}, st.SwitchError, "trainable must be True or False"),
            ({"release_block": 1}, st.SwitchError, "release_block must be True or False"),
            ({"release_block": True}, st.SwitchError, "only 1 of 2 outputs"),
        ],
    )
    def test_switching(
        self, block: st.SymbolicModel, options: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        before, equations = block(data()), block.equations()
        with pytest.raises(error, match=message):
            block.switch_to_symbolic(**options)
        assert torch.equal(block(data()), before)
        assert (block.mode, block.equations(), block.released) == ("symbolic", equations, False)

    def test_distilling(self, block: st.SymbolicModel) -> None:
        before, result = block(data()), block.distillation

        with pytest.raises(st.SearchError, match="no option"):
            block.distill(data(), regressor="gplearn", regressor_options={"nonsense": 1})
        with pytest.raises(st.CaptureError, match="data are empty"):
            distilled(block, data(0))
        with pytest.raises(KeyboardInterrupt):
            distilled(block, data(), regressor=ScriptedRegressor(equations=("x0",), interrupt_at=0))
        assert block.distillation is result
        assert (block.mode, block.symbolic_outputs) == ("symbolic", (1,))
        assert torch.equal(block(data()), before)

    def test_nothing_distilled_yet(self) -> None:
        block = st.SymbolicModel(mlp(), name="head")
        for act in (block.switch_to_symbolic, block.equations, block.front, block.get_symbolic_function):
            with pytest.raises(st.SwitchError, match="head has no equations yet"):
                act()
        assert block.mode == "block"

    def test_a_function_of_an_output_without_an_equation(self, block: st.SymbolicModel) -> None:
        with pytest.raises(st.SwitchError, match=r"no output 0; there are: 1 \(y1\)"):
            block.get_symbolic_function(0)
        assert block.get_symbolic_function(1)(data()).shape == (200,)
        with pytest.raises(st.SwitchError, match="output: a number must be a whole number"):
            block.get_symbolic_function(1.0)  # type: ignore[arg-type]


class TestDistilling:
    def test_a_symbolic_block_is_captured_as_the_block_it_was(self) -> None:
        model, block = wrapped()
        expected = block.block(model.first(data())).detach()
        block.switch_to_symbolic(complexity=1)
        assert torch.equal(block.capture(data(), parent=model).outputs, expected)
        assert block.mode == "symbolic"
        again = distilled(block, data(), model)
        assert again.train is not None
        assert block.mode == "block"

    def test_a_task_metric_is_measured_on_both(self) -> None:
        model = Net()
        block = st.wrap(model, "mlp")
        seen: list[str] = []

        def metric(m: nn.Module) -> float:
            assert m is model
            seen.append(block.mode)
            return float(m(data()).detach().square().mean())

        result = distilled(block, data(), model, metric=metric)
        assert seen == ["block", "symbolic"]
        assert result.task_metric is not None
        assert result.task_metric.block == pytest.approx(metric(model))
        block.switch_to_symbolic()
        assert result.task_metric.equations == pytest.approx(metric(model))
        assert "task metric" in str(result)

    def test_without_a_parent_the_metric_is_of_the_wrapper(self) -> None:
        block = st.SymbolicModel(nn.Linear(2, 1))
        seen: list[Any] = []
        result = distilled(
            block,
            data(),
            metric=lambda m: float(seen.append((m, m.mode)) or len(seen)),
            regressor=scripted("x0"),
        )
        assert seen == [(block, "block"), (block, "symbolic")]
        assert (result.task_metric.block, result.task_metric.equations) == (1.0, 2.0)
        assert block.mode == "block"

    def test_a_run_inside_a_model_tells_its_callbacks(self) -> None:
        events: list[Event] = []
        wrapped(callbacks=[events.append])
        assert [e.stage for e in events if isinstance(e, StageStarted)] == [
            "capture",
            "reduce",
            "regress",
            "verify",
        ]

    def test_a_capture_takes_the_options_of_captures(self) -> None:
        model, block = wrapped()
        block.switch_to_symbolic()
        events: list[Event] = []
        options = {"parent": model, "max_rows": 20}
        first = block.capture(data(), seed=3, callbacks=[events.append], **options)
        assert len(first) == 20
        assert StageStarted("capture") in [
            replace(e, total=None) for e in events if isinstance(e, StageStarted)
        ]
        assert torch.equal(block.capture(data(), seed=3, **options).inputs, first.inputs)
        assert not torch.equal(block.capture(data(), seed=4, **options).inputs, first.inputs)
        assert torch.equal(block.block(first.inputs), first.outputs)
        pair = st.SymbolicModel(lambda x: (x, 2 * x))
        assert torch.equal(pair.capture(data(), select_output="1").outputs, 2 * data())
        with pytest.raises(st.SearchError, match="select_outputs"):
            block.capture(data(), select_outputs="extra")

    def test_an_empty_parent_is_still_a_parent(self) -> None:
        class Empty(nn.Sequential):
            def forward(self, x: Tensor) -> Tensor:
                return block(x) * 0

        block = st.SymbolicModel(nn.Linear(2, 2))
        parent = Empty()
        assert len(parent) == 0
        seen = []
        distilled(block, data(), parent, metric=lambda m: float(seen.append(m) or 0))
        assert seen == [parent, parent]

    def test_a_failure_inside_a_context_restores_the_mode(self) -> None:
        _, block = wrapped()
        for here, there in (("block", "symbolic"), ("symbolic", "block")):
            with block.running(here), pytest.raises(ZeroDivisionError), block.running(there):
                _ = 1 / 0
            assert block.mode == "block"
        with pytest.raises(st.SwitchError, match="unknown mode 'neural'"), block.running("neural"):  # type: ignore[arg-type]
            pass
        with (
            pytest.raises(st.SwitchError, match="no equations yet"),
            st.SymbolicModel(mlp()).running("symbolic"),
        ):
            pass
        block.switch_to_symbolic(release_block=True)
        with pytest.raises(st.SwitchError, match="no block to run"), block.running("block"):
            pass

    def test_constants_are_refined_and_written_as_they_are(self, tmp_path: Any) -> None:
        model, block = wrapped()
        block.switch_to_symbolic()
        result = block.refine(
            data(),
            parent=model,
            loss=lambda new, old: (new - old).square().mean(),
            batch_size=50,
            epochs=3,
            progress=False,
        )
        assert result.after < result.before
        law = runpy.run_path(str(block.export(tmp_path / "law.py")))
        torch.testing.assert_close(torch.from_numpy(law["equations"](data().numpy())).float(), block(data()))

    def test_a_function_of_one_output_takes_tensors_and_arrays(self) -> None:
        _, block = wrapped(3, outputs=[2, 0])
        block.switch_to_symbolic()
        for column in (0, 2):
            compute = block.get_symbolic_function(column)
            assert torch.equal(compute(data()), block(data())[:, column])
            found = compute(data().numpy())
            assert isinstance(found, np.ndarray)
            np.testing.assert_allclose(found, compute(data()).detach().numpy(), rtol=1e-5, atol=1e-6)

    def test_notebooks_show_the_name_the_mode_and_the_equations(self) -> None:
        block = st.SymbolicModel(mlp(), name="a<b")
        assert block._repr_html_() == "<p>SymbolicModel <b>a&lt;b</b>, running on its block</p>"
        assert block._repr_latex_() == ""
        result = distilled(block, data())
        assert block.switch_to_symbolic()._repr_html_().endswith(result._repr_html_())
        assert block._repr_latex_() == result._repr_latex_()

    def test_fronts_and_equations_are_at_hand(self) -> None:
        _, block = wrapped(
            variable_names=["a", "b"], regressor=scripted("a", "a + b"), output_names=["u", "v"]
        )
        assert block.front(1) == block.distillation.fronts[1]
        assert set(block.equations()) == {"u", "v"}
        assert {symbol.name for symbol in block.equations()["v"].free_symbols} == {"a", "b"}
        assert "mode='block'" in repr(block)


def radius(x: Tensor) -> Tensor:
    return x.square().sum(-1).sqrt()


def quartic(residual: Tensor) -> Tensor:
    return residual**4


class TestRoundTrips:
    def check(self, model: Net, fresh: Net) -> None:
        """Save one, load the other: the same in every respect."""
        fresh.load_state_dict(reloaded(model))
        old, new = model.mlp, fresh.mlp
        assert (new.mode, new.symbolic_outputs, new.name) == (old.mode, old.symbolic_outputs, old.name)
        assert new.equations() == old.equations()
        assert encode_distillation(new.distillation) == encode_distillation(old.distillation)
        assert torch.equal(fresh(data()), model(data()))
        if not new.released:
            for switched in (model, fresh):
                switched.mlp.switch_to_block()
            assert torch.equal(fresh(data()), model(data()))
        for switched in (model, fresh):
            switched.mlp.switch_to_symbolic(complexity={0: 1})
        assert torch.equal(fresh(data()), model(data()))

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {
                "reducer": "pca",
                "reducer_options": {"k_in": 1, "k_out": 1},
                "regressor": scripted("z0", "sin(z0)"),
            },
            {"transforms": {"r": "sqrt(x0^2 + x1^2)", "x1": "x1"}, "regressor": scripted("r", "r + x1")},
            {"outputs": [2, 0], "variable_names": ["a", "b"], "regressor": scripted("a", "a + b")},
        ],
        ids=["identity", "pca", "transforms", "outputs"],
    )
    @pytest.mark.parametrize("mode", ["block", "symbolic", "back"])
    def test_every_kind(self, options: dict[str, Any], mode: str) -> None:
        model, block = wrapped(3, **options)
        if mode != "block":
            block.switch_to_symbolic(complexity={0: block.front(0).complexities[-1]})
        if mode == "back":
            block.switch_to_block()
        fresh = Net(3)
        st.wrap(fresh, "mlp")
        self.check(model, fresh)

    def test_only_some_outputs(self) -> None:
        model, block = wrapped(3)
        block.switch_to_symbolic(outputs=[1])
        fresh = Net(3)
        st.wrap(fresh, "mlp")
        self.check(model, fresh)

    def test_into_a_model_with_other_equations(self) -> None:
        model, block = wrapped(3)
        block.switch_to_symbolic()
        fresh, other = wrapped(3, regressor=scripted("x1"), outputs=[0])
        other.switch_to_symbolic()
        self.check(model, fresh)

    def test_a_released_block(self) -> None:
        model, block = wrapped()
        block.switch_to_symbolic(release_block=True)
        fresh = Net()
        st.wrap(fresh, "mlp")
        self.check(model, fresh)
        assert fresh.mlp.released

    def test_trained_constants_survive(self) -> None:
        model, block = wrapped()
        block.switch_to_symbolic(trainable=True)
        with torch.no_grad():
            block.surrogate.constants.mul_(1.25)
        fresh = Net()
        st.wrap(fresh, "mlp")
        fresh.load_state_dict(reloaded(model))
        assert torch.equal(fresh(data()), model(data()))
        assert fresh.mlp.equations() == block.equations()
        assert fresh.mlp.surrogate.constants.requires_grad

    def test_before_any_distillation(self) -> None:
        model, fresh = Net(), wrapped()[0]
        st.wrap(model, "mlp")
        fresh.mlp.switch_to_symbolic()
        fresh.load_state_dict(reloaded(model))
        assert fresh.mlp.mode == "block"
        assert torch.equal(fresh(data()), model(data()))
        with pytest.raises(st.SwitchError, match="no equations yet"):
            fresh.mlp.switch_to_symbolic()

    def test_wrappers_inside_wrappers(self) -> None:
        def make() -> Net:
            model = Net()
            st.wrap(model, "mlp.block.0")
            st.wrap(model, "mlp")
            return model

        model, fresh = make(), make()
        inner, outer = model.mlp.block.block[0], model.mlp
        distilled(inner, data(), model, regressor=scripted("x0 + x1"))
        distilled(outer, data(), model)
        inner.switch_to_symbolic(outputs=[0])
        fresh.load_state_dict(reloaded(model))
        assert fresh.mlp.block.block[0].symbolic_outputs == (0,)
        assert torch.equal(fresh(data()), model(data()))
        outer.switch_to_symbolic()
        self.check(model, fresh)

    @pytest.mark.parametrize("equations", [False, True])
    def test_a_plain_checkpoint_of_the_block(self, equations: bool) -> None:
        plain = Net()
        fresh = wrapped()[0] if equations else Net()
        if not equations:
            st.wrap(fresh, "mlp")
        fresh.load_state_dict(reloaded(plain))
        assert torch.equal(fresh(data()), plain(data()))
        assert fresh.mlp.mode == "block"
        if equations:  # those that were here are still here
            assert fresh.mlp.switch_to_symbolic()(data()).shape == (200, 2)

    def test_a_plain_checkpoint_that_lacks_something_is_refused_as_ever(self) -> None:
        fresh = Net()
        st.wrap(fresh, "mlp")
        state = reloaded(Net())
        del state["mlp.block.0.weight"]
        with pytest.raises(RuntimeError, match="mlp.block.block.0.weight"):
            fresh.load_state_dict(state)

    def test_a_name_beyond_ascii(self) -> None:
        model, fresh = nn.Sequential(mlp()), nn.Sequential(mlp())
        st.wrap(model, "0", name="größe 力")
        st.wrap(fresh, "0")
        assert fresh[0].name == "0"
        fresh.load_state_dict(reloaded(model))
        assert fresh[0].name == "größe 力"

    @pytest.mark.parametrize("own", [torch.tensor(7), torch.tensor([7.0, -1.0]), torch.ones(2, 2), None])
    def test_a_block_whose_own_extra_state_is_a_tensor(self, own: Tensor | None) -> None:
        class Keeping(nn.Linear):
            kept: Tensor | None = torch.zeros(1)

            def get_extra_state(self) -> Tensor | None:
                return self.kept

            def set_extra_state(self, state: Tensor | None) -> None:
                self.kept = state

        plain, fresh = nn.Sequential(Keeping(2, 2)), nn.Sequential(Keeping(2, 2))
        plain[0].kept = own
        st.wrap(fresh, "0")
        fresh.load_state_dict(reloaded(plain))
        assert fresh[0].block.kept is own if own is None else torch.equal(fresh[0].block.kept, own)
        again = nn.Sequential(st.SymbolicModel(Keeping(2, 2)))
        again.load_state_dict(reloaded(fresh))
        assert again[0].block.kept is own if own is None else torch.equal(again[0].block.kept, own)
        assert torch.equal(again(data()), plain(data()))

    def test_a_block_with_an_extra_state_of_its_own(self) -> None:
        class Counting(nn.Linear):
            count = 0

            def get_extra_state(self) -> dict[str, int]:
                return {"count": self.count}

            def set_extra_state(self, state: dict[str, int]) -> None:
                self.count = state["count"]

        plain = nn.Sequential(Counting(2, 2))
        plain[0].count = 7
        fresh = nn.Sequential(Counting(2, 2))
        st.wrap(fresh, "0")
        fresh.load_state_dict(plain.state_dict())
        assert fresh[0].block.count == 7
        again = nn.Sequential(Counting(2, 2))
        st.wrap(again, "0")
        again.load_state_dict(fresh.state_dict())
        assert again[0].block.count == 7

    def test_the_distillation_keeps_maps_of_its_own_after_loading(self) -> None:
        model, block = wrapped(
            reducer="pca", reducer_options={"k_in": 1}, regressor=scripted("z0", "sin(z0)")
        )
        fresh = Net()
        st.wrap(fresh, "mlp")
        fresh.load_state_dict(reloaded(model))
        expected = block.distillation.surrogate()(data())
        with torch.no_grad():
            fresh.mlp.surrogate.reduction.down.weight.zero_()
        assert torch.equal(fresh.mlp.distillation.surrogate()(data()), expected)

    def test_loading_leaves_the_callers_dictionary_alone(self) -> None:
        plain, fresh = Net().state_dict(), Net()
        st.wrap(fresh, "mlp")
        keys = list(plain)
        fresh.load_state_dict(plain)
        assert list(plain) == keys

    def with_functions(self) -> tuple[Net, st.SymbolicModel]:
        """A model whose equations need a Python function, and were searched with another one as the loss."""
        return wrapped(transforms={"r": radius}, loss=quartic, regressor=scripted("r", "0.5*sin(r)"))

    @pytest.mark.parametrize("mode", ["block", "symbolic"])
    def test_python_functions_are_left_out_and_named(self, mode: str) -> None:
        model, block = self.with_functions()
        if mode == "symbolic":
            block.switch_to_symbolic(trainable=True)
        with pytest.warns(RuntimeWarning, match="not saved.* transform 'r', the loss"):
            state = reloaded(model)
        fresh = Net()
        st.wrap(fresh, "mlp")
        fresh.load_state_dict(state)
        assert (fresh.mlp.mode, fresh.mlp.symbolic_outputs) == (block.mode, block.symbolic_outputs)
        assert fresh.mlp.equations() == block.equations()
        assert fresh.mlp.distillation.fronts == block.distillation.fronts
        assert fresh.mlp.distillation.fidelity == block.distillation.fidelity
        assert str(fresh.mlp.distillation) == str(block.distillation)
        if mode == "symbolic":
            with pytest.raises(st.FileFormatError, match="transform 'r' was the Python function 'radius'"):
                fresh(data())
        fresh.mlp.switch_to_block()
        block.switch_to_block()
        assert torch.equal(fresh(data()), model(data()))
        with pytest.raises(st.SwitchError, match="need transform 'r'.*Distillation.load"):
            fresh.mlp.switch_to_symbolic()
        with pytest.warns(RuntimeWarning, match="not saved.* transform 'r', the loss"):
            again = reloaded(fresh)  # what is lost stays named
        assert again.keys() == state.keys()

    def test_a_model_that_has_the_functions_reuses_them(self) -> None:
        model, block = self.with_functions()
        block.switch_to_symbolic()
        with pytest.warns(RuntimeWarning, match="not saved"):
            state = reloaded(model)
        fresh, other = self.with_functions()
        fresh.load_state_dict(state)
        assert torch.equal(fresh(data()), model(data()))
        assert other.distillation.search.loss is quartic
        torch.testing.assert_close(
            other.distillation.surrogate()(data()), block.distillation.surrogate()(data())
        )
        other.switch_to_block().switch_to_symbolic()

    def test_a_function_of_another_name_is_not_taken_for_the_lost_one(self) -> None:
        with pytest.warns(RuntimeWarning, match="not saved"):
            state = reloaded(self.with_functions()[0])
        fresh, block = wrapped(transforms={"r": lambda x: x[..., 0]}, regressor=scripted("r"))
        fresh.load_state_dict(state)
        assert block.distillation.transforms.lost() == ("r",)

    def test_a_plain_checkpoint_loads_beside_python_functions(self) -> None:
        plain, (fresh, block) = Net(), self.with_functions()
        fresh.load_state_dict(reloaded(plain))
        assert torch.equal(fresh(data()), plain(data()))
        assert block.switch_to_symbolic()(data()).shape == (200, 2)

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ('"mode": "symbolic"', '"mode": "dreaming"'),
            ('"mode": "symbolic"', '"mode": ["symbolic"]'),
            ('"symbolic_outputs": [0, 1]', '"symbolic_outputs": [0, 9]'),
            ('"symbolic_outputs": [0, 1]', '"symbolic_outputs": []'),
            ('"structure": [', '"structure": ["__import__(1)", '),
            ('"structure": [', '"structure": ["x0", '),
            ('"structure": [', '"structures": ['),
            ('{"schema": 5', '{"schema": 99'),
            ('"distillation": {', '"distillation": [], "d": {'),
            ('"fronts": [{', '"fronts": ["", {'),
            ('"block_outputs": 2', '"block_outputs": "two"'),
            ('"complexity": 1', '"complexity": "one"'),
            ('"loss": "mse"', '"loss": "evil"'),
            ('"variable_names": ["x0", "x1"]', '"variable_names": ["x0", 7]'),
        ],
    )
    def test_a_damaged_state_is_said_to_be_damaged(self, old: str, new: str) -> None:
        model, block = wrapped()
        block.switch_to_symbolic()
        state = reloaded(model)
        text = bytes(state["mlp._extra_state"].tolist()).decode()
        assert old in text
        state["mlp._extra_state"] = reseal(text.replace(old, new))
        fresh, other = wrapped()
        before = other.switch_to_symbolic(complexity=1)(data())
        with pytest.raises(st.FileFormatError):
            fresh.load_state_dict(state)
        assert torch.equal(other(data()), before)

    def test_a_state_that_was_changed_is_said_to_be_changed(self) -> None:
        model, block = wrapped()
        block.switch_to_symbolic()
        state = reloaded(model)
        text = bytes(state["mlp._extra_state"].tolist()).decode()
        changed = text.replace('"complexity": 1', '"complexity": 2').encode()
        state["mlp._extra_state"] = torch.tensor(list(changed), dtype=torch.uint8)
        with pytest.raises(st.FileFormatError, match="its checksum differs"):
            wrapped()[0].load_state_dict(state)

    def test_a_truncated_state_is_said_to_be_damaged(self) -> None:
        model, _ = wrapped()
        state = reloaded(model)
        state["mlp._extra_state"] = state["mlp._extra_state"][:-20]
        with pytest.raises(st.FileFormatError, match="damaged"):
            wrapped()[0].load_state_dict(state)

    def test_a_reducer_that_is_not_installed_is_named(self) -> None:
        model, _ = wrapped()
        state = reloaded(model)
        text = bytes(state["mlp._extra_state"].tolist()).decode()
        text = text.replace('"reducer": "identity"', '"reducer": "absent"')
        state["mlp._extra_state"] = reseal(text)
        with pytest.raises(st.UnknownComponentError, match="no component 'absent' among the reducers"):
            wrapped()[0].load_state_dict(state)


def test_equations_found_elsewhere_are_adopted() -> None:
    net = nn.Sequential(mlp(), nn.Linear(2, 2), mlp())
    rows = st.capture(net, ["0", "2"], data())  # one pass for both
    for path, some in rows.items():
        found = st.distill(some, regressor=scripted(), progress=False)
        block = st.wrap(net, path).adopt(found)
        assert block.mode == "block"
        assert block.distillation is found
    before = net(data())
    x = data(seed=1)
    for path in rows:
        block = net.get_submodule(path)
        assert isinstance(block, st.SymbolicModel)
        block.switch_to_symbolic()
        torch.testing.assert_close(block(x), block.distillation.surrogate()(x))
    assert not torch.equal(net(data()), before)


def test_equations_from_a_file_are_adopted(tmp_path: Any) -> None:
    block = mlp()
    found = st.distill(st.capture(block, {"all": block}, data())["all"], regressor=scripted(), progress=False)
    found.save(tmp_path / "found.json")
    wrapped = (
        st.SymbolicModel(block).adopt(st.Distillation.load(tmp_path / "found.json")).switch_to_symbolic()
    )
    torch.testing.assert_close(wrapped(data()), found.surrogate()(data()))


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (nn.Linear(2, 5), "with 2 outputs, but Linear has 5"),
        (nn.Linear(3, 2), "with 2 inputs, but Linear has 3"),
        (
            nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Sequential(nn.Linear(4, 1))),
            "2 outputs, but Sequential has 1",
        ),
    ],
)
def test_equations_of_another_block_are_not_adopted(block: nn.Module, message: str) -> None:
    found = st.distill((data(), data()), regressor=scripted(), progress=False)
    wrapped = st.SymbolicModel(block)
    with pytest.raises(st.SwitchError, match="result must be a Distillation, not a Linear"):
        wrapped.adopt(nn.Linear(2, 2))  # type: ignore[arg-type]
    with pytest.raises(st.SwitchError, match=message):
        wrapped.adopt(found)
    with pytest.raises(st.SwitchError, match="no equations yet"):
        wrapped.equations()


def test_a_block_keeps_its_widths_from_one_distillation_to_the_next() -> None:
    block = st.SymbolicModel(lambda x: x[..., :1])
    first = distilled(block, data(), regressor=scripted("x0"))
    for X, Y, what in ((data(d=3), data(d=1), "3 inputs"), (data(), data(d=2), "2 outputs")):
        other = st.distill((X, Y), regressor=scripted("x0"), progress=False)
        with pytest.raises(st.SwitchError, match=what):
            block.adopt(other)
    assert block.distillation is first
    given = st.distill((data(), data(d=1)), regressor=scripted("x0"), progress=False)
    captured = st.distill(lambda x: x[..., :1], data(d=3), regressor=scripted("x0"), progress=False)
    with pytest.raises(st.SwitchError, match="3 inputs"):
        st.SymbolicModel(lambda x: x[..., :1]).adopt(given).adopt(captured)
    block.prune_outputs(torch.tensor([True]))
    assert block.adopt(first).distillation is first


def test_columns_to_switch_may_come_as_an_array() -> None:
    for columns in (np.array([1]), torch.tensor([1]), iter([1])):
        _, block = wrapped(3)
        assert block.switch_to_symbolic(outputs=columns).symbolic_outputs == (1,)


def test_pruned_outputs_stay_out_of_columns_that_come_as_an_array() -> None:
    _, block = wrapped(3)
    block.prune_outputs(torch.tensor([True, False, True]))
    with pytest.raises(st.SwitchError, match="output 1 of mlp is pruned"):
        distilled(block, data(), outputs=torch.tensor([0, 1]))
    assert distilled(block, data(), outputs=iter([2]), replace=True).outputs == (2,)


def test_equations_refuse_rows_of_another_width() -> None:
    block = st.SymbolicModel(nn.Linear(2, 2))
    found = distilled(
        block, data(), reducer="pca", reducer_options={"k_in": 1}, regressor=scripted("z0", "sin(z0)")
    )
    block.switch_to_symbolic()
    with pytest.raises(st.ExpressionError, match=r"take 2 inputs \(x0, x1\), got 3 columns"):
        block(data(d=3))
    with pytest.raises(st.CaptureError, match="activations have 1 outputs, the block has 2"):
        found.judge(st.Activations.of(data(), data(d=1)))


def test_nothing_is_adopted_when_no_block_could_run() -> None:
    block = mlp()
    found = st.distill(st.capture(block, {"all": block}, data())["all"], regressor=scripted(), progress=False)
    wrapped = st.SymbolicModel(block).adopt(found).switch_to_symbolic(release_block=True)
    with pytest.raises(st.SwitchError, match="before the block is freed"):
        wrapped.adopt(found)
    assert wrapped.mode == "symbolic"
