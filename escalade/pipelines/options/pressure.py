"""Under pressure: which optional nodes are left out before they start, so that the others can be paid and end in time.

    FanOut(answer=answer, pictures=node(pictures, optional=True), links=node(links, optional=True))

Before branches start together, and before each step of a chain, what they take is held against what the scope has left.
What a node takes is known from the prices of its models, with the inputs at hand, or from its own last runs. Required
nodes come first: those that start now must find, all at once, what the guard will hold for them, and there must be
enough for those that come after them in the same pipeline, as they usually cost. Of the optional ones as many are kept
as possible: the dearest is left out first, of equally dear ones the one that stands last. One is left out for want of
time when what it usually takes, with what the nodes after it usually take, is more than is left.

What nobody knows leaves nobody out: a node whose price is unknown is kept as long as the required ones fit. Nodes that
come after the whole pipeline are not seen from inside of it; a `budget=` around it keeps money for them. A durable run
that is taken up again leaves out nothing that it had finished.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from escalade.errors import BudgetExceeded, DeadlineExceeded, Refused
from escalade.money import Money
from escalade.pipelines import _run
from escalade.pipelines._node import Prepared
from escalade.pipelines.checking.estimate import hidden_by
from escalade.pipelines.options._layers import Memory
from escalade.pipelines.options._takes import takes, usual_seconds
from escalade.scopes import Scope

Begun = Sequence[tuple[Prepared, Mapping[str, Any]]]
"""Nodes that are about to start, and the inputs that are known of each."""


def left_out(
    now: Begun, later: Iterable[Prepared], known: Mapping[str, Any], scope: Scope | None
) -> dict[str, Refused]:
    """The optional ones of `now` that are not to start, by name, and why. `later`: the nodes that run one after
    the other when those of `now` have ended; `known`: the fields that are known by now.
    """
    if scope is None:
        return {}
    left, seconds = scope.left, scope.time_left()
    if left is None and seconds == math.inf:
        return {}
    after = [node for node in later if not node.options.optional]
    gone: dict[str, Refused] = {} if seconds == math.inf else _late(now, after, seconds)
    if left is not None:
        gone |= _dear([one for one in now if one[0].name not in gone], after, known, int(left))
    return gone


async def without(prepared: Prepared, fields: dict[str, Any], frame: _run.Frame, trace: Any, refused: Refused) -> Any:
    """Leave a node out: raises `refused`, except for what a durable run has finished before."""
    if frame.journal is None:
        raise refused

    async def refuse(_: dict[str, Any]) -> Any:
        raise refused

    never = copy.copy(prepared)
    never.call, never.fallback = refuse, None
    return await _run.node(never, fields, frame, trace)


def note(prepared: Prepared, seconds: float) -> None:
    """A node has taken so long. Nodes with layers note it themselves, attempt by attempt."""
    if not prepared.options.own_scope:
        Memory.of(prepared).durations.add(seconds)


def _dear(now: Begun, after: list[Prepared], known: Mapping[str, Any], left: int) -> dict[str, Refused]:
    """Left out for want of money."""
    bills = {node.name: takes(node, fields) for node, fields in now}
    wanted = {node.name: bills[node.name][0] for node, _ in now if node.options.optional}
    if all(held == 0 for held in wanted.values()):
        return {}
    required = [bill for name, bill in bills.items() if name not in wanted]
    at_once = sum(held or 0 for held, _ in required)
    needed = max(at_once, sum(usual or 0 for _, usual in required) + _in_turn(after, known))
    names = list(wanted)
    gone: dict[str, Refused] = {}
    for name in sorted(names, key=lambda name: (wanted[name] or 0, names.index(name)), reverse=True):
        kept = sum(held or 0 for other, held in wanted.items() if other not in gone)
        if needed + kept <= left:
            break
        if wanted[name] != 0:
            gone[name] = _poor(wanted[name], needed, left)
    return gone


def _in_turn(nodes: list[Prepared], known: Mapping[str, Any]) -> int:
    """What there must be for nodes that run one after the other: each holds its own while the others are paid."""
    most = spent = 0
    for node in nodes:
        held, usual = takes(node, known)
        most, spent = max(most, spent + (held or 0)), spent + (usual or 0)
        known = hidden_by(known, node)
    return most


def _late(now: Begun, after: list[Prepared], left: float) -> dict[str, Refused]:
    """Left out for want of time."""
    later = sum(usual_seconds(node) for node in after)
    gone: dict[str, Refused] = {}
    for node, _ in now:
        own = usual_seconds(node) if node.options.optional else 0.0
        if own and own + later > left:
            rest = f", what comes after it {later:.3g} s" if later else ""
            gone[node.name] = DeadlineExceeded(f"not begun: it takes {own:.3g} s{rest}, and {left:.3g} s are left")
    return gone


def _poor(held: int | None, needed: int, left: int) -> BudgetExceeded:
    own = "may cost anything" if held is None else f"takes {Money(held)}"
    rest = f", the nodes that are needed {Money(needed)}" if needed else ""
    return BudgetExceeded(f"not begun: it {own}{rest}, and {Money(left)} is left", left=left)
