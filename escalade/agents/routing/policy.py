"""`TierTable`: the routing table as a policy of the climb, live and replayed by the same object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from escalade.agents._saving import Saved, register_policy
from escalade.agents.climb import Decision, Stop, Try, View, best_attempt
from escalade.agents.policies import RungRef, rung_index
from escalade.agents.routing.table import RoutingTable, default_table
from escalade.errors import BadInput, UnknownName

Line = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], int]
"""Complexities, intents, segments (an empty one is any) -> tier."""

FACTS = ("complexity", "intent", "segment")


@register_policy
@dataclass(frozen=True, slots=True)
class TierTable(Saved):
    """The rung of the tier that the table has for the question; the next dearer one when that gives no answer.

    It looks at the features `complexity`, `intent` and `segment` (`Router.features` makes them). `ladder`: the rungs of
    tiers 1 to 4, of which the last one stands for all above; by default the ladder's own, in order. `lines`: of the
    table, those that ship by default; `TierTable.of(table, ...)` takes them from yours. Raises BadInput.
    """

    kind: ClassVar[str] = "tier-table"
    ladder: tuple[RungRef, ...] = ()
    lines: tuple[Line, ...] = ()
    name: str = "tier-table"

    def __post_init__(self) -> None:
        object.__setattr__(self, "ladder", tuple(self.ladder))
        lines = _lines_of(default_table()) if not self.lines else self.lines
        object.__setattr__(self, "lines", tuple(_line(line) for line in lines))
        if len(self.ladder) > 4:
            raise BadInput(f"there are four tiers, and {len(self.ladder)} rungs are given for them")

    @classmethod
    def of(cls, table: RoutingTable, ladder: Sequence[RungRef] = (), name: str = "tier-table") -> Self:
        """With the rules of a table."""
        return cls(tuple(ladder), _lines_of(table), name)

    def decide(self, view: View) -> Decision:
        """Raises UnknownName for a feature that is not there, BadInput for a question that no line fits."""
        tier, why = self._tier(view)
        rungs = self._rungs(view)
        if not view.attempts:
            return Try(rungs[min(tier, len(rungs)) - 1], why)
        if view.attempts[-1].ok:
            return Stop(-1, why)
        failed = f"{view.rungs[view.attempts[-1].rung].name} gave no answer ({view.attempts[-1].status})"
        after = next((rung for rung in rungs[min(tier, len(rungs)) :] if view.tried(rung) is None), None)
        if after is None:
            return Stop(best_attempt(view.attempts), f"{failed}; no rung is left")
        return Try(after, failed)

    def _tier(self, view: View) -> tuple[int, str]:
        for fact in FACTS:
            if fact not in view.features:
                raise UnknownName("feature", fact, list(view.features))
        complexity, intent, segment = (str(view.features[fact]) for fact in FACTS)
        for number, (complexities, intents, segments, tier) in enumerate(self.lines, 1):
            if (
                (not complexities or complexity in complexities)
                and (not intents or intent in intents)
                and (not segments or segment in segments)
            ):
                return tier, f"{complexity} {intent} of {segment}: tier {tier} by rule {number}"
        raise BadInput(f"no line of the table fits complexity {complexity}, intent {intent}, segment {segment}")

    def _rungs(self, view: View) -> list[int]:
        if not self.ladder:
            return list(range(len(view.rungs)))
        return [rung_index(view.rungs, ref) for ref in self.ladder]


def _lines_of(table: RoutingTable) -> tuple[Line, ...]:
    return tuple((rule.complexity, rule.intent, rule.segment, rule.tier) for rule in table.rules)


def _line(line: Line) -> Line:
    try:
        complexities, intents, segments, tier = line
    except (TypeError, ValueError):
        raise BadInput(f"a line has complexities, intents, segments and a tier, not {line!r}") from None
    if tier not in {1, 2, 3, 4}:
        raise BadInput(f"expected a tier from 1 to 4, got {tier!r}")
    return tuple(complexities), tuple(intents), tuple(segments), tier
