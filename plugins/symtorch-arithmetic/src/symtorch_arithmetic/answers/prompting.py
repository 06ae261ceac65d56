"""Prompting: each question is asked once, and every answer is kept on disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import final

from symtorch_arithmetic.models.language_models import LanguageModel
from symtorch_core import FileFormatError
from symtorch_core.events import Callback, StageAdvanced, StageFinished, StageStarted, Stopwatch, notify


@final
class Answers:
    """Answers on disk, by the model's revision and the prompt.

    Args:
        file: an SQLite database; created where there is none. Several runs may share it.

    Raises:
        FileFormatError: the file is something else, or damaged.
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
            raise FileFormatError(
                f"{file} is not a file of answers ({error}): remove it, or give another folder"
            ) from None

    def load(self, revision: str) -> dict[str, str]:
        """Return all answers of a model, by prompt."""
        with closing(self._open()) as database:
            return dict(
                database.execute("SELECT prompt, answer FROM answers WHERE revision = ?", (revision,))
            )

    def write(self, revision: str, answers: Iterable[tuple[str, str]]) -> None:
        """Write pairs of a prompt and an answer to disk."""
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
    """Return the answer to each prompt; the model gets only those it has not answered before.

    Each batch of answers is written at once, so that a run that is stopped loses one batch at most.

    Args:
        model: to ask.
        prompts: in any order; equal ones are asked once.
        answers: those known before; new ones are added.
        callbacks: told of the stage ``"ask"``.
    """
    callbacks, watch = tuple(callbacks), Stopwatch()
    known = answers.load(model.revision)
    missing = sorted(set(prompts) - known.keys(), key=lambda prompt: (len(prompt), prompt))
    notify(callbacks, StageStarted("ask", len(missing)))
    for start in range(0, len(missing), model.batch):
        batch = missing[start : start + model.batch]
        pairs = list(zip(batch, model.answer(batch), strict=True))
        answers.write(model.revision, pairs)
        known |= dict(pairs)
        notify(callbacks, StageAdvanced("ask", len(batch)))
    notify(callbacks, StageFinished("ask", watch.seconds()))
    return [known[prompt] for prompt in prompts]
