"""From what users write for a rung to a `Rung` and its program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dspy

from escalade.agents.climb import Rung
from escalade.agents.confidence.source import Source
from escalade.agents.confidence.stated import Verbalised
from escalade.agents.gateway import Gateway
from escalade.errors import BadInput, UnknownName
from escalade.money import Money

RungLike = Rung | tuple[Any, str] | tuple[Any, str, str] | str
"""`Rung`, `(strategy, model)`, `(strategy, model, price bound)`, or just a model, which means `Predict`.

A strategy is a name, a class or a module. A price bound (dollars per question) is needed, under a budget, for any
program but a `Predict` and a `ChainOfThought`, whose prompts bound it.
"""

Believed = Source | bool
"""A source of confidence; True is `Verbalised()`, False none but what the signature itself has."""

STRATEGIES = {"Predict": dspy.Predict, "ChainOfThought": dspy.ChainOfThought}


def rung_of(like: RungLike, gateway: Gateway) -> tuple[Rung, Any]:
    """The rung, and its strategy as given: a name, a class or a module. Raises BadInput, UnknownName."""
    if isinstance(like, Rung):
        gateway.model(like.model or "")
        return like, like.strategy or "Predict"
    strategy, model, *bound = ("Predict", like) if isinstance(like, str) else like
    if not isinstance(model, str):
        raise BadInput(f"rung {like!r}: expected the alias of a model on the gateway, got {model!r}")
    label = strategy if isinstance(strategy, str) else _class_of(strategy).__name__
    ceiling = Money.of(bound[0]) if bound else None
    found = gateway.model(model)
    return Rung(f"{label}/{found.name}", label, model, ceiling, found.tier), strategy


def program_of(strategy: Any, signature: Any) -> dspy.Module:
    """The program of a strategy; a module is itself. Raises BadInput."""
    if isinstance(strategy, dspy.Module):
        return strategy
    if isinstance(strategy, str):
        if strategy not in STRATEGIES:
            raise BadInput(f"unknown strategy {strategy!r}; write 'Predict', 'ChainOfThought', a class or a module")
        strategy = STRATEGIES[strategy]
    program = strategy(signature)
    if not isinstance(program, dspy.Module):
        raise BadInput(f"strategy {strategy!r} did not make a dspy.Module but {type(program).__name__}")
    return program


def _class_of(strategy: Any) -> Any:
    return strategy if isinstance(strategy, type) else type(strategy)


def sources_of(given: Believed | Mapping[Any, Believed], rungs: Sequence[Rung]) -> tuple[Source | None, ...]:
    """The source of each rung. `given`: one for all, or some by index or name of a rung; the others verbalise.

    Raises BadInput, UnknownName.
    """
    if not isinstance(given, Mapping):
        return (_source(given),) * len(rungs)
    sources: list[Source | None] = [Verbalised()] * len(rungs)
    names = [rung.name for rung in rungs]
    for ref, source in given.items():
        at = names.index(ref) if ref in names else ref
        if not isinstance(at, int) or isinstance(at, bool) or not 0 <= at < len(rungs):
            raise UnknownName("rung", str(ref), names)
        sources[at] = _source(source)
    return tuple(sources)


def _source(given: Believed) -> Source | None:
    if isinstance(given, bool):
        return Verbalised() if given else None
    if not isinstance(given, Source):
        raise BadInput(f"confidence: expected True, False or a source, like Samples(5), got {given!r}")
    return given
