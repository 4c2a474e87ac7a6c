"""What a node takes, before it is called: money, from the prices of its models or its last runs, and seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from escalade.pipelines._node import Prepared
from escalade.pipelines.checking.estimate import ahead
from escalade.pipelines.options._last import FEW
from escalade.registry.governed import GovernedTool


def takes(prepared: Prepared, known: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Nano-dollars that one call of a node must find to be made, and that it usually costs; None where nobody knows.
    `known`: the values of the fields that are known.

    A call of a model or a tool finds what the guard holds for it; several, one after the other, what they usually cost.
    """
    memory = prepared.memory
    learned = None if memory is None or len(memory.costs) < FEW else int(memory.costs.quantile(0.5))
    if not prepared.module and not isinstance(prepared.target, GovernedTool):  # its own code: taken to cost nothing
        return learned or 0, learned or 0
    try:
        held, usual, most = ahead(prepared, known)
    except Exception:  # noqa: BLE001 - what can't be estimated is unknown; when it is called, it says what is wrong
        return learned, learned
    if isinstance(prepared.target, GovernedTool) and most is not None:
        held = most
    usual = usual if learned is None else learned
    return (held or None, None) if usual is None else (max(held, usual), usual)


def usual_seconds(prepared: Prepared) -> float:
    """Seconds that its last runs have taken in the middle, 0 where there were too few to tell."""
    memory = prepared.memory
    return 0.0 if memory is None or len(memory.durations) < FEW else float(memory.durations.quantile(0.5))
