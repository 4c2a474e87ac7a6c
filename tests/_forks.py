"""Forks, each in a process of its own, as a server that preforks does it.

Never in the process of the tests: it has threads of many tests, any of which may hold a lock just then that the child
would wait for in vain.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import Any

from tests._house import ROOT

SECONDS = 20
"""What a child may take; one that hangs is ended by its alarm."""


def run(code: str, *args: Any) -> None:
    """Run this in a fresh process. Fails with what it said, if it fails or takes longer than a minute."""
    words = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, *map(str, args)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"ended with {done.returncode}\n{done.stdout}\n{done.stderr}"


def begun(work: Callable[[], object]) -> int:
    """For a process of its own: fork, and do this in the child. The id of the child, which somebody has to wait for."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(SECONDS)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return child


def in_child(work: Callable[[], object]) -> None:
    """For the code of `run`: fork, do this in the child, and wait for it. AssertionError unless it ends well."""
    ended = os.waitstatus_to_exitcode(os.waitpid(begun(work), 0)[1])
    assert ended != -signal.SIGALRM, "the child hung"
    assert ended == 0, f"the child ended with {ended}"
