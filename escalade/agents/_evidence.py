"""What a simulated model writes for DSPy's decision types, and how it judges an answer that it is shown.

**Judging.** A judge that would be right itself with probability p tells right from wrong answers with a discernment
d = 3 p: it has an impression x, normal around +d/2 of a right answer and -d/2 of a wrong one, and says logistic(d x).
That is the posterior from even odds; its AUROC is Phi(d / sqrt(2)): 0.86 for p = 1/2, 0.98 for p = 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from escalade.agents._sampling import Schema, logistic, normal, resolved

DISCERNMENT = 3.0
"""How far apart right and wrong answers look to a judge that is never wrong, in deviations."""

_PROPOSED = re.compile(r"answer|propos|candidate|response|prediction|solution")
_OPTION_TYPES = frozenset({"boolean"})


def proposed(inputs: Mapping[str, str], outputs: Mapping[str, Schema], verdicts: set[str]) -> str | None:
    """The answer that is to be judged, where an input shows one and all outputs ask for a verdict; else None."""
    asked = [n for n in outputs if n not in verdicts and outputs[n].get("type") not in _OPTION_TYPES]
    if asked or not outputs:
        return None
    shown = [value for name, value in inputs.items() if _PROPOSED.search(name)]
    return shown[-1] if shown else None


def verdict(p: float, shift: float, *about: object, right: bool) -> float:
    """How likely right a judge finds an answer. `p`: how likely it would be right itself. `about`: picks the draw."""
    d = DISCERNMENT * p
    x = normal("verdict", *about) + (d / 2 if right else -d / 2)
    return round(min(max(logistic(d * x + shift), 0.01), 0.99), 2)


def evidence(schema: Schema, defs: Schema, confidence: float, answer: str | None) -> dict[str, Any] | None:
    """Probabilities as DSPy's decision types want them; None for a schema that isn't one of theirs.

    A truth value and a choice put the confidence on the answer, where there is one; a score lies at it.
    """
    schema, defs = resolved(schema, defs)
    wanted: Mapping[str, Schema] = schema.get("properties", {})
    if set(wanted) == {"noul"}:
        no = answer is not None and answer.casefold() in {"no", "false"}
        return {"noul": round(1 - confidence if no else confidence, 2)}
    if set(wanted) != {"probabilities", "confidence"}:
        return None
    options = list(resolved(wanted["probabilities"], defs)[0].get("properties", {}))
    spread = _levels(options, confidence) if answer is None else _options(options, confidence, answer)
    return {"probabilities": spread, "confidence": confidence}


def _options(options: list[str], confidence: float, answer: str) -> dict[str, float]:
    """The confidence on the answer, the rest evenly on the others."""
    chosen = next((o for o in options if o.casefold() == answer.casefold()), options[0])
    rest = (1 - confidence) / max(1, len(options) - 1)
    return {o: confidence if o == chosen else rest for o in options}


def _levels(options: list[str], confidence: float) -> dict[str, float]:
    """On two levels, so that the mean level lies at the confidence."""
    at = confidence * (len(options) - 1)
    low = min(int(at), len(options) - 2)
    return {o: (1 - at + low if i == low else at - low if i == low + 1 else 0.0) for i, o in enumerate(options)}
