"""Who is told when a budget crosses a mark: listeners of a ledger.

    tell = Alerts(print, Webhook("https://hooks.example.com/budgets", token="env:HOOK_TOKEN"))
    ledger = SqliteLedger("budgets.db", load_budgets("budgets.yaml"), listen=tell)

A webhook posts JSON in the background, and again where that may help. No call waits for it, and none fails because of
it. Private, loopback and metadata addresses are refused unless `allow` names them, as for imported tools; redirects are
not followed. Where a ledger in a store is told late or its process dies first, another process posts it: the `id` in
the JSON is that of the crossing, for receivers that must not count it twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any

from escalade.errors import BadInput, EscaladeError
from escalade.money import Money
from escalade.registry.ledger import Crossing
from escalade.registry.privacy.names import alias
from escalade.registry.secrets import Secret
from escalade.registry.sources._background import shared
from escalade.registry.sources._net import AddressRefused, Net
from escalade.registry.sources._wire import Wire, secret_headers

logger = logging.getLogger(__name__)

PAUSES = (0.5, 2.0, 10.0, 30.0, 60.0)
"""Seconds between attempts."""

MOST_WAITING = 100
"""Crossings that one webhook has not posted yet; more are given up, with a line of log."""

_WORTH_ANOTHER = frozenset({408, 425, 429})
_LAST_SECONDS = 3.0


class AlertFailed(EscaladeError):
    """A crossing could not be posted."""


class Alerts:
    """Several listeners as one. What one of them raises is logged, and the others are told all the same."""

    def __init__(self, *listeners: Callable[[Crossing], object]) -> None:
        self.listeners = listeners

    def __call__(self, crossing: Crossing) -> Future[None] | None:
        """Tell each. Where some tell later, a Future that is done when all have."""
        said = [self._tell(listener, crossing) for listener in self.listeners]
        later = [one for one in said if isinstance(one, Future)]
        return shared.submit(_all(later)) if later else None

    @staticmethod
    def _tell(listener: Callable[[Crossing], object], crossing: Crossing) -> object:
        try:
            return listener(crossing)
        except Exception:
            logger.exception("the listener %r failed on %s", listener, crossing)
            return None


class Webhook:
    """Posts each crossing to `url`.

    `token`, `headers`: sent to its origin only; secrets by reference ("env:NAME"). `allow`: networks that may be
    reached although they aren't public, such as "10.1.0.0/16". `timeout`: seconds for one attempt. `pauses`: seconds
    between attempts, one more than there are pauses. Raises BadInput.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Secret | str | None = None,
        headers: Mapping[str, Any] | None = None,
        allow: Iterable[str] = (),
        timeout: float = 10.0,
        pauses: Iterable[float] = PAUSES,
    ) -> None:
        self._wire = Wire(url, Net(allow), secret_headers(headers, token))
        self._wire.check()
        if timeout <= 0:
            raise BadInput(f"webhook: expected a timeout above 0, got {timeout!r}")
        self._timeout, self._pauses = timeout, (*pauses,)
        self._waiting: set[Future[None]] = set()
        shared.at_exit(self._finish)

    def __repr__(self) -> str:
        return f"Webhook({self._wire.url.split('/')[2]!r})"

    def __call__(self, crossing: Crossing) -> Future[None]:
        """Post it in the background. The Future is done when it is delivered; AlertFailed when that is given up."""
        if len(self._waiting) >= MOST_WAITING:
            logger.error("%r has %d crossings to post and takes no more: %s", self, MOST_WAITING, _text(crossing))
            return _failed("too many are waiting")
        posted = shared.submit(self._post(message(crossing)))
        self._waiting.add(posted)
        posted.add_done_callback(self._waiting.discard)
        return posted

    def flush(self, timeout: float = 10.0) -> None:
        """Wait until all is posted or given up, for so many seconds at most."""
        until = time.monotonic() + timeout
        for posted in list(self._waiting):
            try:
                posted.exception(max(0.0, until - time.monotonic()))
            except TimeoutError:
                return

    async def _finish(self) -> None:
        """Before the process ends: a last moment for what is on its way."""
        if self._waiting:
            await asyncio.wait(map(asyncio.wrap_future, self._waiting), timeout=_LAST_SECONDS)

    async def _post(self, body: Mapping[str, Any]) -> None:
        for pause in (*self._pauses, None):
            why, final = await self._tried(body)
            if not why:
                return
            if final or pause is None:
                logger.error("%r was not told of a crossing, which is given up: %s; %s", self, why, body["text"])
                raise AlertFailed(why)
            await asyncio.sleep(pause)

    async def _tried(self, body: Mapping[str, Any]) -> tuple[str, bool]:
        """Why it is not posted, "" if it is; and whether another attempt is of no use."""
        import httpx

        try:
            async with asyncio.timeout(self._timeout), self._wire.client(httpx) as client:
                answer = await client.post(self._wire.url, json=body)
        except AddressRefused as error:
            return str(error), True
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            return type(error).__name__, False
        status = answer.status_code
        if 200 <= status < 300:
            return "", True
        return f"status {status}", status < 500 and status not in _WORTH_ANOTHER


def message(crossing: Crossing) -> dict[str, Any]:
    """What is posted: dollars as text, times in ISO 8601, the account by its alias."""
    limit = crossing.limit
    return {
        "event": "budget.crossed",
        "id": _id(crossing),
        "account": alias(crossing.account),
        "level": crossing.level,
        "used": format(crossing.used.dollars, "f"),
        "limit": None if limit is None else format(limit.dollars, "f"),
        "period_ends": None if crossing.ends == float("inf") else _iso(crossing.ends),
        "at": _iso(time.time()),
        "text": _text(crossing),
    }


def _text(crossing: Crossing) -> str:
    of = "" if crossing.limit is None else f" of {crossing.limit}"
    said = {"warn": "has passed its warning", "brake": "brakes", "exhausted": "refuses", "overrun": "was overrun"}
    return f"budget {alias(crossing.account)!r} {said[crossing.level]}: {Money(crossing.used)}{of} used"


def _id(crossing: Crossing) -> str:
    limit = None if crossing.limit is None else int(crossing.limit)
    what = repr((crossing.account, crossing.level, crossing.ends, limit))
    return hashlib.blake2b(what.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _failed(why: str) -> Future[None]:
    future: Future[None] = Future()
    future.set_exception(AlertFailed(why))
    return future


async def _all(later: list[Future[Any]]) -> None:
    """Done when all are; fails with the first that failed, once all have ended."""
    for one in await asyncio.gather(*map(asyncio.wrap_future, later), return_exceptions=True):
        if isinstance(one, BaseException):
            raise one
