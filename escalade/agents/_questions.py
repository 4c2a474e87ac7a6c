"""Arithmetic word problems of our own making, which can be recognised, and solved, by their text alone.

A question carries everything that the simulated world needs to know: another process, or a data set that was saved last
year, is recognised all the same.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from escalade.agents._sampling import number, unit

Numbers = dict[str, int]

_NAMES = ("Ada", "Bea", "Chidi", "Dora", "Emil", "Farah", "Goran", "Hana", "Ivo", "Jun", "Kemal", "Lena")
_THINGS = ("apples", "books", "cards", "coins", "eggs", "lamps", "marbles", "pens", "stamps", "tickets")
_FIELDS = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Question:
    """A question that the world knows. `difficulty`: 0 (easy) to 1 (hard). `expression`: how the answer comes about.

    `wrong`: what those answer who get it wrong.
    """

    text: str
    answer: str
    difficulty: float
    expression: str = ""
    wrong: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Template:
    """`steps`: operations to get to the answer. `expression`: of the numbers in the text."""

    text: str
    steps: int
    expression: str
    solve: Callable[[Numbers], int]


_TEMPLATES = (
    _Template(
        "{name} has {a} {things} and buys {b} more. How many {things} does {name} have now?",
        1,
        "{a} + {b}",
        lambda n: n["a"] + n["b"],
    ),
    _Template(
        "There were {a} {things} on the table. {name} took {b} of them away. How many are left?",
        1,
        "{a} - {b}",
        lambda n: n["a"] - n["b"],
    ),
    _Template(
        "A box holds {b} {things}. {name} fills {c} boxes and has {d} {things} left over. How many {things} are there?",
        2,
        "{b} * {c} + {d}",
        lambda n: n["b"] * n["c"] + n["d"],
    ),
    _Template(
        "{name} saves {b} dollars a week for {c} weeks and then spends {d} dollars. How many dollars are left?",
        2,
        "{b} * {c} - {d}",
        lambda n: n["b"] * n["c"] - n["d"],
    ),
    _Template(
        "A shop sells {b} {things} at {c} dollars each and {e} chairs at {d} dollars each. "
        "How many dollars does it take?",
        3,
        "{b} * {c} + {e} * {d}",
        lambda n: n["b"] * n["c"] + n["e"] * n["d"],
    ),
    _Template(
        "A train has {c} cars with {b} seats each. {e} people get on, then {d} of them get off. "
        "How many seats are free?",
        3,
        "{c} * {b} - ({e} - {d})",
        lambda n: n["c"] * n["b"] - (n["e"] - n["d"]),
    ),
    _Template(
        "{name} reads {b} pages on Monday, {c} times as many on Tuesday, and on Wednesday {d} fewer than on Tuesday. "
        "How many pages is that in all?",
        4,
        "{b} + {b} * {c} + ({b} * {c} - {d})",
        lambda n: n["b"] + 2 * n["b"] * n["c"] - n["d"],
    ),
    _Template(
        "A farm packs {b} crates of {c} {things} in the morning and {e} crates of {d} in the afternoon. "
        "{name} drops {d} of them, and {c} shops get {d} each. How many are left?",
        4,
        "{b} * {c} + {e} * {d} - {d} - {c} * {d}",
        lambda n: n["b"] * n["c"] + n["e"] * n["d"] - n["d"] - n["c"] * n["d"],
    ),
)


def generate(n: int, seed: int) -> list[Question]:
    """N different questions, from easy to hard in equal shares, shuffled by the seed."""
    chance = random.Random(seed)
    questions: dict[str, None] = {}
    while len(questions) < n:
        template = _TEMPLATES[len(questions) % len(_TEMPLATES)]
        text = _written(template, chance)
        questions.setdefault(text, None)
    texts = list(questions)
    chance.shuffle(texts)
    return [known for text in texts if (known := recognise(text)) is not None]


def recognise(text: str) -> Question | None:
    """The question that the text is, or contains exactly once; None if it is none of ours."""
    return _recognised(text) if len(text) < 20_000 and "How many" in text else None


@functools.lru_cache(maxsize=4096)
def _recognised(text: str) -> Question | None:
    found = [(template, match) for template, pattern in _PATTERNS for match in pattern.finditer(text)]
    if len(found) != 1:
        return None
    template, match = found[0]
    numbers = {k: int(v) for k, v in match.groupdict().items() if k in "abcde"}
    return _question(template, match.group(0), numbers)


def _question(template: _Template, text: str, numbers: Numbers) -> Question:
    answer, sizes = template.solve(numbers), sum(len(str(v)) for v in numbers.values())
    # Steps make it hard; big numbers a little; the rest is what nobody can explain.
    hard = 0.25 * (template.steps - 1) + 0.02 * sizes + 0.2 * (unit("difficulty", text) - 0.5)
    return Question(
        text=text,
        answer=str(answer),
        difficulty=min(max(hard, 0.0), 1.0),
        expression=template.expression.format(**numbers),
        wrong=_slips(answer, numbers, text),
    )


def _slips(answer: int, numbers: Numbers, text: str) -> tuple[str, ...]:
    """Four wrong answers that people would give: off by a little, off by ten, one number forgotten."""
    values = sorted(numbers.values())
    slips = (answer + 1 + number("slip", text) % 3, answer + 10, answer - values[0], answer + values[-1])
    return tuple(str(s if s != answer else answer + 7) for s in slips)


def _written(template: _Template, chance: random.Random) -> str:
    numbers = {
        "a": chance.randint(40, 99),
        "b": chance.randint(12, 39),
        "c": chance.randint(3, 9),
        "d": chance.randint(2, 11),
        "e": chance.randint(12, 25),
    }
    return template.text.format(name=chance.choice(_NAMES), things=chance.choice(_THINGS), **numbers)


def _pattern(template: _Template) -> re.Pattern[str]:
    seen: set[str] = set()

    def group(field: re.Match[str]) -> str:
        name = field.group(1)
        if name in seen:
            return f"(?P={name})"
        seen.add(name)
        return f"(?P<{name}>{_WORDS.get(name, r'[0-9]+')})"

    parts = _FIELDS.split(template.text)
    literal = [re.escape(part) if i % 2 == 0 else "{" + part + "}" for i, part in enumerate(parts)]
    return re.compile(_FIELDS.sub(group, "".join(literal)))


_WORDS = {"name": "|".join(_NAMES), "things": "|".join(_THINGS)}
_PATTERNS = tuple((template, _pattern(template)) for template in _TEMPLATES)
