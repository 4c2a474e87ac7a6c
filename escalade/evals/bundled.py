"""The recorded outcomes that ship with the package: figures only, sources and licences in NOTICE.

GSM8K, 1,319 questions on six rungs: a 1.5B model at four token budgets, Mixtral-8x7B, GPT-4 (1106). Built by
`scripts/build_gsm8k_figures.py`.
"""

from __future__ import annotations

import gzip
from importlib import resources

from escalade.evals import _jsonl
from escalade.evals._draft import Draft

GSM8K = "gsm8k_ladder.jsonl.gz"


def read() -> bytes:
    """The file as it ships: gzipped JSON lines, readable with `load_outcomes("jsonl:…")` too."""
    return resources.files("escalade.evals").joinpath("data", GSM8K).read_bytes()


def draft() -> Draft:
    """All questions of the GSM8K ladder."""
    return _jsonl.parse(gzip.decompress(read()).decode("utf-8"), GSM8K, "gsm8k-ladder")
