"""The request of a distillation: components with their options, each option with its owner, checked before any work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final, get_args

from symtorch_core.activations.batches import check_data, has_rows, is_pair, read_table
from symtorch_core.activations.hooks import Capture
from symtorch_core.activations.rows import Activations, to_weights
from symtorch_core.components.checks import (
    check_callbacks,
    check_choice,
    check_distinct,
    check_flag,
    check_function,
    check_names,
    check_number,
    check_options,
    check_path,
    check_seed,
    check_whole,
    find_columns,
    find_position,
    read_columns,
)
from symtorch_core.components.options import Configurable
from symtorch_core.components.registry import load
from symtorch_core.components.words import suggest
from symtorch_core.errors import ArgumentError, CaptureError, SearchError, SelectionError
from symtorch_core.reduction.reducer import Reducer
from symtorch_core.search.checkpoint import identify_search
from symtorch_core.search.regressor import Regressor
from symtorch_core.search.selection import HELD_OUT_RULES, SelectionRule
from symtorch_core.search.space import SearchSpace
from symtorch_core.surrogates.transforms import check_transforms

_MODEL_FIRST: Final = "build the model, load its weights into it, and give that"
_BLOCKS: Final = {
    **dict.fromkeys(("str", "PosixPath", "WindowsPath", "dict", "OrderedDict"), _MODEL_FIRST),
    **dict.fromkeys(
        ("Tensor", "ndarray", "DataFrame"), "give rows as a pair, distill((X, Y)); a module comes first"
    ),
    "tuple": "a pair is (X, Y); weights of rows go into weights=",
}
_LIBRARIES: Final = {"pysr": "pysr", "gplearn": "gplearn", "pyoperon": "operon"}
_OWNERS: Final = {"captures": "capture", "regressors": "regressor", "reducers": "reducer"}


@final
@dataclass(frozen=True)
class Components:
    """Components of one distillation, built with their options, and the search as the backend runs it."""

    capture: Capture
    capture_options: Mapping[str, Any]
    regressor: Regressor
    reducer: Reducer
    search: SearchSpace


@final
@dataclass(frozen=True)
class _Part:
    """A component as requested: a name or an instance, and the options for it."""

    kind: str
    base: type[Configurable]
    spec: str | Configurable
    options: Mapping[str, Any]

    @property
    def owner(self) -> str:
        """The user's word for it: ``capture``, ``regressor`` or ``reducer``."""
        return _OWNERS[self.kind]

    def type(self) -> type[Configurable]:
        """Return the component's class, imported by its name if needed.

        Raises:
            SearchError: the component is neither a name nor an instance.
            UnknownComponentError, MissingDependencyError: the component is unknown, or lacks a dependency.
        """
        if isinstance(self.spec, self.base):
            return type(self.spec)
        if not isinstance(self.spec, str):
            raise SearchError(
                f"{self.kind} are given by name or as an instance of {self.base.__name__}, {self._find_meant()}"
            )
        kind: type[Configurable] = load(self.kind, self.spec)
        return kind

    def _find_meant(self) -> str:
        """Return the end of a message about what is neither a name nor an instance."""
        if isinstance(self.spec, type):
            return f"not as a class: give {self.spec.__name__}()"
        kind = type(self.spec)
        name = _LIBRARIES.get(kind.__module__.partition(".")[0])
        advice = f': {self.owner}="{name}", with settings in {self.owner}_options=' if name else ""
        return f"not {kind.__name__}{advice}"

    def make(self) -> Any:
        """Return the component, built with its options.

        Raises:
            SearchError: an option is unknown or invalid, or options were given beside an instance.
        """
        if isinstance(self.spec, self.base):
            if self.options:
                raise SearchError(
                    f"{', '.join(self.options)}: give options to the {self.spec.name} instance itself, "
                    f"not in {self.owner}_options"
                )
            return self.spec
        kind = self.type()
        for option in self.options:
            if option in SearchSpace.field_names() and option not in kind.option_names():
                raise SearchError(
                    f"{option!r} is a field of the search space, not an option of the {self.owner} {kind.name!r}: "
                    f"give {option}= as an argument of its own"
                )
        return kind.with_options(self.options)


def resolve_components(arguments: Mapping[str, Any]) -> Components:
    """Build the components of a distillation with their options.

    Args:
        arguments: those of :func:`symtorch_core.distill`, by name.

    Raises:
        SearchError: an option has no owner (the message names the closest one), is invalid, or with ``resume`` cannot
            be known again by another run.
        UnknownComponentError, MissingDependencyError: a component is unknown or cannot be imported; the message lists
            the known ones.
    """
    search, search_fields = arguments["search"], arguments["search_fields"]
    parts = [
        _Part(
            kind,
            base,
            arguments[owner],
            check_options(f"{owner}_options", arguments[f"{owner}_options"], example),
        )
        for (kind, owner), base, example in zip(
            _OWNERS.items(),
            (Capture, Regressor, Reducer),
            ("select_input", "n_jobs", "k_in"),
            strict=True,
        )
    ]
    kinds = [part.type() for part in parts]
    for name in search_fields:
        if name not in SearchSpace.field_names():
            raise ArgumentError(_explain_unowned(name, parts, kinds, arguments))
    if search is not None:
        if not isinstance(search, SearchSpace):
            raise SearchError(f"search must be a SearchSpace, not a {type(search).__name__}")
        if search_fields:
            raise SearchError(f"give search= or its fields, not both: {', '.join(search_fields)}")
    collector, engine, narrower = (part.make() for part in parts)
    resolved = engine.resolve_search(search or SearchSpace(**search_fields))
    if arguments["resume"] is not None:
        identify_search(resolved, engine)  # for its refusal, which must come before the capture
    return Components(
        capture=collector,
        capture_options=parts[0].options,
        regressor=engine,
        reducer=narrower,
        search=resolved,
    )


def _explain_unowned(
    name: str, parts: Sequence[_Part], kinds: Sequence[type[Configurable]], arguments: Iterable[str]
) -> str:
    """Return the message about a keyword argument that is not a field of the search space."""
    options = {
        part.owner: {*kind.option_names(), *kind.passed_options()}
        for part, kind in zip(parts, kinds, strict=True)
    }
    owners = [owner for owner, names in options.items() if name in names]
    if owners:
        chosen = {part.owner: kind.name for part, kind in zip(parts, kinds, strict=True)}
        homes = " and ".join(f"the {owner} {chosen[owner]!r}" for owner in owners)
        places = " or ".join(f"{owner}_options={{{name!r}: ...}}" for owner in owners)
        return f"{name!r} is an option of {homes}: give {places}"
    homes_of = {option: f", in {owner}_options" for owner, names in options.items() for option in names}
    homes_of |= dict.fromkeys(SearchSpace.field_names(), ", a field of the search space")
    homes_of["metric"] = ", of a wrapped block's distill"
    homes_of |= dict.fromkeys(set(arguments) - {"search_fields"}, "")
    places = (
        " Fields of the search space are given one by one; the options of a component in regressor_options=, "
        "reducer_options= or capture_options="
    )
    return f"distill has no option {name!r}.{suggest(name, homes_of) or places}"


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse, before any work, arguments of :func:`symtorch_core.distill` with a wrong type or an invalid value.

    Args:
        arguments: those of :func:`symtorch_core.distill`, by name.

    Raises:
        CaptureError: the block, the data or the number of rows is invalid.
        SearchError: another argument is invalid.
        SelectionError: the rule is unknown, or needs held-out rows and there are none.
    """
    _check_rows(arguments["block"], arguments["data"], arguments["parent"])
    for name in ("variable_names", "output_names"):
        if arguments[name] is not None:
            check_distinct(name, check_names(name, arguments[name]), SearchError)
    if arguments["transforms"] is not None:
        check_transforms(arguments["transforms"])
    if arguments["outputs"] is not None:
        _check_outputs(arguments["outputs"], arguments["output_names"])
    if arguments["weights"] is not None:
        to_weights(arguments["weights"])
    surrogate, resume = arguments["surrogate"], arguments["resume"]
    if not isinstance(surrogate, str):
        raise SearchError(
            f"surrogate must be the name of a kind of surrogate, not a {type(surrogate).__name__}"
        )
    if resume is not None:
        check_path("resume", resume, what="folder")
    select, test_fraction = arguments["select"], arguments["test_fraction"]
    check_choice("rule", select, get_args(SelectionRule), SelectionError)
    check_number("test_fraction", test_fraction, 0, 1, open_high=True, error=CaptureError)
    if select in HELD_OUT_RULES and test_fraction == 0:
        raise SelectionError(f'the rule "{select}" needs rows held out of the search: give test_fraction > 0')
    check_whole("max_rows", arguments["max_rows"], 2, CaptureError)
    check_seed(arguments["seed"])
    for name in ("out_of_range", "progress"):
        check_flag(name, arguments[name])
    check_callbacks(arguments["callbacks"])


def check_held_out(select: SelectionRule, rows: int, test_fraction: float) -> None:
    """Refuse, before the search, a rule that needs held-out rows where there are none.

    Raises:
        SelectionError: the share of so few rows is none.
    """
    if select in HELD_OUT_RULES:
        raise SelectionError(
            f'the rule "{select}" needs rows held out of the search, but test_fraction={test_fraction:g} of {rows} '
            "rows is none: give more rows, a larger test_fraction or another rule"
        )


def _check_rows(block: Any, data: Any, parent: Any) -> None:
    pair = isinstance(block, (tuple, list)) and len(block) == 2
    if isinstance(block, Activations) or pair:
        if data is not None or parent is not None:
            raise CaptureError("the rows are given, so there is nothing to run: leave out data and parent")
    elif isinstance(block, type):
        raise CaptureError(
            f"cannot distill {block.__name__}, a class: give a module made of it, with its weights"
        )
    elif not callable(block):
        hint = _BLOCKS.get(
            type(block).__name__, "give a module or function with data, an (X, Y) pair, or Activations"
        )
        raise CaptureError(f"cannot distill a {type(block).__name__}: {hint}")
    elif data is None:
        raise CaptureError("give the data to run the block on: distill(block, data, parent=model)")
    else:
        check_data(data)
        check_function("parent", parent, "the model that calls the block", CaptureError, optional=True)


def read_truth(arguments: Mapping[str, Any]) -> Activations | None:
    """Return the measurements in ``y_true`` beside the block's inputs; None if there are none.

    Args:
        arguments: those of :func:`symtorch_core.distill`, by name.

    Raises:
        CaptureError: it is unknown to which inputs they belong, or they are not a finite number for each.
    """
    given, block, data = arguments["y_true"], arguments["block"], arguments["data"]
    if given is None:
        return None
    if is_pair(given):
        X, Y = given
    elif isinstance(block, Activations):
        X, Y = block.inputs, given
    elif not callable(block):
        X, Y = block[0], given
    elif arguments["parent"] is None and has_rows(read_table(data)):
        X, Y = data, given
    else:
        raise CaptureError(
            "y_true belongs to the rows of data if these are one array that is fed to the block itself; otherwise give "
            "a pair y_true=(X, Y): inputs of the block, and what was measured of its outputs"
        )
    drops = dict(arguments["capture_options"] or {}).get("on_nonfinite", "raise")
    try:
        return Activations.of(X, Y, on_nonfinite=drops)
    except CaptureError as error:
        raise CaptureError(f"y_true: {error}") from None


def check_truth(truth: Activations | None, activations: Activations) -> None:
    """Refuse, before the search, measurements of another block.

    Raises:
        CaptureError: they have other numbers of inputs or outputs than the block.
    """
    if truth is None:
        return
    for side in ("inputs", "outputs"):
        found, expected = (getattr(rows, side).shape[1] for rows in (truth, activations))
        if found != expected:
            raise CaptureError(
                f"y_true has {found} {side}, the block has {expected}: give a pair y_true=(X, Y) of the block's own "
                "inputs and measurements of all of its outputs"
            )


def check_metric(metric: Callable[[Any], float] | None) -> None:
    """Refuse, with a :class:`SearchError`, a metric that is not a function of the model."""
    if metric is not None and not callable(metric):
        raise SearchError(
            f"metric must be a function of the model that gives a number, not {metric!r}; an option of that name "
            "of a component goes into capture_options= or regressor_options="
        )


def find_outputs(outputs: Any, names: Sequence[str]) -> tuple[int, ...]:
    """Return the numbers of the columns to distill, from a list of numbers or names; ``names`` are the block's.

    Raises:
        SearchError: there is no such column, or one is given twice.
    """
    columns = find_columns("outputs", outputs, range(len(names)), names)
    _check_distinct(columns)
    return columns


def _check_outputs(outputs: Any, names: Sequence[str] | None) -> None:
    """Refuse, as far as it is known before the capture, what are no different columns."""
    columns = read_columns("outputs", outputs)
    _check_distinct(columns)
    for column in columns:
        if names is not None and isinstance(column, str):
            find_position("output", column, range(len(names)), names)


def _check_distinct(columns: Sequence[int | str]) -> None:
    if not columns or len(set(columns)) != len(columns):
        raise SearchError(
            f"outputs={list(columns)}: give different numbers or names of output columns, at least one"
        )
