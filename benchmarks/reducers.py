"""Losses of reducers: principal components compared with projections chosen for the block's outputs.

    python benchmarks/reducers.py [--parts subspace,language] [--seeds 3]

``subspace``: a block that depends on a known 3-dimensional subspace of 64 correlated inputs; the largest principal
angle between this subspace and that of each reducer. ``language``: MLP blocks of a trained Llama-style model (needs
transformers, and the model and text in SYMTORCH_DATA, ../shared/data by default); held-out R2 of the exact block
between the maps, of a linear map of the reduced inputs, and of a small network in the place of the block.
"""

from __future__ import annotations

import argparse
import os
import re
import time
from pathlib import Path

import torch
from torch import Tensor

import symtorch_core as st
from symtorch_pca.reducer import PCAReducer
from symtorch_projection.reducer import ProjectionReducer

D, TRUE = 64, 3
LAYERS = (1, 2, 3)
SIZES = (4, 8, 16)
ROWS = 100_000


def compare_subspaces(seeds: int) -> None:
    """Print the largest principal angle to the true subspace, for each reducer and seed."""
    print(
        f"\nKnown {TRUE}-dimensional subspace of {D} inputs, {ROWS:,} rows: largest principal angle in degrees\n"
    )
    print("| seed | pca | rrr | active | trained |")
    print("| --- | --- | --- | --- | --- |")
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        basis = torch.linalg.qr(torch.randn(D, TRUE, generator=generator)).Q
        spread = torch.linalg.qr(torch.randn(D, D, generator=generator)).Q * torch.linspace(2, 0.5, D)
        X = torch.randn(ROWS, D, generator=generator) @ spread.T
        block = Narrow(basis / (X @ basis).std(0))  # each direction of unit variance over the data
        found = (
            measure_angle(reducer, X, block, basis, seed)
            for reducer in (
                PCAReducer(k_in=TRUE),
                ProjectionReducer(k_in=TRUE),
                ProjectionReducer(method="active", k_in=TRUE),
                ProjectionReducer(method="trained", k_in=TRUE),
            )
        )
        print(f"| {seed} | " + " | ".join(f"{value:.2f}" for value in found) + " |", flush=True)


class Narrow(torch.nn.Module):
    """A block that depends on three directions of its inputs only."""

    def __init__(self, directions: Tensor) -> None:
        super().__init__()
        self.directions = torch.nn.Buffer(directions)

    def forward(self, x: Tensor) -> Tensor:
        z = (x @ self.directions).unbind(-1)
        return torch.stack(
            [z[0] + torch.tanh(z[1]), torch.sin(z[1]) - z[2], z[2] + 0.3 * z[0] * z[1]], dim=-1
        )


def measure_angle(reducer: st.Reducer, X: Tensor, block: torch.nn.Module, basis: Tensor, seed: int) -> float:
    """Return the largest principal angle between a reducer's subspace and the true one, in degrees."""
    names = [f"x{i}" for i in range(X.shape[1])]
    reduction = reducer.fit(X, block(X), variable_names=names, block=block, seed=seed)
    span = torch.linalg.qr(reduction.down.weight.double().T).Q
    cosines = torch.linalg.svdvals(span.T @ basis.double())
    return float(torch.rad2deg(torch.arccos(cosines.min().clamp(max=1.0))))


def compare_language_blocks(rows: int) -> None:
    """Print the sweep on the MLPs of the language model."""
    folder = Path(os.environ.get("SYMTORCH_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "stories260K").exists():
        print(f"\nlanguage: skipped, {folder} has no stories260K")
        return
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder / "stories260K").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "stories260K")
    batches = [
        {"input_ids": torch.tensor([[1, *tokenizer(story, add_special_tokens=False)["input_ids"][:255]]])}
        for story in split_stories((folder / "text" / "tinystories_slice_197KB.txt").read_text())
    ]
    blocks = {f"layer {layer}": model.model.layers[layer].mlp for layer in LAYERS}
    activations = st.capture(model, blocks, batches, max_rows=rows)
    reducers: dict[str, st.Reducer] = {
        "pca": PCAReducer(),
        "pca, linear part": PCAReducer(linear=True),
        "rrr": ProjectionReducer(),
        "active": ProjectionReducer(method="active"),
        "trained": ProjectionReducer(method="trained", k_in=1),
    }
    print(
        f"\nMLPs of stories260K (64 -> 64), {rows} rows, a fifth held out: unexplained share of the variance\n"
    )
    print(
        "| block | k_in | k_out | "
        + " | ".join(f"{name}: exact / linear / network" for name in reducers)
        + " |"
    )
    print("| --- " * (3 + len(reducers)) + "|")
    ratios = []
    for name, block in blocks.items():
        sweep = st.sweep_reducers(
            block, activations[name], reducers=reducers, k_in=SIZES, k_out=SIZES, network=True, progress=False
        )
        for k_in in SIZES:
            for k_out in SIZES:
                line = {row.reducer: row for row in sweep.rows if (row.k_in, row.k_out) == (k_in, k_out)}
                cells = [
                    f"{1 - row.r2:.3f} / {1 - row.r2_linear:.3f} / {1 - (row.r2_network or 0):.3f}"
                    for row in line.values()
                ]
                print(f"| {name} | {k_in} | {k_out} | " + " | ".join(cells) + " |", flush=True)
                best = min(1 - max(row.r2, row.r2_linear, row.r2_network or 0) for row in line.values())
                ratios.append((best / (1 - line["pca"].r2), name, k_in, k_out))
    ratio, name, k_in, k_out = min(ratios)
    print(
        f"\nunexplained variance of the best function between learned maps, relative to the exact block between pca: "
        f"at least {ratio:.2f} ({name}, {k_in} -> {k_out}); target: 0.5"
    )


def split_stories(text: str) -> list[str]:
    """Split a text into stories: one starts at "Once upon" or "One day" if the one before has some length."""
    found: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        if not found or (paragraph.startswith(("Once upon", "One day")) and len(found[-1]) > 300):
            found.append(paragraph)
        else:
            found[-1] += "\n" + paragraph
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default="subspace,language")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=40_000)
    arguments = parser.parse_args()
    started = time.monotonic()
    if "subspace" in arguments.parts:
        compare_subspaces(arguments.seeds)
    if "language" in arguments.parts:
        compare_language_blocks(arguments.rows)
    print(f"\n{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
