"""Tokens per minute of a model, as providers limit them.

An attempt takes what it is expected to use at most: its prompt at four bytes per token, and its `max_tokens`. What the
provider then counts takes the place of that. The window slides, is exact, and is of this process: processes that share
a key each need their part of its limit.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from escalade.errors import BadInput, RateLimited

MINUTE = 60.0


class TokenRate:
    """At most `per_minute` tokens in any 60 seconds. `now`: monotonic seconds. Thread-safe.

    What is larger than the limit itself goes through alone, when nothing else counts.
    """

    def __init__(self, per_minute: int, now: Callable[[], float] = time.monotonic) -> None:
        if per_minute < 1:
            raise BadInput(f"tokens per minute: expected 1 or more, got {per_minute}")
        self.per_minute, self._now = per_minute, now
        self._lock = threading.Lock()
        self._turns: deque[Turn] = deque()

    @property
    def used(self) -> int:
        """Tokens that count now."""
        with self._lock:
            return self._count(self._now())

    def take(self, turn: Turn, what: str) -> None:
        """Count it from now on. Raises RateLimited, with the seconds until it would fit."""
        with self._lock:
            now = self._now()
            free = self.per_minute - self._count(now)
            asked = min(turn.tokens, self.per_minute)
            if asked > free:
                wait = self._wait(asked - free, now)
                raise RateLimited(
                    f"{what} is limited to {self.per_minute:,} tokens/min; try again in {wait:.3g} s", wait
                )
            turn.at = now
            self._turns.append(turn)

    def settle(self, turn: Turn, tokens: int) -> None:
        """What it really used."""
        with self._lock:
            turn.tokens = tokens

    def _count(self, now: float) -> int:
        while self._turns and self._turns[0].at <= now - MINUTE:
            self._turns.popleft()
        return sum(turn.tokens for turn in self._turns)

    def _wait(self, lacking: int, now: float) -> float:
        for turn in self._turns:
            lacking -= turn.tokens
            if lacking <= 0:
                return turn.at + MINUTE - now
        return MINUTE


class Turn:
    """The tokens of one attempt, as a context manager; does nothing where there is no `rate`.

    One that was refused or failed before it was sent counts no more, once it is left.
    """

    __slots__ = ("_rate", "_used", "at", "tokens")

    def __init__(self, rate: TokenRate | None, tokens: int) -> None:
        self._rate, self.tokens = rate, tokens
        self._used: int | None = 0
        self.at = 0.0

    def __enter__(self) -> Turn:
        return self

    def __exit__(self, *error: object) -> None:
        if self._rate is not None and self._used is not None:
            self._rate.settle(self, self._used)

    def begin(self, what: str) -> None:
        """Raises RateLimited."""
        if self._rate is not None:
            self._rate.take(self, what)

    def sent(self) -> None:
        """It is under way: unless something better is known, it uses what it was expected to."""
        self._used = None

    def used(self, tokens: int) -> None:
        """So many."""
        self._used = tokens

    def counted(self, usage: Any) -> None:
        """By the provider's count, where he gave one."""
        if usage is not None and usage.input_tokens is not None and usage.output_tokens is not None:
            self._used = usage.input_tokens + usage.output_tokens
