"""Asking each question once: every answer is kept on disk."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import final

from symtorch_arithmetic.models import LanguageModel
from symtorch_core import FileFormatError
from symtorch_core.events import Callback, StageAdvanced, StageFinished, StageStarted, notify


@final
class Answers:
    """Answers on disk, by the model's revision and the prompt.

    Args:
        file: an SQLite database; made where it is not there. Several runs may share it.

    Raises:
        FileFormatError: the file is something else.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(self._open()) as database, database:
                database.execute(
                    "CREATE TABLE IF NOT EXISTS answers "
                    "(revision TEXT, prompt TEXT, answer TEXT NOT NULL, PRIMARY KEY (revision, prompt))"
                )
        except sqlite3.DatabaseError as error:
            raise FileFormatError(f"{file} is no file of answers ({error}): remove it") from None

    def known(self, revision: str) -> dict[str, str]:
        """All answers of a model, by prompt."""
        with closing(self._open()) as database:
            return dict(
                database.execute("SELECT prompt, answer FROM answers WHERE revision = ?", (revision,))
            )

    def keep(self, revision: str, answers: Iterable[tuple[str, str]]) -> None:
        """Write pairs of a prompt and an answer; they are on disk when this returns."""
        with closing(self._open()) as database, database:
            database.executemany(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?)",
                [(revision, prompt, answer) for prompt, answer in answers],
            )

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.file, timeout=60)


def ask(
    model: LanguageModel, prompts: Sequence[str], answers: Answers, callbacks: Iterable[Callback] = ()
) -> list[str]:
    """The answer to each prompt; the model sees only those it has not answered before.

    Each batch of answers is kept at once, so that a run that was stopped loses one batch at most.

    Args:
        model: to ask.
        prompts: in any order; equal ones are asked once.
        answers: what is known, and what is added to.
        callbacks: told of the stage ``"ask"``.
    """
    callbacks, began = tuple(callbacks), time.perf_counter()
    known = answers.known(model.revision)
    missing = sorted(set(prompts) - known.keys(), key=lambda prompt: (len(prompt), prompt))
    notify(callbacks, StageStarted("ask", len(missing)))
    for start in range(0, len(missing), model.batch):
        batch = missing[start : start + model.batch]
        pairs = list(zip(batch, model.answer(batch), strict=True))
        answers.keep(model.revision, pairs)
        known |= dict(pairs)
        notify(callbacks, StageAdvanced("ask", len(batch)))
    notify(callbacks, StageFinished("ask", time.perf_counter() - began))
    return [known[prompt] for prompt in prompts]
