"""What a session remembers: its turns, and a summary of those that are too old to be shown. Written as JSON."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from escalade.errors import BadInput

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer.

    `number`: from 1. `inputs`, `outputs`: by field, as JSON; redacted, or with tokens, as the session is set. `seen`:
    number of the last turn that the answer knew of; less than `number - 1` where another one was answered meanwhile.
    `cost`: nano-dollars, of which `summary_cost` were for summing up. `at`: wall clock, seconds.
    """

    number: int
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    seen: int = 0
    cost: int = 0
    summary_cost: int = 0
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class State:
    """All of a session. `born`: tells it from another one of that id, after a deletion. `summary`: of the turns up to
    number `covered`.
    """

    born: str = field(default_factory=lambda: uuid.uuid4().hex)
    turns: tuple[Turn, ...] = ()
    summary: str = ""
    covered: int = 0

    @property
    def last(self) -> int:
        """Number of the last turn, 0 before the first."""
        return self.turns[-1].number if self.turns else self.covered

    def summed_up(self, summary: str, covered: int) -> State:
        """With a summary, unless it has one of more turns."""
        return self if covered <= self.covered else replace(self, summary=summary, covered=covered)

    def said(self, turn: Turn, keep: int) -> State:
        """With one more turn, under the next number; of older ones only the newest are kept."""
        return replace(self, turns=(*self.turns, replace(turn, number=self.last + 1))[-keep:])

    def dump(self) -> bytes:
        return json.dumps({"format": FORMAT, **asdict(self)}, ensure_ascii=False, separators=(",", ":")).encode(
            "utf-8", "surrogatepass"
        )

    @classmethod
    def load(cls, data: bytes) -> State:
        """Raises BadInput for what `dump` did not write."""
        try:
            read = json.loads(data.decode("utf-8", "surrogatepass"))
            known, turns = read.pop("format") == FORMAT, tuple(Turn(**turn) for turn in read["turns"])
            state = cls(**{**read, "turns": turns})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(f"a stored session can't be read ({error}); delete it with session.forget()") from None
        if not known:
            raise BadInput("a stored session has a format that this version can't read")
        return state
