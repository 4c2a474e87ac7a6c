"""Who may use which model, beyond what the access policy says: roles of the model, regions of the caller.

Both narrow. A role must grant `model.NAME:call` first; then, if the model names roles, everybody on whose behalf a call
is made must have one of them, or one that inherits it; and whoever is bound to regions gets no model of another region,
nor one that doesn't say where it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from escalade.errors import BadInput, PermissionDenied
from escalade.registry.access.holders import holds
from escalade.registry.opening import OWNER
from escalade.scopes import Principal, Scope

if TYPE_CHECKING:
    from escalade.agents.models import Model

Regions = Mapping[str, tuple[str, ...]]
"""Who is bound to regions ("*", "tenant:NAME", "role:NAME", "user:NAME") -> the regions that he may use."""

_WHO = re.compile(r"\*|(tenant|role|user):.+")


def regions_of(said: Mapping[str, str | Iterable[str]] | None) -> Regions:
    """Checked. Raises BadInput."""
    regions = {}
    for who, names in (said or {}).items():
        if not _WHO.fullmatch(who):
            raise BadInput(f"regions are for '*', 'tenant:NAME', 'role:NAME' or 'user:NAME', not for {who!r}")
        regions[who] = (names,) if isinstance(names, str) else tuple(names)
        if not regions[who] or not all(isinstance(name, str) and name for name in regions[who]):
            raise BadInput(f"regions of {who!r}: expected the names of one or more regions, got {names!r}")
    return regions


def check_allowed(model: Model, scope: Scope, regions: Regions) -> None:
    """Raises PermissionDenied."""
    for principal in scope.principals:
        where = f"the roles of model {model.name!r}"
        if model.roles and principal is not OWNER and not holds(scope.access, principal, model.roles, where):
            raise PermissionDenied(
                f"model {model.name!r} is for the roles {', '.join(model.roles)}; {principal.user!r} has none of them"
            )
        for who, allowed in regions.items():
            if model.region not in allowed and _is(principal, who, scope):
                raise PermissionDenied(
                    f"model {model.name!r} is in {_where(model)}, and {who!r} may use {', '.join(allowed)} only"
                )


def _is(principal: Principal, who: str, scope: Scope) -> bool:
    kind, _, name = who.partition(":")
    if kind == "role":
        return holds(scope.access, principal, [name], "the regions of a gateway")
    return kind == "*" or name == (principal.tenant if kind == "tenant" else principal.user)


def _where(model: Model) -> str:
    return f"region {model.region!r}" if model.region else "no region that it says"
