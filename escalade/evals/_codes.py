"""What the codes in the columns of `Outcomes` stand for, and what facts about questions are kept in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from escalade.agents.climb import FAILED, OK, REFUSED, TRUNCATED, WRONG_FORMAT
from escalade.agents.forms import Form, form_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

STATUSES = (OK, WRONG_FORMAT, TRUNCATED, FAILED, REFUSED)
"""Codes of the `status` column are indices into this."""

UNKNOWN = -1
"""Stands for an unknown price or ceiling in the integer columns."""

MOST_COST = 10**15
"""Nano-dollars: a million dollars. No attempt costs so much, and sums of many would not be exact."""

NO_ANSWER = -1
"""Stands for "no answer" in the `answer` column."""


def form_column(answers: Sequence[Sequence[Any]]) -> NDArray[Any]:
    """The form of each answer, `(n, k, 4)`; nan for None."""
    import numpy as np

    none = [math.nan] * len(Form._fields)
    return np.array([[form_of(answer) or none for answer in row] for row in answers], dtype=np.float64)


def fact_column(facts: Sequence[Any]) -> NDArray[Any]:
    """Facts of one name, one for each question; texts as Python's, since numpy's are all as long as the longest."""
    import numpy as np

    return np.array(facts, dtype=object if any(isinstance(fact, str) for fact in facts) else None)
