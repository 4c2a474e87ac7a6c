"""Who has a role that something other than a policy names: a rate limit, the cohort of a rollout, a region of models.

Whoever has a role has those that it inherits, too, as far as the policy in force says so (`roles_of`). A role that this
policy doesn't know is nobody's: what is said of it would never hold, and nobody would notice. It is told once, in the
log, when the first call meets it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from escalade.errors import UnknownName
from escalade.registry.access.policy import everything_allowed
from escalade.scopes import Access, Principal

logger = logging.getLogger(__name__)

_MOST = 4_096
_told: set[tuple[str, str, str]] = set()


def holds(access: Access, principal: Principal, roles: Iterable[str], where: str) -> bool:
    """Has he one of these roles? `where`: what names them, as in "the limits of tool 'crm.search@1.0.0'"."""
    known = roles_of(access, principal)
    found = False
    for role in roles:
        found = found or role in known
        if role not in known:
            _check(access, role, where)
    return found


def roles_of(access: Access, principal: Principal) -> frozenset[str]:
    """His roles, and all that these inherit where the policy has inheritance."""
    inherited = getattr(access, "roles_of", None)
    return principal.roles if inherited is None else inherited(principal)


def _check(access: Access, role: str, where: str) -> None:
    key = (getattr(access, "digest", ""), role, where)
    if key in _told or access is everything_allowed():  # a script without a policy has no roles to speak of
        return
    if len(_told) >= _MOST:
        _told.clear()
    _told.add(key)
    try:
        access.check_roles(frozenset({role}))
    except UnknownName as error:
        logger.warning("%s: nobody has the role that is named there: %s", where, error)
