"""How likely the answer's own tokens were, by the provider's log probabilities: no further call.

Only the tokens of the answer's fields count. The frame around them (field markers, keys, tags) is nearly certain,
whatever the model knows, and would drown what is wanted. They are found by the text that the tokens join to, in the
format of the adapter that wrote it.

Sources: the mean of the log probabilities is the length-normalised sequence probability (Murray & Chiang 2018, arXiv
1808.10006); a low quantile defers better than the mean on long answers (Gupta et al. 2024, "Language Model Cascades:
Token-level uncertainty and beyond", arXiv 2404.10136).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from escalade.agents._saving import register
from escalade.agents.confidence.source import Answered, Reading, Source, Weighing
from escalade.errors import BadInput

Span = tuple[int, int]
"""Begin and end in a text, as for a slice."""


@register
@dataclass(frozen=True)
class Logprob(Source):
    """Probability of the answer's tokens: `by` "mean" (their geometric mean), "sum" (of all together), or "quantile".

    `quantile`: which one, 0 is the least likely token. `fields`: the outputs that count, None for all of the signature.
    nan where the provider sends no log probabilities (Anthropic sends none), and where the fields aren't found in the
    text. Raises BadInput.
    """

    kind: ClassVar[str] = "logprob"
    name: ClassVar[str] = "logprob"
    by: str = "mean"
    quantile: float = 0.25
    fields: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.by not in {"mean", "sum", "quantile"}:
            raise BadInput(f"log probabilities are put together by 'mean', 'sum' or 'quantile', not by {self.by!r}")
        if not 0 <= self.quantile <= 1:
            raise BadInput(f"a quantile lies between 0 and 1, not at {self.quantile!r}")
        if self.fields is not None:
            object.__setattr__(self, "fields", tuple(self.fields))

    def settings(self) -> dict[str, Any]:
        return {"logprobs": True}

    def extend(self, signature: Any) -> Any:
        missing = set(self.fields or ()) - set(signature.output_fields)
        if missing:
            raise BadInput(f"no output {min(missing)!r} to read log probabilities of: {list(signature.output_fields)}")
        return signature

    def weigh(self, answered: Answered) -> Weighing:
        said = answered.result.get("logprobs") if "logprobs" in answered.result else None
        return Reading(self._of(tokens_of(said), self.fields or answered.outputs))
        yield

    def _of(self, tokens: Sequence[tuple[str, float]], fields: tuple[str, ...]) -> float:
        found = sorted(p for name in fields for p in field_logprobs(tokens, name))
        if not found:
            return math.nan
        if self.by == "quantile":
            return math.exp(found[min(len(found) - 1, int(self.quantile * len(found)))])
        return math.exp(sum(found) if self.by == "sum" else sum(found) / len(found))


def tokens_of(logprobs: Any) -> list[tuple[str, float]]:
    """(token, log probability) of a completion, in order; empty where it has none."""
    content = logprobs.get("content") if hasattr(logprobs, "get") else None
    return [(str(t["token"]), min(0.0, float(t["logprob"]))) for t in content or () if t.get("logprob") is not None]


def field_logprobs(tokens: Sequence[tuple[str, float]], name: str) -> list[float]:
    """Log probabilities of the tokens that a field's value is made of; a token that it shares with its frame counts."""
    span = field_span("".join(token for token, _ in tokens), name)
    if span is None:
        return []
    found, at = [], 0
    for token, logprob in tokens:
        if at < span[1] and at + len(token) > span[0] and token.strip():
            found.append(logprob)
        at += len(token)
    return found


def field_span(text: str, name: str) -> Span | None:
    """Where a field's value stands in a completion, in the format of DSPy's Chat, JSON or XML adapter."""
    return _chat_span(text, name) or _xml_span(text, name) or _json_span(text, name)


def _chat_span(text: str, name: str) -> Span | None:
    value = re.search(rf"\[\[ ## {re.escape(name)} ## \]\](.*?)(?=\[\[ ## \w+ ## \]\]|\Z)", text, re.DOTALL)
    return _stripped(value)


def _xml_span(text: str, name: str) -> Span | None:
    return _stripped(re.search(rf"<{re.escape(name)}>(.*?)</{re.escape(name)}>", text, re.DOTALL))


def _stripped(found: re.Match[str] | None) -> Span | None:
    if found is None:
        return None
    value = found.group(1)
    begin = found.start(1) + len(value) - len(value.lstrip())
    return begin, max(begin, found.start(1) + len(value.rstrip()))


def _json_span(text: str, name: str) -> Span | None:
    """The value of a key of the outermost object; without the quotes of a string."""
    at = text.find("{") + 1
    decoder = json.JSONDecoder()
    try:
        while at:
            key, at = decoder.raw_decode(text, _after(text, at, " \t\r\n,"))
            begin = _after(text, at, " \t\r\n:")
            value, at = decoder.raw_decode(text, begin)
            if key == name:
                return (begin + 1, at - 1) if isinstance(value, str) else (begin, at)
    except (ValueError, IndexError):
        pass
    return None


def _after(text: str, at: int, skipped: str) -> int:
    while text[at] in skipped:
        at += 1
    return at
