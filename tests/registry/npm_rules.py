"""npm's rules for ranges of versions, a second time, from their grammar: the oracle of `test_versions_oracle.py`.

Another algorithm than the library's: no regular expressions that rewrite text, but a parser by hand that desugars each
range into comparators (operator, version), and a comparison of versions of its own. Slow and plain on purpose.

Source: the range grammar and the section "Advanced Range Syntax" of the README of node-semver (strict mode, without
`includePrerelease`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

Version = tuple[int, int, int, tuple[str, ...]]
"""Major, minor, patch, and the parts of the pre-release, () for none."""

Comparator = tuple[str, Version]
OPERATORS = (">=", "<=", ">", "<", "=")
LOWEST = ("0",)
"""`-0`, the lowest pre-release of all: npm's upper bounds end in it, so that no pre-release of the next one fits."""

ANYTHING: Comparator = (">=", (0, 0, 0, ()))
"""npm drops it: `0 ~0.0.0-rc.1` has 0.0.0-rc.1 in it."""
NOTHING: Comparator = ("<", (0, 0, 0, LOWEST))


class NoRange(ValueError):
    """The text is no range of versions."""


@dataclass(frozen=True)
class Partial:
    """`1`, `1.2`, `1.x`, `1.2.3-rc.1`: numbers that may be missing, from the right. `pre` only with all three."""

    numbers: tuple[int, ...]
    pre: tuple[str, ...] = ()

    @property
    def full(self) -> bool:
        return len(self.numbers) == 3

    def low(self) -> Version:
        """The lowest stable version that it stands for, or itself."""
        major, minor, patch = (*self.numbers, 0, 0, 0)[:3]
        return major, minor, patch, self.pre

    def above(self, place: int) -> Version:
        """The lowest version of all with the number at `place` one higher."""
        numbers = list(self.low()[:3])
        numbers[place] += 1
        numbers[place + 1 :] = [0] * (2 - place)
        return numbers[0], numbers[1], numbers[2], LOWEST


def parse_version(text: str) -> Version:
    """A full version."""
    parsed = parse_partial(text)
    if not parsed.full:
        raise NoRange(text)
    return parsed.low()


def parse_partial(text: str) -> Partial:
    """`xr ( '.' xr ( '.' xr qualifier ? )? )?`, perhaps after a `v`."""
    text = text.removeprefix("v").split("+")[0]
    main, dash, qualifier = text.partition("-")
    parts = main.split(".")
    if len(parts) > 3 or (dash and len(parts) != 3):
        raise NoRange(text)
    numbers: list[int] = []
    wild = False
    for part in parts:
        if part in {"x", "X", "*"}:
            wild = True
        elif wild or not is_number(part):
            raise NoRange(text)
        else:
            numbers.append(int(part))
    pre = tuple(qualifier.split(".")) if dash else ()
    if any(not is_identifier(part) for part in pre):
        raise NoRange(text)
    return Partial(tuple(numbers), () if wild else pre)


def is_number(text: str) -> bool:
    """Digits, without a zero in front."""
    return text.isascii() and text.isdigit() and (text == "0" or text[0] != "0")


def is_identifier(text: str) -> bool:
    """A part of a pre-release: a number, or letters, digits and dashes that are not all digits."""
    allowed = bool(text) and all(c.isascii() and (c.isalnum() or c == "-") for c in text)
    return allowed and (not text.isdigit() or is_number(text))


def compare(a: Version, b: Version) -> int:
    """-1, 0 or 1, by section 11 of semver."""
    if a[:3] != b[:3]:
        return -1 if a[:3] < b[:3] else 1
    if not a[3] or not b[3]:
        return bool(b[3]) - bool(a[3]) if a[3] != b[3] else 0
    for one, other in zip(a[3], b[3], strict=False):
        if one != other:
            if one.isdigit() and other.isdigit():
                return -1 if int(one) < int(other) else 1
            if one.isdigit() != other.isdigit():
                return -1 if one.isdigit() else 1
            return -1 if one < other else 1
    return (len(a[3]) > len(b[3])) - (len(a[3]) < len(b[3]))


def desugar(text: str) -> list[list[Comparator]]:
    """A range as alternatives, each of which is a list of comparators that must all hold.

    As in npm, an alternative that anything stable fits (`*`, `>=0`) makes all others meaningless, also those that ask
    for pre-releases.
    """
    found = [desugar_alternative(part.split()) for part in text.split("||")]
    return [[]] if [] in found else found


def desugar_alternative(words: list[str]) -> list[Comparator]:
    """One side of `||`: a hyphen range, or simple ones side by side."""
    if len(words) == 3 and words[1] == "-":
        return hyphen(parse_partial(words[0]), parse_partial(words[2]))
    found: list[Comparator] = []
    pending = ""
    for word in words:
        if not word.strip("<>=~^"):  # an operator that stands apart from its version
            pending += word
            continue
        found += simple(pending + word)
        pending = ""
    if pending:
        raise NoRange(pending)
    return [one for one in found if one != ANYTHING]


def simple(word: str) -> list[Comparator]:
    """A primitive, a tilde, a caret or a partial."""
    if word.startswith("^"):
        return caret(parse_partial(word[1:]))
    if word.startswith("~"):
        return tilde(parse_partial(word[1:].removeprefix(">")))
    for operator in OPERATORS:
        if word.startswith(operator):
            return primitive(operator, parse_partial(word[len(operator) :]))
    return primitive("=", parse_partial(word))


def primitive(operator: str, of: Partial) -> list[Comparator]:
    """`>1.2` means above all of 1.2, `<=1.2` means up to all of it."""
    if of.full:
        return [(operator, of.low())]
    if not of.numbers:
        return [NOTHING] if operator in {"<", ">"} else []
    last = len(of.numbers) - 1
    above = of.above(last)
    stable_above: Version = (*above[:3], ())
    return {
        "=": [(">=", of.low()), ("<", above)],
        ">": [(">=", stable_above)],
        ">=": [(">=", of.low())],
        "<": [("<", (*of.low()[:3], LOWEST))],
        "<=": [("<", above)],
    }[operator]


def tilde(of: Partial) -> list[Comparator]:
    """Patches, where a minor version is given; minor versions otherwise."""
    return [(">=", of.low()), ("<", of.above(min(1, len(of.numbers) - 1)))] if of.numbers else []


def caret(of: Partial) -> list[Comparator]:
    """Whatever doesn't change the left-most number that isn't zero (the last one that is given, if all are)."""
    if not of.numbers:
        return []
    place = next((i for i, number in enumerate(of.numbers) if number), len(of.numbers) - 1)
    return [(">=", of.low()), ("<", of.above(place))]


def hyphen(low: Partial, high: Partial) -> list[Comparator]:
    """Both ends included; a partial end stands for all that it begins."""
    found: list[Comparator] = [(">=", low.low())] if low.numbers else []
    if high.full:
        found.append(("<=", high.low()))
    elif high.numbers:
        found.append(("<", high.above(len(high.numbers) - 1)))
    return [one for one in found if one != ANYTHING]


def holds(comparator: Comparator, version: Version) -> bool:
    """Does the version stand in this relation?"""
    operator, bound = comparator
    order = compare(version, bound)
    return {">=": order >= 0, "<=": order <= 0, ">": order > 0, "<": order < 0, "=": order == 0}[operator]


def satisfies(text: str, range_: str) -> bool:
    """Is the version in the range? A pre-release must have been asked for: some comparator of the alternative names a
    pre-release of the same three numbers.
    """
    version = parse_version(text)
    for comparators in desugar(range_):
        if all(holds(one, version) for one in comparators) and (
            not version[3] or any(bound[3] and bound[:3] == version[:3] for _, bound in comparators)
        ):
            return True
    return False


# ------------------------------------------------------------------------------------------------ generated cases


TAGS = [
    "0",
    "1",
    "11",
    "alpha",
    "alpha.1",
    "alpha.beta",
    "beta",
    "beta.2",
    "beta.11",
    "rc.1",
    "x-y",
    "-",
    "1a",
    "a.0.b",
]


def some_version(rng: random.Random, pre: float = 0.5) -> str:
    """A version with small numbers, so that it often meets a range."""
    text = ".".join(str(rng.randint(0, 3)) for _ in range(3))
    return f"{text}-{rng.choice(TAGS)}" if rng.random() < pre else text


def some_partial(rng: random.Random) -> str:
    """A partial version, with wildcards or without."""
    kind = rng.randrange(6)
    if kind >= 3:
        return some_version(rng, 0.5)
    given = [str(rng.randint(0, 3)) for _ in range(kind)]
    wild = [rng.choice("xX*") for _ in range(rng.randint(0 if given else 1, 3 - kind))]
    return ".".join(given + wild)


def some_range(rng: random.Random) -> str:
    """A range of up to three alternatives."""
    return rng.choice(["||", " || "]).join(_alternative(rng) for _ in range(rng.choice([1, 1, 1, 2, 3])))


def _alternative(rng: random.Random) -> str:
    if rng.random() < 0.15:
        return f"{some_partial(rng)} - {some_partial(rng)}"
    operators = ["", "^", "~", "~>", ">=", ">", "<", "<=", "=", ">= ", "< ", "^ ", "~ "]
    return " ".join(rng.choice(operators) + some_partial(rng) for _ in range(rng.choice([1, 1, 2, 3])))


def near(rng: random.Random, range_: str) -> str:
    """A version that is likely to lie at an edge of the range: a bound of it, or one beside a bound."""
    bounds = [bound for alternative in desugar(range_) for _, bound in alternative]
    if not bounds:
        return some_version(rng)
    *numbers, pre = rng.choice(bounds)
    place = rng.randrange(3)
    numbers[place] = max(0, numbers[place] + rng.choice([-1, 0, 0, 1]))
    tag = rng.choice(["", ".".join(pre), rng.choice(TAGS)])
    return ".".join(map(str, numbers)) + (f"-{tag}" if tag else "")
