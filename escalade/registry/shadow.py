"""Shadow calls: a new version is called beside the old one, on the same arguments, and its answer is thrown away.

Only where both versions only read. Paid by a budget of their own; recorded as uses of the new version, in runs whose
ids end in ".shadow"; never waited for; skipped when four are running already. Results are compared by digest.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from escalade.errors import BadInput, Refused
from escalade.money import Money, money_or_none
from escalade.registry import workers
from escalade.registry.calling import Registered
from escalade.registry.canonical import digest
from escalade.registry.ledger import Ledger
from escalade.scopes import KEY, Scope, current

_AT_ONCE = 4
_LIVE = {"live", "record", "live-read-only"}
"""Modes in which tools that only read do run."""


@dataclass(frozen=True, slots=True)
class Shadow:
    """How to shadow. `budget`: dollars for all of it, None for no limit. `every`: each so many calls of the old
    version, 1 for all of them.
    """

    budget: str | Decimal | Money | None
    every: int = 1

    def __post_init__(self) -> None:
        if self.every < 1:
            raise BadInput(f"shadow: every: expected 1 or more, got {self.every!r}")
        money_or_none(self.budget)


class ShadowRun:
    """The shadows of one rollout. `same`, `different`: results, by digest. `failed`: the new version raised. `refused`:
    by the guard, such as for want of money. `skipped`: four were running already.
    """

    def __init__(self, how: Shadow, candidate: Registered, baseline: Registered) -> None:
        for one in (candidate, baseline):
            if one.spec.side_effects not in {"none", "read"}:
                raise BadInput(
                    f"{one.spec.label} has side effects ({one.spec.side_effects}): it would have them twice, so it "
                    f"can't be shadowed"
                )
        self.how = how
        self.same = self.different = self.failed = self.refused = self.skipped = 0
        limit = money_or_none(how.budget)
        self._purse = Ledger().purse(limit=limit, name="shadow")
        self._candidate = candidate
        self._lock = threading.Lock()
        self._seen = self._running = 0

    @property
    def spent(self) -> Money:
        """What the shadows cost so far."""
        return Money(self._purse.spent)

    @property
    def running(self) -> int:
        """How many are under way."""
        return self._running

    def beside(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """The old version returned `result` for these arguments."""
        scope = current()
        if scope is None or scope.mode not in _LIVE:
            return
        with self._lock:
            self._seen += 1
            if (self._seen - 1) % self.how.every:
                return
            if self._running >= _AT_ONCE:
                self.skipped += 1
                return
            self._running += 1
        expected = _digest(result)  # now: the caller may change it as soon as he has it
        workers.shared.submit(lambda: self._shadow(_apart(scope, self._purse), args, kwargs, expected))

    def _shadow(self, scope: Scope, args: tuple[Any, ...], kwargs: dict[str, Any], expected: str) -> None:
        import dspy

        found = "failed"
        try:
            with dspy.context(**{KEY: scope}):
                result = self._candidate._call(args, kwargs)
            found = "same" if _digest(result) == expected else "different"
        except Refused:
            found = "refused"
        except Exception:  # noqa: BLE001, S110 - counted below; nobody waits for it
            pass
        finally:
            with self._lock:
                self._running -= 1
                setattr(self, found, getattr(self, found) + 1)


def _apart(scope: Scope, purse: Any) -> Scope:
    """The caller's scope, on another purse, with nobody who listens, approves or records answers, and not closed when
    the caller leaves.
    """
    return replace(
        scope,
        purse=purse,
        run_id=f"{scope.run_id}.shadow",
        listeners=(),
        approvals=None,
        mode="live-read-only",
        cassette=None,
        parent=None,
        _life=type(scope._life)(),
    )


def _digest(result: Any) -> str:
    from pydantic_core import to_jsonable_python

    try:
        return digest(to_jsonable_python(result, fallback=repr))
    except (ValueError, TypeError):  # nan, keys that are no strings
        return digest(repr(result))
