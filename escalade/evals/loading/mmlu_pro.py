"""MMLU-Pro's recorded answers: a folder of a long table and of the questions, joined by `question_id`.

    outcomes_long.csv    question_id, model, pred, correct, out_chars
    questions.csv        question_id, category, question, options_chars, …

Both gzipped or not. Category and text come from the questions; the prompt is as long as the question and its options.
(Figures of TIGER-AI-Lab/MMLU-Pro, Apache-2.0; Wang et al. 2024, arXiv 2406.01574.)
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from escalade.errors import DataError
from escalade.evals import _long
from escalade.evals._codes import fact_column
from escalade.evals._draft import Draft, tokens_of
from escalade.evals._files import number, read_table, stem

OUTCOMES, QUESTIONS = "outcomes_long.csv", "questions.csv"


def is_folder(path: Path) -> bool:
    """Does this folder hold both files?"""
    return path.is_dir() and all(_file(path, name) is not None for name in (OUTCOMES, QUESTIONS))


def load(path: Path) -> Draft:
    """The folder, or its file of outcomes. Raises DataError."""
    folder = path if path.is_dir() else path.parent
    outcomes, questions = (_file(folder, name) for name in (OUTCOMES, QUESTIONS))
    if outcomes is None or questions is None:
        raise DataError(f"{folder}: expected {OUTCOMES} and {QUESTIONS} (or .gz) in this folder")
    draft, asked = _long.load(outcomes), read_table(questions)
    row = {key: i for i, key in enumerate(asked.cells(asked.need("question_id")))}
    lacking = next((key for key in draft.keys if key not in row), None)
    if lacking is not None:
        raise DataError(f"{questions}: no question {lacking!r}, which {outcomes.name} has answers to")
    at = [row[key] for key in draft.keys]
    texts, categories = asked.cells(asked.need("question")), asked.cells(asked.need("category"))
    options = asked.parsed(asked.need("options_chars"), number())
    chars = np.array([len(texts[i]) + options[i] for i in at])
    return replace(
        draft,
        name=folder.name or stem(outcomes),
        prompt_chars=chars.astype(np.int64),
        input_tokens=tokens_of(chars),
        category=[categories[i] for i in at],
        features={"text": fact_column([texts[i] for i in at])},
        notes=[*draft.notes, "tokens are estimated as characters / 4, rounded up; a prompt is question and options"],
    )


def _file(folder: Path, name: str) -> Path | None:
    return next((file for file in (folder / f"{name}.gz", folder / name) if file.is_file()), None)
