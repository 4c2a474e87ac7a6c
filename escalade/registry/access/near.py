"""Slips of the pen in rules: what nearly matches, and was probably meant to.

A permit with a slip is noticed, as somebody may not do what he should. A denial with one is not: nothing is denied.
Actions are open (a tool may want "payments:refund"), and a rule may be meant for tools to come, so that a slip is
told, and never an error.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from escalade.registry.access.rules import Rule

logger = logging.getLogger(__name__)

ACTIONS = ("call", "read", "write", "irreversible", "approve")
"""Those that tools have by themselves."""


def tell_slips(rules: Iterable[Rule]) -> None:
    """Warn, in the log, of actions that are spelt nearly like one of `ACTIONS`."""
    for rule in rules:
        action = rule.pattern.rpartition(":")[2]
        meant = "" if action in ACTIONS or "*" in action else next((one for one in ACTIONS if _near(action, one)), "")
        if meant:
            logger.warning("%s: the action %r is no tool's own; did you mean %r?", rule, action, meant)


def is_near(pattern: str, permission: str) -> bool:
    """Would it match but for a letter or two in the name, or in the action, or for capitals?

    >>> is_near("pya.*:call", "pay.out:call"), is_near("crm.*:call", "pay.out:call")
    (True, False)
    """
    if ":" not in pattern:
        return _near(pattern, permission)
    halves = zip(pattern.rpartition(":")[::2], permission.rpartition(":")[::2], strict=True)
    return all(_near(said, name) for said, name in halves)


def _near(pattern: str, text: str) -> bool:
    letters = sum(map(str.isalnum, pattern))
    slips = 0 if letters < 3 else 1 if letters < 8 else 2
    return _distance(pattern.casefold(), text.casefold()) <= slips


def _distance(pattern: str, text: str) -> int:
    """Letters to add, drop, change, or swap with the next one until the pattern matches; a `*` costs nothing."""
    rows = [list(range(len(text) + 1))]
    for i, sign in enumerate(pattern, 1):
        above = rows[-1]
        row = [above[0] + (sign != "*")]
        for j, letter in enumerate(text, 1):
            if sign == "*":
                row.append(min(above[j], row[-1]))
                continue
            least = min(above[j] + 1, row[-1] + 1, above[j - 1] + (sign != letter))
            if i > 1 and j > 1 and (sign, pattern[i - 2]) == (text[j - 2], letter):
                least = min(least, rows[-2][j - 2] + 1)
            row.append(least)
        rows.append(row)
    return rows[-1][-1]
