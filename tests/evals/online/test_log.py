"""The log of decisions: lines that come back as they were, feedback, torn lines, several writers."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escalade.agents.forms import Form
from escalade.errors import BadInput, DataError
from escalade.evals.online.log import DecisionLog
from escalade.evals.online.logged import Logged, Tried


def climb(name: str, *, key: str = "q", run: str = "", rung: int = 0) -> Logged:
    """A climb of one attempt."""
    tried = Tried(rung, 0.5, 0.9, cost=7, latency=0.25, answer=0, form=Form(3.0))
    return Logged(name, key, "p", ("a", "b"), (tried,), 0, 0.5, features={"prompt_chars": 3}, run=run)


figure = st.floats(0, 1) | st.just(math.nan)
tries = st.builds(
    Tried,
    st.integers(0, 2),
    st.floats(1e-6, 1),
    figure,
    st.sampled_from(["ok", "failed", "wrong_format"]),
    st.integers(0, 10**12),
    figure,
    st.none() | st.integers(0, 3),
    st.none() | st.builds(Form, st.floats(0, 100)),
)


@given(st.lists(tries, max_size=3), st.floats(1e-6, 1), st.text(max_size=5))
@settings(max_examples=60, deadline=None)
def test_a_line_comes_back_as_it_was(path: list[Tried], stop: float, key: str) -> None:
    """Whatever a climb holds, its line gives it back, and its propensity is the product of its steps'."""
    line = Logged("1", key, "p", ("a", "b", "c"), tuple(path), len(path) - 1, stop, prices=(1, None, 3))
    log = DecisionLog()
    log.write(line)
    assert repr(log.lines()[0]) == repr(line)  # repr: a nan isn't equal to itself
    assert line.propensity == pytest.approx(stop * math.prod(tried.propensity for tried in path))
    assert len(list(line.views())) == len(path) + 1


def test_feedback_finds_its_climb(tmp_path: Path) -> None:
    """By id, by run (all of it), by question (the newest); the last word counts, and a new reader hears it."""
    log = DecisionLog(tmp_path / "d.jsonl")
    for name, key, run in (("1", "x", "r"), ("2", "y", "r"), ("3", "x", "s")):
        log.write(climb(name, key=key, run=run))
    assert log.feedback(0.0, run="r") == 2
    assert log.feedback(1.0, key="x") == 1
    assert log.feedback(0.5, climb="2") == 1
    assert log.feedback(0.25, key="x", run="r") == 1
    assert [line.quality for line in DecisionLog(tmp_path / "d.jsonl").lines()] == [0.25, 0.5, 1.0]


def test_feedback_that_cannot_be_used() -> None:
    """No climb meant, no such climb, and a quality that is none are refused."""
    log = DecisionLog()
    log.write(climb("1"))
    with pytest.raises(BadInput, match="climb=, run= or key="):
        log.feedback(1.0)
    with pytest.raises(DataError, match="no climb with run='nobody'"):
        log.feedback(1.0, run="nobody")
    with pytest.raises(BadInput, match="between 0 and 1"):
        log.feedback(math.nan, climb="1")


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_a_torn_line_is_left_out_and_written_on_after(tmp_path: Path, cut: int) -> None:
    """A crash in the middle of a line loses that line alone, whoever writes next."""
    path = tmp_path / "d.jsonl"
    log = DecisionLog(path)
    log.write(climb("1"))
    whole = path.read_bytes()
    log.write(climb("2"))
    path.write_bytes(path.read_bytes()[: len(whole) + cut])
    again = DecisionLog(path)
    assert [line.id for line in again.lines()] == ["1"]
    again.write(climb("3"))
    assert [line.id for line in DecisionLog(path).lines()] == ["1", "3"]


@pytest.mark.parametrize(
    ("told", "line"),
    [
        ("0 and 1, not at 7", '{"told": "2", "quality": 7}'),
        ("0 and 1, not at -3", '{"told": "2", "quality": -3}'),
        ("0 and 1, not at nan", '{"told": "2", "quality": NaN}'),
        ("lacks 'quality'", '{"told": "2"}'),
        ("a confidence of 1.5", climb("3").to_line().replace("0.9", "1.5")),
        ("a cost of -7", climb("3").to_line().replace(",7,", ",-7,")),
        ("Unterminated", '{"torn'),
    ],
)
def test_a_line_that_cannot_be_is_refused_by_its_number(tmp_path: Path, told: str, line: str) -> None:
    """A figure out of its range would make an estimate of nonsense; only the last line may be torn."""
    path = tmp_path / "d.jsonl"
    log = DecisionLog(path)
    for name in "12":
        log.write(climb(name))
    whole = path.read_text()
    path.write_text(whole + line + "\n" + climb("4").to_line() + "\n")
    for read in (log.refresh, lambda: DecisionLog(path)):
        with pytest.raises(DataError, match=f"line 3: not a line.*{told}"):
            read()
    log.refresh()
    assert len(log) == 3  # what comes after it isn't lost to who goes on
    path.write_text(whole + line[:-1])
    assert len(DecisionLog(path)) == 2


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    """A whole line of something else is no log of decisions."""
    path = tmp_path / "d.jsonl"
    path.write_text('{"question": "?"}\n')
    with pytest.raises(DataError, match="not a line of a log of decisions"):
        DecisionLog(path)
    with pytest.raises(DataError, match="a propensity lies above 0"):
        Logged("1", "q", "p", ("a",), (Tried(0, 0.0),), 0)


def test_threads_and_two_logs_of_one_file(tmp_path: Path) -> None:
    """Two openers of one file, eight threads: every line is there once, and each hears of the other's."""
    logs = [DecisionLog(tmp_path / "d.jsonl") for _ in range(2)]

    def work(t: int) -> None:
        for i in range(20):
            logs[t % 2].write(climb(f"{t}.{i}", key=f"{t}.{i}"))
            logs[(t + 1) % 2].feedback(1.0, key=f"{t}.{i}")

    threads = [threading.Thread(target=work, args=(t,)) for t in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for log in logs:
        log.refresh()
        assert len({line.id for line in log.lines()}) == len(log) == 160
        assert all(line.quality == 1.0 for line in log.lines())
