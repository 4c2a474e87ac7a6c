"""The form of an answer in numbers: how long it is, and which number, if it is one. No word of it is kept."""

from __future__ import annotations

import math
from typing import Any, NamedTuple


class Form(NamedTuple):
    """`chars`: characters. For numbers: `whole`, `negative`: 1.0 if it is; `size`: log(1 + |number|)."""

    chars: float
    whole: float = 0.0
    negative: float = 0.0
    size: float = 0.0


def form_of(answer: Any) -> Form | None:
    """The form of an answer; "$1,234.50" is a number. None for no answer."""
    if answer is None:
        return None
    text = str(answer).strip()
    try:
        number = float(text.replace(",", "").replace("$", "").rstrip("."))
    except ValueError:
        return Form(float(len(text)))
    if not math.isfinite(number):
        return Form(float(len(text)))
    return Form(float(len(text)), float(number.is_integer()), float(number < 0), math.log1p(abs(number)))
