"""What newcomers get wrong most, and what they are told: the table of mistakes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import symtorch_core as st
from symtorch_core.components.habits import OF_FRONT, OF_MODEL, OF_PACKAGE, OF_RESULT
from symtorch_core.components.words import WORDS, suggest

X = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
FAST: dict[str, Any] = {"regressor": "sparse", "progress": False}


def net() -> nn.Sequential:
    block = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    return nn.Sequential(nn.Linear(4, 3), block, nn.Linear(2, 4)).eval()


def wrapped() -> tuple[nn.Sequential, st.SymbolicModel]:
    model = net()
    return model, st.wrap(model, "1")


def distill(*args: Any, **options: Any) -> st.Distillation:
    return st.distill(*args, **{**FAST, **options})


def found() -> st.Distillation:
    return distill((X, X[:, :1] * 2))


def switched() -> st.SymbolicModel:
    block = st.SymbolicModel(nn.Linear(4, 1))
    block.distill(X, **FAST)
    return block.switch_to_symbolic()


class Rows(torch.utils.data.Dataset[Tensor]):
    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> Tensor:
        return X[index]


class PySRRegressor:
    __module__ = "pysr.sr"


def use(action: Callable[[nn.Sequential, st.SymbolicModel], Any]) -> Callable[[], Any]:
    """Return a call on a model with a wrapped block."""
    return lambda: action(*wrapped())


ARGUMENTS: dict[str, tuple[Callable[[], Any], str]] = {
    # Words of PySR, gplearn, operon and SymTorch, and slips of the keyboard.
    "elementwise_loss": (
        lambda: distill(net(), X, elementwise_loss="L2DistLoss()"),
        "no option 'elementwise_loss'. Did you mean 'loss', a field of the search space.*formula in the residual r",
    ),
    "an option of pysr": (
        lambda: st.distill(net(), X, procs=2, regressor="pysr"),
        "'procs' is an option of the regressor 'pysr'",
    ),
    "random_state": (
        lambda: distill(net(), X, random_state=0),
        "Did you mean 'seed'. It takes a whole number",
    ),
    "model_selection": (lambda: distill(net(), X, model_selection="best"), "Did you mean 'select'.*accuracy"),
    "populations": (
        lambda: distill(net(), X, populations=3, regressor="torchgp"),
        "Did you mean 'islands', in regressor_options",
    ),
    "n_jobs": (
        lambda: distill(net(), X, n_jobs=2, regressor="torchgp"),
        "option of the regressor 'torchgp': give regressor_options={'n_jobs'",
    ),
    "epochs": (
        lambda: distill(net(), X, epochs=9),
        "Did you mean 'niterations'.*Nothing is trained by epochs",
    ),
    "generations": (lambda: distill(net(), X, generations=9), "Did you mean 'niterations'"),
    "function_set": (lambda: distill(net(), X, function_set=["add"]), "'binary_operators'.*unary_operators"),
    "allowed_symbols": (lambda: distill(net(), X, allowed_symbols="add,sub"), "'binary_operators'"),
    "parsimony_coefficient": (
        lambda: distill(net(), X, parsimony_coefficient=0.1),
        "Did you mean 'parsimony'",
    ),
    "max_time": (lambda: distill(net(), X, max_time=60), "Did you mean 'timeout_in_seconds'.*seconds"),
    "extra_sympy_mappings": (
        lambda: distill(net(), X, extra_sympy_mappings={}),
        "Operators need no mapping: define your own as text",
    ),
    "warm_start": (lambda: distill(net(), X, warm_start=True), 'resume="folder"'),
    "output_directory": (
        lambda: distill(net(), X, output_directory="a"),
        "Nothing is written unless you ask",
    ),
    "units": (lambda: distill(net(), X, X_units=["m"] * 4), 'Only PySR knows units.*regressor="pysr"'),
    "sr_params": (
        use(lambda m, b: b.distill(X, sr_params={"niterations": 5})),
        "entries as arguments of their own",
    ),
    "parent_model": (use(lambda m, b: b.distill(X, parent_model=m)), "Did you mean 'parent'"),
    "variable_transforms": (
        use(lambda m, b: b.distill(X, variable_transforms=[])),
        "'transforms'.*dictionary",
    ),
    "slime_params": (use(lambda m, b: b.distill(X, slime_params={})), 'capture="slime"'),
    "paren": (use(lambda m, b: b.distill(X, paren=m)), "Did you mean 'parent'"),
    "variable_name": (use(lambda m, b: b.distill(X, variable_name=["a"])), "Did you mean 'variable_names'"),
    "metrics": (
        use(lambda m, b: b.distill(X, metrics=len)),
        "Did you mean 'metric', of a wrapped block's distill",
    ),
    "Y of a block": (use(lambda m, b: b.distill(X, X)), "takes 1 argument by position: data.*the outputs"),
    "Y of a function": (lambda: distill(net(), X, X), r"takes 2 arguments by position.*distill\(\(X, Y\)\)"),
    "model= and X=": (
        lambda: distill(model=net(), X=X),
        "You gave 'model'. Did you mean 'block'.*Did you mean 'data'",
    ),
    "block_name": (lambda: st.SymbolicModel(net(), block_name="a"), "SymbolicModel has no argument.*'name'"),
    "wrap without path": (lambda: st.wrap(net()), "wrap: missing.*'path'. It needs: model, path"),
    "wrap with options": (
        lambda: st.wrap(net(), "1", regressor="sparse"),
        "'regressor' is an argument of distill",
    ),
    "layer=": (lambda: st.wrap(net(), layer="1"), "Did you mean 'path'"),
    "max_row of capture": (lambda: st.capture(net(), ["1"], X, max_row=5), "Did you mean 'max_rows'"),
    "max_row of a block": (use(lambda m, b: b.capture(X, max_row=5)), "SymbolicModel.capture.*'max_rows'"),
    "output_dim": (
        lambda: switched().switch_to_symbolic(output_dim=0),
        "Did you mean 'outputs'. It takes a list",
    ),
    "index": (lambda: switched().switch_to_symbolic(index=3), "Did you mean 'complexity'.*not by row"),
    "lr": (lambda: switched().refine(X, lr=0.1), "refine has no argument 'lr'. Did you mean 'learning_rate'"),
    "max_size": (lambda: st.SearchSpace(max_size=20), "SearchSpace has no argument.*'maxsize'"),
    "seed of a search space": (lambda: st.SearchSpace(seed=1), "'seed' is an argument of distill"),
    "final_dim": (
        use(lambda m, b: st.OutputPruner(b, final_dim=2)),
        "OutputPruner.*Did you mean 'target_dim'",
    ),
    "n_components": (lambda: st.load("reducers", "pca")(n_components=2), "Did you mean 'k_in'"),
    "n_components of a sweep": (lambda: st.sweep_reducers(net(), X, n_components=2), "Did you mean 'k_in'"),
    "an option of a backend": (lambda: st.load("regressors", "torchgp")(pop_size=5), "'population_size'"),
    "options of a dictionary": (
        lambda: distill(net(), X, regressor="torchgp", regressor_options={"pop_size": 5}),
        "'torchgp' has no option 'pop_size'. Did you mean 'population_size'",
    ),
    "how=": (use(lambda m, b: st.rank_outputs(b, X, importance="std")), "Did you mean 'by'"),
    "pde=": (
        lambda: st.residual_check("x", pde="u_x", points=X, variable_names=["x"]),
        "'differential_equation'",
    ),
    "feature_names": (lambda: st.Activations.of(X, X, feature_names=list("abcd")), "'variable_names'"),
}


@pytest.mark.parametrize("mistake", ARGUMENTS)
def test_an_argument_of_another_name_is_understood(mistake: str) -> None:
    call, words = ARGUMENTS[mistake]
    with pytest.raises(st.ArgumentError, match=words) as told:
        call()
    assert isinstance(told.value, TypeError)  # as Python itself would raise


MISTAKES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    # Models and blocks.
    "a module for its path": (
        lambda: (lambda m: st.wrap(m, m[1]))(net()),
        st.CaptureError,
        "of this Sequential: '1'",
    ),
    "a module of another model": (
        lambda: st.wrap(net(), nn.Tanh()),
        st.CaptureError,
        "Tanh, which the model does not",
    ),
    "a number for a path": (lambda: st.wrap(net(), 1), st.CaptureError, "as text: '1'"),
    "wrapped twice": (
        use(lambda m, b: st.wrap(m, "1")),
        st.SwitchError,
        r"find_block\(model, '1'\) is its wrapper",
    ),
    "wrapped inside": (use(lambda m, b: st.wrap(m, "1.1")), st.CaptureError, "Close: 1.block.1"),
    "a class": (lambda: distill(nn.Linear, X), st.CaptureError, "Linear, a class: give a module made of it"),
    "a file for a model": (
        lambda: distill("model.pt", X),
        st.CaptureError,
        "build the model, load its weights",
    ),
    "a state_dict for a model": (lambda: distill(net().state_dict(), X), st.CaptureError, "build the model"),
    "data for a model": (lambda: distill(X, X), st.CaptureError, r"rows as a pair, distill\(\(X, Y\)\)"),
    "three arrays": (lambda: distill((X, X, X)), st.CaptureError, r"a pair is \(X, Y\)"),
    "data for a parent": (use(lambda m, b: b.distill(X, parent=X, **FAST)), st.CaptureError, "not a Tensor"),
    "another model as parent": (
        use(lambda m, b: b.distill(X, parent=net(), **FAST)),
        st.CaptureError,
        "never called",
    ),
    # Data.
    "a forgotten parent": (
        use(lambda m, b: b.distill(X, **FAST)),
        st.CaptureError,
        "takes 3 features, but the data have 4.*need parent=model",
    ),
    "a forgotten parent while pruning": (
        use(lambda m, b: st.OutputPruner(b, 1, 9).step(X)),
        st.CaptureError,
        "the data have 4.*need parent=model",
    ),
    "a forgotten parent while ranking": (
        use(lambda m, b: st.rank_outputs(b, X, by="gradient", loss=torch.sum)),
        st.CaptureError,
        "the data have 4.*need parent=model",
    ),
    "a forgotten parent while refining": (
        lambda: switched().refine(
            torch.ones(9, 5), loss=lambda new, old: (new - old).square().mean(), batch_size=3
        ),
        st.CaptureError,
        "it takes 4 features, but the data have 5.*need parent=model",
    ),
    "whole numbers": (
        lambda: distill(net(), torch.ones(9, 4, dtype=torch.long)),
        st.CaptureError,
        r"the data are int64, its weights float32: give data.to\(torch.float32\)",
    ),
    "whole numbers of numpy": (lambda: distill(net(), np.ones((9, 4), int)), st.CaptureError, "are int64"),
    "double precision": (
        lambda: distill(net(), X.double()),
        st.CaptureError,
        "are float64, its weights float32",
    ),
    "a path": (lambda: distill(net(), "rows.csv"), st.CaptureError, "read the file 'rows.csv' first"),
    "a Path": (lambda: distill(net(), Path("rows.csv")), st.CaptureError, "read the file 'rows.csv' first"),
    "lists of numbers": (
        lambda: distill(net(), X.tolist()),
        st.CaptureError,
        "rows of numbers as numpy.array",
    ),
    "a function of columns": (
        lambda: distill(lambda x, y: x * y, X),
        st.CaptureError,
        r"it takes x, y, but a batch has 1 argument.*lambda x: f\(x\[:, 0\], x\[:, 1\]\)",
    ),
    "a module of two arguments": (
        lambda: distill(nn.Bilinear(4, 4, 1), X),
        st.CaptureError,
        r"it takes input1, input2, but a batch has 1 argument.*\[\(a, b\)\]",
    ),
    "texts": (lambda: distill(net(), ["a", "b"]), st.CaptureError, "holds no tensor, but str.*token ids"),
    "inputs and outputs": (
        use(lambda m, b: b.distill((X, X), parent=m, **FAST)),
        st.CaptureError,
        "give the inputs alone, since the block gives the outputs",
    ),
    "a dataset": (lambda: distill(net(), Rows()), st.CaptureError, r"DataLoader\(dataset, batch_size=256\)"),
    "a generator that is used up": (
        lambda: (lambda rows: [list(rows), distill(net(), rows)])(x for x in [X]),
        st.CaptureError,
        "a generator can be read only once",
    ),
    "one vector": (lambda: distill(net(), X[0]), st.CaptureError, r"data\[None, :\] for one row"),
    "one row": (lambda: distill(net(), X[:1]), st.CaptureError, "1 row is too few"),
    "no such device": (
        lambda: distill(net(), X, capture_options={"device": "cuda:99"}),
        st.CaptureError,
        "device='cuda:99' names no device",
    ),
    "missing values": (
        lambda: distill(net(), torch.where(X > 2, torch.nan, X)),
        st.CaptureError,
        'on_nonfinite="drop"',
    ),
    "pictures, channels first": (
        lambda: distill(nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8)),
        st.CaptureError,
        r"whose channels are dimension 1, take patches as rows.*unfold\(x, kernel_size\)",
    ),
    "pictures as rows": (
        lambda: distill(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.randn(5, 3, 2, 2)),
        st.CaptureError,
        r"rows.reshape\(-1, 3, 2, 2\)\), x.flatten\(1\)",
    ),
    # Names.
    "too few names": (
        lambda: distill(net(), X, variable_names=["a"]),
        st.CaptureError,
        "1 input names for 4 inputs",
    ),
    "a name with a space": (
        lambda: distill((X[:, :1], X), variable_names=["my speed"]),
        st.CaptureError,
        r"letters, digits and _ \(like my_speed\)",
    ),
    "names in one text": (
        lambda: distill(net(), X, variable_names="a, b, c, d"),
        st.SearchError,
        r"like \['a', 'b', 'c', 'd'\]",
    ),
    # The search.
    "a number as text": (
        lambda: distill(net(), X, timeout_in_seconds="10"),
        st.SearchError,
        "timeout_in_seconds must be a finite number, got '10'",
    ),
    "operators in one text": (
        lambda: distill(net(), X, unary_operators="sin,cos"),
        st.SearchError,
        r"a list of names, like \['sin', 'cos'\]",
    ),
    "operators in one entry": (
        lambda: distill(net(), X, unary_operators=["sin,cos"]),
        st.SearchError,
        r"each as an entry of its own: \['sin', 'cos'\]",
    ),
    "an operator as a function": (
        lambda: distill(net(), X, unary_operators=[torch.sin]),
        st.SearchError,
        "give its name, 'sin'",
    ),
    "x^2": (lambda: st.SearchSpace(unary_operators=["x^2"]), st.SearchError, "Did you mean 'square'"),
    "1/x": (lambda: st.SearchSpace(unary_operators=["1/x"]), st.SearchError, "Did you mean 'inv'"),
    "np.sin": (lambda: st.SearchSpace(unary_operators=["np.sin"]), st.SearchError, "Did you mean 'sin'"),
    "pi": (lambda: st.SearchSpace(unary_operators=["pi"]), st.SearchError, "searches find constants"),
    "gaussian": (lambda: st.SearchSpace(unary_operators=["gaussian"]), st.SearchError, "gauss.x. = exp"),
    "sin of two": (
        lambda: st.SearchSpace(binary_operators=["sin"]),
        st.SearchError,
        "but in unary_operators",
    ),
    "** of one": (lambda: st.SearchSpace(unary_operators=["**"]), st.SearchError, "but in binary_operators"),
    "a loss in capitals": (lambda: st.SearchSpace(loss="MSE"), st.SearchError, "Did you mean 'mse'"),
    "a loss of classes": (
        lambda: st.SearchSpace(loss=nn.CrossEntropyLoss()),
        st.SearchError,
        "'CrossEntropyLoss' depends on more than prediction - target",
    ),
    "a loss of PySR": (lambda: st.SearchSpace(loss="L2DistLoss()"), st.SearchError, "Did you mean 'mse'"),
    "a regressor in capitals": (
        lambda: st.distill(net(), X, regressor="TorchGP"),
        st.UnknownComponentError,
        "Did you mean 'torchgp'",
    ),
    "a regressor of PySR": (
        lambda: st.distill(net(), X, regressor=PySRRegressor()),
        st.SearchError,
        'not PySRRegressor: regressor="pysr", with settings in regressor_options=',
    ),
    "a regressor's class": (
        lambda: st.distill(net(), X, regressor=st.load("regressors", "sparse")),
        st.SearchError,
        r"not as a class: give SparseRegressor\(\)",
    ),
    "a rule": (lambda: distill(net(), X, select="bset"), st.SelectionError, "Did you mean 'best'"),
    "a metric's value": (
        use(lambda m, b: b.distill(X, metric=0.3)),
        st.SearchError,
        "a function of the model",
    ),
    # Afterwards.
    "a switch before distill": (
        lambda: st.SymbolicModel(net()).switch_to_symbolic(),
        st.SwitchError,
        "call distill",
    ),
    "equations before distill": (lambda: st.SymbolicModel(net()).equations(), st.SwitchError, "call distill"),
    "a complexity off the front": (
        lambda: switched().switch_to_symbolic(complexity=97),
        st.SelectionError,
        "no equation of complexity 97.*there are: 1",
    ),
    "refine before the switch": (
        lambda: st.refine(st.SymbolicModel(net()).adopt(distill(net(), X)), X),
        st.SwitchError,
        r"call switch_to_symbolic\(\) first",
    ),
    "refine on fewer rows than a batch": (
        lambda: switched().refine(X, progress=False),
        st.CaptureError,
        "at most 256 rows.*smaller batch_size=",
    ),
    "a pruner of a plain module": (lambda: st.OutputPruner(net(), 1, 9), st.SearchError, "as of wrap"),
    "a file that is not there": (
        lambda: st.Distillation.load("nothing.json"),
        st.FileFormatError,
        "nothing.json cannot be read",
    ),
    "an unknown format": (lambda: found().export("law.foo"), st.FileFormatError, "there are .py"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_explained(mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call, error, words = MISTAKES[mistake]
    with pytest.raises(error, match=words):
        call()


WARNED: dict[str, tuple[Callable[[], Any], str]] = {
    "an LSTM": (lambda: distill(nn.LSTM(2, 3), torch.randn(6, 12, 2)), "LSTM in LSTM mixes rows"),
    "a GRU, batch first": (
        lambda: distill(nn.GRU(2, 3, batch_first=True), torch.randn(6, 40, 2)),
        "GRU in GRU mixes rows",
    ),
    "attention": (
        lambda: distill(nn.TransformerEncoderLayer(4, 1, 8, batch_first=True), torch.randn(6, 12, 4)),
        "MultiheadAttention in TransformerEncoderLayer mixes rows",
    ),
    "a convolution of one width": (
        lambda: distill(nn.Conv2d(3, 3, 1), torch.randn(2, 3, 4, 4)),
        "Conv2d in Conv2d mixes rows.*unfold",
    ),
    "labels": (lambda: distill(lambda x: x.argmax(-1), X), "whole numbers: if they are labels.*logits"),
    "few rows": (lambda: distill(net(), X[:5]), "5 rows are so few that many equations fit them"),
    "noise": (
        lambda: distill((X, torch.randn(120, 1, generator=torch.Generator().manual_seed(1))), outputs=[0]),
        "explain nothing of y0 .R2 -?0.* on held-out rows",
    ),
}


@pytest.mark.parametrize("mistake", WARNED)
def test_what_cannot_come_out_well_is_warned_of(mistake: str) -> None:
    call, words = WARNED[mistake]
    torch.manual_seed(0)
    with pytest.warns(RuntimeWarning, match=words):
        call()


HEALTHY: dict[str, Callable[[], Any]] = {
    "a law": found,
    "a constant": lambda: distill((X, torch.ones(120, 1))),
    "pairs of a loader": lambda: distill(
        nn.Linear(4, 1), DataLoader(TensorDataset(X, X[:, :1]), batch_size=40)
    ),
    "a batch of two arguments": lambda: distill(
        torch.add, [(X, X)], capture_options={"select_input": ["0", "1"]}
    ),
    "tokens of an MLP": lambda: distill(nn.Linear(4, 1), X.reshape(6, 20, 4)),
    "a model in training mode": lambda: distill(nn.Sequential(nn.Linear(4, 1), nn.Dropout()).train(), X),
    "targets of whole numbers": lambda: distill((X.round(), X[:, 0].round().long())),
    "ln and **": lambda: st.SearchSpace(unary_operators=["ln", "arcsin"], binary_operators=["**", "times"]),
    "a report in a new folder": lambda: found().save("new/folder/result.json"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", HEALTHY)
def test_healthy_use_is_not_warned_of(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    HEALTHY[case]()


def test_patches_of_a_convolution_are_rows_as_the_advice_says() -> None:
    torch.manual_seed(0)
    block, x = nn.Conv2d(1, 1, 2), torch.randn(4, 1, 6, 6)
    with torch.no_grad():
        rows = torch.nn.functional.unfold(x, 2).mT, block(x).flatten(2).mT
    equation = distill(rows, unary_operators=[]).equations()["y0"]
    for name, weight in zip(("x0", "x1", "x2", "x3"), block.weight.flatten().tolist(), strict=True):
        assert float(equation.coeff(name)) == pytest.approx(weight, abs=1e-4)


def test_a_recurrent_block_is_no_function_of_rows() -> None:
    # Rows of one sequence in their own order would give its outputs again.
    torch.manual_seed(0)
    with pytest.warns(RuntimeWarning, match="mixes rows"):
        result = distill(nn.GRU(2, 1, batch_first=True), torch.randn(1, 60, 2))
    assert result.fidelity[0].out_of_range is None


ATTRIBUTES: dict[str, tuple[Callable[[], Any], str]] = {
    "best of a result": (lambda: found().best(), r"Distillation has no attribute 'best': chosen\(\)"),
    "sympy of a result": (lambda: found().sympy(), r"equations\(\) has the chosen equations as sympy"),
    "equations_ of a result": (lambda: found().equations_, r"to_frame\(\) is a table"),
    "best of a front": (lambda: found().front(0).best(), r'ParetoFront has no attribute.*select\("score"\)'),
    "fit of a block": (
        use(lambda m, b: b.fit(X)),
        "SymbolicModel '1' around a Sequential has no.*use distill",
    ),
    "an attribute nobody has": (
        use(lambda m, b: b.foo),
        "SymbolicModel '1' around a Sequential has no attribute 'foo'",
    ),
    "get_equation of a block": (
        use(lambda m, b: b.get_equation()),
        r"equations\(\) has the equations in use",
    ),
    "SymbolicMLP": (lambda: st.SymbolicMLP, "symtorch_core has no attribute 'SymbolicMLP': use st.wrap"),
    "PySRRegressor": (lambda: st.PySRRegressor, 'regressor="pysr"'),
}


@pytest.mark.parametrize("habit", ATTRIBUTES)
def test_an_attribute_of_another_library_is_explained(habit: str) -> None:
    call, words = ATTRIBUTES[habit]
    with pytest.raises(AttributeError, match=words):
        call()


def test_the_package_has_the_names_it_had_and_no_others() -> None:
    assert not hasattr(st, "nothing_of_that_name")
    assert st.search.SearchSpace is st.SearchSpace


# -- the tables themselves -------------------------------------------------------------------


def own_arguments() -> set[str]:
    """Return every argument that a public function, a class or a component has."""
    functions: list[Callable[..., Any]] = [
        getattr(st, name)
        for name in st.__all__
        if inspect.isfunction(getattr(st, name)) or name in ("SearchSpace", "OutputPruner", "SymbolicModel")
    ]
    methods = [getattr(st.SymbolicModel, name) for name in ("distill", "switch_to_symbolic", "capture")]
    components = [
        st.load(kind, record.name)
        for kind in ("captures", "reducers", "regressors")
        for record in st.available(kind)
    ]
    names: set[str] = set()
    for function in (*functions, *methods, *components):
        names |= set(inspect.signature(function).parameters)
    return names


def test_what_is_meant_exists() -> None:
    known = own_arguments()
    for name, word in WORDS.items():
        assert set(word.ours) <= known, name
        assert word.ours or word.note, name
        assert name == name.lower()


def test_meaning_comes_before_spelling() -> None:
    assert suggest("metric", ["metrics", "loss"]).startswith(" Did you mean 'loss'")
    assert suggest("niteration", ["niterations"]) == " Did you mean 'niterations'?"
    assert suggest("zzz", ["niterations"]) == ""


@pytest.mark.parametrize(
    ("habits", "kind"),
    [
        (OF_RESULT, st.Distillation),
        (OF_FRONT, st.ParetoFront),
        (OF_MODEL, st.SymbolicModel),
        (OF_PACKAGE, st),
    ],
)
def test_habits_are_of_others(habits: dict[str, str], kind: Any) -> None:
    own = set(dir(kind)) | set(getattr(kind, "__dataclass_fields__", ()))
    assert not own & set(habits), "an attribute that is there needs no explanation"


def test_signatures_stay_those_of_the_functions() -> None:
    assert list(inspect.signature(st.wrap).parameters) == ["model", "path", "name"]
    assert "binary_operators" in inspect.signature(st.SearchSpace).parameters
    assert (st.wrap.__doc__ or "").startswith("Replace a submodule")
