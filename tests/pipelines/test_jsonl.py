"""Events as lines of JSON: complete, redacted, read back."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from pathlib import Path
from typing import Any

import dspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import escalade
from escalade import events
from escalade.errors import DataError
from escalade.pipelines.chain import Chain
from escalade.pipelines.events import Event, NodeFailed, NodeStarted, Progress, RunFinished, RungTried, Token
from escalade.pipelines.fan_out import FanOut
from escalade.pipelines.map import Map
from escalade.pipelines.watching.jsonl import WAITING, JsonlEvents, as_json, read_events
from tests import _forks

HEAD: dict[str, Any] = {"seq": 1, "time": 2.5, "run_id": "r", "call": 3, "path": "a/b[1]"}


def test_every_event_comes_back(tmp_path: Path) -> None:
    """From several threads, in order, equal to what was heard, but for what is no JSON."""
    heard: list[Event] = []

    def work(x: int) -> int:
        escalade.progress(x, 20, message="half", partial={"n": [x, None, True, 0.5]})
        return x

    with JsonlEvents(tmp_path / "deep" / "runs.jsonl") as log, escalade.scope(budget="1", listen=[log, heard.append]):
        Chain(a=Map(work, over="xs"), b=FanOut(c=lambda: {"x": 1}))(xs=range(20))
    assert log.lost == 0
    told = list(read_events(log.path))
    assert told[:-1] == heard[:-1]
    assert isinstance(told[-1], RunFinished)
    assert told[-1].result == {"c": {"x": 1}}


def test_what_is_no_json_is_shown_short(tmp_path: Path) -> None:
    """Objects by a short text, also one that can't be shown; long texts and lists are cut; nan comes back as nan."""

    class Mute:
        def __repr__(self) -> str:
            raise ValueError

    with JsonlEvents(tmp_path / "e.jsonl") as log:
        things = {"o": Mute(), "s": "x" * 10_000, "l": list(range(1000)), 3: b"b", "p": dspy.Prediction(a=1)}
        log(Progress(done=1, partial=things, **HEAD))
        log(RungTried(rung="small", confidence=math.nan, signals={"a": math.inf}, **HEAD))
    rows = [json.loads(line, parse_constant=pytest.fail) for line in log.path.read_text("utf-8").splitlines()]
    partial = rows[0]["partial"]
    assert partial["o"] == "<Mute>"
    assert len(partial["s"]) < 2100
    assert len(partial["l"]) == 100
    assert (partial["3"], partial["p"]) == ("b'b'", {"a": 1})
    first, second = read_events(log.path)
    assert isinstance(first, Progress)
    assert isinstance(second, RungTried)
    assert math.isnan(second.confidence)


def test_personal_data_is_not_written(tmp_path: Path) -> None:
    """Errors, messages and results are redacted; costs and times, which only look like numbers of people, are not."""

    def fails() -> None:
        raise ValueError("no mail to ada@example.com with sk-abcdefghijklmnopqrstuvwx1234567890")

    path = tmp_path / "e.jsonl"
    with JsonlEvents(path) as log, escalade.scope(listen=log), pytest.raises(ValueError, match="ada@"):
        Chain(a=fails)()
    with JsonlEvents(path) as log:
        log(Progress(done=4_165_550_123, message="call ada@example.com", partial=["ada@example.com"], **HEAD))
        log(Token(text="ada@exa", **HEAD))
    text = path.read_text("utf-8")
    assert "ada@" not in text
    assert "sk-abc" not in text
    told = list(read_events(path))
    assert next(e.error for e in told if isinstance(e, NodeFailed)).startswith("ValueError: no mail to <email>")
    last = told[-1]
    assert isinstance(last, Progress)  # pieces of text can't be redacted and are left out
    assert (last.done, last.message, last.partial) == (4_165_550_123, "call <email>", ["<email>"])
    with JsonlEvents(path, redact=False) as log:
        log(Token(text="ada@exa", **HEAD))
    assert isinstance(list(read_events(path))[-1], Token)


def test_only_some_kinds(tmp_path: Path) -> None:
    """`on` keeps the file small."""
    with JsonlEvents(tmp_path / "e.jsonl", on=RunFinished) as log, escalade.scope(listen=log):
        Chain(a=lambda: 1)()
    assert [type(e) for e in read_events(log.path)] == [RunFinished]


def test_a_line_is_there_soon_and_after_flush(tmp_path: Path) -> None:
    """A reader of the file sees an event while the run goes on."""
    log = JsonlEvents(tmp_path / "e.jsonl")
    log(NodeStarted(**HEAD))
    for _ in range(500):
        if log.path.stat().st_size:
            break
        time.sleep(0.01)
    log(NodeStarted(**HEAD))
    log.flush()
    assert len(list(read_events(log.path))) == 2
    log.close()
    log.close()
    log(NodeStarted(**HEAD))
    assert len(list(read_events(log.path))) == 2


def test_a_cut_off_line_is_left_out_and_a_broken_one_is_told(tmp_path: Path) -> None:
    """The end of a crash is no error; a line in the middle is, with its number. Unknown events are skipped."""
    path = tmp_path / "e.jsonl"
    good = json.dumps(as_json(NodeStarted(**HEAD)))
    path.write_text(f"{good}\n{good.replace('NodeStarted', 'NodeTeleported')}\n{good[:20]}")
    assert list(read_events(path)) == [NodeStarted(**HEAD)]
    for broken in ("nonsense", "[1]", '{"event": "NodeStarted"}', '{"level": "info"}'):
        path.write_text(f"{good}\n{broken}\n{good}\n")
        with pytest.raises(DataError, match="line 2"):
            list(read_events(path))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full disk to try")
def test_a_full_disk_disturbs_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The events are counted as lost, it is logged once, and the run goes on."""
    log = JsonlEvents(tmp_path / "e.jsonl")
    log._file.close()
    log._file = Path("/dev/full").open("wb")  # noqa: SIM115 - closed by `close`
    with escalade.scope(listen=log):
        assert Chain(a=lambda: 1)().a == 1
    log.flush()
    assert log.lost == 4
    assert caplog.text.count("events are missing") == 1
    with pytest.raises(OSError, match="No space"):
        log.close()


def test_events_that_no_disk_could_take_are_counted(tmp_path: Path) -> None:
    """Memory is bounded: what comes while too much waits is left out."""
    log, gate = JsonlEvents(tmp_path / "e.jsonl", redact=False), threading.Event()
    append = log._append
    log._append = lambda rows: (gate.wait(), append(rows))[1]
    event = NodeStarted(**HEAD)
    for _ in range(WAITING + 1500):
        log(event)
    assert 0 < log.lost <= 1500
    gate.set()
    log.close()
    assert sum(1 for _ in read_events(log.path)) == WAITING + 1500 - log.lost


FORKS = """
import sys
from tests._forks import in_child
from tests.pipelines.test_jsonl import HEAD, JsonlEvents, NodeStarted

def child():
    log(NodeStarted(**{**HEAD, "seq": 2}))
    log.close()

log = JsonlEvents(sys.argv[1])
log(NodeStarted(**HEAD))
in_child(child)
log.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_process_that_forks_goes_on_writing(tmp_path: Path) -> None:
    """The child has no thread of the parent's; it writes its own lines, and the parent's are there once."""
    _forks.run(FORKS, tmp_path / "e.jsonl")
    assert sorted(e.seq for e in read_events(tmp_path / "e.jsonl")) == [1, 2]


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=10,
)


@settings(max_examples=60, deadline=None)
@given(value=plain)
def test_plain_values_come_back_equal(value: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever JSON can hold, short of its bounds, is read back as it was."""
    with JsonlEvents(tmp_path_factory.mktemp("j") / "e.jsonl", redact=False) as log:
        log(Progress(done=1, partial=value, **HEAD))
    (event,) = read_events(log.path)
    assert isinstance(event, Progress)
    assert event.partial == value


def test_every_kind_of_event_can_be_read() -> None:
    """No class of events is missing from what `read_events` knows."""
    from escalade.pipelines.watching.jsonl import _kinds

    named = {k for k, v in vars(events).items() if isinstance(v, type) and issubclass(v, Event) and v is not Event}
    assert set(_kinds()) == named
