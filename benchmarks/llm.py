"""Speed of a language model of Qwen2.5-1.5B's dimensions with equations in the place of some of its MLPs.

Weights are random, since times do not depend on them; equations are random sums of products. The control replaces the
MLPs by zeros, which is the fastest possible replacement. All are timed in turns.

    python benchmarks/llm.py                                          # CPU: 4 layers, float32
    python benchmarks/llm.py --device cuda --dtype bfloat16 --depth 28 --sequences 8 --length 1024 --compile
"""

from __future__ import annotations

import argparse
import copy
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM

import symtorch_core as st
from symtorch_core.expressions import Expression, parse
from symtorch_llm.judging.costs import count_multiply_adds
from symtorch_llm.judging.layers import Zero
from symtorch_llm.judging.speed import Speed, measure_speeds, time_in_turns
from symtorch_llm.models.transformer import find_mlps, place_modules
from symtorch_pca.reducer import PCAReducer

WIDTH, HIDDEN, K_OUT, TERMS = 1536, 8960, 8, 24
PAPER = "+8.3 % with 3 of 28 replaced (A100), +2 to 19 % with 1 to 7"


@final
@dataclass(frozen=True)
class RandomSums(st.OutputwiseRegressor):
    """Proposes a random sum of products of two variables for each output."""

    name: ClassVar[str] = "random"
    n_jobs: int = 1

    def check(self, search: st.SearchSpace) -> None:
        """Accept every search."""

    def search(self, problem: st.Problem) -> Iterable[Expression]:
        names = problem.variable_names
        generator = torch.Generator().manual_seed(problem.output)
        pairs = torch.randint(0, len(names), (TERMS, 2), generator=generator).tolist()
        factors = torch.randn(TERMS, generator=generator).tolist()
        terms = (
            f"{factor:.3f}*({names[a]}*{names[b]})" for factor, (a, b) in zip(factors, pairs, strict=True)
        )
        return [parse(" + ".join(terms), names)]


def main() -> None:
    options = parse_options()
    model, ids = make_qwen(options)
    paths = find_mlps(model)
    console = Console(width=110)
    where = (
        torch.cuda.get_device_name()
        if options.device == "cuda"
        else platform.processor() or platform.machine()
    )
    console.print(
        f"Qwen2 of width {WIDTH}, hidden {HIDDEN}, {options.depth} layers, {options.dtype}, "
        f"{options.sequences} sequences of {options.length}, {where}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads; equations: {K_OUT} sums of {TERMS} products. Paper: {PAPER}"
    )
    for count in options.replaced:
        torch._dynamo.reset()  # one function is compiled for at most eight surrogates
        chosen = choose_layers(paths, count)
        variants: dict[str, Mapping[str, nn.Module]] = {
            "baseline": {},
            "control": {path: Zero() for path in chosen},
        }
        for k_in in options.k_in if count == 3 else [32]:
            variants[f"equations, k_in {k_in}"] = make_surrogates(model, chosen, k_in)
        if options.compile:
            fused = make_surrogates(model, chosen, 32)
            for block in fused.values():
                assert block.surrogate is not None
                block.surrogate.compile()
            variants["equations, k_in 32, themselves compiled"] = fused
        taken = measure_speeds(model, variants, ids, rounds=options.rounds, warmups=3, use_cache=False)
        console.print(build_table(f"{count} of {len(paths)} MLPs replaced", taken, variants, model, chosen))
        if options.compile and count == 3:
            console.print(count_kernels(variants, ids, model))
            whole = measure_compiled(
                model, {name: variants[name] for name in ("baseline", "control", "equations, k_in 32")}, ids
            )
            console.print(
                build_table(
                    f"{count} of {len(paths)} replaced, the model compiled", whole, variants, model, chosen
                )
            )


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--sequences", type=int, default=1)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--replaced", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--k-in", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--compile", action="store_true")
    return parser.parse_args()


def make_qwen(options: argparse.Namespace) -> tuple[nn.Module, torch.Tensor]:
    """Return the model, and tokens to read."""
    config = Qwen2Config(
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=options.depth,
        num_attention_heads=12,
        num_key_value_heads=2,
        vocab_size=151_936,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    with torch.device(options.device):
        model = Qwen2ForCausalLM(config).to(getattr(torch, options.dtype)).eval().requires_grad_(False)
    return model, torch.randint(0, 151_936, (options.sequences, options.length), device=options.device)


def choose_layers(paths: Sequence[str], count: int) -> list[str]:
    """Return ``count`` of the layers, evenly spaced."""
    places = (
        np.linspace(0, len(paths) - 1, count + 2)[1:-1].round().astype(int)
        if count < len(paths)
        else range(count)
    )
    return [paths[place] for place in sorted({*places})]


def make_surrogates(model: nn.Module, paths: Sequence[str], k_in: int) -> dict[str, st.SymbolicModel]:
    """Return wrapped MLPs on random equations between random maps."""
    generator = torch.Generator().manual_seed(k_in)
    X, Y = (
        torch.randn(WIDTH + 100, WIDTH, generator=generator),
        torch.randn(WIDTH + 100, WIDTH, generator=generator),
    )
    result = st.distill(
        (X, Y),
        reducer=PCAReducer(k_in=k_in, k_out=K_OUT, linear=True),
        regressor=RandomSums(),
        maxsize=1000,
        refine=False,
        binary_operators=("+", "*"),
        progress=False,
    )
    device = next(model.parameters()).device
    return {
        path: st.SymbolicModel(model.get_submodule(path), path).adopt(result).switch_to_symbolic().to(device)
        for path in paths
    }


def measure_compiled(
    model: nn.Module, variants: Mapping[str, Mapping[str, nn.Module]], ids: torch.Tensor
) -> dict[str, Speed]:
    """Return the speeds of the compiled model with each variant's modules in place."""
    passes = {}
    for name, modules in variants.items():
        with place_modules(model, modules):
            own = copy.deepcopy(model)
        whole = torch.compile(own)
        passes[name] = lambda whole=whole: whole(input_ids=ids, use_cache=False)
    taken = time_in_turns(passes, ids.device, warmups=3)
    return {name: Speed(ids.numel(), seconds) for name, seconds in taken.items()}


def count_kernels(
    variants: Mapping[str, Mapping[str, nn.Module]], ids: torch.Tensor, model: nn.Module
) -> str:
    """Return the number of kernels that one layer's MLP and its equations start on a GPU, as text."""
    from torch.profiler import ProfilerActivity, profile

    if ids.device.type != "cuda":
        return "kernels are counted on a GPU only"
    torch._dynamo.reset()
    x = torch.randn(*ids.shape, WIDTH, device=ids.device, dtype=next(model.parameters()).dtype)
    parts = []
    for name, modules in variants.items():
        for module in list(modules.values())[:1] or [model.get_submodule(find_mlps(model)[0])]:
            with torch.inference_mode():
                module(x)
                with profile(activities=[ProfilerActivity.CUDA]) as profiled:
                    module(x)
                    torch.cuda.synchronize()
            events = [
                event for event in profiled.events() if event.device_type == torch.profiler.DeviceType.CUDA
            ]
            parts.append(f"{name}: {len(events)} kernels, {sum(e.device_time for e in events):.0f} us")
    return "one block: " + "; ".join(parts)


def build_table(
    title: str,
    taken: Mapping[str, Speed],
    variants: Mapping[str, Mapping[str, nn.Module]],
    model: nn.Module,
    chosen: Sequence[str],
) -> Table:
    shown = Table(
        "",
        "tokens/s",
        "over baseline",
        "of control",
        "multiply-adds of the MLPs",
        "ms",
        "95 %, ms",
        title=title,
    )
    whole = sum(count_multiply_adds(model.get_submodule(path)) for path in chosen)
    for name, speed in taken.items():
        cost = sum(map(count_multiply_adds, variants[name].values())) / whole if variants[name] else 1.0
        shown.add_row(
            name,
            f"{speed.throughput:,.0f}",
            f"{speed.throughput / taken['baseline'].throughput - 1:+.1%}",
            f"{speed.throughput / taken['control'].throughput:.1%}",
            f"{cost:.2%}",
            f"{1000 * speed.latency:.1f}",
            f"{1000 * speed.p95:.1f}",
        )
    return shown


if __name__ == "__main__":
    main()
