"""The ``symtorch`` command: installed components and their state, saved results, studies, and a demonstration."""

from __future__ import annotations

import dataclasses
import inspect
import platform
import sys
import typing
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from symtorch_core.components.escaping import show_hidden
from symtorch_core.components.options import Configurable, Finding
from symtorch_core.components.registry import CORE_DISTRIBUTION, KINDS, Available, Registry, registry
from symtorch_core.errors import FileFormatError, MissingDependencyError, SymTorchError, UnknownComponentError
from symtorch_core.storage.locks import hold_lock

if TYPE_CHECKING:
    from symtorch_core.results.distillation import Distillation
    from symtorch_core.studies.study import Study

_INTERRUPTED: Final = 130  # exit code that shells use for Ctrl-C

app: Final = typer.Typer(
    help="Turn trained PyTorch blocks into equations.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def plugins(
    kind: Annotated[str | None, typer.Option(help="Only this kind: " + ", ".join(KINDS) + ".")] = None,
) -> None:
    """List every installed component by kind, and every plugin that failed to load."""
    console = Console()
    everything = registry()
    records = _list_records(everything) if kind is None else everything.available(kind)
    table = Table("kind", "name", "summary", "distribution", "version")
    for record in records:
        cells = record.kind, record.name, record.component.summary, record.distribution, record.version
        table.add_row(*map(Text, cells))  # Text: a bracket in a plugin's summary is not rich's markup
    console.print(table)
    _print_failures(console, everything)


@app.command()
def doctor(
    name: Annotated[str | None, typer.Argument(help="One component: everything there is to know.")] = None,
) -> None:
    """Import every component, and show which work, which lack a dependency, and which are broken."""
    console = Console()
    everything = registry()
    if name is not None:
        _examine_closely(console, everything, name)
        return
    for name in (CORE_DISTRIBUTION, "torch"):
        _print_line(console, f"{name} {_get_version(name)}")
    _print_line(console, f"python {platform.python_version()}")
    states = [(record, *_describe_state(everything, record)) for record in _list_records(everything)]
    table = Table("kind", "name", "distribution", "state")
    for record, state, _ in states:
        table.add_row(*map(Text, (record.kind, record.name, record.distribution, state)))
    console.print(table)
    for _, _, reason in states:
        if reason:  # below the table, where it can be read and copied
            _print_line(console, f"- {reason}")
    _print_failures(console, everything)
    if everything.disabled:
        _print_line(console, f"disabled: {', '.join(sorted(everything.disabled))}")
    if everything.failures() or any(state == "broken" for _, state, _ in states):
        raise typer.Exit(code=1)


@app.command()
def demo(
    regressor: Annotated[
        str, typer.Option(help="The search to use; `symtorch plugins` lists them.")
    ] = "torchgp",
    seed: Annotated[int, typer.Option(help="Seed of the data, the training and the search.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Smaller data and shorter searches.")] = False,
    out: Annotated[
        Path, typer.Option(help="Folder for the models, results and pages that the demo leaves.")
    ] = Path("symtorch-demo"),
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the page at the end.")] = True,
) -> None:
    """Train two small networks, turn them into equations, and run the equations in their place."""
    from symtorch_core.demo import run  # here, so that the other commands start fast

    run(Console(), regressor=regressor, seed=seed, quick=quick, out=out, open_page=open_page)


@app.command()
def show(result: Annotated[Path, typer.Argument(help="A file that Distillation.save wrote.")]) -> None:
    """Print the fronts, the fidelity and the settings of a saved distillation."""
    from symtorch_core.views.terminal import render_result

    Console().print(render_result(_load_result(result)))


@app.command()
def report(
    result: Annotated[Path, typer.Argument(help="A file that Distillation.save wrote.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The page to write.")] = Path("report.html"),
    title: Annotated[str, typer.Option(help="Its headline.")] = "",
) -> None:
    """Write a saved distillation as one self-contained HTML page."""
    path = _load_result(result).report(output, title)
    _print_line(Console(), f"wrote {path} ({path.stat().st_size / 1024:.0f} kB)")


@app.command()
def export(
    result: Annotated[Path, typer.Argument(help="A file that Distillation.save wrote.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Its ending says what: .py .c .tex .onnx .pt2")
    ],
) -> None:
    """Write the equations of a saved distillation for another program."""
    _print_line(Console(), f"wrote {_load_result(result).export(output)}")


@app.command(
    add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
)
def run(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The study; leave it out to see which there are.")] = "",
) -> None:
    """Run a study by name; `symtorch run NAME --help` shows its options."""
    if not name or name == "--help":
        _list_studies(Console())
        return
    kind: type[Study] = registry().load("studies", name)
    study_command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    study_command.command(help=inspect.getdoc(kind))(_make_command(kind))
    study_command(args=context.args, prog_name=f"symtorch run {name}")


def _make_command(kind: type[Study]) -> Any:
    """Build a function whose parameters are the study's fields and the folder; typer reads its options from them."""
    hints = typing.get_type_hints(kind)
    fields = [entry for entry in dataclasses.fields(kind) if entry.init]  # type: ignore[arg-type]
    parameters = [
        inspect.Parameter(
            entry.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=entry.default,
            annotation=Annotated[hints[entry.name], typer.Option(help=entry.metadata.get("help", ""))],
        )
        for entry in fields
    ]
    folder = inspect.Parameter(
        "out",
        inspect.Parameter.KEYWORD_ONLY,
        default=Path("studies") / kind.name,
        annotation=Annotated[
            Path,
            typer.Option(help="Folder for models, the report and its figures; a stopped run goes on there."),
        ],
    )

    presets = inspect.Parameter(
        "preset",
        inspect.Parameter.KEYWORD_ONLY,
        default="",
        annotation=Annotated[str, typer.Option(help=f"Settings by name: {_describe_presets(kind)}.")],
    )
    every = [*parameters, *((presets,) if kind.presets else ()), folder]

    def command(context: typer.Context, **options: Any) -> None:
        out: Path = options.pop("out")
        name: str = options.pop("preset", "")
        # What is typed counts before what a preset says, even where it is the default.
        typed = {option: value for option, value in options.items() if _is_typed(context, option)}
        _run(kind.with_preset(name, typed) if name else kind.with_options(options), out)

    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    command.__signature__ = inspect.Signature([context, *every])  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in [context, *every]}
    return command


def _is_typed(context: typer.Context, option: str) -> bool:
    source = context.get_parameter_source(option)
    return source is not None and source.name != "DEFAULT"


def _describe_presets(kind: type[Study]) -> str:
    """Return each preset with its settings, in one line."""
    return "; ".join(
        f"{name} ({', '.join(f'{option} {value}' for option, value in options.items())})"
        for name, options in kind.presets.items()
    )


def _run(study: Study, out: Path) -> None:
    from symtorch_core.events.progress import progress_bars  # here, so that the other commands start fast

    console = Console()
    with hold_lock(out / "run.lock", "a study"):
        try:
            with progress_bars() as bars:
                report = study.run(out, [bars])
        except KeyboardInterrupt:
            _print_line(console, f"stopped; the same command goes on with what is finished in {out}")
            raise typer.Exit(_INTERRUPTED) from None
        console.print(report)
        _print_line(console, f"wrote {report.write(out)}")


def _list_studies(console: Console) -> None:
    table = Table(
        "study", "summary", "distribution", title="symtorch run NAME [OPTIONS]; --help behind a name"
    )
    for record in registry().available("studies"):
        table.add_row(*map(Text, (record.name, record.component.summary, record.origin)))
    console.print(table)
    _print_failures(console, registry())


def _load_result(path: Path) -> Distillation:
    from symtorch_core.results.distillation import Distillation  # here, so that the other commands start fast

    if not path.is_file():
        raise FileFormatError(f"there is no file {path}")
    return Distillation.load(path)


def main() -> None:
    """Run the command line; an error of the framework ends it with its message and no traceback."""
    try:
        app()
    except (SymTorchError, OSError) as error:  # OSError: a file that cannot be written
        _print_line(Console(stderr=True), f"Error: {error}")
        sys.exit(1)


def _list_records(everything: Registry) -> list[Available]:
    return [record for kind in KINDS for record in everything.available(kind)]


def _examine(everything: Registry, record: Available) -> tuple[str, str]:
    """Return state and reason: a dependency that is not installed is the user's choice, anything else is a fault."""
    try:
        everything.load(record.kind, record.name)
    except MissingDependencyError as error:
        # A version that does not fit is a fault too; only a missing package is a choice.
        return ("missing" if isinstance(error.__cause__, ModuleNotFoundError) else "broken"), str(error)
    except SymTorchError as error:
        return "broken", str(error)
    return "ok", ""


def _describe_state(everything: Registry, record: Available) -> tuple[str, str]:
    state, reason = _examine(everything, record)
    failed = (
        [finding.text for finding in _check_up(everything, record) if not finding.ok] if state == "ok" else []
    )
    if failed:
        return "not ready", f"{record.name}: {failed[0]} (more: symtorch doctor {record.name})"
    return state, reason


def _examine_closely(console: Console, everything: Registry, name: str) -> None:
    records = [record for record in _list_records(everything) if record.name == name]
    if not records:
        known = sorted({record.name for record in _list_records(everything)})
        raise UnknownComponentError(f"There is no component {name!r}; installed: {', '.join(known)}.")
    healthy = True
    for record in records:
        state, reason = _examine(everything, record)
        _print_line(console, f"{record.name} ({record.kind}, {record.origin}): {state}")
        if reason:
            _print_line(console, f"- {reason}")
        findings = () if state != "ok" else _check_up(everything, record)
        for finding in findings:
            _print_line(console, f"{'ok' if finding.ok else 'NO'}  {finding.text}")
        healthy &= state == "ok" and all(finding.ok for finding in findings)
    if not healthy:
        raise typer.Exit(code=1)


def _check_up(everything: Registry, record: Available) -> tuple[Finding, ...]:
    target = everything.load(record.kind, record.name)
    return target.checkup() if isinstance(target, type) and issubclass(target, Configurable) else ()


def _get_version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "(not installed, run from its source)"


def _print_failures(console: Console, everything: Registry) -> None:
    for failure in everything.failures():
        _print_line(console, f"failed: {failure}")


def _print_line(console: Console, line: str) -> None:
    # Text of a plugin may hold brackets, which are not rich's markup; soft wrap keeps lines whole for copying.
    console.print(show_hidden(line, keep="\n"), markup=False, highlight=False, soft_wrap=True, emoji=False)
