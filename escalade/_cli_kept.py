"""Where the commands that call tools keep what was spent, done and asked: options of `tools call` and `tools serve`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from escalade.errors import BadInput

if TYPE_CHECKING:
    from escalade.registry.budgets import Budget
    from escalade.registry.ledger import Ledger
    from escalade.scopes import Access


@Parameter(name="*")
@dataclass(kw_only=True)
class Kept:
    """What outlives the command."""

    ledger: str | None = None
    """Where budgets and what was spent are, a SQLite file, redis://... or postgresql://...; without it, they are gone
    with the command."""
    audit: str | None = None
    """Where the record is, a SQLite file or postgresql://...; without it, nothing is recorded."""
    anchor: Annotated[list[str] | None, Parameter(negative=())] = None
    """A file elsewhere that vouches for the record. Can be repeated."""
    audit_key: str | None = None
    """Signs what the anchors hold: env:NAME or file:PATH."""
    approvals: str | None = None
    """Where requests are, a SQLite file or postgresql://..., for tools that need a person."""

    @contextlib.contextmanager
    def opened(
        self, budgets: list[Budget] | tuple[Budget, ...] = (), access: Access | None = None
    ) -> Iterator[dict[str, Any]]:
        """What a scope takes of it. Raises BadInput."""
        options: dict[str, Any] = {"ledger": _ledger(self.ledger, budgets)}
        if self.approvals is not None:
            from escalade.registry.approvals.desk import Approvals
            from escalade.registry.stores.opened import open_requests

            options["approvals"] = Approvals(open_requests(self.approvals), access=access)
        with self._recorder() as recorder:
            yield {**options, "recorder": recorder}

    @contextlib.contextmanager
    def _recorder(self) -> Iterator[Any]:
        if self.audit is None:
            if self.anchor or self.audit_key is not None:
                raise BadInput("--anchor and --audit-key are for a record: say --audit FILE")
            from escalade.registry.journal import Journal

            yield Journal()
            return
        from escalade.registry.audit.log import AuditLog

        with AuditLog(self.audit, anchors=self.anchor or (), key=self.audit_key) as log:
            yield log


def _ledger(path: str | None, budgets: list[Budget] | tuple[Budget, ...]) -> Ledger:
    if path is None:
        from escalade.registry.ledger import Ledger

        return Ledger(budgets)
    from escalade.registry.stores.opened import open_ledger

    return open_ledger(path, budgets)
