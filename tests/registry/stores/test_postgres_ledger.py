"""PostgresLedger by example: what it shares with SqliteLedger in short, and a server that stops, hangs and forgets."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from escalade.errors import BadInput, BudgetExceeded, StoreUnavailable
from escalade.money import Money
from escalade.registry.budgets import Budget
from escalade.registry.stores.postgres import Server
from escalade.registry.stores.postgres_ledger import PostgresLedger
from escalade.registry.stores.postgres_wire import _line
from escalade.scopes import Principal
from tests import _forks
from tests._house import ROOT
from tests.servers.postgres_server import PASSWORD, USER, PostgresServer

ANA = Principal("ana", "acme")
BUDGET = Budget("tenant:acme", "0.0000001")
"""100 nano-dollars."""

DIES_HOLDING = """
import os, signal, sys
from escalade.registry.stores.postgres_ledger import PostgresLedger
from escalade.registry.stores.postgres_wire import _line
from escalade.scopes import Principal
hold = PostgresLedger(sys.argv[1]).purse(Principal("bo", "acme"), run="r1").reserve(60, "a call")
os.kill(os.getpid(), signal.SIGKILL)
"""


def ledger_at(url: str, *budgets: Budget, **options: Any) -> PostgresLedger:
    """A ledger on it, as a further process would have it."""
    return PostgresLedger(url, budgets, **{"rest": 0.05, "timeout": 2.0, **options})


def used(ledger: PostgresLedger, name: str = "tenant:acme") -> tuple[int, int, int]:
    """Settled, held and overrun of an account."""
    account = ledger.account(name)
    assert account is not None
    return account.settled, account.held, account.overrun


def test_two_processes_share_the_budget(postgres_url: str) -> None:
    """What one holds, the other can't; bills above a reservation are booked as in memory."""
    one, two = ledger_at(postgres_url, BUDGET), ledger_at(postgres_url)
    hold = one.purse(ANA).reserve(60)
    with pytest.raises(BudgetExceeded, match="budget 'tenant:acme' of \\$0.0000001 has \\$0.00000004 left"):
        two.purse(ANA).reserve(41)
    hold.settle(110)
    assert used(two) == (100, 0, 10)


@pytest.mark.parametrize(("on_death", "booked"), [("settle", 60), ("release", 0)])
def test_what_a_dead_process_held_is_ended_once(postgres_url: str, on_death: Any, booked: int) -> None:
    """Killed while it held money: the next process books it, once, in full or not at all, and forgets who it was."""
    ledger = ledger_at(postgres_url, BUDGET, on_death=on_death)
    subprocess.run([sys.executable, "-c", DIES_HOLDING, postgres_url], cwd=ROOT, check=False)
    assert used(ledger) == (0, 60, 0)
    held = ledger.store.held()[0]
    assert (held.amount, held.run, held.what, held.accounts) == (60, "r1", "a call", ("tenant:acme",))
    assert [len(ledger.sweep()), len(ledger.sweep())] == [1, 0]
    assert (used(ledger), ledger.store.held()) == ((booked, 0, 0), [])
    assert len(ledger.store.server.ask("SELECT id FROM owners")) == 1


def test_a_process_taken_for_dead_settles_nothing_twice(postgres_url: str) -> None:
    """Its hold was booked in full by others; its own late settlement changes nothing, and it can go on."""
    ledger, other = ledger_at(postgres_url, BUDGET), ledger_at(postgres_url, lease=-1e9)
    ledger.store.server.ask("UPDATE owners SET host = 'elsewhere' WHERE id = $1", ledger.store._owner.id)
    run = ledger.purse(ANA)
    hold = run.reserve(60)
    assert [held.amount for held in other.sweep()] == [60]
    hold.settle(10)
    assert (used(ledger), run.spent) == ((60, 0, 0), 10)
    run.reserve(40).settle(40)
    assert used(ledger) == (100, 0, 0)


def test_what_a_database_says_otherwise(postgres: PostgresServer, postgres_url: str) -> None:
    """Settings of its own for isolation, output and encoding change nothing of what we read and write."""
    name = postgres_url.rpartition("/")[2]
    for setting in (
        "default_transaction_isolation = 'serializable'", "bytea_output = 'escape'", "extra_float_digits = -15",
        "client_encoding = 'latin1'", "datestyle = 'german'",
    ):  # fmt: skip
        postgres.ask(f"ALTER DATABASE {name} SET {setting}")
    ledger = ledger_at(postgres_url, Budget("user:*/*", "0.0000001", warn=0.123456789012345))
    ledger.purse(Principal("zoë ☃", "acme")).reserve(60).settle(60)
    assert used(ledger, "user:acme/zoë ☃") == (60, 0, 0)
    assert ledger.store.changes()[0].now.warn == 0.123456789012345
    assert {row.warn for row in ledger.store.read(None, 0.0)} == {0.123456789012345}
    assert ledger.store.server.ask("SELECT $1::bytea", b"\0\\\xff") == [(b"\0\\\xff",)]
    assert ledger.store.server.ask("SHOW transaction_isolation") == [("read committed",)]


def test_many_accounts_in_any_order(postgres_url: str) -> None:
    """Processes that lock the same accounts in different orders don't wait for one another for ever: none is refused
    for another reason than its budget, and the sums are right.
    """
    accounts = ["everything", "tenant:acme", "user:acme/ana"]
    stores = [ledger_at(postgres_url, *(Budget(name, "1") for name in accounts)).store for _ in range(4)]
    now = stores[0].now()

    def use(number: int) -> None:
        names = accounts[number % 3 :] + accounts[: number % 3]
        for turn in range(40):
            key = f"{number}-{turn}"
            fits, _ = stores[number].reserve(key, names[:: 1 if turn % 2 else -1], 10, now, "", "")
            assert fits
            stores[number].settle(key, 7, now)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(use, range(4)))
    assert [(row.settled, row.held) for row in stores[0].read(accounts, now)] == [(4 * 40 * 7, 0)] * 3


def test_a_server_stopped_in_the_middle(postgres: PostgresServer, postgres_url: str) -> None:
    """No server, no money: one clear error, at once, without an address. Back, it has what it had, and all goes on."""
    ledger = ledger_at(postgres_url, BUDGET)
    run = ledger.purse(ANA)
    hold = run.reserve(60)
    postgres.stop()
    try:
        began = time.monotonic()
        for _ in range(20):
            with pytest.raises(StoreUnavailable) as caught:
                run.reserve(10)
            assert "127.0.0.1" not in str(caught.value)
            assert PASSWORD not in str(caught.value)
        assert time.monotonic() - began < 10, "each could wait 2 s"
        hold.settle(20)
        assert (ledger.unsettled > 0, run.spent) == (True, 20)
    finally:
        postgres.start()
    time.sleep(0.06)
    run.reserve(10).settle(10)
    assert (used(ledger), ledger.unsettled, ledger.store.held()) == ((30, 0, 0), 0, [])


def test_a_server_that_was_started_anew_meanwhile(postgres: PostgresServer, postgres_url: str) -> None:
    """Nobody asked while it was away: nobody notices, the connection that it closed isn't used."""
    ledger = ledger_at(postgres_url, BUDGET)
    run = ledger.purse(ANA)
    run.reserve(10).settle(10)
    postgres.stop(immediate=False)
    postgres.start()
    run.reserve(10).settle(10)
    assert used(ledger) == (20, 0, 0)


def test_a_server_that_hangs(postgres: PostgresServer, postgres_url: str) -> None:
    """Whoever gets no answer in time is refused; what the server is late to do it does not do; then all goes on."""
    ledger = ledger_at(postgres_url, BUDGET, timeout=0.4)
    run = ledger.purse(ANA)
    run.reserve(1).settle(1)
    postgres.pause()
    try:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="Timeout"):
            run.reserve(60)
        time.sleep(0.1)
        with pytest.raises(StoreUnavailable, match="no connection in time"):
            run.reserve(60)
        assert time.monotonic() - began < 10
    finally:
        postgres.go_on()
    time.sleep(0.3)
    assert ledger.store.held() == [], "it was too late"
    ledger.keep()
    assert (used(ledger), ledger.unsettled) == ((1, 0, 0), 0)
    run.reserve(99).settle(99)


def test_a_row_that_others_hold(postgres_url: str) -> None:
    """A transaction of somebody else on our accounts refuses in time, and the server gives the attempt up, too."""
    import psycopg

    ledger = ledger_at(postgres_url, BUDGET, timeout=0.3)
    run = ledger.purse(ANA)
    with psycopg.connect(postgres_url) as stranger:
        stranger.execute("SELECT * FROM escalade.accounts FOR UPDATE")
        with pytest.raises(StoreUnavailable):
            run.reserve(60)
        stranger.rollback()
    time.sleep(0.06)
    run.reserve(100).settle(100)
    assert used(ledger) == (100, 0, 0)


def test_a_database_that_was_emptied(postgres: PostgresServer, postgres_url: str) -> None:
    """Budgets that are gone refuse everybody until somebody sets them again."""
    ledger = ledger_at(postgres_url, BUDGET)
    run = ledger.purse(ANA)
    run.reserve(10).settle(10)
    postgres.ask("DROP SCHEMA escalade CASCADE", postgres_url)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            run.reserve(10)
        time.sleep(0.06)
    with pytest.raises(StoreUnavailable, match="has lost budget 'tenant:acme'"):
        run.reserve(10)
    time.sleep(0.06)
    ledger.set_budget(BUDGET)
    run.reserve(10).settle(10)
    assert used(ledger) == (10, 0, 0)


FORKS = """
import gc, sys
from tests._forks import in_child
from tests.registry.stores.test_postgres_ledger import ANA, BUDGET, ledger_at, used

def child():
    global hold
    ledger.purse(ANA).reserve(10).settle(10)
    hold.settle(1)
    del hold
    gc.collect()
    assert ledger.store.server.ask("SELECT pg_backend_pid()") != session
    assert used(ledger) == (10, 60, 0)

ledger = ledger_at(sys.argv[1], BUDGET)
hold = ledger.purse(ANA).reserve(60)
session = ledger.store.server.ask("SELECT pg_backend_pid()")
in_child(child)
assert ledger.store.server.ask("SELECT pg_backend_pid()") == session, "nobody closed it"
assert used(ledger) == (10, 60, 0)
hold.settle(20)
assert used(ledger) == (30, 0, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_leaves_its_parents_money_and_connection_alone(postgres_url: str) -> None:
    """A child has the parent's objects: collecting them settles nothing, and it talks by a connection of its own."""
    _forks.run(FORKS, postgres_url)


def test_the_servers_clock_counts(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose own clock is years ahead opens no new day for everybody."""
    ledger = ledger_at(postgres_url, Budget("tenant:acme", "0.0000001", "day"))
    ledger.purse(ANA).reserve(100).settle(100)
    real = time.time()
    monkeypatch.setattr(time, "time", lambda: real + 4e7)
    assert ledger_at(postgres_url).purse(ANA).left() == 0


def test_programs_that_begin_together(postgres_url: str) -> None:
    """Eight at once on an empty database: the tables are made once, and each budget is noted as set once."""
    gate = threading.Barrier(8)

    def begin(_: int) -> PostgresLedger:
        gate.wait()
        ledger = ledger_at(postgres_url, timeout=5.0)
        gate.wait()
        for number in range(20):
            ledger.set_budget(Budget(f"tenant:{number}", "1"))
        return ledger

    with ThreadPoolExecutor(8) as pool:
        ledgers = list(pool.map(begin, range(8)))
    assert len(ledgers[0].store.changes()) == 20


def test_who_may_not_make_tables_uses_those_that_are_there(postgres: PostgresServer, postgres_url: str) -> None:
    """A role with rights on the tables alone is enough, once they are made; without any it is told what it lacks."""
    name = f"poor_{postgres_url.rpartition('_')[2]}"
    postgres.ask(f"CREATE ROLE {name} LOGIN PASSWORD 'p%w'")
    poor = postgres_url.replace(f"{USER}:{PASSWORD}", f"{name}:p%25w")
    with pytest.raises(StoreUnavailable, match="permission denied for database"):
        ledger_at(poor)
    ledger_at(postgres_url, BUDGET)
    postgres.ask(f"GRANT USAGE ON SCHEMA escalade TO {name}", postgres_url)
    postgres.ask(f"GRANT ALL ON ALL TABLES IN SCHEMA escalade TO {name}", postgres_url)
    ledger_at(poor).purse(ANA).reserve(100).settle(100)
    postgres.ask(f"DROP OWNED BY {name}", postgres_url)
    postgres.ask(f"DROP ROLE {name}")


def test_schemas_are_apart(postgres_url: str) -> None:
    """Two programs on one database share nothing but by the name of their schema, which is checked."""
    one, two = ledger_at(postgres_url, BUDGET, schema="One"), ledger_at(postgres_url, BUDGET, schema="two")
    one.purse(ANA).reserve(100).settle(100)
    assert used(two) == (0, 0, 0)
    with pytest.raises(BadInput, match="schema: expected letters"):
        ledger_at(postgres_url, schema='x"; DROP TABLE accounts; --')


def test_text_that_can_not_be_kept_is_refused(postgres_url: str) -> None:
    """A name with a NUL isn't cut short into the name of somebody else, one that is longer than an index takes isn't
    kept, either; and nobody else is refused because of it.
    """
    ledger = ledger_at(postgres_url, Budget("user:*/*", "0.0000001"), rest=60.0)
    with pytest.raises(BadInput, match="can't keep this text"):
        ledger.purse(Principal("ana\0x", "acme"))
    with pytest.raises(BadInput, match="can't keep this: index row"):
        ledger.purse(Principal(random.Random(1).randbytes(5_000).hex(), "acme"))
    odd = Principal("a'\\\"n,a{}", "acme")
    ledger.purse(odd).reserve(100).settle(100)
    assert used(ledger, "user:acme/a'\\\"n,a{}") == (100, 0, 0)
    with pytest.raises(BudgetExceeded):
        ledger.purse(odd).reserve(1)


def test_limits_that_do_not_fit_are_refused(postgres_url: str) -> None:
    """More than four billion dollars in nano-dollars don't fit into what the table counts in; less is exact."""
    with pytest.raises(BadInput, match="counts up to"):
        ledger_at(postgres_url, Budget("everything", "5000000000"))
    most = Money.of("4000000000")
    ledger = ledger_at(postgres_url, Budget("tenant:acme", most))
    ledger.purse(ANA).reserve(int(most) - 1).settle(int(most) - 1)
    assert used(ledger) == (int(most) - 1, 0, 0)


SECRET = "s3cr3t%40x"


@pytest.mark.parametrize(
    "url",
    [f"postgresql://me:{SECRET}%zz@127.0.0.1/x", f"mysql://me:{SECRET}@127.0.0.1/x", "postgresql://h/x?nonsense=1", 7],
)
def test_an_address_that_is_none(url: Any) -> None:
    """That is said before anything is tried, with what was expected; a password is not repeated."""
    with pytest.raises(BadInput, match="expected postgresql://user:password@host:port/database") as caught:
        Server(url, "")
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("where", ["127.0.0.1:1", "{user}wrong", "{database}none"])
def test_no_password_and_no_address_in_an_error(postgres: PostgresServer, where: str) -> None:
    """Nothing there, a name that nobody has, a wrong password, no such database: what happened, and nothing secret."""
    url = f"postgresql://{USER}:s3cr3t@{where}/x"
    if where.startswith("{user}"):
        url = postgres.url_of("postgres", "s3cr3t")
    if where.startswith("{database}"):
        url = postgres.url_of("nowhere")
    server = Server(url, "", timeout=5.0)
    with pytest.raises(StoreUnavailable, match="the PostgreSQL store can't be used: no connection: ") as caught:
        server.now()
    said = f"{caught.value!r} {caught.value.__cause__!r} {server!r}"
    print(caught.value)
    for secret in ("s3cr3t", "127.0.0.1", PASSWORD):
        assert secret not in said


def test_without_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install is said, before anything else."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(BadInput, match=r"needs its client: pip install 'escalade\[postgres\]'"):
        PostgresLedger("postgresql://127.0.0.1:1/x")


def test_a_clock_that_was_asked_slowly(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that sleeps through the server's answer isn't late with all that follows."""
    ledger = ledger_at(postgres_url, BUDGET, timeout=0.5)
    server, ask = ledger.store.server, ledger.store.server.ask

    def slowly(sql: str, *values: Any) -> Any:
        found = ask(sql, *values)
        time.sleep(0.7 if sql == "SELECT seconds_v()" else 0.0)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(server, "ask", slowly)
        server._synced = -1e9
        server.now()
    ledger.purse(ANA).reserve(60).settle(60)
    assert used(ledger) == (60, 0, 0)


def test_a_host_that_nobody_knows_is_not_named() -> None:
    """As libpq says it."""
    said = 'could not translate host name "db.internal" to address: Name or service not known\n'
    assert _line(said) == "could not translate the name of the host to address: Name or service not known"
