"""The registry against real distributions, written to a folder as pip would lay them out."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from textwrap import dedent

import pytest

from symtorch_core.components.hookspecs import Component
from symtorch_core.components.registry import FIRST_PARTY, KINDS, Registry
from symtorch_core.errors import (
    DuplicateComponentError,
    MissingDependencyError,
    SymTorchError,
    UnknownComponentError,
)


class Site:
    """A folder of installed distributions, each with one plugin module."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, distribution: str, plugin: str, source: str, version: str = "1.0") -> str:
        """Write a distribution whose plugin module holds `source`; give the module's name."""
        module = f"{distribution.replace('-', '_')}_{plugin}"
        header = "from symtorch_core.components.hookspecs import Component, hookimpl\n\n"
        self.module(module, header + dedent(source))
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        info.joinpath("METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        info.joinpath("entry_points.txt").write_text(f"[symtorch]\n{plugin} = {module}\n")
        return module

    def module(self, name: str, source: str) -> None:
        self.folder.joinpath(f"{name}.py").write_text(dedent(source))

    def registry(self, *disabled: str) -> Registry:
        found = metadata.distributions(path=[str(self.folder)])
        points = [point for item in found for point in item.entry_points.select(group="symtorch")]
        return Registry(points, disabled=disabled)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield Site(tmp_path)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def offer(name: str, target: str = "nowhere:Thing", kind: str = "regressors", hint: str = "") -> str:
    return dedent(f"""
        @hookimpl
        def symtorch_{kind}():
            yield Component(name={name!r}, target={target!r}, summary="a test", hint={hint!r})
        """)


def names(registry: Registry, kind: str = "regressors") -> list[str]:
    return [record.name for record in registry.available(kind)]


# --- listing and loading


def test_core_offers_its_own_parts_without_any_plugin() -> None:
    alone = Registry(())
    assert {kind: names(alone, kind) for kind in KINDS} == {
        "captures": ["hooks"],
        "reducers": ["identity"],
        "regressors": [],
        "surrogates": ["torch"],
        "studies": [],
    }
    assert alone.failures() == ()
    assert {record.distribution for record in alone.available("reducers")} == {"symtorch-core"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_target_of_the_core_can_be_loaded(kind: str) -> None:
    alone = Registry(())
    for record in alone.available(kind):
        assert isinstance(alone.load(kind, record.name), type)


def test_a_plugin_is_listed_without_its_target_and_loaded_on_demand(site: Site) -> None:
    site.install("acme-fast", "fast", offer("fast", "acme_target:Fast"), version="2.1")
    site.module("acme_target", "class Fast: pass")
    registry = site.registry()

    (record,) = registry.available("regressors")
    assert (record.name, record.kind, record.distribution, record.version, record.plugin) == (
        "fast",
        "regressors",
        "acme-fast",
        "2.1",
        "fast",
    )
    assert "acme_target" not in sys.modules
    assert registry.load("regressors", "fast") is sys.modules["acme_target"].Fast


def test_one_plugin_may_offer_many_kinds_and_names(site: Site) -> None:
    site.install("acme", "all", offer("one") + offer("two", kind="studies"))
    assert names(site.registry()) == ["one"]
    assert names(site.registry(), "studies") == ["two"]


def test_two_plugins_of_one_name_are_both_there(site: Site) -> None:
    site.install("acme-a", "search", offer("a"))
    site.install("acme-b", "search", offer("b"))
    assert names(site.registry()) == ["a", "b"]


# --- broken plugins


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("import module_that_is_not_there", "No module named 'module_that_is_not_there'"),
        ("def broken(:", "SyntaxError"),
        ("raise SystemExit('bye')", "SystemExit: bye"),
        ("def symtorch_regressors(): yield 1", "@hookimpl"),
        ("@hookimpl\ndef symtorch_regressors(model): yield 1", "model"),
        ("@hookimpl\ndef symtorch_regressor(): yield 1", "did you mean 'symtorch_regressors'"),
        ("@hookimpl\ndef symtorch_regressors(): return None", "NoneType"),
        ("@hookimpl\ndef symtorch_regressors(): yield {'name': 'x'}", "not a Component"),
        ("@hookimpl\ndef symtorch_regressors(): yield Component('x', 'y', 'z')", "package.module:Attribute"),
    ],
)
def test_a_broken_plugin_is_remembered_and_breaks_nothing_else(site: Site, source: str, reason: str) -> None:
    site.install("acme-good", "good", offer("good"))
    site.install("acme-bad", "bad", source, version="0.3")
    site.install("zebra", "later", offer("later"))
    registry = site.registry()

    assert names(registry) == ["good", "later"]
    (failure,) = registry.failures()
    assert (failure.plugin, failure.distribution, failure.version) == ("bad", "acme-bad", "0.3")
    assert reason in failure.reason
    with pytest.raises(UnknownComponentError, match=r"plugin 'bad' of acme-bad 0\.3: ") as caught:
        registry.load("regressors", "bad")
    assert reason in str(caught.value)


def test_records_before_and_beside_a_fault_are_kept(site: Site) -> None:
    half = """
        @hookimpl
        def symtorch_regressors():
            yield Component("first", "a:B", "before the fault")
            raise OSError("disk gone")

        @hookimpl
        def symtorch_reducer():
            yield Component("misspelt", "a:B", "never seen")

        @hookimpl
        def symtorch_studies():
            yield Component("study", "a:B", "beside the fault")
        """
    site.install("acme", "half", half)
    registry = site.registry()
    assert names(registry) == ["first"]
    assert names(registry, "studies") == ["study"]
    reasons = sorted(failure.reason for failure in registry.failures())
    assert reasons == [
        "symtorch_regressors raised OSError: disk gone",
        "there is no hook 'symtorch_reducer'; did you mean 'symtorch_reducers'?",
    ]


def test_a_hook_of_a_later_version_may_be_marked_optional(site: Site) -> None:
    later = "@hookimpl(optionalhook=True)\ndef symtorch_plots():\n    yield 1\n"
    site.install("acme", "later", offer("fine") + later)
    assert names(site.registry()) == ["fine"]
    assert site.registry().failures() == ()


# --- duplicates and disabling


def test_a_duplicate_is_listed_twice_and_names_both_distributions_when_loaded(site: Site) -> None:
    site.install("acme-one", "one", offer("same", "first_target:A"))
    site.install("acme-two", "two", offer("same", "second_target:A"), version="4.0")
    site.module("second_target", "A = 'the second'")
    registry = site.registry()

    assert [record.distribution for record in registry.available("regressors")] == ["acme-one", "acme-two"]
    with pytest.raises(DuplicateComponentError, match="SYMTORCH_DISABLE_PLUGINS") as caught:
        registry.load("regressors", "same")
    assert "acme-one 1.0" in str(caught.value)
    assert "acme-two 4.0" in str(caught.value)
    assert site.registry("one").load("regressors", "same") == "the second"


def test_a_plugin_may_not_quietly_replace_a_part_of_the_core(site: Site) -> None:
    site.install("acme", "shadow", offer("identity", kind="reducers"))
    with pytest.raises(DuplicateComponentError, match="symtorch-core"):
        site.registry().load("reducers", "identity")


@pytest.mark.parametrize("by", ["unwanted", "acme-bad"])
def test_a_disabled_plugin_is_never_imported(site: Site, by: str) -> None:
    module = site.install("acme-bad", "unwanted", "raise RuntimeError('imported after all')")
    site.install("acme-good", "wanted", offer("good"))
    registry = site.registry(by)
    assert module not in sys.modules
    assert registry.failures() == ()
    assert names(registry) == ["good"]
    with pytest.raises(UnknownComponentError, match=f"Disabled by SYMTORCH_DISABLE_PLUGINS: {by}"):
        registry.load("regressors", "bad")


def test_the_environment_variable_disables_in_a_fresh_process(site: Site) -> None:
    site.install("acme-a", "a", offer("a"))
    site.install("acme-b", "b", "raise RuntimeError('broken')")
    site.install("acme-c", "c", offer("c"))
    code = """
        from symtorch_core.components.registry import available, list_failures
        print([r.name for r in available("regressors") if r.distribution.startswith("acme")])
        print([f.plugin for f in list_failures() if f.distribution.startswith("acme")])
        """

    def run(disable: str) -> list[str]:
        path = os.pathsep.join([str(site.folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | {"PYTHONPATH": path, "SYMTORCH_DISABLE_PLUGINS": disable}
        done = subprocess.run(
            [sys.executable, "-c", dedent(code)], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.splitlines()

    assert run("") == ["['a', 'c']", "['b']"]
    assert run(" b, a ") == ["['c']", "[]"]


# --- errors of load


def test_an_unknown_kind_lists_the_kinds() -> None:
    with pytest.raises(UnknownComponentError, match="captures, reducers, regressors, surrogates, studies"):
        Registry(()).available("regressor")
    with pytest.raises(LookupError):
        Registry(()).load("regressor", "operon")


def test_an_unknown_name_tells_what_is_there_and_the_closest(site: Site) -> None:
    site.install("acme", "acme", offer("evolution") + offer("other", kind="studies"))
    with pytest.raises(
        UnknownComponentError, match=r"installed: evolution\. Did you mean 'evolution'"
    ) as caught:
        site.registry().load("regressors", "Evolutoin")
    assert "pip install" not in str(caught.value)


@pytest.mark.parametrize(("kind", "name"), FIRST_PARTY)
def test_a_first_party_name_that_is_absent_gives_its_pip_line(kind: str, name: str) -> None:
    with pytest.raises(UnknownComponentError, match=f"pip install symtorch-{name}") as caught:
        Registry(()).load(kind, name)
    assert "Did you mean" not in str(caught.value)


def test_a_near_miss_of_an_absent_first_party_name_gives_both() -> None:
    with pytest.raises(UnknownComponentError, match=r"Did you mean 'operon'\? .*pip install symtorch-operon"):
        Registry(()).load("regressors", "Operron")
    with pytest.raises(UnknownComponentError, match="installed: none") as caught:
        Registry(()).load("regressors", "zzzzzz")
    assert "Did you mean" not in str(caught.value)


def test_a_missing_dependency_names_the_module_and_the_hint(site: Site) -> None:
    site.install("acme", "acme", offer("deep", "acme_deep:Deep", hint="pip install acme[deep]"))
    site.module("acme_deep", "import quite_absent.part\nclass Deep: pass")
    with pytest.raises(MissingDependencyError) as caught:
        site.registry().load("regressors", "deep")
    message = str(caught.value)
    assert "'quite_absent', which is not installed" in message
    assert message.endswith("Try: pip install acme[deep]")
    assert "acme 1.0" in message
    assert caught.value.name == "quite_absent"
    assert isinstance(caught.value, ImportError)


def test_a_dependency_that_is_there_but_does_not_fit_says_so(site: Site) -> None:
    site.install("acme", "acme", offer("old", "acme_old:Old", hint="pip install acme"))
    site.module("acme_old", "from json import no_such_function")
    with pytest.raises(MissingDependencyError, match="cannot import name 'no_such_function'"):
        site.registry().load("regressors", "old")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise ValueError('odd')", "raised ValueError: odd"),
        ("raise SystemExit(3)", "raised SystemExit: 3"),
        ("A = 1", "has no attribute 'Broken'"),
        ("import acme_broken.part", "has no module 'acme_broken.part'"),
    ],
)
def test_a_broken_target_names_whom_to_tell(site: Site, body: str, reason: str) -> None:
    site.install("acme", "acme", offer("broken", "acme_broken:Broken"))
    site.module("acme_broken", body)
    with pytest.raises(SymTorchError, match="tell the authors of acme") as caught:
        site.registry().load("regressors", "broken")
    assert reason in str(caught.value)


# --- the record


@pytest.mark.parametrize("name", ["", "two words", "tab\t", 3])
def test_a_component_needs_a_name_that_can_be_typed(name: str) -> None:
    with pytest.raises(SymTorchError, match="Component.name"):
        Component(name=name, target="a.b:C", summary="")


@pytest.mark.parametrize("target", ["", "a.b", "a.b:", ":C", "a..b:C", ".a:C", "a.b:C:D", "a.b:C.d", "a-b:C"])
def test_a_component_needs_a_dotted_target(target: str) -> None:
    with pytest.raises(SymTorchError, match="package.module:Attribute"):
        Component(name="x", target=target, summary="")


def test_a_component_splits_its_target() -> None:
    component = Component(name="x", target="a.b:C", summary="")
    assert (component.module, component.attribute) == ("a.b", "C")
