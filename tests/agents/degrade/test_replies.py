"""Replies that somebody wrote: found by pattern or words, edited while programs run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from escalade.agents.degrade import Replies, Reply
from escalade.errors import BadInput

FILE = """\
replies:
  - name: hours
    pattern: "opening hours|when (are|do) you open"
    reply: "We are open from 9 to 18 h."
  - words: [refund, "money back", preço]
    reply: {answer: "Refunds take five days.", source: handbook}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "replies.yaml"
    path.write_text(FILE, "utf-8")
    return path


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("What are your OPENING hours?", "hours"),
        ("When do you open", "hours"),
        ("I want my money back!", "number 2"),
        ("Qual é o preço?", "number 2"),
        ("refunding", None),
        ("", None),
    ],
)
def test_find(file: Path, question: str, name: str | None) -> None:
    """The first that matches, whatever the case; words are whole words."""
    found = Replies.load(file).find({"question": question, "n": 3})
    assert (None if found is None else found.name) == name


def test_outputs(file: Path) -> None:
    """Text is the first output, a mapping says each; the others are there, and empty."""
    hours, refund = Replies.load(file)._replies
    assert hours.outputs(("answer", "source")) == {"answer": "We are open from 9 to 18 h.", "source": None}
    assert refund.outputs(("answer", "source", "x"))["x"] is None
    assert refund.outputs(("answer", "source"))["source"] == "handbook"
    assert hours.outputs(()) == {"answer": "We are open from 9 to 18 h."}


def test_edited_while_programs_run(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A new version of the file holds from the next question on; one that is wrong is told, and the former holds."""
    replies = Replies.load(file)
    file.write_text(FILE.replace("18 h", "20 hours"), "utf-8")
    found = replies.find({"question": "opening hours"})
    assert found is not None
    assert found.reply == "We are open from 9 to 20 hours."
    file.write_text(FILE.replace("opening hours|", "(((("), "utf-8")
    with caplog.at_level(logging.ERROR):
        assert replies.find({"question": "opening hours"}) == found
    assert "replies.yaml:2: replies[0]: reply 'hours': '((((when (are|do) you open' is not a regular" in caplog.text
    file.unlink()
    assert replies.find({"question": "opening hours"}) == found


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[]", "expected a mapping with the key 'replies'"),
        ("replies: []\nmore: 1", "replies.yaml:2: more: unknown key"),
        ("replies: [hello]", r"1: replies\[0\]: expected a mapping of name, pattern, words, reply, got 'hello'"),
        ("replies:\n- {reply: x}", "expected either a pattern or words"),
        ("replies:\n- {reply: x, pattern: a, words: [b]}", "expected either a pattern or words"),
        ("replies:\n- {pattern: a}", "expected text or a mapping of outputs"),
        ("replies:\n- {words: [''], reply: x}", "expected either a pattern or words"),
        ("replies:\n- {pattern: '(', reply: x}", "not a regular expression of linear time"),
    ],
)
def test_what_is_wrong_in_a_file(tmp_path: Path, text: str, what: str) -> None:
    """The error names file, line and entry."""
    path = tmp_path / "replies.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(BadInput, match=what):
        Replies.load(path)


def test_a_long_question_is_cut() -> None:
    """Patterns see the first 2,000 characters."""
    replies = Replies([Reply("yes", pattern="end")])
    assert replies.find({"question": "x" * 1_990 + " end"}) is not None
    assert replies.find({"question": "x" * 2_000 + " end"}) is None


def test_copies_share_what_is_read(file: Path) -> None:
    """A copy of a program has the same replies."""
    import copy

    replies: Any = Replies.load(file)
    assert copy.deepcopy(replies) is replies
    assert len(replies) == 2


def test_a_badly_written_pattern_holds_nobody_up() -> None:
    """What takes a backtracking engine minutes is answered at once."""
    assert not Reply("x", pattern="(a+)+$").is_for("a" * 1_900 + "!")


@pytest.mark.parametrize("word", ["money back", "c++", "a#b & c~d - e", "na\u00efve", "1,5 %"])
def test_words_are_whole_words_of_any_case(word: str) -> None:
    """Whatever they are made of."""
    reply = Reply("x", words=(word,))
    assert reply.is_for(f"see {word.upper()}, ok")
    assert not reply.is_for(f"x{word}y")
