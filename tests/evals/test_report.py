"""The report: fits its console, says what has to be said."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from escalade.agents.climb import Rung
from escalade.agents.policies import Constant
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


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_fits_its_console(ladder, width) -> None:
    """No line is wider than the console, no head and no name is cut; from 80 columns on it has all but the axis."""
    text = printed(ladder, width)
    assert max(len(line) for line in text.splitlines()) <= width
    (heads,) = [line.split() for line in text.splitlines() if "policy" in line and "quality" in line]
    assert {"policy", "quality", "$/1k", "verdict"} <= set(heads)
    assert {"vs", "err", "no", "$"} <= set(heads) or width < 80
    assert ("cost" in heads) == (width >= 80)
    assert "…" not in text
    for row in ladder.rows:
        (line,) = [
            x for x in text.splitlines() if re.search(rf"[ *†] {re.escape(row.name)} +{100 * row.quality:.1f}%", x)
        ]
        assert bool(re.search("├─*●─*┤", line)) == (width >= 100)


@pytest.mark.parametrize("width", range(40, 121, 7))
def test_short_names_fit_as_well(width) -> None:
    """One line for each policy of a tiny table at any width, with nothing behind the last word."""
    text = printed(compare(table(quality=[[0, 1], [1, 0]], cost=[[1, 5]] * 2)), width)
    lines = text.splitlines()
    for name, verdict in (("r0", "too few"), ("r1", "baseline"), ("oracle", "hindsight")):
        (line,) = [line for line in lines if re.match(rf"[* ]?[†]? +{name} +\d+\.\d%", line)]
        assert line.endswith(verdict)
        assert len(line) <= width


def test_no_two_rows_are_shown_under_one_name() -> None:
    """A name loses its provider only where no other row is shown by what is left."""
    some = replace(table(quality=[[0, 1]] * 40), rungs=(Rung("Predict/small"), Rung("Predict/large")))
    text = printed(compare(some, [Constant(0, "a/mine"), Constant(0, "mine")]))
    rows = [
        line for line in text.splitlines() if re.search(r"\d% .*(?:baseline|as good|worse|better|hindsight)$", line)
    ]
    shown = [line.lstrip("*† ").split()[0] for line in rows]
    assert {"a/mine", "mine", "small", "large"} <= {*shown}
    assert len(set(shown)) == len(shown)


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
        "‡ better on its own, but not when all 26 comparisons are counted",
        "intervals: Wilson for quality, Agresti-Min for paired differences",
        "budgets are spent in a random order of the questions",
        "qwen-1.5b@96, @160, @224 by agreement-3",
        closing(ladder),
    ):
        assert told in text


def test_closing_sentence(ladder) -> None:
    """It says which difference this sample resolves for what one would choose, and the cheapest that is as good."""
    told = closing(ladder)
    assert told.startswith("With 1,319 questions, a true difference to gpt-4-1106 of ")
    for row in ladder.candidates:
        assert row.verdict == "better" or row is ladder.cheapest_as_good
    least, most = (f(ladder.candidates, key=lambda row: row.detectable) for f in (min, max))
    assert (
        f"{100 * least.detectable:.1f} points ({least.name}) or {100 * most.detectable:.1f} points ({most.name})"
        in told
    )
    assert "By these labels the cheapest policy that is as good within 2 points is agreement-2" in told
    assert told.endswith("at 49.2 % of the cost of gpt-4-1106.")


def test_nothing_as_good() -> None:
    """Where no cheaper policy is shown to be as good, it says that, and what it could tell of the best cheaper one."""
    regraded = compare(load_outcomes(labels="regraded"), baselines=False)
    assert "No cheaper policy is shown to be as good" in closing(regraded)
    (best,) = regraded.candidates
    assert best.name in closing(regraded)
    assert best.cost_ratio < 1


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_few_questions_tell_nothing(n) -> None:
    """No difference beyond 100 points is promised: so few questions are too few, and that is said."""
    comparison = compare(table(quality=[[0, 1], [1, 1], [0, 0], [1, 0], [0, 1]][:n], cost=[[1, 10]] * n))
    assert "too few to tell policies apart" in closing(comparison)
    assert all(row.detectable is None or row.detectable <= 1 for row in comparison.rows)
    assert not re.search(r"1\d\d\.\d points", printed(comparison))


def test_metrics_table(ladder) -> None:
    """APGR and CPT stand in a table of their own, with the pair of answers: on demand, and for two rungs always."""
    assert "APGR" not in printed(ladder)
    text = printed(compare(policies=["random", "threshold-0.8", "agreement-3", "oracle"], metrics=True))
    assert re.search(r"random-?0?\.?5? +0\.500 +50\.0% +80\.0% +qwen-1.5b@320 +gpt-4-1106", text)
    assert re.search(r"agreement-3 +\d\.\d+ +\S+ +\S+ +vote of 3 +gpt-4-1106", text)
    assert "APGR" in printed(compare(table(quality=[[0, 1], [1, 1], [0, 1]] * 4, cost=[[1, 5]] * 12)))


def test_unknown_costs() -> None:
    """An unknown cost is a question mark, and the sentence says that it is unknown."""
    comparison = compare(table(quality=[[0, 1], [1, 1], [0, 0]] * 4, cost=-1))
    text = printed(comparison)
    assert " ? " in text
    assert "$0" not in text
    assert "What the policies cost is unknown" in closing(comparison)


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


def test_chance_is_named(ladder) -> None:
    """What isn't shown to beat a random mix of the same cost is said in a sentence, with every name."""
    text = " ".join(printed(ladder, 140).split())
    names = [row.name for row in ladder.rows if row.beats_random is False]
    assert len(names) > 1
    told = text[: text.index("are not shown to beat a random mix that costs the same.")].rsplit(" verdicts ", 1)[-1]
    assert all(name in told for name in names)
