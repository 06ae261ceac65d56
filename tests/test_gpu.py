"""What must be the same on a GPU; skipped where there is none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import symtorch_core as st
from symtorch_core.expressions import parse
from symtorch_core.reduction.linear import IdentityReducer
from symtorch_core.surrogates.surrogate import TorchSurrogate
from symtorch_core.surrogates.transforms import Transforms
from symtorch_core.testing.scripted import ScriptedRegressor

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

NAMES = ["a", "b", "c"]
EQUATIONS = (
    "1.5*(a*b) - 0.25*(b*c) + 2*(c*c) + 0.5*a - b + 3",
    "sin(a) + exp(b*c) / (1 + c*c)",
    "0.1*(a*a) + 0.2*(a*b) + 0.3*(b*b) + 0.4*(b*c)",
)


def surrogate() -> TorchSurrogate:
    reduction = IdentityReducer.restore({"variable_names": NAMES})
    return TorchSurrogate.build([parse(text) for text in EQUATIONS], Transforms.none(NAMES), reduction)


@pytest.mark.parametrize("rows", [1, 1000, 100_000])
@pytest.mark.parametrize("compiled", [False, True])
def test_equations_give_the_same_on_both(rows: int, compiled: bool) -> None:
    x = torch.randn(rows, 3, generator=torch.Generator().manual_seed(0))
    here = surrogate()
    there = surrogate().cuda()
    run = torch.compile(there, fullgraph=True) if compiled else there
    torch.testing.assert_close(run(x.cuda()).cpu(), here(x), rtol=1e-4, atol=1e-4)
    half = run(x.cuda().bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float().cpu(), here(x.bfloat16().float()), rtol=2e-2, atol=2e-2)


def test_what_is_not_finite_stays_where_it_is() -> None:
    x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    x[3, 0], x[5, 1], x[7, 2] = torch.nan, torch.inf, -torch.inf
    here, there = surrogate()(x), surrogate().cuda()(x.cuda()).cpu()
    assert torch.equal(here.isfinite(), there.isfinite())


def test_gradients_of_constants_are_the_same() -> None:
    x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    slopes = []
    for device in ("cpu", "cuda"):
        one = surrogate().to(device).trainable()
        one(x.to(device)).square().mean().backward()
        assert one.constants.grad is not None
        slopes.append(one.constants.grad.cpu())
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-4, atol=1e-4)


def test_a_block_on_the_gpu_is_captured_distilled_and_replaced() -> None:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).cuda()
    with torch.no_grad():
        model[2].weight.copy_(torch.tensor([[1.0, 2.0, 0.0, 0.0]]))
    data = torch.randn(2000, 2, generator=generator)
    block = st.wrap(model, "2")
    result = block.distill(
        data,
        parent=model,
        regressor=ScriptedRegressor(("x0 + 2*x1",)),
        progress=False,
        capture_options={"on_nonfinite": "raise"},
    )
    assert result.train is not None
    assert result.train.inputs.device.type == "cpu"
    wanted = model(data.cuda())
    block.switch_to_symbolic()
    torch.testing.assert_close(model(data.cuda()), wanted, rtol=1e-4, atol=1e-4)
    block.switch_to_symbolic(release_block=True)
    torch.testing.assert_close(model(data.cuda()), wanted, rtol=1e-4, atol=1e-4)
    loaded = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).cuda()
    st.wrap(loaded, "2")
    loaded.load_state_dict(model.state_dict())
    torch.testing.assert_close(loaded(data.cuda()), wanted, rtol=1e-4, atol=1e-4)
