"""All that is found out from one comparison: its tables, checks and sentences, as every report shows them.

    found = findings(escalade.compare("outcomes.jsonl"))
    found.table("curves").rows

Each room adds its builder below; a builder that has nothing to say about this data returns no table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from escalade.errors import BadInput, UnknownName
from escalade.evals.check import Check
from escalade.evals.tables import Table

if TYPE_CHECKING:
    from escalade.evals.compare import Comparison
    from escalade.evals.evidence import Evidence

__all__ = ["BUILDERS", "QUICK", "Builder", "Check", "Findings", "findings"]

QUICK = ("data", "checks")
"""Rooms that speak whenever a comparison is shown; the others take longer, and are asked for."""


@dataclass(frozen=True)
class Findings:
    """`sentences`: what has to be said in words, such as that a policy doesn't beat its matched random mix. `rooms`:
    the names of the tables by the room that made them.
    """

    comparison: Comparison
    tables: tuple[Table, ...] = ()
    checks: tuple[Check, ...] = ()
    sentences: tuple[str, ...] = ()
    rooms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def table(self, name: str) -> Table:
        """Raises UnknownName."""
        found = next((table for table in self.tables if table.name == name), None)
        if found is None:
            raise UnknownName("table", name, [table.name for table in self.tables])
        return found

    def named(self, names: Sequence[str], more: Sequence[Table] = ()) -> list[Table]:
        """Tables by their names or by that of their room, each once. Raises UnknownName.

        `more`: others to choose from.
        """
        known = {table.name: table for table in (*more, *self.tables)}
        found: dict[str, Table] = {}
        for name in names:
            if name not in known and name not in self.rooms:
                raise UnknownName("table", name, [*known, *self.rooms])
            found |= {one: known[one] for one in self.rooms.get(name, (name,))}
        return list(found.values())

    def to_json(self) -> dict[str, Any]:
        """The comparison's JSON, and its tables, checks and sentences beside it."""
        return self.comparison.to_json() | {
            "tables": {table.name: table.to_json() for table in self.tables},
            "checks": [check.to_json() for check in self.checks],
            "sentences": list(self.sentences),
        }


Builder = Callable[["Evidence"], Sequence[Table | Check | str]]
"""What one room finds: tables, checks, sentences, in the order in which they are shown."""


def _inference(evidence: Evidence) -> Sequence[Table | Check | str]:
    from escalade.evals.inference.findings import build

    return build(evidence)


def _checks(evidence: Evidence) -> Sequence[Table | Check | str]:
    from escalade.evals.checking.selfchecks import checks

    return checks(evidence)


def _data(evidence: Evidence) -> Sequence[Table | Check | str]:
    from escalade.evals.loading.checks import data

    return data(evidence)


def _metrics(evidence: Evidence) -> Sequence[Table | Check | str]:
    from escalade.evals.metrics.findings import build

    return build(evidence)


def _robustness(evidence: Evidence) -> Sequence[Table | Check | str]:
    from escalade.evals.robustness.findings import build

    return build(evidence)


def _gap(evidence: Evidence) -> Sequence[Table | Check | str]:
    from escalade.evals.checking.gap import gaps_table

    table = gaps_table(evidence)
    return [] if table is None else [table]


BUILDERS: dict[str, Builder] = {
    "data": _data,
    "checks": _checks,
    "gap": _gap,
    "metrics": _metrics,
    "inference": _inference,
    "robustness": _robustness,
}
"""Builder by the name of its room, in the order in which they are shown."""


def findings(comparison: Comparison, *, only: Sequence[str] | None = None) -> Findings:
    """`only`: names of rooms; None is all. What a room has found once isn't looked for again. A room that has to refuse
    this data says so in a check that can't tell.

    Raises BadInput for a comparison without evidence, UnknownName.
    """
    if comparison.evidence is None:
        raise BadInput("findings: this comparison was made by hand; make it with compare(), which keeps the evidence")
    for name in only or ():
        if name not in BUILDERS:
            raise UnknownName("room of findings", name, list(BUILDERS))
    evidence = comparison.evidence
    built = {name: _built(name, evidence) for name in BUILDERS if only is None or name in only}
    every = [one for made in built.values() for one in made]
    return Findings(
        comparison,
        tables=tuple(one for one in every if isinstance(one, Table)),
        checks=tuple(one for one in every if isinstance(one, Check)),
        sentences=tuple(one for one in every if isinstance(one, str)),
        rooms={room: tuple(one.name for one in made if isinstance(one, Table)) for room, made in built.items()},
    )


def _built(name: str, evidence: Evidence) -> Sequence[Table | Check | str]:
    builder = BUILDERS[name]
    if builder not in evidence.built:
        try:
            evidence.built[builder] = builder(evidence)
        except BadInput as error:
            evidence.built[builder] = [Check(name, None, f"nothing can be told of this data: {error}")]
    found: Sequence[Table | Check | str] = evidence.built[builder]
    return found
