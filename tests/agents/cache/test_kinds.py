"""For how long an answer stays good, by the question alone: labelled questions, and the time that it takes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from escalade.agents.cache.kinds import CODE, FACTS, REALTIME, kind_of

HERE = Path(__file__).parent


def labelled(name: str) -> tuple[list[str], list[str]]:
    """(live questions, facts) of a file."""
    lines = (HERE / name).read_text("utf-8").splitlines()
    live, facts = ([line[2:] for line in lines if line.startswith(sign)] for sign in ("L ", "F "))
    return live, facts


@pytest.mark.parametrize(
    ("name", "most_missed", "most_false"),
    [("live.txt", 0.06, 0.05), ("live_unseen.txt", 0.12, 0.12)],
    ids=["written with", "unseen"],
)
def test_few_live_questions_are_kept_as_facts(name: str, most_missed: float, most_false: float) -> None:
    """The figures of docs/models.md: live questions taken for facts, and facts taken for live questions."""
    live, facts = labelled(name)
    missed = [question for question in live if kind_of(question) != REALTIME]
    false = [question for question in facts if kind_of(question) == REALTIME]
    assert len(missed) <= most_missed * len(live), missed
    assert len(false) <= most_false * len(facts), false


def test_the_questions_are_different_ones() -> None:
    """No unseen question is among those that the patterns were written with."""
    seen, unseen = ([q.lower() for part in labelled(name) for q in part] for name in ("live.txt", "live_unseen.txt"))
    assert len({*seen, *unseen}) == len(seen) + len(unseen)


@pytest.mark.parametrize(
    ("question", "kind"),
    [("Explain how to code a loop", CODE), ("What is the capital of Portugal?", FACTS), ("", FACTS)],
)
def test_other_kinds(question: str, kind: str) -> None:
    """Code is known by its words; what says nothing is a fact."""
    assert kind_of(question) == kind


@pytest.mark.parametrize("text", ["the how is what is " * 4000, "how much does " * 6000, "is " * 30_000])
def test_no_pattern_goes_astray(text: str) -> None:
    """Long texts take time by their length, a few microseconds a word."""
    began = time.thread_time()
    kind_of(text)
    assert time.thread_time() - began < 2.0
