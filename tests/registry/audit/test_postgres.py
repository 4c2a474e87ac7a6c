"""The log in PostgreSQL: what only a server can do to it, and what is done to its tables."""

# ruff: noqa: S608 - an intruder writes SQL as he likes

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from escalade._cli_audit import app
from escalade.errors import BadInput, StoreUnavailable
from escalade.registry.audit import AuditIncomplete, AuditLog, AuditUnavailable
from escalade.registry.audit._postgres_book import PostgresBook
from escalade.registry.audit.chain import ZERO, link
from escalade.registry.audit.reading import rows, tail
from escalade.registry.audit.verify import Verification, verify
from escalade.registry.stores.postgres_wire import Connection, Failed
from tests.registry.audit.material import ended, entry, use, written
from tests.servers.postgres_server import PASSWORD, PostgresServer

USES = 50  # two rows each, and three of the log itself
LAST = 2 * USES + 3


def until(true: Callable[[], object], seconds: float = 20) -> None:
    """Wait for it."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def calls(url: str, event: str) -> list[str]:
    """Calls with a row of this event."""
    return [row.call for row in rows(url) if row.event == event]


def kinds(found: Verification) -> set[str]:
    """What kinds of findings there are."""
    return {one.kind for one in found.findings}


class Tables:
    """The tables of a log, in the hands of somebody who may do anything, and as they were."""

    def __init__(self, server: PostgresServer, url: str, place: Path) -> None:
        self.url, self.place, self._ask = url, place, server.ask
        written(url, USES, anchors=[place], checkpoint_rows=20)  # type: ignore[arg-type]
        for table in ("entries", "checkpoints"):
            self._ask(f"CREATE TABLE escalade.kept_{table} AS TABLE escalade.audit_{table}", url)

    def do(self, *statements: str) -> None:
        """With the triggers off, and on again in the end."""
        off = "SET session_replication_role = replica; SET search_path = escalade"
        self._ask("; ".join([off, *statements]), self.url)

    def restore(self) -> None:
        for table in ("entries", "checkpoints"):
            self.do(f"TRUNCATE audit_{table}", f"INSERT INTO audit_{table} SELECT * FROM kept_{table}")

    def alone(self) -> Verification:
        return verify(self.url)

    def anchored(self) -> Verification:
        return verify(self.url, [self.place])


@pytest.fixture(scope="module")
def _tables(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tables]:
    url = postgres.database()
    yield Tables(postgres, url, tmp_path_factory.mktemp("log") / "anchor")
    postgres.drop(url)


@pytest.fixture
def tables(_tables: Tables) -> Iterator[Tables]:
    """A log of 103 rows, anchored up to its end, to tamper with."""
    yield _tables
    _tables.restore()


def test_untouched(tables: Tables) -> None:
    """No findings, with its anchor and without."""
    found = tables.anchored()
    assert (found.ok, found.rows, found.anchored, found.unanchored) == (True, LAST, LAST, 0)
    alone = tables.alone()
    assert (alone.ok, alone.anchored, alone.unanchored) == (True, 0, LAST)


def test_bytes_of_each_row(tables: Tables) -> None:
    """Every so many bytes of the texts and blobs of all rows: changed, each is found, in each row that has it."""
    longest = {"body": 600, "hash": 32, "event": 8, "call": 8}
    for column, most in longest.items():
        for position in range(0, most, 31):
            blob = column in {"body", "hash"}
            other = (
                f"set_byte({column}, {position}, get_byte({column}, {position}) # 1)"
                if blob
                else f"overlay({column} PLACING '~' FROM {position + 1} FOR 1)"
            )
            hit = f"octet_length({column}) > {position}"
            (counted,) = tables._ask(f"SELECT count(*) FROM escalade.kept_entries WHERE {hit}", tables.url)[0]
            if counted:
                tables.do(f"UPDATE audit_entries SET {column} = {other} WHERE {hit}")
                assert tables.alone().problems >= counted, (column, position)
                tables.restore()
    assert tables.anchored().ok


@pytest.mark.parametrize(
    ("statements", "kind"),
    [
        (["UPDATE audit_entries SET at = at + 1 WHERE seq = 50"], "changed"),
        (["UPDATE audit_entries SET at = -at WHERE seq = 1"], "changed"),
        (["UPDATE audit_entries SET hash = ''::bytea WHERE seq = 103"], "changed"),
        (["UPDATE audit_entries SET event = 'outcome' WHERE seq = 3"], "changed"),
        (["DELETE FROM audit_entries WHERE seq = 50"], "missing"),
        (["DELETE FROM audit_entries WHERE seq BETWEEN 1 AND 9"], "missing"),
        (["DELETE FROM audit_entries WHERE seq = 50", "UPDATE audit_entries SET seq = -seq WHERE seq > 50",
          "UPDATE audit_entries SET seq = -seq - 1 WHERE seq < 0"], "changed"),
        ([("UPDATE audit_entries a SET (at, event, call, body, hash) = (SELECT at, event, call, body, hash FROM "
          "kept_entries k WHERE k.seq = 70 - a.seq) WHERE seq IN (30, 40)")], "changed"),
        (["INSERT INTO audit_entries SELECT 0, at, event, call, body, hash FROM kept_entries WHERE seq = 9"],
         "inserted"),
        ([("INSERT INTO audit_entries SELECT -9223372036854775808, at, event, call, body, hash FROM kept_entries "
          "WHERE seq = 9")], "inserted"),
        ([("INSERT INTO audit_entries SELECT 9223372036854775807, at, event, call, body, hash FROM kept_entries "
          "WHERE seq = 9")], "missing"),
        (["UPDATE audit_checkpoints SET body = 'x' WHERE number = 2"], "checkpoint"),
        (["DELETE FROM audit_checkpoints WHERE number = 2"], "checkpoint"),
        (["TRUNCATE audit_entries"], "cut"),
    ],
)  # fmt: skip
def test_tampered_with(tables: Tables, statements: list[str], kind: str) -> None:
    """Whatever is done to the tables is found without an anchor, and by its kind."""
    tables.do(*statements)
    assert kind in kinds(tables.alone())


@pytest.mark.parametrize(
    ("change", "back"),
    [
        ("ALTER TABLE audit_entries DISABLE TRIGGER append_only", "ALTER TABLE audit_entries ENABLE TRIGGER ALL"),
        ("ALTER TABLE audit_entries ENABLE REPLICA TRIGGER append_only",
         "ALTER TABLE audit_entries ENABLE TRIGGER ALL"),
        ("DROP TRIGGER append_only ON audit_checkpoints",
         ("CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_checkpoints "
         "EXECUTE FUNCTION append_only()")),
        ("CREATE RULE swallow AS ON INSERT TO audit_entries DO INSTEAD NOTHING", "DROP RULE swallow ON audit_entries"),
        ("ALTER TABLE audit_checkpoints RENAME TO away", "ALTER TABLE away RENAME TO audit_checkpoints"),
    ],
)  # fmt: skip
def test_guards_that_are_gone(tables: Tables, change: str, back: str) -> None:
    """A trigger that is off, a rule that swallows rows, a table that is away: findings, not exceptions."""
    tables.do(change)
    try:
        assert kinds(tables.alone()) <= {"schema", "damaged"}
        assert not tables.alone().ok
    finally:
        tables.do(back)
    assert tables.alone().ok


def test_tail_cut(tables: Tables) -> None:
    """A tail that was cut off, with the checkpoints about it, is found by the anchor, and by nothing else."""
    for cut in (1, 30, 102):
        tables.do(
            f"DELETE FROM audit_entries WHERE seq > {LAST - cut}",
            f"DELETE FROM audit_checkpoints WHERE (body::json->>'seq')::int > {LAST - cut}",
        )
        found = tables.anchored()
        assert {"cut", "checkpoint"} <= kinds(found)
        assert f"rows {LAST + 1 - cut} to {LAST} are missing" in str([str(one) for one in found.findings])
        assert tables.alone().ok  # hence the anchor
        tables.restore()


def test_rebuilt_chain(tables: Tables) -> None:
    """A chain that was made anew from a row on is found by the anchor, and by nothing else."""
    before, statements = ZERO, []
    for row in rows(tables.url):
        body = row.body.replace(b'"ana"', b'"bob"') if row.seq >= 50 else row.body
        before = link(before, row.seq, row.at, row.event, row.call, body)
        values = f"body = '\\x{body.hex()}', hash = '\\x{before.hex()}'"
        statements.append(f"UPDATE audit_entries SET {values} WHERE seq = {row.seq}")
    tables.do(*statements, "TRUNCATE audit_checkpoints")
    assert tables.alone().ok
    assert {"rewritten", "checkpoint"} <= kinds(tables.anchored())


@pytest.mark.parametrize(
    "statement", ["DELETE FROM audit_entries", "UPDATE audit_entries SET at = 0", "TRUNCATE audit_checkpoints"]
)
def test_accidents_are_stopped(tables: Tables, statement: str) -> None:
    """Whoever just has a SQL prompt is told that the log is append-only."""
    import psycopg

    with pytest.raises(psycopg.Error, match="append-only"):
        tables._ask(f"SET search_path = escalade; {statement}", tables.url)


def test_changed_while_it_runs(tables: Tables) -> None:
    """A running log sees that what it wrote last is gone, and refuses to go on from there, for ever."""
    log = AuditLog(tables.url)
    log.intent(entry("before"))
    tables.do(f"DELETE FROM audit_entries WHERE seq > {LAST}")
    with pytest.raises(AuditUnavailable) as refused:
        log.intent(entry("after"))
    assert "behind the log's back" in refused.value.reason
    assert refused.value.retry_after is None
    with pytest.raises(AuditIncomplete):
        log.close()


def test_a_server_that_stops(postgres: PostgresServer, postgres_url: str) -> None:
    """While it is away uses are refused, at once; what has happened is kept, and written when it is back."""
    with AuditLog(postgres_url) as log:
        began = entry("began-before")
        log.intent(began)
        postgres.stop()
        try:
            for number in range(5):
                with pytest.raises(AuditUnavailable, match="can't be recorded") as refused:
                    log.intent(entry(f"refused-{number}"))
            assert refused.value.retry_after
            assert PASSWORD not in refused.value.reason
            log.outcome(ended(began))
            log.denied(entry("denied", outcome="PermissionDenied"))
            assert not log.health().ok
        finally:
            postgres.start()
        until(lambda: log.health().ok)
        log.intent(entry("after"))
    found = verify(postgres_url)
    assert (found.ok, found.unfinished) == (True, ["call-after"])
    assert calls(postgres_url, "intent") == ["call-began-before", "call-after"]
    assert calls(postgres_url, "outcome") == ["call-began-before"]
    assert len(calls(postgres_url, "gap")) == 1


def test_a_server_that_hangs(postgres: PostgresServer, postgres_url: str) -> None:
    """It takes connections and says nothing: uses are refused within `patience`, and all goes on when it answers."""
    with AuditLog(postgres_url, patience=0.3) as log:
        began = entry("began")
        log.intent(began)
        postgres.pause()
        try:
            with pytest.raises(AuditUnavailable):
                log.intent(entry("refused"))
            log.outcome(ended(began))
        finally:
            postgres.go_on()
        until(lambda: log.health().ok)
        log._patience = 10
        log.intent(entry("after"))
    found = verify(postgres_url)
    assert found.ok
    assert calls(postgres_url, "outcome") == ["call-began"]
    assert "call-after" in calls(postgres_url, "intent")


@pytest.mark.parametrize("kept", [True, False])
def test_an_answer_that_is_lost(postgres_url: str, monkeypatch: pytest.MonkeyPatch, kept: bool) -> None:
    """The connection breaks while a commit is under way: whether the server had done it or not, each row is there
    once, and a use that was refused for it is unfinished at most.
    """
    with AuditLog(postgres_url) as log:
        began = entry("began")
        log.intent(began)
        say, broken = Connection.say, list[str]()

        def breaking(self: Connection, sql: str, until: float) -> None:
            if sql != "COMMIT" or len(broken) == 3:
                return say(self, sql, until)
            broken.append(sql)
            if kept:
                say(self, sql, until)
            raise Failed("the connection is lost")

        monkeypatch.setattr(Connection, "say", breaking)
        log.outcome(ended(began))
        with pytest.raises(AuditUnavailable):
            log.intent(entry("refused"))
        log.denied(entry("denied", outcome="PermissionDenied"))
        until(lambda: log.health().ok)
    assert len(broken) == 3
    found = verify(postgres_url)
    assert found.ok
    assert calls(postgres_url, "outcome") == ["call-began"]
    assert calls(postgres_url, "denied") == ["call-denied"]


def test_who_stops_in_the_middle(postgres_url: str) -> None:
    """A process that holds the log and does nothing is cut off by the server; the others go on."""
    stopped, log = PostgresBook(postgres_url, 0.2), AuditLog(postgres_url, patience=5)
    with contextlib.suppress(StoreUnavailable), stopped.turn(durable=True):
        log.intent(entry(1))
        stopped.write_checkpoint(1, "never kept")
    log.close()
    assert verify(postgres_url).ok


def test_rights(postgres: PostgresServer, postgres_url: str) -> None:
    """Once the tables are there, who writes needs SELECT and INSERT, who verifies SELECT; more they can't do."""
    import psycopg

    AuditLog(postgres_url).close()
    grants = ["CREATE ROLE clerk LOGIN PASSWORD 'c'", "CREATE ROLE auditor LOGIN PASSWORD 'a'"]
    grants += ["GRANT USAGE ON SCHEMA escalade TO clerk, auditor"]
    grants += ["GRANT SELECT, INSERT ON escalade.audit_entries, escalade.audit_checkpoints TO clerk"]
    grants += ["GRANT SELECT ON escalade.audit_entries, escalade.audit_checkpoints TO auditor"]
    clerk, auditor = (postgres_url.replace("escalade:secret", login) for login in ("clerk:c", "auditor:a"))
    try:
        for statement in grants:
            postgres.ask(statement, postgres_url)
        with AuditLog(clerk) as log:
            log.intent(entry(1))
        assert verify(auditor).rows == 6
        reader = AuditLog(auditor)
        with pytest.raises(AuditUnavailable):
            reader.intent(entry(2))
        assert "permission denied" in reader.health().down
        with pytest.raises(AuditIncomplete):
            reader.close()
        with pytest.raises(psycopg.Error, match="permission denied"):
            postgres.ask("UPDATE escalade.audit_entries SET at = 0", clerk)
    finally:
        for role in ("clerk", "auditor"):
            postgres.ask(f"DROP OWNED BY {role}; DROP ROLE {role}", postgres_url)


def test_two_that_open_it_at_once(postgres_url: str) -> None:
    """Of several that come first, one makes the tables and the first row."""
    logs: list[AuditLog] = []
    threads = [threading.Thread(target=lambda: logs.append(AuditLog(postgres_url, patience=30))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for log in logs:
        log.close()
    found = verify(postgres_url)
    assert (len(logs), found.ok, found.rows) == (6, True, 13)


def command(*arguments: str) -> Any:
    """`escalade audit …`: its exit code."""
    return app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")


def test_commands(tables: Tables, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands take the address, and never print its password."""
    assert command("verify", tables.url, "--anchors", str(tables.place), "--json") == 0
    said = capsys.readouterr().out
    assert json.loads(said)["rows"] == LAST
    assert f":{PASSWORD}@" not in said
    assert command("export", tables.url) == 0
    assert len(capsys.readouterr().out.splitlines()) == LAST
    assert command("tail", tables.url, "-n", "2", "--json") == 0
    assert [json.loads(line)["seq"] for line in capsys.readouterr().out.splitlines()] == [LAST - 1, LAST]
    assert [row.event for row in tail(tables.url, 2, ["intent"])] == ["intent"] * 2
    tables.do("DELETE FROM audit_entries WHERE seq = 50")
    assert command("verify", tables.url) == 100


def test_no_log(postgres: PostgresServer, postgres_url: str) -> None:
    """To look where no log is makes none."""
    for look in (verify, tail):
        with pytest.raises(BadInput, match=r"there is none in schema 'escalade'") as said:
            look(postgres_url)
        assert PASSWORD not in str(said.value)
    assert postgres.ask("SELECT count(*) FROM pg_namespace WHERE nspname = 'escalade'", postgres_url) == [(0,)]
    with pytest.raises(BadInput, match="can't be kept in Redis"):
        AuditLog("redis://localhost")


def test_without_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says what to install."""
    import sys

    monkeypatch.setitem(sys.modules, "psycopg", None)
    for look in (verify, tail, AuditLog):
        with pytest.raises(
            BadInput, match=r"^a store in PostgreSQL needs its client: pip install 'escalade\[postgres\]'$"
        ):
            look("postgresql://u@host/db")


def test_each_use_is_there(postgres_url: str) -> None:
    """More rows than are read at once, in one pass and from any row on."""
    with AuditLog(postgres_url) as log:
        for number in range(2_100):
            use(log, number)
    assert verify(postgres_url).rows == 4_203
    assert [row.seq for row in rows(postgres_url, after=1_500)] == list(range(1_501, 4_204))
