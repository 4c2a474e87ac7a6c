"""RouteLLM's files: a prompt, a verdict for each model, and maybe the answers.

    prompt, <model>, <model>, …, <model>_response, <model>_response, …

"question" does for "prompt". Of a folder, every CSV file with prompts is read, and its name is the category. Prompts
listed in a `contaminated_prompts.jsonl` next to the file are left out, as RouteLLM does, unless they are asked for.
Answers are only measured; prompts are kept for policies that look at them.
"""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np

from escalade.agents.climb import Rung
from escalade.errors import DataError
from escalade.evals._codes import fact_column
from escalade.evals._draft import Draft, tokens_of
from escalade.evals._files import Table, read_text, stem, verdict
from escalade.evals.loading.rows import read_header, read_rows

RESPONSE = "_response"
LIST = "contaminated_prompts.jsonl"
PROMPT = ("prompt", "question")


def load(path: Path) -> Draft:
    """A CSV file, or a folder of them. Raises DataError."""
    tables, strangers = _tables(path)
    models = list(dict.fromkeys(name for table in tables for name in _models(table)))
    prompts = [prompt for table in tables for prompt in table.cells(table.need(*PROMPT))]
    draft = _filled(Draft.blank(stem(path), [Rung(m, None, m) for m in models], [_key(p) for p in prompts]), tables)
    listed = _contaminated(path if path.is_dir() else path.parent)
    chars = np.array([len(p) for p in prompts], dtype=np.int64)
    measured = ["tokens are estimated as characters / 4, rounded up; a prompt is the question alone"]
    return replace(
        draft,
        output_tokens=tokens_of(draft.output_tokens),
        output_column="<model>_response",
        input_tokens=tokens_of(chars.astype(np.float64)),
        prompt_chars=chars,
        features={"text": fact_column(prompts)},
        prompt_bytes=np.array([len(p.encode("utf-8", "surrogatepass")) for p in prompts], dtype=np.int64),
        contaminated=np.array([prompt in listed for prompt in prompts], dtype=bool),
        category=[stem(table.path) for table in tables for _ in table.rows] if path.is_dir() else None,
        notes=[*(measured if not np.isnan(draft.output_tokens).any() else []), *strangers],
    )


def _tables(path: Path) -> tuple[list[Table], list[str]]:
    """(the files, a note on those of a folder that have no prompts)."""
    if not path.is_dir():
        return [_needing_prompts(read_rows(path))], []
    files = sorted(p for p in path.iterdir() if p.suffix == ".csv" or p.name.endswith(".csv.gz"))
    if not files:
        raise DataError(f"{path}: no CSV file in this folder")
    kept = [file for file in files if any(name in read_header(file) for name in PROMPT)]
    if not kept:
        raise DataError(f"{path}: none of its {len(files)} CSV files has a column 'prompt', {files[0].name} neither")
    others = [file.name for file in files if file not in kept]
    note = f"CSV files without prompts are left out: {', '.join(others)}"
    return [read_rows(file) for file in kept], [note] if others else []


def _needing_prompts(table: Table) -> Table:
    table.need(*PROMPT)
    return table


def _filled(draft: Draft, tables: list[Table]) -> Draft:
    start = 0
    for table in tables:
        rows = slice(start, start + len(table.rows))
        for rung, model in enumerate(rung.name for rung in draft.rungs):
            if model in table.header:
                draft.quality[rows, rung] = table.parsed(model, verdict)
            if model + RESPONSE in table.header:
                draft.output_tokens[rows, rung] = [len(text) for text in table.cells(model + RESPONSE)]
        start = rows.stop
    return draft


def _models(table: Table) -> list[str]:
    index = {"", *PROMPT, "Unnamed: 0", "index"}
    models = [name for name in table.header if name not in index and not name.endswith(RESPONSE)]
    if not models:
        raise DataError(f"{table.path}: no column with the verdicts of a model next to 'prompt'")
    return models


def _key(prompt: str) -> str:
    """Depends on the prompt alone, so that the same questions get the same folds and draws in any file."""
    return blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _contaminated(folder: Path) -> set[str]:
    listed = folder / LIST
    if not listed.is_file():
        return set()
    found = set()
    for line, text in enumerate(read_text(listed).splitlines(), 1):
        if text.strip():
            try:
                found.add(str(json.loads(text)["eval_prompt"]))
            except (ValueError, KeyError, TypeError):
                told = f"{listed}: line {line}: expected a JSON object with 'eval_prompt', a prompt to leave out"
                raise DataError(f"{told}; put it right, or call the file something else") from None
    return found
