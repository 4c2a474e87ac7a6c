"""The redactor: finds personal data and secrets in text and in nested values, and puts placeholders in their place."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from escalade.errors import BadInput, UnknownName
from escalade.registry import secrets
from escalade.registry.privacy import numbers, patterns, phones
from escalade.registry.privacy.patterns import Finder, Pattern, Span

TYPES = (
    "secret", "private_key", "url_credentials", "jwt", "api_key", "email", "iban", "cnpj", "cpf", "card", "ssn", "ip",
    "phone",
)  # fmt: skip
"""What is found, the more specific first: it decides where two finds of one length overlap."""

_FINDERS: tuple[tuple[Finder, str], ...] = (
    (patterns.emails, "email"),
    (patterns.ibans, "iban"),
    (patterns.ipv6s, "ip"),
    (patterns.lettered_cnpjs, "cnpj"),
    (patterns.api_keys, "api_key"),
    (patterns.jwts, "jwt"),
    (patterns.private_keys, "private_key"),
    (patterns.url_credentials, "url_credentials"),
    (patterns.assignments, "secret"),
)
_DIGITS = frozenset({"card", "cnpj", "cpf", "ssn", "ip", "phone"})
_PASSES = 8
_DEPTH = 32
_AS_ASCII = {
    **{
        ord(c): str(n)
        for start in (0xFF10, 0x0660, 0x06F0, 0x0966)
        for n, c in enumerate(map(chr, range(start, start + 10)))
    },
    **dict.fromkeys(map(ord, "\u00a0\u2007\u2009\u202f\u3000"), " "),
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2212\uff0d"), "-"),
    0xFF20: "@",
    0xFF0E: ".",
    0xFF0B: "+",
}
"""One character for one character: other scripts' digits, and the spaces and dashes that word processors set."""


@dataclass(frozen=True)
class Redacted:
    """A text without what was found in it. `counts`: type -> how many were found."""

    text: str
    counts: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text


class Redactor:
    """Replaces finds by placeholders like `<email>`.

    `types`: what is looked for, all of `TYPES` by default. `patterns`: more of one's own. `regions`: countries whose
    national phone numbers are known with the extra `pii`; () does without it. `known`: replace values of secrets that
    this process revealed, wherever they appear.

    Raises UnknownName for a type, BadInput for two patterns of a name.
    """

    def __init__(
        self,
        types: Iterable[str] | None = None,
        *,
        patterns: Iterable[Pattern] = (),
        regions: tuple[str, ...] = phones.REGIONS,
        known: bool = True,
    ) -> None:
        self.types = tuple(TYPES if types is None else types)
        self.patterns = tuple(patterns)
        for name in self.types:
            if name not in TYPES:
                raise UnknownName("type of personal data", name, TYPES)
        own = [pattern.name for pattern in self.patterns]
        if len(set(own)) < len(own) or set(own) & set(TYPES):
            raise BadInput(f"patterns need names of their own, got {', '.join(own)}")
        self._regions, self._known = regions, known
        wanted = frozenset(self.types)
        self._finders = [finder for finder, name in _FINDERS if name in wanted]
        self._finders += [pattern.find for pattern in self.patterns]
        self._wanted, self._digits = wanted, bool(wanted & _DIGITS)
        self._ranks = {name: rank for rank, name in enumerate((*own, *TYPES))}

    def redact(self, text: str) -> Redacted:
        """The text with placeholders. Redacting it again changes nothing. Never raises."""
        counts: Counter[str] = Counter()
        text = self.replace(text, _placeholder, counts)
        return Redacted(text, dict(counts))

    def replace(self, text: str, by: Callable[[Span, str], str], counts: Counter[str] | None = None) -> str:
        """The text with each find replaced by `by(span, value)`, until nothing is found any more."""
        if self._known:
            text = _without_known(text, by, counts)
        for _ in range(_PASSES):
            spans = self.find(text)
            pieces, at = [], 0
            for span in spans:
                pieces += [text[at : span.start], by(span, text[span.start : span.end])]
                at = span.end
                if counts is not None:
                    counts[span.type] += 1
            again = any(_touches(text, span) for span in spans)
            text = "".join([*pieces, text[at:]]) if spans else text
            if not again:
                break
        return text

    def find(self, text: str) -> list[Span]:
        """The finds by pattern, in order. Of those that overlap, one is left, as wide as all of them together."""
        plain = text if text.isascii() else text.translate(_AS_ASCII)
        spans = [span for finder in self._finders for span in finder(plain)]
        if self._digits:
            spans += self._numbers(plain)
        ends = {span.end for span in spans if span.type == "url_credentials"}
        if ends:  # what ends at the @ of a URL is a password, and what follows a host
            spans = [
                span for span in spans if span.type != "email" or plain.find("@", span.start, span.end) not in ends
            ]
        return self._merged(spans) if len(spans) > 1 else spans

    def _numbers(self, text: str) -> Iterator[Span]:
        ask = phones.Consultation(self._regions, 8 + len(text) // 8192) if self._regions and phones.library() else None
        for start, end in numbers.windows(text):
            international = text[start] == "+" and "phone" in self._wanted and phones.all_of_it(text, start, end)
            if international:
                yield Span(start, international, "phone")
                continue
            found = [span for span in numbers.numbers(text, start, end) if span.type in self._wanted]
            if "phone" in self._wanted:
                found += phones.phones(text, start, end, None if found else ask)
            yield from found

    def _merged(self, spans: list[Span]) -> list[Span]:
        spans.sort(key=lambda span: (span.start, -span.end, self._ranks[span.type]))
        merged = [spans[0]]
        best = spans[0]
        for span in spans[1:]:
            last = merged[-1]
            if span.start >= last.end:
                merged.append(span)
                best = span
                continue
            longer = (span.end - span.start) - (best.end - best.start)
            if longer > 0 or (longer == 0 and self._ranks[span.type] < self._ranks[best.type]):
                best = span
            merged[-1] = Span(last.start, max(last.end, span.end), best.type)
        return merged

    def redact_value(self, value: Any, counts: Counter[str] | None = None) -> Any:
        """The same value without what was found in it: dicts (keys, too), lists, tuples, sets, texts, bytes, ints.

        Under a key like `password` or `api_key`, all of a text is replaced. Objects that aren't JSON become their
        redacted `repr`, but for dates, decimals and their like. `counts` is added to. Never raises.
        """
        return self._value(value, counts, 0)

    def _value(self, value: Any, counts: Counter[str] | None, depth: int) -> Any:
        clean = value
        if isinstance(value, str):
            text = self.replace(value, _placeholder, counts)
            clean = value if text == value else text  # an enum's member stays one where nothing was found
        elif isinstance(value, int) and not isinstance(value, bool):
            clean = self._int(value, counts)
        elif value is None or isinstance(value, _INERT):
            pass
        elif depth >= _DEPTH:
            clean = "<nested too deeply>"
        elif isinstance(value, Mapping):
            clean = self._mapping(value, counts, depth + 1)
        elif isinstance(value, list | tuple | set | frozenset):
            clean = rebuilt(value, [self._value(item, counts, depth + 1) for item in value])
        else:
            clean = self._bytes(value, counts) if isinstance(value, bytes | bytearray) else self._object(value, counts)
        return clean

    def _int(self, value: int, counts: Counter[str] | None) -> Any:
        if not 10**8 <= value < 10**19:
            return value
        text = str(value)
        clean = self._value(text, counts, 0)
        return value if clean == text else clean

    def _mapping(self, value: Mapping[Any, Any], counts: Counter[str] | None, depth: int) -> dict[Any, Any]:
        clean: dict[Any, Any] = {}
        for key, item in value.items():
            name = self._value(key, counts, depth) if isinstance(key, str | int | bytes) else key
            again = 2
            while name in clean:  # two e-mail addresses are one placeholder, and still two entries
                name, again = f"{name if again == 2 else str(name).rpartition(' ')[0]} {again}", again + 1
            if "secret" in self._wanted and isinstance(key, str) and patterns.holds_secret(key, item):
                clean[name] = "<secret>"
                if counts is not None:
                    counts["secret"] += 1
            else:
                clean[name] = self._value(item, counts, depth)
        return clean

    def _bytes(self, value: bytes | bytearray, counts: Counter[str] | None) -> bytes | bytearray:
        text = value.decode("utf-8", "surrogateescape")
        clean = self._value(text, counts, 0)
        return value if clean == text else type(value)(clean.encode("utf-8", "surrogateescape"))

    def _object(self, value: Any, counts: Counter[str] | None) -> Any:
        try:
            return self._value(repr(value), counts, 0)
        except Exception:  # noqa: BLE001 - somebody's __repr__
            return f"<{type(value).__name__}>"


def _placeholder(span: Span, _: str) -> str:
    return f"<{span.type}>"


_EDGES = ' \t\r\n",;()[]{}!?:'
_NUMERIC = frozenset("0123456789+(./-)")


def _touches(text: str, span: Span) -> bool:
    """Did it perhaps hide the border of something else, so that another look is due? Not where it stands between blanks
    or brackets with words beyond them.
    """
    before, after = text[max(0, span.start - 4) : span.start], text[span.end : span.end + 4]
    left, right = before.rstrip(_EDGES), after.lstrip(_EDGES)
    hid_left = left and (left == before or left[-1] in _NUMERIC)
    return bool(hid_left or (right and (right == after or right[0] in _NUMERIC)))


_INERT = (bool, float, complex, enum.Enum, decimal.Decimal, dt.date, dt.time, dt.timedelta, uuid.UUID)


def rebuilt(value: Any, items: list[Any]) -> Any:
    """A collection of the kind of `value` with these items; a list where they can't be in one."""
    try:
        if isinstance(value, tuple):
            named = hasattr(value, "_fields")
            return type(value)._make(items) if named else tuple(items)  # type: ignore[attr-defined]
        return frozenset(items) if isinstance(value, frozenset) else set(items) if isinstance(value, set) else items
    except TypeError:
        return items


def _without_known(text: str, by: Callable[[Span, str], str], counts: Counter[str] | None) -> str:
    for value in secrets.known_values():
        if value in text:
            if counts is not None:
                counts["secret"] += text.count(value)
            text = text.replace(value, by(Span(0, len(value), "secret"), value))
    return text


_default = Redactor()


def default() -> Redactor:
    """The redactor of logs, errors and spans."""
    return _default


def set_default(redactor: Redactor) -> None:
    """Replace the redactor of logs, errors and spans, in this process."""
    global _default  # noqa: PLW0603 - one per process
    _default = redactor


def redact(text: str) -> Redacted:
    """`Redactor.redact`, by the default one."""
    return _default.redact(text)


def redact_value(value: Any) -> Any:
    """`Redactor.redact_value`, by the default one."""
    return _default.redact_value(value)
