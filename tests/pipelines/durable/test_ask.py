"""Ask: a run that needs a person waits without holding anything and goes on with the answer; a plain call asks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import escalade
from escalade import Answer, Ask, Chain, FanOut, Principal, Question, Runs, asking, events, node
from escalade.errors import ApprovalRequired, BadInput, NodeError, PermissionDenied, RunError, UnknownName

ANA = Principal("ana", "acme", frozenset({"editor"}))


def write(topic: str) -> str:
    return f"All about {topic}"


def publish(draft: str, decision: str) -> str:
    return f"{decision}: {draft}"


def article(**options: Any) -> Chain:
    said: dict[str, Any] = {"show": ["draft"], "options": ["yes", "later"], "edit": "draft", **options}
    return Chain(draft=write, check=Ask("Publish this?", **said), publish=publish)


@pytest.fixture(params=["memory", "file"])
def runs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runs]:
    url = None if request.param == "memory" else f"sqlite:///{tmp_path}/runs.sqlite"
    with Runs(url, pipelines={"article": article()}) as made:
        yield made


def waiting(runs: Runs, run_id: str) -> Question:
    """The one question of a run, when it waits for nothing else."""
    end = time.monotonic() + 10
    while runs.get(run_id).status() != "waiting" or run_id in runs.host.live:  # its task ends a moment later
        assert time.monotonic() < end, runs.get(run_id).row()
        time.sleep(0.005)
    (question,) = runs.questions(run_id)
    return question


def test_a_run_waits_and_goes_on(runs: Runs) -> None:
    """It holds nothing while it waits; what was shown, chosen and edited is what the next node sees."""
    run = runs.start("article", run_id="one", events=True, topic="cells")
    question = waiting(runs, "one")
    assert (question.question, question.shown) == ("Publish this?", {"draft": "All about cells"})
    assert (question.path, question.run_id, question.options) == ("check", "one", ("yes", "later"))
    assert not runs.host.live
    with pytest.raises(RunError, match=question.ticket) as told:
        run.result(1)
    assert told.value.status == "waiting"
    runs.answer(question.ticket, "yes", by="ana", edited="Less about cells")
    assert done(run).publish == "yes: Less about cells"
    assert runs.questions() == []
    (row,) = runs.host.store.tickets("one", waiting=False)
    assert row.by == "ana"

    async def followed() -> list[str]:
        return [event["event"] async for event in run.events()]

    told_events = asyncio.run(followed())
    assert told_events.count("Paused") == told_events.count("Answered") == 1


def later(runs: Runs, seconds: float) -> None:
    """So much time passes for all questions."""
    with runs.host.store.database.transaction() as connection:  # type: ignore[attr-defined]
        connection.execute("UPDATE tickets SET created=created-?, expires=expires-?", (seconds, seconds))


HOUR = 3600.0
IN_TIME = Ask("Well?", timeout=HOUR / 60, otherwise="later", options=["yes", "later"])
LATE = Ask("Well?", timeout=2 * HOUR, otherwise="later", options=["yes", "later"])


async def one(x: int) -> int:
    return 1


@pytest.mark.parametrize(
    ("pipeline", "came"),
    [
        (Chain(ask=node(Ask("Well?"), timeout=HOUR)), "its timeout of 3600 s"),
        (Chain(inner=node(Chain(ask=LATE), timeout=HOUR)), "its timeout of 3600 s"),
        (Chain(inner=node(Chain(ask=IN_TIME), timeout=HOUR)), "later"),
        (Chain(inner=node(Chain(ask=node(LATE, timeout=HOUR)), timeout=3 * HOUR)), "its timeout of 3600 s"),
        (Chain(ask=node(Ask("Well?"), timeout=HOUR, fallback=lambda: {"decision": "stood in"})), "stood in"),
        (FanOut(a=node(Ask("Well?"), timeout=HOUR, optional=True), b=one, join=lambda b: {"decision": b}), 1),
        (FanOut(a=Ask("Well?"), b=one, partial=True, within=HOUR, join=lambda b: {"decision": b}), 1),
        (FanOut(a=Chain(ask=LATE), b=one, partial=True, within=HOUR, join=lambda b: {"decision": b}), 1),
    ],
)
def test_timers_around_a_question_go_off(runs: Runs, pipeline: Any, came: Any) -> None:
    """Though the run waits meanwhile: as in a plain call, the one that comes first counts, its own included."""
    runs.add("timed", pipeline)
    run = runs.start("timed", run_id="one", **({} if isinstance(pipeline, Chain) else {"x": 1}))
    waiting(runs, "one")
    later(runs, HOUR)
    if came == "its timeout of 3600 s":
        with pytest.raises(RunError, match=came):
            done(run)
    else:
        assert done(run).decision == came
    assert run.row().attempts == 2


def test_an_answer_comes_before_the_timers_around(runs: Runs) -> None:
    """Then they change nothing."""
    runs.add("timed", Chain(inner=node(Chain(ask=node(LATE, timeout=HOUR)), timeout=HOUR)))
    run = runs.start("timed", run_id="one")
    question = waiting(runs, "one")
    assert question.expires is not None
    assert question.expires < time.time() + HOUR
    runs.answer(question.ticket, "yes", by="ana")
    assert done(run).decision == "yes"


def test_what_nobody_waits_for_is_not_answered(runs: Runs) -> None:
    """A run that was cancelled is told so; nothing is kept."""
    run = runs.start("article", run_id="one", topic="cells")
    ticket = waiting(runs, "one").ticket
    run.cancel()
    with pytest.raises(BadInput, match=f"question {ticket} needs no answer any more: run one is cancelled"):
        runs.answer(ticket, "yes", by="ana")
    run.resume()
    runs.answer(waiting(runs, "one").ticket, "yes", by="ana")
    assert done(run).publish == "yes: All about cells"


@pytest.mark.parametrize(
    ("was", "good", "bad"),
    [(1, 2.5, ["two", True, [2]]), (True, False, [0, "no"]), ([1], [], ["1", {}]), ({"a": 1}, {}, [[], 1])],
)
def test_what_is_edited_stays_what_it_was(runs: Runs, was: Any, good: Any, bad: list[Any]) -> None:
    """A number is no text: that is told to who answers, and isn't the end of the run."""
    runs.add("edits", Chain(check=Ask("Right?", edit="it"), last=lambda it: {"it": it}))
    run = runs.start("edits", run_id="one", it=was)
    ticket = waiting(runs, "one").ticket
    for edited in bad:
        with pytest.raises(BadInput, match="'it' is"):
            runs.answer(ticket, True, by="ana", edited=edited)
    runs.answer(ticket, True, by="ana", edited=good)
    assert done(run).it == good


def test_a_tenant_s_run_asks_his_people(runs: Runs) -> None:
    """Also one that was started for a tenant, and in nobody's name."""
    runs.start("article", run_id="one", tenant="acme", topic="cells")
    question = waiting(runs, "one")
    assert question.tenant == "acme"
    with pytest.raises(PermissionDenied, match="globex"):
        runs.answer(question.ticket, "yes", by=Principal("eve", "globex", frozenset({"editor"})))
    runs.answer(question.ticket, "yes", by=ANA)


def test_who_answers_a_plain_call_is_told_by_an_alias() -> None:
    """As in a durable run: events go to listeners and files, and a name may be an address."""
    heard: list[Any] = []
    with escalade.scope(listen=heard.append), asking(lambda _: Answer("yes", "choose", by="ana@example.com")):
        assert article()(topic="cells").publish == "yes: All about cells"
    (answered,) = (event for event in heard if isinstance(event, events.Answered))
    assert "ana@example.com" not in answered.by
    assert answered.by


def done(run: Any) -> Any:
    """Its result, once it has gone on."""
    while run.status() in {"waiting", "queued"}:
        time.sleep(0.005)
    return run.result(10)


def test_it_goes_on_after_a_restart(tmp_path: Path) -> None:
    """The question outlives the process, may be answered where nothing is executed, and is asked once."""
    path = tmp_path / "runs.sqlite"
    with Runs(path, pipelines={"article": article()}) as runs:
        runs.start("article", run_id="one", topic="cells")
        ticket = waiting(runs, "one").ticket
    with Runs(path, pipelines={"article": article()}) as runs, Runs(path) as desk:
        assert runs.recover() == 0
        desk.answer(ticket, "later", by=ANA)
        assert done(runs.get("one")).publish == "later: All about cells"


def test_an_answer_is_one_and_fits(runs: Runs) -> None:
    """What is no answer to the question is refused and changes nothing; the first that is counts."""
    runs.start("article", run_id="one", topic="cells")
    ticket = waiting(runs, "one").ticket
    for decision in ("no", True, "", None):
        with pytest.raises(BadInput, match="'yes', 'later'"):
            runs.answer(ticket, decision, by="ana")
    with pytest.raises(UnknownName):
        runs.answer("nope", "yes", by="ana")
    runs.answer(ticket, "yes", by="ana")
    with pytest.raises(BadInput, match="before"):
        runs.answer(ticket, "later", by="bob")
    assert done(runs.get("one")).publish == "yes: All about cells"


def test_who_may_answer(tmp_path: Path) -> None:
    """Somebody of the run's tenant, with the role that it takes."""
    from escalade import Roles

    policy = Roles({"editor": ["*:call"]})
    with Runs(tmp_path / "r.sqlite", pipelines={"article": article(role="editor")}, access=policy) as runs:
        runs.start("article", run_id="one", principal=ANA, topic="cells")
        ticket = waiting(runs, "one").ticket
        for who in (Principal("bob", "acme"), Principal("eve", "other", frozenset({"editor"})), "ana"):
            with pytest.raises(PermissionDenied, match="may not answer"):
                runs.answer(ticket, "yes", by=who)
        runs.answer(ticket, "yes", by=ANA)
        assert done(runs.get("one")).publish.startswith("yes")


def test_other_branches_go_on_meanwhile(runs: Runs) -> None:
    """A run is put aside when nothing else is left to do; an answer that comes before is taken at once."""
    at_work = []

    async def slow(topic: str) -> str:
        at_work.append(topic)
        await asyncio.sleep(0.4)
        return "slow"

    runs.add("two", FanOut(check=Ask("Go?"), slow=slow))
    run = runs.start("two", run_id="a", topic="t")
    waiting(runs, "a")
    runs.answer(runs.questions("a")[0].ticket, True, by="ana")
    assert done(run).check.decision is True
    assert at_work == ["t"]
    run = runs.start("two", run_id="b", topic="t")
    while not runs.questions("b"):
        time.sleep(0.005)
    runs.answer(runs.questions("b")[0].ticket, "reject", by="ana")
    assert done(run).check.action == "reject"
    assert run.row().attempts == 1


def test_two_questions_of_one_run(runs: Runs) -> None:
    """Each is answered by itself; with the first answer the run goes on to wait for the second."""
    runs.add("two", FanOut(a=Ask("A?"), b=Ask("B?", text=True)))
    run = runs.start("two", run_id="a")
    while len(runs.questions("a")) < 2 or run.status() != "waiting":
        time.sleep(0.005)
    by_text = {question.question: question.ticket for question in runs.questions("a")}
    runs.answer(by_text["B?"], "words", by="ana")
    assert waiting(runs, "a").question == "A?"
    runs.answer(by_text["A?"], False, by="ana")
    result = done(run)
    assert (result.a.decision, result.b.decision, result.b.action) == (False, "words", "answer")


def test_nobody_answers(runs: Runs) -> None:
    """After its timeout the run goes on with what holds otherwise, or fails; an answer is too late then."""
    runs.add("otherwise", article(timeout=0.1, otherwise="later"))
    runs.add("fails", article(timeout=0.1))
    run = runs.start("otherwise", run_id="a", topic="t")
    ticket = waiting(runs, "a").ticket
    assert done(run).publish.startswith("later")
    with pytest.raises(BadInput, match="expired"):
        runs.answer(ticket, "yes", by="ana")
    failing = runs.start("fails", run_id="b", topic="t")
    with pytest.raises(RunError, match="nobody has answered"):
        waiting(runs, "b")
        done(failing)


def test_cancelled_while_it_waits(runs: Runs) -> None:
    """It ends at once, and its question with it."""
    run = runs.start("article", run_id="one", topic="cells")
    waiting(runs, "one")
    assert run.cancel() == "cancelled"
    assert runs.questions() == []


def test_a_plain_call_asks_at_once() -> None:
    """Whoever is there to be asked: by a function, a coroutine, or an Answer; without anybody it is refused."""
    asked: list[Question] = []

    async def slowly(question: Question) -> Answer:
        await asyncio.sleep(0)
        return Answer("yes", "choose", "shorter", by="bob")

    def at_once(question: Question) -> str:
        asked.append(question)
        return "later"

    heard: list[Any] = []
    with asking(at_once):
        assert article()(topic="x").publish == "later: All about x"
    with asking(slowly):
        assert article()(topic="x").publish == "yes: shorter"
    assert asked[0].shown == {"draft": "All about x"}
    with pytest.raises(ApprovalRequired, match="nobody can be asked"):
        article()(topic="x")
    with asking(lambda _: "maybe"), pytest.raises(NodeError, match="'maybe'"):
        article()(topic="x")

    async def never(question: Question) -> str:
        await asyncio.sleep(30)
        return "yes"

    with asking(never):
        assert article(timeout=0.05, otherwise="later")(topic="x").publish.startswith("later")
        with pytest.raises(TimeoutError, match="nobody"):
            article(timeout=0.05)(topic="x")

    async def follow() -> None:
        with asking(at_once):
            heard.extend([event async for event in article().stream(topic="x")])

    asyncio.run(follow())
    paused, answered = (next(e for e in heard if isinstance(e, kind)) for kind in (events.Paused, events.Answered))
    assert (paused.path, paused.question, answered.action) == ("check", "Publish this?", "choose")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"question": ""}, "question"),
        ({"options": "yes"}, "lists"),
        ({"options": ["a", "a"]}, "different"),
        ({"options": ["a"], "text": True}, "not both"),
        ({"timeout": 0}, "seconds"),
        ({"otherwise": "a", "options": ["a"]}, "timeout="),
        ({"otherwise": "b", "options": ["a"], "timeout": 1}, "'a'"),
        ({"show": ["not a name"]}, "names"),
    ],
)
def test_a_bad_question_is_refused_when_it_is_made(arguments: dict[str, Any], why: str) -> None:
    """With what is wrong in the message."""
    with pytest.raises(BadInput, match=why):
        Ask(**{"question": "Go?", **arguments})


def test_who_blocks_while_he_thinks_holds_up_nobody() -> None:
    """A sync asker is waited for in a thread: other branches go on, and after its timeout the question's otherwise
    holds.
    """
    go = threading.Event()

    async def other() -> int:
        go.set()
        return 1

    def person(question: Question) -> str:
        assert go.wait(10)
        return "yes"

    fan = FanOut(said=Ask("Well?", options=["yes", "later"], timeout=10, otherwise="later"), other=other)
    with asking(person):
        assert fan().said.decision == "yes"
        go.clear()
        alone = Chain(said=Ask("Well?", options=["yes", "later"], timeout=0.05, otherwise="later"))
        assert alone().decision == "later"
    go.set()
