"""The report: fits its console, says what has to be said."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from escalade.evals.compare import Comparison, compare
from escalade.evals.loaders import load_outcomes
from escalade.evals.report import closing, show
from tests.evals._tables import table


@pytest.fixture(scope="module")
def ladder() -> Comparison:
    """The default comparison on the data that ships."""
    return compare()


def printed(comparison: Comparison, width: int = 100, encoding: str = "utf-8", **options) -> str:
    raw = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    show(comparison, Console(file=raw, width=width, highlight=False, **options))
    raw.flush()
    return raw.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [80, 100, 140])
def test_fits_its_console(ladder, width) -> None:
    """No line is wider than the console, no name is cut, and every policy has one line with its interval drawn."""
    text = printed(ladder, width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    for row in ladder.rows:
        (line,) = [
            x for x in text.splitlines() if re.search(rf"[ *†] {re.escape(row.name)} +{100 * row.quality:.1f}%", x)
        ]
        assert re.search("├─*●─*┤", line)


def test_second_print_is_the_same(ladder) -> None:
    """Nothing in it depends on when it is printed."""
    assert printed(ladder) == printed(compare())


def test_no_colour(ladder) -> None:
    """Plain output has no escape sequences; a terminal's has the same words."""
    plain, coloured = printed(ladder), printed(ladder, force_terminal=True, color_system="truecolor", no_color=False)
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


def test_ascii_terminals(ladder) -> None:
    """Where the terminal knows no box characters, intervals are drawn in ASCII."""
    assert "|o|" in printed(ladder, encoding="ascii")


def test_says_what_has_to_be_said(ladder) -> None:
    """Marks are explained, errors count, the oracle is no policy, labels decide; a sentence closes it."""
    text = " ".join(printed(ladder, 140).split())
    for told in (
        "a bound, not a policy",
        "not shown to beat a random mix",
        "they count as wrong",
        "These verdicts hang on the labels",
        "price per million tokens of gpt-4-1106: $10 in, $30 out",
        closing(ladder),
    ):
        assert told in text


def test_closing_sentence(ladder) -> None:
    """It says which difference this sample resolves, and the cheapest policy that is as good."""
    told = closing(ladder)
    assert re.search(r"With 1,319 questions, a true difference to gpt-4-1106 of \d\.\d points", told)
    assert (
        "by these labels the cheapest policy that is as good within 2 points is agreement-2, at 49.2 % of its cost"
        in told
    )
    assert told.endswith(".")


def test_nothing_as_good() -> None:
    """Where no cheaper policy is shown to be as good, it says that."""
    assert "no cheaper policy is shown to be as good" in closing(compare(load_outcomes(labels="regraded")))


def test_unknown_costs() -> None:
    """An unknown cost is a question mark, and the sentence says that it is unknown."""
    comparison = compare(table(quality=[[0, 1], [1, 1], [0, 0]] * 4, cost=-1))
    text = printed(comparison)
    assert " ? " in text
    assert "$0" not in text
    assert "what the policies cost is unknown" in closing(comparison)


def test_one_policy() -> None:
    """A baseline alone has nothing to be told from."""
    assert "no difference to r0 can be told" in closing(compare(table(quality=[[1], [0], [1]])))


def test_cheap_is_not_free(ladder) -> None:
    """A policy at 0.3 % of the baseline's cost shows -99.7%, never -100%."""
    assert "-100%" not in printed(ladder)
    assert "-99.7%" in printed(ladder)


def test_violated_budgets_show() -> None:
    """A column of violations appears when there are any."""
    outcomes = table(quality=[[0, 1]] * 4, cost=[[5, 50]] * 4, ceiling=[[5, 10]] * 4)
    comparison = compare(outcomes, ["r1+budget"], per_request="0.00000002", per_run="1")
    assert "over" in printed(comparison).splitlines()[2].split()
