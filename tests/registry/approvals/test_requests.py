"""All stores of requests keep the same promises; those that outlive the process also across restarts."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import sqlite3
import stat
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from pydantic import BaseModel, SecretStr

from escalade.errors import BadInput, InvalidArguments, StoreUnavailable
from escalade.registry.approvals import MemoryRequests, PostgresRequests, Request, SqliteRequests
from escalade.registry.approvals.requests import Asked, Requests, new_request
from escalade.registry.stores.opened import open_requests
from escalade.scopes import Principal
from tests import _forks
from tests.registry.access.policies import json_values
from tests.servers.postgres_server import PASSWORD, PostgresServer

ASKED = Asked("pay.charge", "1.0.0", "s", {"amount": 5}, (Principal("ana", "acme", frozenset({"b", "a"})),), "run", "p")


def request(now: float = 0.0, **changed: Any) -> Request:
    return new_request(dataclasses.replace(ASKED, **changed), now, now + 10)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Requests:
    if request.param == "memory":
        return MemoryRequests()
    if request.param == "sqlite":
        return SqliteRequests(tmp_path / "approvals.db")
    return PostgresRequests(request.getfixturevalue("postgres_url"))


FORKS = """
import sys
from escalade.registry.approvals import SqliteRequests
from tests._forks import in_child

store = SqliteRequests(sys.argv[1])
with store._lock:  # as if another thread was just within
    in_child(store.list)
assert store.list() == []
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forked_children_have_connections_of_their_own(tmp_path: Path) -> None:
    """What another thread of the parent did with the store when the process forked holds no child up."""
    _forks.run(FORKS, tmp_path / "approvals.db")


def test_one_request_for_one_call(store: Requests) -> None:
    """The same call asks once, as long as its request lives; another call has a request of its own."""
    first = store.open(request())
    assert store.open(request(1.0)) == first
    assert store.open(request(1.0, arguments={"amount": 6})).id != first.id
    assert store.open(request(10.0)).id != first.id
    assert store.list()[0].id == first.id
    assert len(store.list()) == 3
    assert store.get(first.id) == first
    assert store.get("none") is None


def test_decided_once(store: Requests) -> None:
    """Who decides first has decided; what has expired can't be decided any more."""
    first, late = store.open(request()), store.open(request(run_id="other"))
    assert store.decide(first.id, "denied", "bea", "no", 1.0)
    assert not store.decide(first.id, "approved", "bob", "", 2.0)
    assert not store.decide(late.id, "approved", "bob", "", 10.0)
    kept = store.get(first.id)
    assert kept is not None
    assert (kept.state, kept.decided_by, kept.reason, kept.decided_at) == ("denied", "bea", "no", 1.0)
    assert store.open(request(2.0)).id == first.id


def test_used_once(store: Requests) -> None:
    """An approval is spent by one call, before it expires, and given back by that call only."""
    one = store.open(request())
    assert not store.use(one.id, "call-1", 1.0)
    assert store.decide(one.id, "approved", "bea", "", 1.0)
    assert not store.use(one.id, "call-1", 10.0)
    assert store.use(one.id, "call-1", 2.0)
    assert not store.use(one.id, "call-2", 2.0)
    store.give_back(one.id, "call-2")
    assert not store.use(one.id, "call-2", 2.0)
    store.give_back(one.id, "call-1")
    assert store.use(one.id, "call-2", 3.0)
    kept = store.get(one.id)
    assert kept is not None
    assert (kept.state, kept.used_by, kept.used_at) == ("used", "call-2", 3.0)
    assert store.open(request(4.0)).id != one.id


def test_one_of_many_threads_wins(store: Requests) -> None:
    """Of 16 threads that spend one approval at once, one gets it."""
    one = store.open(request())
    store.decide(one.id, "approved", "bea", "", 1.0)
    start, won = threading.Barrier(16), []

    def use(name: str) -> None:
        start.wait()
        if store.use(one.id, name, 2.0):
            won.append(name)

    threads = [threading.Thread(target=use, args=(f"call-{n}",)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_a_file_survives(tmp_path: Path) -> None:
    """What one process wrote another one reads; the file is for its owner's eyes only."""
    path = tmp_path / "approvals.db"
    first = SqliteRequests(path)
    one = first.open(request())
    first.decide(one.id, "approved", "bea", "fine", 1.0)
    first.close()
    assert SqliteRequests(path, create=False).use(one.id, "call-1", 2.0)
    assert first.get(one.id) == SqliteRequests(path).get(one.id)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_database_survives(postgres_url: str) -> None:
    """What one process wrote another one reads, to the last bit of a time and the last letter of an argument."""
    first = PostgresRequests(postgres_url)
    asked = {"text": 'naïve \\ "quoted" \n \0 \u2028', "none": None, "list": [1, 2.5]}
    one = first.open(request(1234567890.123456789, arguments=asked))
    assert first.decide(one.id, "approved", "bea \\ {", "fine, 'really'", 1234567891.1)
    first.close()
    second = PostgresRequests(postgres_url, create=False)
    kept = second.get(one.id)
    assert kept == dataclasses.replace(
        one, state="approved", decided_by="bea \\ {", reason="fine, 'really'", decided_at=1234567891.1
    )
    assert second.use(one.id, "call-1", 1234567892.0)
    assert not first.use(one.id, "call-2", 1234567892.0)


def test_arguments_are_erased_in_time(postgres_url: str, tmp_path: Path) -> None:
    """`keep` seconds after a request has expired nobody can read what it was about; who decided what stays."""
    for store in (SqliteRequests(tmp_path / "approvals.db", keep=5.0), PostgresRequests(postgres_url, keep=5.0)):
        one = store.open(request())
        store.forget(14.9)
        assert store.list()[0].arguments == one.arguments
        store.open(request(15.1, run_id="other"))
        assert [kept.arguments for kept in store.list()] == ["null", one.arguments]
        assert store.list()[0].args_digest == one.args_digest


def test_addresses(postgres: PostgresServer, postgres_url: str, tmp_path: Path) -> None:
    """A store by its address; to look for one makes none, and no message has the password."""
    assert isinstance(open_requests(tmp_path / "approvals.db"), SqliteRequests)
    with pytest.raises(BadInput, match="there is no such store") as said:
        open_requests(postgres_url, create=False)
    assert PASSWORD not in str(said.value)
    assert postgres.ask("SELECT count(*) FROM pg_namespace WHERE nspname = 'escalade'", postgres_url) == [(0,)]
    assert isinstance(open_requests(postgres_url), PostgresRequests)
    assert open_requests(postgres_url, create=False).list() == []
    with pytest.raises(BadInput, match="a store of approvals can't be kept in Redis"):
        open_requests("redis://localhost")


def test_text_that_postgres_can_not_keep(postgres_url: str) -> None:
    """A NUL or half a character in a name or a reason is bad input, and nothing is decided."""
    store = PostgresRequests(postgres_url)
    one = store.open(request())
    for text in ("a\0b", "\ud800"):
        with pytest.raises(BadInput, match="can't keep this"):
            store.decide(one.id, "approved", "bea", text, 1.0)
        with pytest.raises(BadInput, match="can't keep this"):
            store.open(request(run_id=text))
    assert store.list() == [one]


def test_a_server_that_is_gone(postgres: PostgresServer, postgres_url: str) -> None:
    """It refuses; nothing is taken for approved. Back again, it knows what it knew."""
    store = PostgresRequests(postgres_url)
    one = store.open(request())
    postgres.stop()
    try:
        for ask in (store.list, lambda: store.use(one.id, "call-1", 1.0), lambda: store.open(request())):
            with pytest.raises(StoreUnavailable):
                ask()
    finally:
        postgres.start()
    assert store.list() == [one]


def test_a_use_that_comes_too_late(postgres: PostgresServer, postgres_url: str) -> None:
    """A server that hung doesn't spend an approval after the call was refused."""
    store = PostgresRequests(postgres_url, timeout=0.5)
    one = store.open(request())
    assert store.decide(one.id, "approved", "bea", "", 1.0)
    store.server._synced = -1e9  # the clocks were compared while the tables were made
    store.server.now()
    postgres.pause()
    try:
        with pytest.raises(StoreUnavailable):
            store.use(one.id, "call-1", 2.0)
        time.sleep(0.1)
    finally:
        postgres.go_on()
    later = PostgresRequests(postgres_url)
    assert later.use(one.id, "call-2", 2.0)


def test_files_that_are_no_store(tmp_path: Path) -> None:
    """Another file, a newer version, a missing one: bad input, and nothing is created."""
    with pytest.raises(BadInput, match="no such store"):
        SqliteRequests(tmp_path / "none.db", create=False)
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "text.db").write_text("a" * 5000)
    with pytest.raises(BadInput, match="is no store of approvals"):
        SqliteRequests(tmp_path / "text.db")
    connection = sqlite3.connect(tmp_path / "new.db")
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(BadInput, match="is a store of version 9"):
        SqliteRequests(tmp_path / "new.db")
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.executescript("CREATE TABLE entries (seq INTEGER); PRAGMA user_version = 1;")  # an audit log, say
    connection.close()
    with pytest.raises(BadInput, match="is no store of approvals, but another SQLite file"):
        SqliteRequests(tmp_path / "other.db", create=False)


def test_a_store_that_can_not_be_written(tmp_path: Path) -> None:
    """A store that is locked or has nowhere to be refuses; nothing is taken for approved."""
    store = SqliteRequests(tmp_path / "approvals.db", wait=0.01)
    other = sqlite3.connect(tmp_path / "approvals.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="can't be used: database is locked"):
        store.open(request())
    other.execute("ROLLBACK")
    other.close()
    assert store.open(request()).state == "pending"
    with pytest.raises(StoreUnavailable, match="can't be created"):
        SqliteRequests(tmp_path / "none" / "approvals.db")


@pytest.mark.parametrize(
    "changed",
    [
        {"tool": "pay.refund"},
        {"version": "1.0.1"},
        {"schema_digest": "t"},
        {"arguments": {"amount": 5.0}},
        {"arguments": {"amount": "5"}},
        {"arguments": {"amount": 5, "currency": None}},
        {"principals": (Principal("bob", "acme", frozenset({"a", "b"})),)},
        {"principals": (Principal("ana", "globex", frozenset({"a", "b"})),)},
        {"principals": (Principal("ana", "acme", frozenset({"a"})),)},
        {"principals": (*ASKED.principals, *ASKED.principals)},
        {"run_id": "run2"},
        {"policy_digest": "q"},
        {"step": ("send",)},
        {"step": ("send", 1)},
    ],
)
def test_what_it_is_bound_to(changed: dict[str, Any]) -> None:
    """Whatever changes, it is another request; the order of roles and of arguments is no change."""
    assert dataclasses.replace(ASKED, **changed).key != ASKED.key
    assert dataclasses.replace(ASKED, call_id="x", rule="y").key == ASKED.key


@given(st.dictionaries(st.text(max_size=3), json_values, max_size=3), st.dictionaries(st.text(max_size=3), json_values))
def test_other_arguments_are_other_bytes(one: dict[str, Any], two: dict[str, Any]) -> None:
    """Two sets of arguments share a request only when their JSON is the same; what has no JSON is refused."""
    try:
        keys = [dataclasses.replace(ASKED, arguments=args).key for args in (one, two)]
    except InvalidArguments as error:
        assert "can't be shown to a person" in str(error)
        return
    assert (keys[0] == keys[1]) == (repr(sorted(one.items())) == repr(sorted(two.items())) or _same(one, two))


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(_same(one[key], two[key]) for key in one)
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(_same, one, two))
    return type(one) is type(two) and repr(one) == repr(two)


class Card(BaseModel):
    """An argument with a secret in it."""

    number: SecretStr


def test_python_values() -> None:
    """Sets have one order, decimals are exact, and two secrets that look alike are two."""

    def text(value: Any) -> str:
        return dataclasses.replace(ASKED, arguments={"x": value}).text

    assert text({"b", "a", "c"}) == text({"c", "b", "a"}) == '{"x":["a","b","c"]}'
    assert text(Decimal("1.10")) == '{"x":"1.10"}'
    assert text((1, 2)) == '{"x":[1,2]}'
    assert text(Card(number=SecretStr("4111"))) != text(Card(number=SecretStr("4112")))
    assert "4111" not in text(Card(number=SecretStr("4111")))
    assert text(dataclasses.replace(ASKED).principals[0]).startswith('{"x":{"roles":["a","b"]')
    for bad in (float("nan"), object(), b"\xff"):
        with pytest.raises(InvalidArguments):
            text(bad)


class Refund(BaseModel):
    """Money back."""

    amount: int


class Charge(BaseModel):
    """Money in."""

    amount: int


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (Refund(amount=5), Charge(amount=5)),
        ([Refund(amount=5)], [Charge(amount=5)]),
        ({"a": Refund(amount=5)}, {"a": {"amount": 5}}),
        (Decimal("1.0"), "1.0"),
        (dt.date(2026, 1, 1), "2026-01-01"),
        (b"a", "a"),
        ((1, 2), [1, 2]),
        ({1}, [1]),
        ({1: "a"}, {"1": "a"}),
    ],
)
def test_types_that_json_does_not_show(one: Any, two: Any) -> None:
    """Of two arguments that look the same as JSON, the approval of one is none of the other."""
    keys = {dataclasses.replace(ASKED, arguments={"x": value}).key for value in (one, two)}
    texts = {dataclasses.replace(ASKED, arguments={"x": value}).text for value in (one, two)}
    assert (len(keys), len(texts)) == (2, 1)


def test_keys_that_are_the_same_as_text() -> None:
    """What a person would not see can't be approved."""
    with pytest.raises(InvalidArguments, match="two keys of an object are the same as text"):
        _ = dataclasses.replace(ASKED, arguments={"x": {1: "a", "1": "b"}}).key
