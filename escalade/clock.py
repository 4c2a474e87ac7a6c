"""The time, looked up when it is asked for, so that `escalade.testing` can move it.

As the default of a parameter, `time.monotonic` itself would be the real one for good.
"""

from __future__ import annotations

import time


def monotonic() -> float:
    """`time.monotonic()`."""
    return time.monotonic()


def now() -> float:
    """`time.time()`."""
    return time.time()
