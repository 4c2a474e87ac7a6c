"""Brings checkpoints to one anchor, in order, again and again until they are there."""

from __future__ import annotations

import logging
import threading

from escalade.errors import BadInput
from escalade.registry.audit._shelf import reading
from escalade.registry.audit.anchors import Anchor, Checkpoint

PAUSES = (0.1, 0.5, 2.0, 10.0, 30.0)
"""Seconds between attempts, the last for ever."""

_log = logging.getLogger("escalade.audit")


class Courier:
    """A thread per anchor, so that a slow one holds up neither the log nor the other anchors.

    What is still to be brought is read from the log: it survives a crash.
    """

    def __init__(self, anchor: Anchor, where: str, arrived: int) -> None:
        self.anchor, self.arrived, self.error = anchor, arrived, ""
        self._where, self._target = where, 0
        self._wake, self._stop, self._failures = threading.Event(), threading.Event(), 0
        self._thread = threading.Thread(target=self._run, name=f"audit-anchor-{anchor!r}", daemon=True)
        self._thread.start()

    def notify(self, checkpoint: Checkpoint) -> None:
        """There is a new one."""
        self._target = max(self._target, checkpoint.number)
        self._wake.set()

    @property
    def missing(self) -> int:
        """Checkpoints that are not there yet."""
        return max(0, self._target - self.arrived)

    def close(self, timeout: float) -> None:
        """One more attempt, then end."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            if self._failures:  # new checkpoints don't shorten the pause
                self._stop.wait(PAUSES[min(self._failures, len(PAUSES)) - 1])
            else:
                self._wake.wait()
            self._wake.clear()
            stopping = self._stop.is_set()
            if self.missing:
                self._bring()
            if stopping:
                return

    def _bring(self) -> None:
        try:
            for checkpoint in self._waiting():
                self.anchor.append(checkpoint)
                self.arrived = checkpoint.number
        except Exception as error:  # noqa: BLE001 - anchors are anybody's code
            self._failures += 1
            if not self.error:
                _log.error("audit: %r takes no checkpoints: %s", self.anchor, error)
            self.error = f"{type(error).__name__}: {error}"
        else:
            self._failures, self.error = 0, ""

    def _waiting(self) -> list[Checkpoint]:
        with reading(self._where) as log:
            return [Checkpoint.from_json(body) for _, body in log.checkpoints(self.arrived)]


def last_arrived(anchor: Anchor, chain: str) -> Checkpoint | None:
    """The newest checkpoint that the anchor holds. Raises BadInput for an anchor of another log."""
    last: Checkpoint | None = None
    try:
        for checkpoint in anchor.read():
            if checkpoint.number and checkpoint.chain != chain:
                raise BadInput(f"{anchor!r} belongs to another log; each log needs an anchor of its own")
            if last is None or checkpoint.number > last.number:
                last = checkpoint
    except FileNotFoundError:
        return None
    return last if last and last.number else None
