"""Names of rungs as people want to read them."""

from __future__ import annotations

from collections.abc import Sequence


def shortened(name: str, among: Sequence[str] = ()) -> str:
    """Without the provider: "mistralai/mixtral" is "mixtral". What isn't of that form stays as it is, and so does what
    would then be named like another one `among` all.
    """
    provider, slash, model = name.partition("/")
    plain = slash and provider and model and "/" not in model and not model.isdigit() and "@" not in provider
    unique = [shortened(other) for other in among].count(model) <= 1 if among else True
    return model if plain and unique else name


def listed(names: Sequence[str], among: Sequence[str] = ()) -> str:
    """`among`: as for `shortened`. Like "qwen-1.5b@96, @160, @224" for rungs of one model that follow each other."""
    said: list[str] = []
    before = ""
    for name in names:
        model, at, budget = name.partition("@")
        said.append(f"@{budget}" if at and model == before else shortened(name, among))
        before = model if at else ""
    return ", ".join(said)
