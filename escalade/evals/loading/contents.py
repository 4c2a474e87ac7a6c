"""What a question is, apart from what anybody answered: its content, its group, what counts as the same.

Outcomes, lists of `dspy.Example`s and lists of texts are looked at alike.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from escalade.errors import BadInput, DataError, UnknownName
from escalade.evals.loading.examples import fields

if TYPE_CHECKING:
    from escalade.evals.outcomes import Outcomes

    Data = Outcomes | Sequence[Any]

GROUP = "group"
"""The name under which data has its groups, where it has any."""

_TOKENS = re.compile(r"(?:(?<!\w)-)?\d+(?:[.,]\d+)*|[^\W\d_]+|[+*/=<>^%$€£]")
"""Numbers with their sign, words, and what makes two sums different: all else is punctuation."""


@dataclass(frozen=True)
class Contents:
    """Of n questions. `texts`: None where they aren't known. `labels`: what has to be answered, None where unknown.

    `exact`: all that makes a question what it is, as one string: what a frozen test set is held to.
    """

    keys: tuple[str, ...]
    texts: tuple[str, ...] | None
    labels: tuple[str, ...] | None
    groups: tuple[str, ...] | None
    exact: tuple[str, ...]

    @property
    def n(self) -> int:
        return len(self.keys)

    @property
    def questions(self) -> tuple[str, ...]:
        """What tells questions apart: their normal form, their keys where no text is known."""
        return self.keys if self.texts is None else tuple(map(normal, self.texts))


def contents(data: Data, *, group: str | None = GROUP) -> Contents:
    """Of outcomes, examples or texts.

    `group`: of outcomes their group, "category" or a feature, of examples a field; None for none. By default those of
    data that has any. Raises BadInput, UnknownName, DataError.
    """
    if hasattr(data, "quality") and hasattr(data, "rungs"):
        return _of_outcomes(data, group)
    if isinstance(data, str) or not isinstance(data, Sequence):
        raise BadInput(f"expected outcomes, a list of dspy.Examples or a list of texts, got {data!r}")
    if not data:
        raise DataError("an empty data set: there is nothing to look at")
    if all(isinstance(one, str) for one in data):
        return Contents(tuple(data), tuple(data), None, None, tuple(data))
    wrong = next((one for one in data if not hasattr(one, "inputs")), None)
    if wrong is not None:
        raise BadInput(f"expected outcomes, a list of dspy.Examples or a list of texts; one of them is {wrong!r}")
    return _of_examples(data, group)


def normal(text: str) -> str:
    """The text without case, white space and punctuation, in one form of Unicode; numbers stay as they are.

    >>> normal("What is  3.5 - 2, Anna?")
    'what is 3.5 2 anna'
    >>> normal("What is -2?") == normal("What is 2?")
    False
    """
    return " ".join(_TOKENS.findall(unicodedata.normalize("NFKC", text).casefold().replace("\u2212", "-")))


def fingerprint(*parts: str) -> str:
    """16 hex digits of these texts."""
    return blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _of_outcomes(data: Any, group: str | None) -> Contents:
    found = data.features.get("text")
    texts = None if found is None else tuple(map(str, found))
    facts: dict[str, Any] = {"category": data.category} | dict(data.features) | {GROUP: data.group}
    if group is not None and facts.get(group) is None and group != GROUP:
        raise UnknownName("feature to group by", group, [name for name, fact in facts.items() if fact is not None])
    named = None if group is None else facts[group]
    groups = None if named is None else tuple(map(str, named))
    return Contents(tuple(data.keys), texts, None, groups, texts or tuple(data.keys))


def _of_examples(data: Sequence[Any], group: str | None) -> Contents:
    asked, wanted, exact, groups = [], [], [], []
    for i, one in enumerate(data, 1):
        given = fields(one)
        try:
            inputs = {name: given[name] for name in one.inputs()}
        except ValueError:  # DSPy's way to say that none is marked
            raise DataError(f"example {i}: mark its inputs by with_inputs(); what is asked isn't known") from None
        groups.append(None if group is None else given.get(group))
        rest = {name: value for name, value in given.items() if name not in inputs}
        asked.append("\n".join(_plain(inputs[name]) for name in sorted(inputs)))
        wanted.append(json.dumps(rest, sort_keys=True, default=repr))
        exact.append(json.dumps(given, sort_keys=True, default=repr))
    known = all(one is not None for one in groups)
    if not known and (any(one is not None for one in groups) or group not in {None, GROUP}):
        raise DataError(f"some examples have no field {group!r} to group by; give it to all of them")
    return Contents(
        tuple(map(fingerprint, asked)),
        tuple(asked),
        tuple(wanted),
        tuple(map(str, groups)) if known else None,
        tuple(exact),
    )


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=repr)
