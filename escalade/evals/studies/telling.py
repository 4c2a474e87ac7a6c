"""How far a study is: a bar in a terminal, a line now and then elsewhere; on standard error, tables are the output."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any

from escalade.agents.climb import usd

if TYPE_CHECKING:
    from escalade.evals.studies.recording import Recorded

__all__ = ["Telling"]

EVERY = 5.0
"""Seconds between two lines where there is no terminal."""


class Telling:
    """Progress of one run. `total`: attempts of the whole study."""

    def __init__(self, name: str, total: int, *, shown: bool) -> None:
        self.name, self.total, self.shown = name, total, shown
        self.owed = self.new = self.spent = 0
        self._began = self._last = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def begin(self, owed: int, spent: int) -> None:
        """The attempts begin. `spent`: nano-dollars by earlier runs."""
        self.owed, self.spent, self._began = owed, spent, time.monotonic()
        self._last = self._began
        if not self.shown:
            return
        if owed < self.total:
            self._say(f"{self.name}: {self.total - owed:,} of {self.total:,} attempts are there, {usd(spent)} spent")
        if owed and sys.stderr.isatty():
            self._bar = _bar()
            self._task = self._bar.add_task(
                self.name, total=self.total, completed=self.total - owed, spent=usd(spent), rate=""
            )
            self._bar.start()

    def add(self, one: Recorded) -> None:
        """One more attempt was made."""
        self.new += 1
        self.spent += one.line.spent + (one.line.grading or 0)
        if self._bar is not None:
            rate = self.new / max(time.monotonic() - self._began, 1e-9)
            self._bar.update(self._task, advance=1, spent=usd(self.spent), rate=f"{rate:.3g}/s")
        elif self.shown and time.monotonic() - self._last >= EVERY:
            self._last = time.monotonic()
            self._say(self.line())

    def end(self) -> None:
        """No more attempts in this run."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        elif self.shown and self.new:
            self._say(self.line())
        self.shown = False

    def line(self) -> str:
        """study: 1,200/7,914 attempts, $0.41 spent, 85/s, 1:19 to go."""
        took = max(time.monotonic() - self._began, 1e-9)
        rate, left = self.new / took, self.owed - self.new
        done = self.total - self.owed + self.new
        togo = f", {_clock(left / rate)} to go" if left and rate else ""
        return f"{self.name}: {done:,}/{self.total:,} attempts, {usd(self.spent)} spent, {rate:.3g}/s{togo}"

    def _say(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # nobody reads it, which is no reason to end the study
            sys.stderr.write(line + "\n")
            sys.stderr.flush()


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[spent]} spent"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
