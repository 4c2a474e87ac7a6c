"""Facts about a question that are known before any attempt: computed once, and only when somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from escalade.errors import BadInput

Maker = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""(inputs of the question) -> facts by name."""

ALWAYS = ("prompt_chars", "text")
"""`prompt_chars`: characters of all inputs together. `text`: the inputs as text, one below the other."""


def makers_of(given: Maker | Iterable[Maker] | None) -> tuple[Maker, ...]:
    """One maker, several, or none. Raises BadInput for what can't be called."""
    makers = () if given is None else (given,) if callable(given) or isinstance(given, str) else tuple(given)
    wrong = next((maker for maker in makers if not callable(maker)), None)
    if wrong is not None:
        raise BadInput(f"features: expected functions from the inputs to a dict of facts, got {wrong!r}")
    return makers


class Features(Mapping[str, Any]):
    """The facts of one question. A maker runs once, when a fact is asked for that those before it don't give."""

    __slots__ = ("_inputs", "_known", "_left")

    def __init__(self, inputs: Mapping[str, Any], makers: tuple[Maker, ...] = ()) -> None:
        self._inputs, self._left = inputs, list(makers)
        self._known: dict[str, Any] = {"prompt_chars": sum(len(str(v)) for v in inputs.values())}

    def __getitem__(self, name: str) -> Any:
        if name == "text" and name not in self._known:
            self._known[name] = "\n".join(str(v) for v in self._inputs.values())
        while name not in self._known and self._left:
            self._make()
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        while self._left:
            self._make()
        return iter({**dict.fromkeys(ALWAYS), **self._known})

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"Features({self._known!r}{', …' if self._left else ''})"

    def _make(self) -> None:
        maker = self._left[0]
        made = maker(MappingProxyType(dict(self._inputs)))
        if not isinstance(made, Mapping):
            raise BadInput(f"features: {_name(maker)} returned {made!r}; expected a dict of facts by name")
        taken = sorted(made.keys() & {*self._known, *ALWAYS})
        if taken:
            raise BadInput(
                f"features: {_name(maker)} gives {taken[0]!r}, which is there already; call it something else"
            )
        self._known.update(made)
        self._left.pop(0)


def _name(maker: Maker) -> str:
    return getattr(maker, "__qualname__", type(maker).__qualname__)
