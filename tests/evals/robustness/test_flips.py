"""Questions written otherwise: what mistakes look like, whose decisions change, and what it costs."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from escalade.agents.policies import Constant, PromptLength, Threshold
from escalade.errors import BadInput, DataError
from escalade.evals.compare import Comparison, compare
from escalade.evals.findings import findings
from escalade.evals.outcomes import Outcomes
from escalade.evals.robustness.flips import Flipped, flips
from escalade.evals.robustness.perturb import KINDS, typos
from tests.evals._tables import table

LENGTH = PromptLength(30, "r0", "r1", "length")


def asked(n: int = 60) -> Outcomes:
    """Questions of 20 to 40 characters; the long ones need the dear rung."""
    texts = ["how many " + "x" * (11 + i % 21) for i in range(n)]
    one = table(
        quality=[[float(len(text) < 30), 1.0] for text in texts],
        cost=[1_000_000, 5_000_000],
        confidence=[[0.9 if i % 3 else 0.1, 1.0] for i in range(n)],
        chars=[len(text) for text in texts],
    )
    return replace(one, features=dict(one.features) | {"text": np.array(texts, dtype=object)})


def compared(outcomes: Outcomes) -> Comparison:
    return compare(
        outcomes, [LENGTH, Threshold(0.5, ("r0", "r1")), Constant("r0", "low"), "prompt-length"], baselines=False
    )


def by_name(found: tuple[Flipped, ...]) -> dict[str, Flipped]:
    return {one.name: one for one in found}


@given(st.text(max_size=60), st.integers(0, 3))
def test_typos_leave_numbers_alone(text: str, seed: int) -> None:
    """The same text and seed give the same mistakes, no digit is touched, and without a share nothing is."""
    assert typos(text, 0.5, seed=seed) == typos(text, 0.5, seed=seed)
    assert re.findall(r"\d", typos(text, 1.0, seed=seed)) == re.findall(r"\d", text)
    assert typos(text, 0.0, seed=seed) == text


def test_every_kind_of_mistake_happens() -> None:
    """Swapped, lost and doubled letters, case and white space; in so many words as was asked for."""
    text = " ".join(["letters"] * 40)
    seen = {word for seed in range(9) for word in typos(text, 0.5, seed=seed).split(" ")} - {"letters"}
    assert {"LETTERS", "eltters", "etters", "lletters", ""} <= seen
    assert len(KINDS) == 5
    assert 30 <= typos(text, 0.25).split().count("letters") <= 32, "ten of 40, and a doubled space is one that stays"
    with pytest.raises(BadInput, match="between 0 and 1"):
        typos(text, 2.0)


def test_who_flips() -> None:
    """A policy that looks at the question flips where its length crosses the cut; what looks at answers doesn't."""
    found = by_name(flips(compared(asked()), share=1.0, draws=4))
    assert found["length"].share > 0.02
    assert found["length"].share_low <= found["length"].share <= found["length"].share_high
    assert found["threshold"].share == found["low"].share == 0
    assert found["threshold"].diff == 0
    assert found["prompt-length"].share > 0, "fitted on the questions as they were"


def test_what_flips_cost() -> None:
    """Paraphrases that make the long questions short lose their quality, and save the dear rung's money."""
    outcomes = asked()
    texts = dict(zip(outcomes.keys, outcomes.features["text"], strict=True))
    long = {key: ["short", "short, too"] for key, text in texts.items() if len(text) >= 30}
    found = by_name(flips(compared(outcomes), paraphrases=long))["length"]
    assert (found.n, found.share, found.quality, found.new_quality, found.diff) == (len(long), 1.0, 1.0, 0.0, -1.0)
    assert (found.cost_per_1k_usd, found.new_cost_per_1k_usd) == (5.0, 1.0)
    everyone = by_name(flips(compared(outcomes), paraphrases=lambda text: text + "?"))["length"]
    assert everyone.n == 60
    assert everyone.share == pytest.approx(sum(len(text) == 29 for text in texts.values()) / 60)


def test_own_features_are_made_anew() -> None:
    """Facts of your own are made of the new text by your function."""
    outcomes = asked()
    found = flips(compared(outcomes), paraphrases=lambda text: "short", features=lambda text: {"prompt_chars": 99})
    assert by_name(found)["length"].new_cost_per_1k_usd == 5.0


def test_what_cannot_be_asked() -> None:
    """No texts, no paraphrase that fits, paraphrases that aren't texts."""
    comparison = compared(asked())
    with pytest.raises(DataError, match="texts of the questions aren't known"):
        flips(compare(table(quality=[[1.0, 0.0]] * 10), [LENGTH], baselines=False))
    with pytest.raises(DataError, match="no question has a paraphrase"):
        flips(comparison, paraphrases={"nobody": ["x"]})
    with pytest.raises(BadInput, match="expected texts, got 7"):
        flips(comparison, paraphrases={"q1": [7]})  # type: ignore[list-item]


def test_shown_where_texts_are_known() -> None:
    """The report has a table of the policies that flip; without texts it has none."""
    found = findings(compared(asked()), only=["robustness"])
    names = {row["name"] for row in found.table("flips").rows}
    assert "length" in names
    assert "threshold" not in names
    assert not findings(
        compare(table(quality=[[1.0, 0.0]] * 10), [LENGTH], baselines=False), only=["robustness"]
    ).tables
