"""LLMRouter's files: a question, and a score in 0..1 for each model; prices in `default_llm.json` beside them.

    question, <model>, <model>, …

A CSV file (`dcrouter_train.csv`), or a folder of them, of which each file's name is the category. As
ulab-uiuc/LLMRouter publishes them (MIT). There are neither answers nor lengths: what a question costs is unknown. The
prices order the rungs, cheapest first.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from escalade.errors import BadInput, DataError
from escalade.evals import _routellm
from escalade.evals._draft import Draft
from escalade.evals._files import read_text
from escalade.evals.prices import Listed
from escalade.registry.prices import Price

PRICES = "default_llm.json"


def load(path: Path) -> Draft:
    """Raises DataError."""
    draft, listed = _routellm.load(path), _prices(path if path.is_dir() else path.parent)
    return replace(
        draft,
        output_column="lengths of answers, which LLMRouter doesn't publish",
        listed={rung.name: listed[rung.name] for rung in draft.rungs if rung.name in listed},
    )


def _prices(folder: Path) -> dict[str, Listed]:
    file = folder / PRICES
    if not file.is_file():
        return {}
    try:
        models: Any = json.loads(read_text(file))
        return {
            name: Listed(Price.of(str(model["input_price"]), str(model["output_price"])), f"LLMRouter's {PRICES}")
            for name, model in models.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, BadInput) as error:
        told = "expected an object of models with input_price and output_price, dollars per million tokens"
        raise DataError(f"{file}: {told} ({error!r})") from None
