"""Webhooks over real HTTP: posted in the background, again where that helps, never in the way of a call."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from escalade.errors import BadInput
from escalade.money import Money
from escalade.registry.alerts import AlertFailed, Alerts, Webhook, message
from escalade.registry.budgets import Budget
from escalade.registry.ledger import Crossing, Ledger
from escalade.registry.stores.sqlite_ledger import SqliteLedger
from escalade.scopes import Principal

CROSSING = Crossing("tenant:acme", "brake", Money(96), Money(100), named=True, ends=1_775_001_600.0)
LOOPBACK = ("127.0.0.1",)


class Receiver:
    """Takes posts. `statuses`: what it answers, in turn, the last one for ever. `delay`: seconds before each."""

    def __init__(self) -> None:
        self.statuses, self.delay = [204], 0.0
        self.posts: list[tuple[dict[str, str], Any]] = []
        handler = type("Handler", (_Handler,), {"receiver": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/hook"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    receiver: Receiver

    def log_message(self, *args: Any) -> None:
        """Be quiet."""

    def do_POST(self) -> None:
        receiver = self.receiver
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        status = receiver.statuses.pop(0) if len(receiver.statuses) > 1 else receiver.statuses[0]
        time.sleep(receiver.delay)
        receiver.posts.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(status)
        self.send_header("content-length", "0")
        if status in {301, 302}:
            self.send_header("location", receiver.url)
        self.end_headers()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A server that takes posts."""
    running = Receiver()
    yield running
    running.close()


def hook(receiver: Receiver, **options: Any) -> Webhook:
    """A webhook there that doesn't wait long."""
    return Webhook(receiver.url, **{"allow": LOOPBACK, "pauses": (0.01, 0.01), **options})


def test_it_posts_json(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The crossing in dollars and ISO times, with an id that is the same for the same crossing, and the token."""
    monkeypatch.setenv("HOOK_TOKEN", "s3cr3t-hook-token")
    webhook = hook(receiver, token="env:HOOK_TOKEN", headers={"x-team": "agents"})
    for _ in range(2):
        webhook(CROSSING).result(10)
    (headers, body), (_, again) = receiver.posts
    assert headers["authorization"] == "Bearer s3cr3t-hook-token"
    assert headers["x-team"] == "agents"
    assert body["id"] == again["id"] != message(Crossing("tenant:acme", "warn", Money(96), Money(100)))["id"]
    assert (body["event"], body["account"], body["level"]) == ("budget.crossed", "tenant:acme", "brake")
    assert (body["used"], body["limit"]) == ("0.000000096", "0.0000001")
    assert body["period_ends"] == "2026-04-01T00:00:00+00:00"
    assert body["text"] == "budget 'tenant:acme' brakes: $0.000000096 of $0.0000001 used"
    assert "s3cr3t" not in repr(webhook)


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_it_tries_again(receiver: Receiver, status: int) -> None:
    """What may pass is tried again, until it is delivered."""
    receiver.statuses = [status, status, 200]
    hook(receiver)(CROSSING).result(10)
    assert len(receiver.posts) == 3


@pytest.mark.parametrize(("status", "posts"), [(503, 3), (404, 1), (302, 1), (401, 1)])
def test_it_gives_up(receiver: Receiver, caplog: pytest.LogCaptureFixture, status: int, posts: int) -> None:
    """After the last attempt, and at once where another one is of no use: a line of log has what was to be told.
    Redirects are not followed.
    """
    receiver.statuses = [status]
    with caplog.at_level(logging.ERROR), pytest.raises(AlertFailed, match=f"status {status}"):
        hook(receiver)(CROSSING).result(10)
    assert len(receiver.posts) == posts
    assert "budget 'tenant:acme' brakes" in caplog.text


def test_a_server_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody answers: tried again, then given up."""
    webhook = Webhook("http://127.0.0.1:9/hook", allow=LOOPBACK, pauses=(0.01,))
    with pytest.raises(AlertFailed, match="ConnectError"):
        webhook(CROSSING).result(10)


def test_a_server_that_hangs(receiver: Receiver) -> None:
    """An attempt ends at its timeout."""
    receiver.delay = 2.0
    with pytest.raises(AlertFailed, match="TimeoutError"):
        hook(receiver, timeout=0.1, pauses=())(CROSSING).result(10)


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}"])
def test_private_addresses_are_refused(receiver: Receiver, host: str) -> None:
    """Without `allow`, nothing on this host or in its networks is reached, by whatever name, and nothing is tried
    again.
    """
    url = f"http://{host.format(port=receiver.url.split(':')[2])}"
    with pytest.raises(AlertFailed, match="not a public one"):
        Webhook(url, pauses=(60.0,))(CROSSING).result(10)
    assert receiver.posts == []


@pytest.mark.parametrize("url", ["ftp://hooks.example.com", "hooks.example.com", "https://a:b@hooks.example.com/"])
def test_what_is_no_url(url: str) -> None:
    """An address that can't be one is told where it is written."""
    with pytest.raises(BadInput):
        Webhook(url)


def test_calls_don_t_wait_for_it(receiver: Receiver) -> None:
    """A receiver that takes its time, or is gone, holds nobody up, and no reservation fails."""
    receiver.delay = 9.0
    ledger = Ledger([Budget("everything", "0.0000001")], listen=hook(receiver))
    began = time.perf_counter()
    ledger.purse().reserve(96).settle(96)
    assert time.perf_counter() - began < 8
    assert receiver.posts == []


def test_flush_waits(receiver: Receiver) -> None:
    """`flush` waits until what is on its way has arrived."""
    receiver.delay = 0.1
    webhook = hook(receiver)
    webhook(CROSSING)
    webhook.flush()
    assert len(receiver.posts) == 1


def test_a_webhook_has_bounds(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """More crossings than it may keep are given up, with a line of log, not kept for ever."""
    monkeypatch.setattr("escalade.registry.alerts.MOST_WAITING", 2)
    receiver.delay = 0.2
    webhook = hook(receiver)
    posted = [webhook(CROSSING) for _ in range(3)]
    with pytest.raises(AlertFailed, match="too many"):
        posted[2].result(1)
    webhook.flush()
    assert len(receiver.posts) == 2


def test_several_listeners(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    """One that fails doesn't keep the others from being told."""
    heard: list[Crossing] = []

    def broken(crossing: Crossing) -> None:
        raise RuntimeError("boom")

    done = Alerts(broken, heard.append, hook(receiver))(CROSSING)
    assert isinstance(done, Future)
    done.result(10)
    assert heard == [CROSSING]
    assert len(receiver.posts) == 1
    assert "boom" in caplog.text
    assert Alerts(heard.append)(CROSSING) is None


def test_what_was_not_delivered_is_told_by_the_next_process(receiver: Receiver, tmp_path: Path) -> None:
    """A ledger in a store counts a crossing as told when the webhook has delivered it, and not before."""
    budgets, principal = [Budget("tenant:acme", "0.0000001")], Principal("ana", "acme")
    receiver.statuses = [404]
    webhook = hook(receiver)
    ledger = SqliteLedger(tmp_path / "b.db", budgets, listen=webhook)
    ledger.purse(principal).reserve(96).settle(96)
    webhook.flush()
    told = "SELECT told FROM crossings WHERE level='brake'"
    assert ledger.store.database.read(told) == [(0,)]
    ledger.set_budget(Budget("tenant:acme", "0.000000101"))
    receiver.statuses = [200]
    ledger.purse(principal).reserve(1).settle(1)
    webhook.flush()
    until = time.monotonic() + 5
    while ledger.store.database.read(told) != [(1,)] and time.monotonic() < until:
        time.sleep(0.01)
    assert ledger.store.database.read(told) == [(1,)]
