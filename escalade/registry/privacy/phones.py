"""Phone numbers: international ones (E.164) anywhere, national ones as they are printed or said to be phone numbers.

With the extra `pii` (the `phonenumbers` library), national formats of `regions` are known exactly. It costs far more
time than all other patterns, so that it looks at what our own shapes leave open only, and at a bounded number of places
per text: beyond them, what might be a phone number is taken for one.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Iterator

from escalade.registry.privacy.patterns import Span

REGIONS = ("US", "BR", "GB")
"""Where national numbers are from, unless said otherwise."""

_E164 = re.compile(
    r"\+[0-9](?:[ ().\-/]{0,2}[0-9]){6,14}(?![0-9])|\b00[ -]?[1-9](?:[ ().\-/]{0,2}[0-9]){8,13}(?![0-9])"
)
_ABROAD = re.compile(r"\+|\b00")
_LISTED = (
    "1 7 20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63 64 65 66 81 82 "
    "84 86 90 91 92 93 94 95 98 211 212 213 216 218 220 221 222 223 224 225 226 227 228 229 230 231 232 233 234 "
    "235 236 237 238 239 240 241 242 243 244 245 246 247 248 249 250 251 252 253 254 255 256 257 258 260 261 262 "
    "263 264 265 266 267 268 269 290 291 297 298 299 350 351 352 353 354 355 356 357 358 359 370 371 372 373 374 "
    "375 376 377 378 379 380 381 382 383 385 386 387 389 420 421 423 500 501 502 503 504 505 506 507 508 509 590 "
    "591 592 593 594 595 596 597 598 599 670 672 673 674 675 676 677 678 679 680 681 682 683 685 686 687 688 689 "
    "690 691 692 800 808 850 852 853 855 856 870 878 880 881 882 883 886 888 960 961 962 963 964 965 966 967 968 "
    "970 971 972 973 974 975 976 977 979 992 993 994 995 996 998"
)
_CODES = frozenset(_LISTED.split())
"""Country calling codes (ITU-T E.164, annex to the Operational Bulletin)."""

_NATIONAL = re.compile(
    r"(?<![0-9A-Za-z+])(?<![0-9][-./ ])(?:"
    r"(?:1[ .-])?(?:\([2-9][0-9]{2}\)[ -]?|[2-9][0-9]{2}(?P<gap>[ .-]))[2-9][0-9]{2}[ .-][0-9]{4}"  # North America
    r"|(?:\(0?[1-9]{2}\)[ ]?|0?[1-9]{2}[ ])(?:9[ ]?)?[2-9][0-9]{3}[- ][0-9]{4}"  # Brazil
    r"|(?:\(0[1-9][0-9]{0,4}\)|0[1-9][0-9]{0,4})[ /.-]{1,2}[0-9]{2,8}(?:[ .-][0-9]{2,4}){0,4}"  # 0…: most of the world
    r")(?![0-9A-Za-z:])(?![-./][0-9])"
)
_SAID = frozenset(
    {"phone", "phones", "telephone", "tel", "telefone", "telefon", "fone", "cel", "celular", "mobile", "cell", "call"}
    | {"whatsapp", "fax", "dial", "ligue", "sms", "ph", "ring", "handy", "móvil", "portable", "☎", "📞"}
)
_NOT_SAID = frozenset(
    {"order", "orders", "invoice", "inv", "ticket", "sku", "ref", "reference", "serial", "case", "part", "item"}
    | {"account", "acct", "tracking", "model", "isbn", "issn", "pedido", "protocolo", "nota", "lot", "batch", "po"}
    | {"doi", "build", "version", "zip", "cep", "key", "id", "code"}
)
_FILLERS = frozenset({"me", "us", "no", "nr", "num", "number", "em", "at", "para", "on", "o", "is", "é", "id", "code"})
_WORD = re.compile(r"[^\W\d_]+|[☎📞]")
_DATE = re.compile(
    r"\(?(?:[0-3]?[0-9][-./ ][01]?[0-9][-./ ](?:19|20)[0-9]{2}|(?:19|20)[0-9]{2}[-./][01][0-9][-./][0-3][0-9])"
)
_ANY = re.compile(r"(?<![0-9A-Za-z])\(?[0-9](?:[ ().\-/]{0,2}[0-9]){6,14}(?![0-9A-Za-z])")
_SEVEN = re.compile(r"[0-9](?:[ ().+/\-]{0,3}[0-9]){6}")
_SPACED = re.compile(r"[0-9)][ /-]{1,2}\(?[0-9]|\.[0-9]+\.")
_DIGIT = re.compile("[0-9]")


def phones(text: str, start: int, end: int, ask: Consultation | None = None) -> list[Span]:
    """Numbers in one window: those that our own shapes are sure of, else what the library says."""
    if _SEVEN.search(text, start, end) is None:
        return []
    found = [
        Span(*match.span(), "phone")
        for match in (_E164.finditer(text, start, end) if _ABROAD.search(text, start, end) else ())
        if _international(match[0]) and (match[0][0] == "+" or _said(text, match.start()) is not False)
    ]
    seen = min(end + 2, len(text))
    for match in _NATIONAL.finditer(text, start, seen):
        if 9 <= len(_DIGIT.findall(match[0])) <= 12 and not _DATE.match(match[0]):
            found += [Span(*match.span(), "phone")] if _said(text, match.start()) is not False else []
    said = False if found else _said(text, start)
    if said is False:
        return found
    number = _ANY.match(text, start, seen) if said else None
    if number is not None and not _DATE.match(number[0]):
        return [Span(*number.span(), "phone")]
    return [] if ask is None else ask.phones(text, start, end)


def all_of_it(text: str, start: int, end: int) -> int:
    """Where the international number ends that takes up all of a window; 0 if none does."""
    match = _E164.match(text, start, end)
    whole = match is not None and end - match.end() < 4 and _international(match[0])
    return match.end() if match is not None and whole else 0


def _said(text: str, at: int) -> bool | None:
    """Does the word before `at` say that this is a phone number (True), or something else (False)?"""
    before = text[max(0, at - 32) : at].rpartition(">")[2]  # the word in a placeholder says nothing
    tail = before.rstrip(" \t:.=\"'()*-#")
    between = before[len(tail) :]
    words = _WORD.findall(tail.lower()) if tail and (tail[-1].isalpha() or tail[-1] in "☎📞") else []
    words = words[-4:] if len(between) <= 6 else []
    word = words.pop() if words else ""
    while words and word in _FILLERS and words[-1] in _SAID | _NOT_SAID | _FILLERS:
        word = words.pop()
    if word in _SAID:
        return True
    other = word in _NOT_SAID or before[-1:] in {"#", "$", "€", "£", "%", "="} or (word and between.startswith("-"))
    return False if other else None


def _international(written: str) -> bool:
    digits = "".join(filter(str.isdigit, written))
    digits = digits if written.startswith("+") else digits[2:]
    return 8 <= len(digits) <= 15 and any(digits[:n] in _CODES for n in (1, 2, 3))


# ------------------------------------------------------------------------------------------------------- phonenumbers


@functools.cache
def library() -> bool:
    """Is the extra installed?"""
    return importlib.util.find_spec("phonenumbers") is not None


class Consultation:
    """Asks `phonenumbers` about windows of one text, at most `places` times."""

    def __init__(self, regions: tuple[str, ...], places: int) -> None:
        self._regions, self._left = regions, places

    def phones(self, text: str, start: int, end: int) -> list[Span]:
        """National numbers of the regions in one window; all of it when the places are used up."""
        window = text[start:end].rstrip(" ().+/-")
        stop = start + len(window)
        if not _SPACED.search(window) or _DATE.match(window) or _ANY.search(text, start, end) is None:
            return []
        if text[stop : stop + 1].isalpha() or text[max(0, start - 1) : start].isalpha():
            return []
        if self._left <= 0:
            return [Span(start, stop, "phone")]
        self._left -= 1
        return list(self._matches(window, start))

    def _matches(self, window: str, start: int) -> Iterator[Span]:
        import phonenumbers

        for region in self._regions:
            matcher = phonenumbers.PhoneNumberMatcher(
                window, region, leniency=phonenumbers.Leniency.STRICT_GROUPING, max_tries=4
            )
            for match in matcher:
                yield Span(start + match.start, start + match.end, "phone")
