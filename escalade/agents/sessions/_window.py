"""What of a conversation the next question is shown: the newest turns that fit, after a summary of older ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dspy

from escalade.agents._shapes import cut
from escalade.agents.sessions.state import State, Turn

_FRAME = 48
"""Bytes around a field or a message."""

EARLIER = "(A summary of what was said before.)"


@dataclass(frozen=True, slots=True)
class Window:
    """How much is shown. `most`: bytes of all turns and the summary. `inputs`, `outputs`: fields that are shown.

    A summary has a quarter of it. When not all turns fit any more, the newest that fill half of the rest stay, so that
    several are summed up at once.
    """

    most: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @classmethod
    def of(cls, tokens: int, bound: Callable[[int], int], inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Window:
        """The most bytes that have so many tokens at most."""
        low, high = 0, max(tokens, 1) * 64
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if bound(middle) <= tokens else (low, middle - 1)
        return cls(low, inputs, outputs)

    @property
    def summary_bytes(self) -> int:
        """What a summary may have."""
        return max(0, self.most // 4 - _size({"": EARLIER, " ": ""}) - 2 * _FRAME)

    def too_old(self, state: State) -> tuple[Turn, ...]:
        """The turns to sum up now: none while all that aren't summed up fit."""
        fresh = [turn for turn in state.turns if turn.number > state.covered]
        room = self.most - self.most // 4
        if sum(self._size(turn) for turn in fresh) <= room:
            return ()
        stay = self._newest(fresh, room // 2)
        return tuple(fresh[: len(fresh) - len(stay)])

    def messages(self, state: State) -> list[dict[str, Any]]:
        """As `dspy.History` wants them; never more than `most` bytes."""
        messages: list[dict[str, Any]] = []
        room = self.most
        if state.summary and self.inputs and self.outputs:
            said = {self.inputs[0]: EARLIER, self.outputs[0]: cut(state.summary, self.summary_bytes)}
            if _size(said) <= room:
                messages.append(said)
                room -= _size(said)
        fresh = [turn for turn in state.turns if turn.number > state.covered]
        stay = self._newest(fresh, room)
        if not stay and fresh:
            messages += self._shortened(fresh[-1], room)
        return messages + [self._message(turn) for turn in stay]

    def _newest(self, turns: Sequence[Turn], room: int) -> list[Turn]:
        stay: list[Turn] = []
        for turn in reversed(turns):
            room -= self._size(turn)
            if room < 0:
                break
            stay.insert(0, turn)
        return stay

    def _shortened(self, turn: Turn, room: int) -> list[dict[str, Any]]:
        """The last turn, cut, where even that is too long; nothing where there is no room at all."""
        message = self._message(turn)
        each = (room - _size(dict.fromkeys(message, ""))) // max(1, len(message)) - 2 * _FRAME
        if each < 1:
            return []
        return [{name: cut(str(value), each) for name, value in message.items()}]

    def _message(self, turn: Turn) -> dict[str, Any]:
        said = {**turn.inputs, **turn.outputs}
        return {name: said[name] for name in (*self.inputs, *self.outputs) if name in said}

    def _size(self, turn: Turn) -> int:
        return _size(self._message(turn))


def size_of(messages: Sequence[Mapping[str, Any]]) -> int:
    """Bytes of a history, with room for what adapters write around it."""
    return sum(_size(message) for message in messages)


def _size(message: Mapping[str, Any]) -> int:
    return _FRAME + sum(
        len(f"{name}{value}".encode("utf-8", "surrogatepass")) + _FRAME for name, value in message.items()
    )


class SumUp(dspy.Signature):
    """Sum up a conversation for whoever goes on with it. Keep names, numbers, decisions and what is still open."""

    earlier: str = dspy.InputField(desc="the summary so far, empty at the beginning")
    turns: str = dspy.InputField(desc="what was said since, oldest first")
    summary: str = dspy.OutputField(desc="one paragraph that takes the place of both")


def as_text(turns: Sequence[Turn], most: int) -> str:
    """Turns for the summariser, `field: value` a line; of too long ones the beginnings."""
    each = max(200, most // max(1, len(turns)))
    return "\n\n".join(
        cut("\n".join(f"{name}: {value}" for name, value in {**turn.inputs, **turn.outputs}.items()), each)
        for turn in turns
    )
