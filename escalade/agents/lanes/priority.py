"""Who goes first where a lane is full: people who wait for an answer, before work that can wait.

with escalade.priority("batch"):            # all model calls in here, those in DSPy's threads too
    dspy.Evaluate(...)(program)

gateway.lm("small", priority="batch")       # all calls of this LM, whatever is around them
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from escalade.errors import UnknownName

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

Priority = Literal["interactive", "batch"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
KEY = "escalade_priority"
"""The key of `dspy.context` that carries it."""
RANK = "escalade_rank"
"""The key of `dspy.context` that carries a finer one, a number, for what isn't a lane: below 0 is batch."""


def priority(name: Priority) -> AbstractContextManager[None]:
    """Model calls in here have this priority. Raises UnknownName."""
    import dspy

    context: AbstractContextManager[None] = dspy.context(**{KEY: checked(name)})
    return context


def checked(name: str) -> Priority:
    """A priority by its name. Raises UnknownName."""
    for known in PRIORITIES:
        if known == name:
            return known
    raise UnknownName("priority", str(name), list(PRIORITIES))


def current_priority() -> Priority:
    """That of this task or thread; interactive where nobody said otherwise."""
    import dspy

    found: Priority = dspy.settings.get(KEY, "interactive")
    return found
