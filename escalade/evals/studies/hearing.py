"""What calls of models tell whoever records them."""

from __future__ import annotations

from typing import Any

import dspy

from escalade import events
from escalade.agents._lm import HEARD

__all__ = ["Heard"]


class Heard:
    """What the calls of an attempt, or of a whole question, told: who answered last, as the provider names him, how
    many tokens, what a cache saved. Hears calls within `listening()`, and what a cache gave by `event`, a listener.
    """

    def __init__(self) -> None:
        self.hits, self.saved = 0, 0  # type: int, int | None
        self.model: str | None = None
        self.finish: str | None = None
        self.input: int | None = None
        self.output: int | None = None

    def event(self, event: Any) -> None:
        """Something happened in the scope."""
        if isinstance(event, events.CacheHit):
            self.hits += 1
            self.saved = None if self.saved is None or event.saved is None else self.saved + event.saved

    def result(self, result: Any) -> None:
        """A call was answered."""
        for response in result.responses:
            self.model, self.finish = response.model, response.finish_reason
            usage = response.usage
            self.input = _sum(self.input, getattr(usage, "input_tokens", None))
            self.output = _sum(self.output, getattr(usage, "output_tokens", None))

    def listening(self) -> Any:
        """A context manager around the calls."""
        return dspy.context(**{HEARD: self.result})


def _sum(one: int | None, other: int | None) -> int | None:
    return one if other is None else other + (one or 0)
