"""What the codes in the columns of `Outcomes` stand for."""

from __future__ import annotations

from escalade.agents.climb import FAILED, OK, REFUSED, TRUNCATED, WRONG_FORMAT

STATUSES = (OK, WRONG_FORMAT, TRUNCATED, FAILED, REFUSED)
"""Codes of the `status` column are indices into this."""

UNKNOWN = -1
"""Stands for an unknown price or ceiling in the integer columns."""

NO_ANSWER = -1
"""Stands for "no answer" in the `answer` column."""
