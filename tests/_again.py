"""Runs the tests that failed once more, each alone: `python -m tests._again`, as `scripts/test` does after failures.

Hundreds of tests race threads, processes and servers against the clock of a machine that others use, too. One that
fails among 8,000 and then passes alone, `TIMES` times out of `TIMES`, each time in a process of its own, may be a race
of ours or a moment of the machine's: it is told last, by its name, with its first failure still above, and has to be
looked at, but it doesn't refuse a change (CPython's own suite does the same). Everything else stays a failure: what
fails alone a single time, and all of it where more than `FEW` failed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FEW = 5
TIMES = 3


def failed(cache: Path) -> list[str]:
    """The ids of the tests that pytest's cache of the last run names."""
    try:
        return sorted(json.loads((cache / "v/cache/lastfailed").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return []


def passes(test: str, root: Path) -> bool:
    """Whether it passes each time; stops at the first time that it doesn't."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    return all(subprocess.run(command, cwd=root, check=False).returncode == 0 for _ in range(TIMES))


def main(root: Path) -> int:
    """The exit code: 0 if all that failed passes now, else 1."""
    names = failed(root / ".pytest_cache")
    if not 0 < len(names) <= FEW:
        print(f"== {len(names)} tests failed: none is tried again (up to {FEW} are)")
        return 1
    print(f"== tried again, each alone, {TIMES} times: {', '.join(names)}", flush=True)
    verdicts = {name: passes(name, root) for name in names}
    for name, passed in verdicts.items():
        print(f"== FLAKY: {name} failed above and then passed alone" if passed else f"== FAILED: {name}")
    return 0 if all(verdicts.values()) else 1


if __name__ == "__main__":
    sys.exit(main(Path.cwd()))
