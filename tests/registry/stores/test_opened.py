"""Stores by their address: the same program on files, on Redis or on PostgreSQL, and at the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from escalade import Budget, Principal, cli, open_cache, open_claims, open_ledger, open_limiter
from escalade.errors import BadInput
from escalade.registry.limits import RateLimit, Taken
from tests.servers.postgres_server import PASSWORD, PostgresServer
from tests.servers.redis_server import RedisServer

WINDOWS = (("k", RateLimit(1, 60.0)),)


@pytest.fixture(params=["path", "sqlite", "redis", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """What a configuration says; of files `.` becomes the folder."""
    if request.param == "redis":
        with RedisServer() as server:
            yield server.url
    elif request.param == "postgres":
        yield request.getfixturevalue("postgres_url")
    else:
        yield f"sqlite:///{tmp_path}/a%20b" if request.param == "sqlite" else str(tmp_path / "a b")


def part(where: str, name: str) -> str:
    """A file of its own for each, one server for all."""
    return where if "://" in where and not where.startswith("sqlite") else f"{where}-{name}"


def test_one_address_is_enough(where: str) -> None:
    """Two programs that were given the same addresses share everything."""
    ledgers = [open_ledger(part(where, "b"), [Budget("tenant:acme", "0.0000001")]) for _ in range(2)]
    ledgers[0].purse(Principal("ana", "acme")).reserve(60).settle(60)
    assert ledgers[1].purse(Principal("bo", "acme")).left() == 40
    assert [type(open_limiter(part(where, "l")).take_all(WINDOWS)) for _ in range(2)] == [Taken, float]
    one, two = (open_claims(part(where, "c")) for _ in range(2))
    assert [one.claim("k", again=False)[0], two.claim("k", again=False)[0]] == ["mine", "running"]
    open_cache(part(where, "cache")).set("k", b"1", 60.0)
    assert open_cache(part(where, "cache")).get("k") == b"1"


def test_paths_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sqlite:///x is where we are, sqlite:////x begins at the root, %XX is one character."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "var").mkdir()
    for address in ("sqlite:///var/a%20b.db", f"sqlite:///{tmp_path}/var/c.db", "var/d.db"):
        open_ledger(address).close()
    assert {path.name for path in (tmp_path / "var").glob("*.db")} == {"a b.db", "c.db", "d.db"}


@pytest.mark.parametrize("address", ["mysql://me:hunter2@db/x", "sqlite://x.db", "http://db"])
def test_an_address_of_nothing(address: str) -> None:
    """What is no kind of store is refused before anything is opened, and no password repeated."""
    with pytest.raises(BadInput, match="expected a path, sqlite:///path, redis://... or postgresql://...") as caught:
        open_limiter(address)
    assert "hunter2" not in str(caught.value)


def budget(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and all output, in one line."""
    code = cli.main(["budget", *arguments])
    said = capsys.readouterr()
    return code, " ".join((said.out + said.err).split())


def test_at_the_command_line(postgres: PostgresServer, postgres_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A database is as good as a file: it is made when that is said, and looking makes nothing."""
    code, said = budget(capsys, "show", postgres_url)
    assert (code, "there is no store of budgets in schema 'escalade' at postgresql://127.0.0.1" in said) == (2, True)
    assert postgres.ask("SELECT 1 FROM pg_namespace WHERE nspname = 'escalade'", postgres_url) == []
    create = ("set", postgres_url, "tenant:acme", "2", "--period", "day", "--by", "bo", "--create")
    assert budget(capsys, *create)[0] == 0
    assert "$2.00" in budget(capsys, "show", postgres_url)[1]
    assert "new -> $2 a day, by bo" in budget(capsys, "history", postgres_url)[1]
    assert budget(capsys, "show", postgres_url, "--prefix", "other")[0] == 2
    assert PASSWORD not in said


def test_no_server_at_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """One that is away is a failure; the address is named, the password isn't."""
    code, said = budget(capsys, "show", "postgresql://me:hunter2@127.0.0.1:1/app")
    assert code == 1
    assert "Connection refused (postgresql://127.0.0.1:1/app): is it up, and reachable?" in said
    assert "hunter2" not in said
