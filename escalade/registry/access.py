"""Who may use what: roles that grant permissions, deny by default.

A permission is `resource:action`, like `crm.search:call` or `model.big:call`. A role grants patterns in which `*`
stands for any run of characters: `crm.*:call`, `model.*:call`, `*`.

Decisions are cached per (roles, permission); the policy is immutable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from escalade.errors import BadInput, UnknownName
from escalade.scopes import Decided, Principal


class Roles:
    """An access policy made of roles.

    >>> policy = Roles({"analyst": ["crm.*:call"], "admin": ["*"]})
    >>> policy.decide(Principal(roles={"analyst"}), "crm.search:call")
    Decided(allowed=True, rule="role 'analyst' grants 'crm.*:call'")
    >>> policy.decide(Principal(roles={"analyst"}), "mail.send:call").allowed
    False
    """

    def __init__(self, grants: Mapping[str, Iterable[str]]) -> None:
        self._grants: dict[str, tuple[tuple[str, re.Pattern[str]], ...]] = {}
        for role, patterns in grants.items():
            if isinstance(patterns, str):
                raise BadInput(f"role {role!r}: expected a list of permissions, got the string {patterns!r}")
            self._grants[role] = tuple((p, _compiled(role, p)) for p in patterns)
        self._decided: dict[tuple[frozenset[str], str], Decided] = {}

    @property
    def roles(self) -> list[str]:
        """Names of all roles, sorted."""
        return sorted(self._grants)

    def check_roles(self, roles: frozenset[str]) -> None:
        """Raises UnknownName for a role that does not exist."""
        for role in sorted(roles):
            if role not in self._grants:
                raise UnknownName("role", role, self.roles)

    def decide(self, principal: Principal, permission: str, effect: str = "") -> Decided:
        """Is it granted by one of the principal's roles, and by which rule?"""
        key = (principal.roles, permission)
        decided = self._decided.get(key)
        if decided is None:
            decided = self._decided[key] = self._decide(principal.roles, permission)
        return decided

    def _decide(self, roles: frozenset[str], permission: str) -> Decided:
        for role in sorted(roles):
            for pattern, compiled in self._grants.get(role, ()):
                if compiled.fullmatch(permission):
                    return Decided(True, f"role {role!r} grants {pattern!r}")
        held = ", ".join(sorted(roles)) or "no role"
        return Decided(False, f"nothing grants {permission!r} to {held}")


def everything_allowed() -> Roles:
    """The policy of a notebook or a script of one's own: the role `owner` may do everything."""
    return Roles({"owner": ["*"]})


def _compiled(role: str, pattern: Any) -> re.Pattern[str]:
    if not isinstance(pattern, str) or not re.fullmatch(r"[\w.*:/@-]+", pattern):
        raise BadInput(f"role {role!r}: {pattern!r} is not a permission; write it like 'crm.*:call'")
    return re.compile(re.escape(pattern).replace(r"\*", ".*"))
