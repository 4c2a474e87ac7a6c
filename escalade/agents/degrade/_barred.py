"""Whether a model is kept from a caller by more than the policy: by its own roles, or by the regions of its gateway."""

from __future__ import annotations

from escalade.agents import _gateways
from escalade.scopes import Scope


def barred(name: str, permission: str, scope: Scope) -> bool:
    """Is there a gateway that has this model, and keeps it from this scope? An answer says the model, not the gateway:
    where several have it, each of them has to let the caller use it.
    """
    having = (gateway for gateway in list(_gateways._gateways.values()) if name in gateway.models)
    return any(
        gateway.model(name).resource.permission == permission and not gateway.allows(name, scope) for gateway in having
    )
