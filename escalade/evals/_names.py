"""Names of rungs as people want to read them."""

from __future__ import annotations

from collections.abc import Sequence


def shortened(name: str) -> str:
    """Without the provider: "mistralai/mixtral" is "mixtral". What isn't of that form stays as it is."""
    provider, slash, model = name.partition("/")
    plain = slash and provider and model and "/" not in model and not model.isdigit() and "@" not in provider
    return model if plain else name


def listed(names: Sequence[str]) -> str:
    """Like "qwen-1.5b@96, @160, @224" for rungs of one model that follow each other."""
    said: list[str] = []
    before = ""
    for name in names:
        model, at, budget = name.partition("@")
        said.append(f"@{budget}" if at and model == before else shortened(name))
        before = model if at else ""
    return ", ".join(said)
