"""What this distribution offers to symtorch-core; read at every listing, so it imports nothing else."""

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
