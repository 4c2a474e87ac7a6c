"""Chains of fallbacks: what may stand in for a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class Linked(Protocol):
    """A model, or what a file says of one."""

    @property
    def name(self) -> str: ...
    @property
    def tier(self) -> int | None: ...
    @property
    def fallbacks(self) -> tuple[str, ...]: ...
    @property
    def fallback_tiers(self) -> str: ...


def crossing(chain: Sequence[Linked]) -> str:
    """What is wrong with the tiers of a chain, the model itself first; "" if nothing is."""
    first = chain[0]
    for other in chain[1:]:
        if first.tier is None or other.tier is None or first.tier == other.tier:
            continue
        way = "up" if other.tier > first.tier else "down"
        if first.fallback_tiers not in {way, "any"}:
            return (
                f"fallback {other.name!r} is of tier {other.tier}, and {first.name!r} of tier {first.tier} falls "
                f"back to {_SAID[first.fallback_tiers]}; write `fallback_tiers: {way}` if that is meant"
            )
    return ""


_SAID = {"same": "its own tier only", "up": "its own tier and dearer ones", "down": "its own tier and cheaper ones"}


def cycle(name: str, links: Mapping[str, Sequence[str]]) -> list[str]:
    """The way from a model back to itself along fallbacks, [] if there is none. Unknown names lead nowhere."""
    ways: list[list[str]] = [[name]]
    seen: set[str] = set()
    while ways:
        way = ways.pop()
        for after in links.get(way[-1], ()):
            if after == name:
                return [*way, after]
            if after not in seen:
                seen.add(after)
                ways.append([*way, after])
    return []
