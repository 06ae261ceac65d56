"""The components of this distribution; read at every listing of plugins, so it imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator

from symtorch_core import Component, hookimpl


@hookimpl
def symtorch_studies() -> Iterator[Component]:
    """Offer the study of language models."""
    yield Component(
        name="llm",
        target="symtorch_llm.study:LlmStudy",
        summary="Equations in the place of a transformer's MLPs: perplexity and speed",
        hint="pip install symtorch-llm",
    )
