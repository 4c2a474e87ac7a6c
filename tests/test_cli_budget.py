"""`escalade budget`: a store of budgets from a terminal, while programs use it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from escalade import cli
from escalade.errors import BudgetExceeded
from escalade.registry.audit import AuditLog
from escalade.registry.audit.reading import tail
from escalade.registry.budgets import Budget
from escalade.registry.stores.sqlite_ledger import SqliteLedger
from escalade.scopes import Principal
from tests.servers.redis_server import RedisServer

ANA = Principal("ana", "acme")
CENT = 10_000_000
BUDGETS = [Budget("tenant:acme", "1.00", "day"), Budget("everything", "500", "month"), Budget("user:*/*", "0.80")]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    """A store in which 85 cents of a dollar are used: 60 spent, 25 held."""
    path = tmp_path / "budgets.db"
    ledger = SqliteLedger(path, BUDGETS)
    ledger.purse(Principal("bo", "acme")).reserve(60 * CENT).settle(60 * CENT)
    held = ledger.purse(ANA).reserve(25 * CENT)
    yield str(path)
    held.release()


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and all output."""
    code = cli.main(["budget", *arguments])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_show(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is spent, held and left of each account, and the rules for accounts that are to come."""
    code, text = asked(capsys, "show", store)
    assert code == 0
    (line,) = [line.split() for line in text.splitlines() if "tenant:acme" in line]
    assert line[1:6] == ["day", "$1.00", "$0.60", "$0.25", "$0.15"]
    assert "85%" in text
    assert "each user:*/*: $0.8" in text
    assert "user:acme/ana" in text


def test_show_as_json(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The same for programs, in dollars as text."""
    code, text = asked(capsys, "show", store, "tenant:acme", "--json")
    (account,) = json.loads(text)["accounts"]
    assert code == 0
    assert (account["spent"], account["held"], account["left"], account["level"]) == ("0.6", "0.25", "0.15", "warn")
    assert account["month"] is None or float(account["month"]) > 0.6


@pytest.mark.parametrize(("mark", "code"), [("warn", 100), ("brake", 0)])
def test_exit_code_of_a_mark(store: str, capsys: pytest.CaptureFixture[str], mark: str, code: int) -> None:
    """For scripts that watch: 100 when an account has reached the mark."""
    assert asked(capsys, "show", store, "--fail-at", mark)[0] == code


def test_set_holds_for_programs_that_run(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A ledger that is open uses the new limit from its next call on, and keeps period and what is spent."""
    ledger = SqliteLedger(store)
    purse = ledger.purse(Principal("bo", "acme"))
    with pytest.raises(BudgetExceeded):
        purse.reserve(18 * CENT)
    code, text = asked(capsys, "set", store, "tenant:acme", "2.00", "--by", "ana", "--warn", "0.5")
    assert code == 0
    assert "tenant:acme: $1 a day -> $2 a day, warns at 50%, brakes at 95%" in text
    ledger.purse(Principal("bo", "acme")).reserve(18 * CENT).settle(18 * CENT)
    account = ledger.account("tenant:acme")
    assert account is not None
    assert (account.limit, account.settled, account.period, account.warn) == (200 * CENT, 78 * CENT, "day", 0.5)


def test_history(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Who set what, and what it was before."""
    asked(capsys, "set", store, "tenant:acme", "2.00", "--by", "ana")
    code, text = asked(capsys, "history", store)
    assert code == 0
    assert text.splitlines()[0].endswith("tenant:acme: $1 a day -> $2 a day, by ana")
    assert "everything: new -> $500 a month, by a program" in text
    told = json.loads(asked(capsys, "history", store, "--json")[1])["changes"][0]
    assert (told["account"], told["was"], told["now"], told["by"]) == ("tenant:acme", "$1 a day", "$2 a day", "ana")


def test_set_is_in_the_audit_log(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --audit there is an intent and an outcome that say who changed what; without that log nothing is set."""
    log = tmp_path / "audit.sqlite"
    code, text = asked(capsys, "set", store, "tenant:acme", "3", "--audit", str(log))
    assert code == 2
    assert f"audit log {log}: there is no" in text
    assert "tenant:acme: $1" not in text
    AuditLog(log).close()
    assert asked(capsys, "set", store, "tenant:acme", "3", "--by", "ana", "--audit", str(log))[0] == 0
    rows = [row.fields() for row in tail(log, 10) if row.event in {"intent", "outcome"}]
    assert [row["kind"] for row in rows] == ["budget", "budget"]
    assert rows[1]["outcome"] == "ok"
    assert (rows[1]["user"], rows[1]["rule"]) == ("ana", "$1 a day -> $3 a day")


def test_load_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of budgets makes a store where that is asked for."""
    file, store = tmp_path / "budgets.yaml", str(tmp_path / "new.db")
    file.write_text('budgets: [{account: everything, limit: "7", period: month}]', "utf-8")
    assert asked(capsys, "load", store, str(file))[0] == 2
    assert asked(capsys, "load", store, str(file), "--create") == (0, "everything: $7 a month\n")
    assert "$7.00" in asked(capsys, "show", store)[1]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("show", "no.db"), "there is no store of budgets at 'no.db'"),
        (("set", "no.db", "everything", "1"), "--create makes one"),
        (("show", __file__), "is no store of budgets"),
        (("show", "STORE", "tenant:acmee"), "unknown account 'tenant:acmee'; did you mean 'tenant:acme'?"),
        (("set", "STORE", "tenants", "1"), "unknown budget account 'tenants'"),
        (("set", "STORE", "everything", "much"), "not an amount of dollars: 'much'"),
        (("set", "STORE", "everything", "1", "--warn", "2"), "expected 0 < warn <= brake <= 1"),
    ],
)
def test_what_can_be_put_right(
    store: str, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], what: str
) -> None:
    """Exits with 2, and says what was expected."""
    code, text = asked(capsys, *(store if one == "STORE" else one for one in arguments))
    assert code == 2
    assert what in text


def test_redis(capsys: pytest.CaptureFixture[str]) -> None:
    """A server is as good as a file; one that is away is a failure."""
    with RedisServer() as server:
        assert asked(capsys, "set", server.url, "tenant:acme", "2", "--period", "day", "--by", "bo")[0] == 0
        assert "$2.00" in asked(capsys, "show", server.url)[1]
        assert "new -> $2 a day, by bo" in asked(capsys, "history", server.url)[1]
    assert asked(capsys, "show", server.url)[0] == 1


def test_schema(capsys: pytest.CaptureFixture[str]) -> None:
    """The form of files of budgets, for editors."""
    code, text = asked(capsys, "schema")
    assert code == 0
    assert json.loads(text)["title"] == "Budgets of escalade"


def test_a_server_that_does_not_answer(capsys: pytest.CaptureFixture[str]) -> None:
    """Its address is told, its password isn't."""
    assert cli.main(["budget", "show", "redis://:hunter2@127.0.0.1:1"]) == 1
    said = capsys.readouterr().err
    assert "no Redis server answers at redis://127.0.0.1:1" in said
    assert "hunter2" not in said
