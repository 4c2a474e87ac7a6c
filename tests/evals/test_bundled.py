"""The data that ships: what it holds, and that it is what the sources say."""

from __future__ import annotations

import gzip
import json
import runpy
import time

import numpy as np
import pytest

from escalade.evals import bundled
from escalade.evals.loaders import load_outcomes
from escalade.evals.outcomes import NO_ANSWER, STATUSES
from tests._house import ROOT

SOURCE = ROOT.parent / "shared" / "data" / "gsm8k_ladder"
RUNGS = ["qwen-1.5b@96", "qwen-1.5b@160", "qwen-1.5b@224", "qwen-1.5b@320", "mixtral-8x7b", "gpt-4-1106"]


def test_is_the_whole_ladder() -> None:
    """1,319 questions on six rungs, cheapest first, with the qualities that were published."""
    outcomes = load_outcomes()
    assert (outcomes.n, [rung.name for rung in outcomes.rungs]) == (1319, RUNGS)
    assert outcomes.quality.mean(axis=0) == pytest.approx([0.639, 0.690, 0.680, 0.670, 0.638, 0.857], abs=5e-4)


def test_regraded_labels() -> None:
    """Re-graded, GPT-4 is right in 94.4 % and Mixtral in 64.3 %; the small model has one grading."""
    recorded, regraded = load_outcomes(), load_outcomes(labels="regraded")
    assert regraded.quality[:, 4:].mean(axis=0) == pytest.approx([0.643, 0.944], abs=5e-4)
    assert (regraded.quality[:, :4] == recorded.quality[:, :4]).all()
    assert regraded.labels == "regraded"
    assert set(regraded.gradings) == {"recorded", "regraded"}


def test_ships_figures_only() -> None:
    """No sentence of a question or an answer is in it: no text with a space, none longer than 20 characters."""
    for line in gzip.decompress(bundled.read()).decode().splitlines()[1:]:
        row = json.loads(line)
        texts = [row["key"], *(str(o["answer"]) for o in row["outcomes"].values())]
        assert not [t for t in texts if " " in t or len(t) > 20]


def test_is_small_and_quick() -> None:
    """Below 200 kB, loaded in less than 0.3 s; the best of a few, since the machine may be busy."""

    def seconds() -> float:
        began = time.thread_time()
        load_outcomes()
        return time.thread_time() - began

    assert len(bundled.read()) < 200_000
    assert min(seconds() for _ in range(5)) < 0.3


def test_cost_never_exceeds_its_ceiling() -> None:
    """Every cost is known and within its bound, for either grading."""
    outcomes = load_outcomes()
    assert outcomes.priced
    assert (outcomes.cost <= outcomes.ceiling).all()
    assert (outcomes.price <= outcomes.ceiling).all()


def test_expected_price_does_not_peek() -> None:
    """What a rung is expected to cost depends on the prompt alone: prompts of one length have one price."""
    outcomes = load_outcomes()
    tokens = np.ceil(outcomes.features["prompt_chars"] / 4)
    for rung in range(outcomes.k):
        pairs = set(zip(tokens.tolist(), outcomes.price[:, rung].tolist(), strict=True))
        assert len(pairs) == len({length for length, _ in pairs})


def test_contaminated_questions_are_marked() -> None:
    """12 questions carry RouteLLM's mark; they are in unless they are asked out."""
    without = load_outcomes(contaminated="drop")
    assert without.n == 1307
    assert "12 contaminated questions are left out" in without.notes


def test_failed_attempts_have_no_answer() -> None:
    """An attempt that isn't OK has no answer and no quality; all others have an answer."""
    outcomes = load_outcomes()
    failed = outcomes.status != STATUSES.index("ok")
    assert (outcomes.answer[failed] == NO_ANSWER).all()
    assert (outcomes.answer[~failed] != NO_ANSWER).all()
    assert not outcomes.quality[failed].any()


def test_reads_like_any_jsonl(tmp_path) -> None:
    """`jsonl:` reads the shipped file as it is."""
    path = tmp_path / "gsm8k_ladder.jsonl.gz"
    path.write_bytes(bundled.read())
    again, shipped = load_outcomes(f"jsonl:{path}"), load_outcomes()
    assert again.keys == shipped.keys
    assert again.notes == shipped.notes
    for column in ("quality", "answer", "cost", "price", "ceiling", "status"):
        assert (getattr(again, column) == getattr(shipped, column)).all()


@pytest.mark.skipif(not SOURCE.is_dir(), reason="the recorded answers aren't beside this checkout")
def test_is_what_the_script_builds() -> None:
    """The shipped rows are those that the script derives from the recorded answers, and two gradings agree on 2,623."""
    script = runpy.run_path(str(ROOT / "scripts" / "build_gsm8k_figures.py"))
    questions, checks = script["build"](SOURCE)
    shipped = [json.loads(line) for line in gzip.decompress(bundled.read()).decode().splitlines()]
    assert shipped[1:] == questions
    assert checks.differ == dict.fromkeys(RUNGS[:4], 0) | {"mixtral-8x7b": 10, "gpt-4-1106": 5}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("9 * $2 = $18 every day.\n#### 18", "18"),
        ("The total is $40 + $24 = $64.\n\nKylar needs to pay $64 for the 16 glasses.", "64"),
        ("So it is -$1,234.50", "-1234.50"),
        ("That makes 12.", "12"),
        ("She sells it for $20.00.", "20.00"),
        ("I can't tell.", "None"),
    ],
)
def test_final_number(text: str, number: str) -> None:
    """The answer is what follows the mark, else the last result if the last sentence names it, else the last number."""
    script = runpy.run_path(str(ROOT / "scripts" / "build_gsm8k_figures.py"))
    assert str(script["final_number"](text)) == number
