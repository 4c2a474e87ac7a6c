"""Gateways by name: copies and pickles of an LM find theirs again, so that budgets and breakers are never split."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from escalade.errors import BadInput, UnknownName

if TYPE_CHECKING:
    from escalade.agents.gateway import Gateway

PREFIX = "escalade/"
"""What the model string of a governed LM begins with."""

_gateways: dict[str, Gateway] = {}
_lock = threading.Lock()


def remember(gateway: Gateway) -> None:
    """It is found by its name from now on."""
    with _lock:
        _gateways[gateway.name] = gateway


def find_gateway(name: str) -> Gateway:
    """The gateway of that name in this process. Raises UnknownName, BadInput where nobody named one."""
    with _lock:
        if name not in _gateways and name == "default":
            named = f" (there are: {', '.join(sorted(_gateways))})" if _gateways else ""
            raise BadInput(f"which gateway? Hand it in, gateway=Gateway([...]); none is named 'default'{named}")
        if name not in _gateways:
            raise UnknownName("gateway", name, list(_gateways))
        return _gateways[name]
