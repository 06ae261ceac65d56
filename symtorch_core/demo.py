"""``symtorch demo``: two trained networks become equations that run in their place."""

from __future__ import annotations

import itertools
import math
import os
import sys
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import final

import numpy as np
import torch
from rich.console import Console
from rich.panel import Panel
from rich.text import Text
from torch import Tensor, nn

from symtorch_core.components.checks import check_seed
from symtorch_core.components.registry import load
from symtorch_core.errors import MissingDependencyError
from symtorch_core.events import Stopwatch, progress_bars
from symtorch_core.model.symbolic_model import SymbolicModel, wrap
from symtorch_core.results.distillation import Distillation
from symtorch_core.search.space import SearchSpace
from symtorch_core.storage.files import write_whole
from symtorch_core.training.descend import descend
from symtorch_core.training.schedule import cosine_by_epochs, fork_seed
from symtorch_core.verification.fidelity import extrapolate_inputs
from symtorch_core.views.terminal import render_result

LAW = "y = x0^2 + 3 sin(x4) - 4"
_LAW_ROWS = 10_000
_NOISE = 0.05
_PATIENCE = 50.0
"""Time limit of a search in seconds: on a slow or busy machine, the demonstration ends before the search does."""


def run(
    console: Console,
    *,
    regressor: str = "torchgp",
    seed: int = 0,
    quick: bool = False,
    out: Path,
    open_page: bool = True,
) -> None:
    """Train, distill, switch, save, reload and check, print every step, and leave a page for each part.

    Args:
        console: console to print on.
        regressor: name of the backend.
        seed: seed of data, training and search.
        quick: train and search less, for a first look in seconds.
        out: folder for models, results and pages.
        open_page: open the first page in the browser, if the console is a terminal and there is a display.
    """
    check_seed(seed)
    load("regressors", regressor)  # before any training
    watch = Stopwatch()
    out.mkdir(parents=True, exist_ok=True)
    law = known_law(console, out, regressor=regressor, seed=seed, quick=quick)
    classifier = real_data(console, out, regressor=regressor, seed=seed, quick=quick)
    console.print(f"\nDone in {watch.seconds():.0f} s.")
    show_next(console, out, {"law": law, "classifier": classifier}, regressor, open_page=open_page)


def show_next(
    console: Console, folder: Path, results: Mapping[str, Distillation], regressor: str, *, open_page: bool
) -> None:
    """Write a file and a page for each result, and print what to do next; the first page may open in a browser."""
    pages = []
    for name, result in results.items():
        result.save(folder / f"{name}.json")
        try:
            pages.append(result.report(folder / f"{name}.html"))
        except MissingDependencyError as error:
            note = f"no pages: {error}"
    shown = ", ".join(map(str, pages)) if pages else note
    first = next(iter(results))
    lines = (
        ("the pages", shown),
        ("in a terminal", f"symtorch show {folder / first}.json"),
        ("your model", f'st.distill(model, X, regressor="{regressor}").report("page.html")'),
    )
    console.print("[bold]Next[/bold]")
    for what, text in lines:
        console.print(f"  {what:<14}", Text(text), soft_wrap=True, highlight=False)
    if pages and open_page and console.is_terminal and _has_display():
        webbrowser.open(pages[0].resolve().as_uri())


def _has_display() -> bool:
    return sys.platform in {"darwin", "win32"} or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


def known_law(console: Console, folder: Path, *, regressor: str, seed: int, quick: bool) -> Distillation:
    """Distill a whole network trained on a noisy known law, and return the distillation."""
    console.print(
        Panel(f"[bold]1. A network that learned a known law[/bold]\n{LAW}, {_LAW_ROWS:,} rows, 5 % noise")
    )
    X, y = law_data(seed)
    network = train(
        mlp([5, 64, 64, 64, 1], seed),
        X,
        y[:, None],
        nn.MSELoss(),
        epochs=4 if quick else 20,
        seed=seed,
    )
    model = SymbolicModel(network, name="law")
    result = model.distill(
        X,
        regressor=regressor,
        seed=seed,
        max_rows=_LAW_ROWS,
        metric=lambda m: r2(m, X, y[:, None]),
        niterations=10 if quick else SearchSpace().niterations,
        timeout_in_seconds=_PATIENCE,
    )
    console.print(render_result(result))
    model.switch_to_symbolic()
    console.print(f"The network now runs on [bold green]y = {result.chosen()[0]}[/bold green]")
    assert result.task_metric is not None
    console.print(
        f"R2 against the noisy data: {result.task_metric.block:.4f} with the network, "
        f"{result.task_metric.equations:.4f} on the equation"
    )
    compare_out_of_range(console, network, result.surrogate(), X)
    _check_reload(console, folder / "law.pt", model, SymbolicModel(mlp([5, 64, 64, 64, 1], seed + 1)), X)
    return result


def real_data(console: Console, folder: Path, *, regressor: str, seed: int, quick: bool) -> Distillation:
    """Distill a hidden block of a classifier of real tumours, and return the distillation."""
    console.print(
        Panel(
            "[bold]2. A hidden block of a classifier[/bold]\n"
            "Wisconsin breast cancer data (scikit-learn): 569 tumours, 30 measurements, benign or malignant"
        )
    )
    (X, y), (X_test, y_test) = tumour_data(seed)
    network = Classifier(seed)
    train(network, X, y, nn.CrossEntropyLoss(), epochs=20 if quick else 60, seed=seed, batch=32)
    block = wrap(network, "head")
    result = block.distill(
        X,
        parent=network,
        regressor=regressor,
        seed=seed,
        variable_names=["z0", "z1", "z2"],
        output_names=["malignant", "benign"],
        unary_operators=["inv", "exp", "tanh"],
        select="best",
        metric=lambda m: accuracy(m, X_test, y_test),
        niterations=10 if quick else 100,
        timeout_in_seconds=_PATIENCE / 2,
    )
    console.print(render_result(result))
    block.switch_to_symbolic()
    assert result.task_metric is not None
    console.print(
        f"The block [bold]head[/bold] now runs on equations. Accuracy on {len(y_test)} test tumours: "
        f"{result.task_metric.block:.4f} with the network, {result.task_metric.equations:.4f} on equations\n"
    )
    fresh = Classifier(seed + 1)
    wrap(fresh, "head")
    _check_reload(console, folder / "classifier.pt", network, fresh, X_test)
    return result


@final
class Classifier(nn.Module):
    """Classifier: 30 measurements -> 3 features (body) -> 2 logits (head)."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.body = mlp([30, 16, 3], seed)
        self.head: nn.Module = mlp([3, 16, 2], seed + 1_000)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits


def compare_out_of_range(console: Console, network: nn.Module, equation: nn.Module, X: Tensor) -> None:
    """Say who holds beyond the range of the data: there, R2 of one against the other does not tell."""
    far = extrapolate_inputs(X)
    truth = law(far)[:, None]
    of_network, of_equation = r2(network, far, truth), r2(equation, far, truth)
    blame = ": it is the network that fails there, not the equation" if of_equation > of_network else ""
    console.print(
        f"Out of range, against the law itself: R2 {of_network:.4f} with the network, {of_equation:.4f} on the "
        f"equation{blame}\n"
    )


def law(X: Tensor) -> Tensor:
    """Return the law's values (n,) for inputs (n, 5)."""
    return X[:, 0] ** 2 + 3 * torch.sin(X[:, 4]) - 4


def law_data(seed: int) -> tuple[Tensor, Tensor]:
    """Return inputs (10,000, 5), uniform on [-2, 2], and noisy values (10,000,) of the law."""
    generator = np.random.default_rng(seed)
    X = generator.uniform(-2, 2, (_LAW_ROWS, 5))
    y = X[:, 0] ** 2 + 3 * np.sin(X[:, 4]) - 4
    y += _NOISE * y.std() * generator.normal(size=_LAW_ROWS)
    return torch.from_numpy(X).float(), torch.from_numpy(y).float()


def tumour_data(seed: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return standardised measurements (n, 30) and labels (n,) (0 malignant, 1 benign), as (train, test)."""
    from sklearn.datasets import load_breast_cancer  # only the demo needs data
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    X, y = load_breast_cancer(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.3, random_state=seed, stratify=y)
    scaler = StandardScaler().fit(X)
    as_tensors = [
        (torch.from_numpy(scaler.transform(inputs)).float(), torch.from_numpy(labels))
        for inputs, labels in ((X, y), (X_test, y_test))
    ]
    return as_tensors[0], as_tensors[1]


def mlp(sizes: Sequence[int], seed: int) -> nn.Sequential:
    """Build a tanh network with these widths and weights drawn from this seed."""
    with fork_seed(seed):
        layers = [(nn.Linear(wide, narrow), nn.Tanh()) for wide, narrow in itertools.pairwise(sizes)]
    return nn.Sequential(*list(itertools.chain.from_iterable(layers))[:-1])


def train(
    network: nn.Module,
    X: Tensor,
    y: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    epochs: int,
    seed: int,
    batch: int = 128,
) -> nn.Module:
    """Train a network by Adam with a cosine schedule, and return it."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    with progress_bars() as bars:
        descend(
            lambda rows: loss(network(X[rows]), y[rows]),
            network.parameters(),
            lambda epoch: torch.randperm(len(X), generator=generator).split(batch),
            optimizer=optimizer,
            schedule=cosine_by_epochs(optimizer, math.ceil(len(X) / batch), epochs),
            epochs=epochs,
            stage="train",
            callbacks=[bars],
        )
    return network.eval()


def r2(model: Callable[[Tensor], Tensor], X: Tensor, y: Tensor) -> float:
    """Return the share of the variance of y that the model explains."""
    with torch.no_grad():
        return 1 - float((model(X) - y).square().mean() / y.var(unbiased=False))


def accuracy(model: Callable[[Tensor], Tensor], X: Tensor, y: Tensor) -> float:
    """Return the share of correctly predicted classes."""
    with torch.no_grad():
        return float((model(X).argmax(1) == y).float().mean())


def _check_reload(console: Console, path: Path, model: nn.Module, fresh: nn.Module, X: Tensor) -> None:
    with write_whole(path) as unfinished:
        torch.save(model.state_dict(), unfinished)
    fresh.load_state_dict(torch.load(path, weights_only=True))
    with torch.no_grad():
        same = torch.equal(model(X), fresh.eval()(X))
    if not same:
        raise AssertionError(f"the model read back from {path} gives different numbers")
    console.print(
        f"Saved, loaded into a fresh model with weights_only=True: same mode, same numbers ({path.name})"
    )
