"""All that is found out from one comparison: its tables, checks and sentences, as every report shows them.

    found = findings(escalade.compare("outcomes.jsonl"))
    found.table("curves").rows

Each room adds its builder below; a builder that has nothing to say about this data returns no table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from escalade.errors import BadInput, UnknownName
from escalade.evals.tables import Table

if TYPE_CHECKING:
    from escalade.evals.compare import Comparison
    from escalade.evals.evidence import Evidence

__all__ = ["BUILDERS", "Builder", "Check", "Findings", "findings"]


@dataclass(frozen=True)
class Check:
    """A self-check: `held` is None where this data can't tell. `said`: what was seen, in one sentence with figures."""

    name: str
    held: bool | None
    said: str


@dataclass(frozen=True)
class Findings:
    """`sentences`: what has to be said in words, such as that a policy doesn't beat its matched random mix."""

    comparison: Comparison
    tables: tuple[Table, ...] = ()
    checks: tuple[Check, ...] = ()
    sentences: tuple[str, ...] = ()

    def table(self, name: str) -> Table:
        """Raises UnknownName."""
        found = next((table for table in self.tables if table.name == name), None)
        if found is None:
            raise UnknownName("table", name, [table.name for table in self.tables])
        return found

    def to_json(self) -> dict[str, Any]:
        """The comparison's JSON, and its tables, checks and sentences beside it."""
        return self.comparison.to_json() | {
            "tables": {table.name: table.to_json() for table in self.tables},
            "checks": [{"name": check.name, "held": check.held, "said": check.said} for check in self.checks],
            "sentences": list(self.sentences),
        }


Builder = Callable[["Evidence"], Sequence[Table | Check | str]]
"""What one room finds: tables, checks, sentences, in the order in which they are shown."""

BUILDERS: dict[str, Builder] = {}
"""Builder by the name of its room, in the order in which they are shown."""


def findings(comparison: Comparison, *, only: Sequence[str] | None = None) -> Findings:
    """`only`: names of rooms; None is all. Raises BadInput for a comparison without evidence, UnknownName."""
    if comparison.evidence is None:
        raise BadInput("findings: this comparison was made by hand; make it with compare(), which keeps the evidence")
    for name in only or ():
        if name not in BUILDERS:
            raise UnknownName("room of findings", name, list(BUILDERS))
    built = [
        one for name, build in BUILDERS.items() if only is None or name in only for one in build(comparison.evidence)
    ]
    return Findings(
        comparison,
        tables=tuple(one for one in built if isinstance(one, Table)),
        checks=tuple(one for one in built if isinstance(one, Check)),
        sentences=tuple(one for one in built if isinstance(one, str)),
    )
