"""One text for one value: canonical JSON and its SHA-256, so that two processes mean the same bytes by the same digest.

Keys sorted, no blanks, ASCII only (lone surrogates have an encoding, too), no NaN. Unequal values have unequal texts; 1
and 1.0 differ, which is the careful side for what is compared by digest.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical(value: Any) -> bytes:
    """The canonical JSON of a JSON value. Raises ValueError for NaN and infinities, TypeError for what isn't JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON, 64 hex digits. Raises as `canonical`."""
    return hashlib.sha256(canonical(value)).hexdigest()
