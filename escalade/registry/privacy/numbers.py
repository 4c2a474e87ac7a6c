"""What is made of digits: cards, CPF, CNPJ, SSN, IPv4 addresses, and the windows in which phone numbers are sought.

One scan finds the windows, runs of digits and of what stands between digits; only these are looked at more closely.
Most text has few of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from escalade.registry.privacy.checks import card, cnpj, cpf, ipv4, issued, ssn
from escalade.registry.privacy.patterns import Span

_WINDOW = re.compile(r"[0-9+(](?<![0-9A-Za-z].)[0-9 ().+/\-]{6,}+")
_LONG = re.compile(r"(?:[0-9][ .\-]?){12}[0-9]")
_GROUP = re.compile(r"[0-9]++")
_SHAPE = re.compile(
    r"(?<![0-9A-Za-z])(?:"
    r"(?P<cnpj>[0-9]{2}\.?[0-9]{3}\.?[0-9]{3}[/ ][0-9]{4}[- ]?[0-9]{2}|[0-9]{14})"
    r"|(?P<cpf>[0-9]{3}\.[0-9]{3}\.[0-9]{3}[-/ ]?[0-9]{2}|[0-9]{9}[-/][0-9]{2}|[0-9]{3} [0-9]{3} [0-9]{3}[ -][0-9]{2}"
    r"|[0-9]{3}-[0-9]{3}-[0-9]{3}-[0-9]{2}|[0-9]{11})"
    r"|(?<![0-9][ -])(?P<ssn>[0-9]{3}(?P<gap>[- ])[0-9]{2}(?P=gap)[0-9]{4})(?![- ][0-9])"
    r"|(?<![0-9]\.)(?P<ip>[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3})(?!\.?[0-9])"
    r"|(?P<bare_ssn>[0-9]{9})"
    r")(?![0-9A-Za-z])"
)
_ABOUT_SSN = re.compile(r"(?:ssn|ss#|social security)[\s\w#:.=-]{0,16}$", re.IGNORECASE)
_ABOUT_VERSION = re.compile(
    r"(?:\bv|\bver|\bversion|\brelease|\bbuild|\bfirmware|\brev|\brevision|\bsection|\bsec|\bchapter|\bfigure|\bclause"
    r"|§|[=~<>!]=|\^|~|@)[ :=.v]{0,3}$",
    re.IGNORECASE,
)
_LOOK_BACK = 32


def windows(text: str) -> Iterator[tuple[int, int]]:
    """Where runs of at least seven characters of digits and separators are."""
    for match in _WINDOW.finditer(text):
        yield match.span()


def numbers(text: str, start: int, end: int) -> list[Span]:
    """What is found in one window, but for phone numbers."""
    found: list[Span] = []
    if end - start >= 13 and _LONG.search(text, start, end) is not None:
        found += _cards(text, start, end)
    # 14 digits may be a company number, too, whose two check digits say more than a card's one.
    all_of_it = (
        len(found) == 1 and found[0].end - found[0].start != 14 and (found[0].start - start) + (end - found[0].end) < 7
    )
    return found if all_of_it else [*found, *_shapes(text, start, end)]


def _shapes(text: str, start: int, end: int) -> Iterator[Span]:
    at, seen = start, min(end + 2, len(text))  # two more, for what must not follow
    while (match := _SHAPE.search(text, at, seen)) is not None:
        kind = match.lastgroup if match.lastgroup != "gap" else "ssn"
        if kind is not None and _is_one(kind, match[kind], text[max(0, match.start() - _LOOK_BACK) : match.start()]):
            yield Span(match.start(), match.end(kind), "ssn" if kind == "bare_ssn" else kind)
            at = match.end(kind)
        else:
            at = match.start() + 1  # a wrong candidate must not hide the right one that begins inside of it


def _is_one(kind: str, value: str, before: str) -> bool:
    if kind == "ip":
        return ipv4(value) and _ABOUT_VERSION.search(before) is None
    digits = "".join(_GROUP.findall(value))
    if kind == "bare_ssn":
        return ssn(digits) and _ABOUT_SSN.search(before) is not None
    return {"cnpj": cnpj, "cpf": cpf, "ssn": ssn}[kind](digits)


_PRINTED = {
    (4, 4, 4, 4),
    (4, 6, 5),
    (4, 6, 4),
    (4, 4, 4, 4, 3),
    (4, 4, 4, 1),
    (4, 3, 3, 3),
    (6, 13),
    (4, 4, 5),
    (4, 4, 7),
}
"""How cards are written: the groups of their digits."""


def _cards(text: str, start: int, end: int) -> Iterator[Span]:
    """Groups of digits that make a card; the longest from each group on. In other groupings than the usual ones only
    when there is nothing else in the window.
    """
    for run in _runs(text, start, end):
        first = 0
        while first < len(run):
            last = _card_from(text, run, first)
            if last < 0:
                first += 1
                continue
            yield Span(run[first][0], run[last][1], "card")
            first = last + 1


def _runs(text: str, start: int, end: int) -> Iterator[list[tuple[int, int]]]:
    """Groups of digits with single spaces, dashes or dots between them."""
    run: list[tuple[int, int]] = []
    for match in _GROUP.finditer(text, start, end):
        a, b = match.span()
        if run and not (a == run[-1][1] + 1 and text[a - 1] in " -."):
            yield run
            run = []
        run.append((a, b))
    if run:
        yield run


def _card_from(text: str, run: list[tuple[int, int]], first: int) -> int:
    """Index of the last group of the longest card that begins with this one, -1 for none."""
    digits, sizes, found = "", [], -1
    a, b = run[first]
    whole = first == 0 and 2 <= len(run) <= 9
    if not (issued(text[a : a + 4]) if b - a >= 4 else whole):
        return -1
    for last in range(first, min(first + 10, len(run))):
        a, b = run[last]
        digits += text[a : min(b, a + 20)]
        sizes.append(b - a)
        if len(digits) > 19:
            break
        usual = len(sizes) == 1 or tuple(sizes) in _PRINTED
        alone = first == 0 and last == len(run) - 1 and min(sizes) > 1
        if len(digits) >= 13 and (usual or alone) and card(digits) and _ends(text, run, first, last):
            found = last
    return found


def _ends(text: str, run: list[tuple[int, int]], first: int, last: int) -> bool:
    """No letter next to it: then it is part of some other code."""
    before, after = text[run[first][0] - 1 : run[first][0]], text[run[last][1] : run[last][1] + 1]
    return not (before.isalpha() or after.isalpha())
