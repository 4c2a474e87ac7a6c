"""RouteLLM's files: a prompt, a verdict for each model, and maybe the answers.

    prompt, <model>, <model>, …, <model>_response, <model>_response, …

Of a folder, every CSV file is read, and its name is the category. Prompts listed in a `contaminated_prompts.jsonl` next
to the file are left out, as RouteLLM does, unless they are asked for. Prompts and answers are only measured.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path

import numpy as np

from escalade.agents.climb import Rung
from escalade.errors import DataError
from escalade.evals._draft import Draft, tokens_of
from escalade.evals._files import column, read_table, read_text, stem, verdict

RESPONSE = "_response"
LIST = "contaminated_prompts.jsonl"
Line = tuple[Path, int, dict[str, str]]
"""(file, line number, cells by column)."""


def load(path: Path) -> Draft:
    """A CSV file, or a folder of them. Raises DataError, UnknownName."""
    files = (
        sorted(p for p in path.iterdir() if p.suffix == ".csv" or p.name.endswith(".csv.gz"))
        if path.is_dir()
        else [path]
    )
    if not files:
        raise DataError(f"{path}: no CSV file in this folder")
    models: dict[str, None] = {}
    lines: list[Line] = []
    for file in files:
        header, rows = read_table(file)
        column(file, header, "prompt")
        models |= dict.fromkeys(_models(file, header))
        lines += [(file, line, dict(zip(header, cells, strict=True))) for line, cells in rows]
    draft = _draft(stem(path), list(models), lines)
    listed = _contaminated(path if path.is_dir() else path.parent)
    marked = np.array([cells["prompt"] in listed for _, _, cells in lines], dtype=bool)
    return _with(draft, contaminated=marked, category=[stem(file) for file, _, _ in lines] if path.is_dir() else None)


def _draft(name: str, models: list[str], lines: list[Line]) -> Draft:
    prompts = [cells["prompt"] for _, _, cells in lines]
    draft = Draft.blank(name, [Rung(model, None, model) for model in models], [_key(p) for p in prompts])
    chars = np.array([len(p) for p in prompts], dtype=np.int64)
    for i, (file, line, cells) in enumerate(lines):
        for rung, model in enumerate(models):
            draft.quality[i, rung] = verdict(file, line, model, cells.get(model, ""))
            if model + RESPONSE in cells:
                draft.output_tokens[i, rung] = len(cells[model + RESPONSE])
    notes = (
        ["tokens are estimated as characters / 4; a prompt is the question alone"]
        if not np.isnan(draft.output_tokens).any()
        else []
    )
    return _with(
        draft,
        output_tokens=tokens_of(draft.output_tokens),
        input_tokens=tokens_of(chars.astype(np.float64)),
        prompt_chars=chars,
        prompt_bytes=np.array([len(p.encode("utf-8", "surrogatepass")) for p in prompts], dtype=np.int64),
        notes=notes,
    )


def _models(file: Path, header: list[str]) -> list[str]:
    index = {"", "prompt", "Unnamed: 0", "index"}
    models = [name for name in header if name not in index and not name.endswith(RESPONSE)]
    if not models:
        raise DataError(f"{file}: no column with the verdicts of a model next to 'prompt'")
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
                raise DataError(f"{listed}: line {line}: expected a JSON object with 'eval_prompt'") from None
    return found


def _with(draft: Draft, **changed: object) -> Draft:
    return Draft(**{**vars(draft), **changed})
