"""The port of an engine: it decides where and when a run is executed, and again after a crash. Nothing else.

What a run has done is in the store, whatever the engine: an engine may execute a run as often as it likes, and every
execution goes on where the last one ended.
"""

from __future__ import annotations

from typing import Protocol

from escalade.pipelines.durable.execution import Host
from escalade.pipelines.durable.store import RunRow

__all__ = ["Engine", "Host", "RunRow"]


class Engine(Protocol):
    """Executes runs, by `execution.execute(host, run_id)`: again after a pause when that raises `Interrupted`."""

    def attach(self, host: Host) -> None:
        """Told once of the store, the pipelines and the rest that an execution needs. Starts nothing."""
        ...

    def submit(self, run: RunRow) -> None:
        """Execute the run, some time. Idempotent by run and turn: a run is handed in again with a later turn when it
        goes on after an answer or is resumed.
        """
        ...

    def cancel(self, run_id: str) -> None:
        """The run was cancelled, as the store knows: end its execution soon, if it is here."""
        ...

    def recover(self) -> int:
        """Take up what a dead process left: the number of runs."""
        ...

    def close(self, timeout: float | None = None) -> None:
        """Take no more, hand back what is not finished within `timeout` seconds (None: 0), end."""
        ...
