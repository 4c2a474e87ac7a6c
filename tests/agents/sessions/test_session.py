"""Sessions: what is remembered, of whom, for how long, and that no turn is lost."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import threading

import dspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import escalade
from escalade.agents._route import Retry
from escalade.agents.escalate import Escalate
from escalade.agents.gateway import Gateway
from escalade.agents.models import Model, hard_bound, measured_bound
from escalade.agents.policies import Constant, Threshold
from escalade.agents.sessions import Kept, Key, MemorySessions, Session, SessionStore, SqliteSessions, Turn
from escalade.agents.sessions._window import Window, size_of
from escalade.agents.sessions.state import State
from escalade.agents.streaming import Token
from escalade.agents.tool_agent import ToolAgent
from escalade.errors import BadInput, BudgetExceeded, NoScope, PermissionDenied
from escalade.registry.access import Roles
from escalade.registry.catalogue import Registry
from escalade.registry.ledger import Ledger
from escalade.registry.prices import Price
from escalade.registry.privacy import Redactor, Vault
from escalade.scopes import Principal
from tests.agents.calling import TOKENS, ByQuestion, Calling, done, fields
from tests.agents.scripted import Scripted
from tests.agents.test_tool_agent import read

PRICE = Price.of("0.10", "0.40")
CALL = int(PRICE.cost(*TOKENS))
MODES = ("sync", "async")
ROLES = Roles({"all": ["*"]})
SIGNATURE = "question, history: dspy.History -> answer"


def who(user="ann", tenant="acme"):
    """A scope of somebody."""
    return escalade.scope(principal=Principal(user, tenant, frozenset({"all"})), access=ROLES)


def gateway_of(**transports):
    """Models over transports."""
    return Gateway([Model(n, f"sim/{n}", t, price=PRICE) for n, t in transports.items()], retry=Retry(retries=0))


def talk(script=(), *, transport=None, **options):
    """A session with an Escalate of one rung, and the transport."""
    transport = transport or Scripted([_answer(text) for text in script])
    gateway = gateway_of(m=transport)
    qa = Escalate(SIGNATURE, rungs=["m"], policy=Constant(0), gateway=gateway, confidence=False)
    return Session(qa, id="s", **options), transport


def _answer(text):
    return f"[[ ## answer ## ]]\n{text}\n\n[[ ## completed ## ]]"


def say(session, mode="sync", **inputs):
    """Say it, sync or async."""
    return session.say(**inputs) if mode == "sync" else asyncio.run(session.asay(**inputs))


def prompts(transport):
    """The text of each request."""
    return ["\n".join(p.text for m in request.messages for p in m.parts) for request in transport.requests]


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path):
    """Each kind of store, with a clock."""
    clock = [1_000.0]
    made = (
        MemorySessions(lambda: clock[0])
        if request.param == "memory"
        else SqliteSessions(tmp_path / "s.db", now=lambda: clock[0])
    )
    made.clock = clock
    assert isinstance(made, SessionStore)
    yield made
    if request.param == "sqlite":
        made.close()


@pytest.mark.parametrize("mode", MODES)
def test_knows_what_was_said(store, mode):
    """The second question is asked with the first turn before it; both turns are stored, with what they cost."""
    session, model = talk(["Picasso", "1937"], store=store)
    with who() as run:
        assert say(session, mode, question="Who painted Guernica?").answer == "Picasso"
        assert say(session, mode, question="When?").answer == "1937"
        turns = session.turns()
        assert run.spent == 2 * CALL == sum(turn.cost for turn in turns)
    assert "Picasso" in prompts(model)[1]
    assert "Guernica" in prompts(model)[1]
    assert "Picasso" not in prompts(model)[0]
    assert [(t.number, dict(t.inputs), dict(t.outputs), t.seen) for t in turns] == [
        (1, {"question": "Who painted Guernica?"}, {"answer": "Picasso"}, 0),
        (2, {"question": "When?"}, {"answer": "1937"}, 1),
    ]


def test_a_session_goes_on_in_another_process(tmp_path):
    """Another object on the same file knows what was said to the first."""
    first, _ = talk(["Ada"], store=SqliteSessions(tmp_path / "s.db"))
    second, model = talk(["still Ada"], store=SqliteSessions(tmp_path / "s.db"))
    with who():
        first.say(question="Who?")
        second.say(question="Sure?")
    assert "Ada" in prompts(model)[0]


def test_others_can_not_open_it(store):
    """The id of a session is of no use to another user, nor to the same name in another tenant."""
    session, model = talk(["secret plan", "a", "b", "c"], store=store)
    with who():
        session.say(question="mine")
    for user, tenant in (("bob", "acme"), ("ann", "other")):
        with who(user, tenant):
            assert session.turns() == ()
            assert session.history().messages == []
            session.say(question="what was said before?")
            assert session.forget() is True
    assert all("secret plan" not in prompt for prompt in prompts(model))
    with who():
        assert [turn.outputs["answer"] for turn in session.turns()] == ["secret plan"]


def test_without_a_user_there_is_no_session():
    """No scope, no principal: no session."""
    session, _ = talk(["x"])
    with pytest.raises(NoScope):
        session.say(question="q")
    escalade.configure(access=ROLES)
    with pytest.raises(PermissionDenied):
        session.say(question="q")


@pytest.mark.parametrize("mode", MODES)
def test_a_program_that_fails_leaves_no_turn(mode):
    """What wasn't answered isn't remembered, and raises what the program raises."""
    from dspy import lm15

    session, _ = talk(transport=Scripted([lm15.InvalidRequestError("no", provider="x"), _answer("yes")]))
    with who():
        with pytest.raises(dspy.LMError):
            say(session, mode, question="a")
        assert session.turns() == ()
        assert say(session, mode, question="b").answer == "yes"
        assert [turn.number for turn in session.turns()] == [1]


# ------------------------------------------------------------------------------------------------------ bounds, summary


_STATES = st.lists(st.tuples(st.text(max_size=400), st.text(max_size=400)), max_size=12)


@settings(max_examples=100)
@given(said=_STATES, most=st.integers(100, 3_000), covered=st.integers(0, 12), summary=st.text(max_size=2_000))
def test_the_history_stays_within_its_tokens(said, most, covered, summary):
    """Whatever was said, and summed up: what is shown has no more tokens than it may, and is the newest of it."""
    turns = tuple(Turn(n, {"question": q}, {"answer": a}) for n, (q, a) in enumerate(said, 1))
    for bound in (hard_bound, measured_bound):
        window = Window.of(most, bound, ("question",), ("answer",))
        state = State(turns=turns, summary=summary if covered else "", covered=covered)
        messages = window.messages(state)
        assert bound(size_of(messages)) <= most
        whole = [m for m in messages if any(m == {**t.inputs, **t.outputs} for t in turns)]
        assert whole == [{**t.inputs, **t.outputs} for t in turns][len(turns) - len(whole) :]
        old = window.too_old(state)
        assert list(old) == [t for t in turns if t.number > covered][: len(old)]


@pytest.mark.parametrize("mode", MODES)
def test_old_turns_are_summed_up(store, mode):
    """When turns no longer fit, a model sums the older ones up, once for several; its cost is in the turn's and in the
    ledger's; nothing is said to the program beyond the bound.
    """
    main = Scripted([_answer(f"answer {n} " + "x" * 150) for n in range(12)])
    sums = Scripted([fields(summary=f"summary {n}") for n in range(12)])
    gateway = gateway_of(m=main, s=sums)
    qa = Escalate(SIGNATURE, rungs=["m"], policy=Constant(0), gateway=gateway, confidence=False)
    session = Session(qa, id="s", store=store, max_tokens=1_500, summarise="s", gateway=gateway)
    with who() as run:
        for n in range(12):
            say(session, mode, question=f"question {n}")
        turns = session.turns()
        assert run.spent == sum(turn.cost for turn in turns)
        assert sum(turn.summary_cost for turn in turns) == len(sums.requests) * CALL
        assert session.history().messages[0]["answer"].startswith("summary ")
    assert 0 < len(sums.requests) < 8
    assert "summary 0" in prompts(main)[-1] or f"summary {len(sums.requests) - 1}" in prompts(main)[-1]
    assert "question 0" in prompts(sums)[0]
    assert len(turns) == 12


def test_without_a_summariser_old_turns_are_left_out():
    """They stay stored, up to `keep`."""
    session, model = talk([f"answer {n} " + "x" * 200 for n in range(9)], max_tokens=500, keep=6)
    with who():
        for n in range(9):
            session.say(question=f"question {n}")
        assert [turn.number for turn in session.turns()] == [4, 5, 6, 7, 8, 9]
    assert "question 7" in prompts(model)[-1]
    assert "question 0" not in prompts(model)[-1]


def test_a_summariser_that_fails_costs_no_answer():
    """Down or too dear, it is done without: the question is answered, the scope isn't exhausted."""
    from dspy import lm15

    main = Scripted([_answer("x" * 200) for _ in range(6)])
    gateway = gateway_of(m=main, s=Scripted([lm15.ServerError("down", provider="x")] * 20))
    qa = Escalate(SIGNATURE, rungs=["m"], policy=Constant(0), gateway=gateway, confidence=False)
    session = Session(qa, id="s", max_tokens=500, summarise="s", gateway=gateway)
    with who():
        for n in range(6):
            assert session.say(question=f"q{n}").answer
        assert len(session.turns()) == 6


def test_the_budget_holds_for_all_of_it():
    """Answer and summary are paid by the scope; without money for the answer BudgetExceeded is raised."""
    session, _ = talk(["x"])
    with pytest.raises(BudgetExceeded):
        with escalade.scope(budget="0.0000001"):
            session.say(question="q")


# -------------------------------------------------------------------------------------------------------- concurrency


@pytest.mark.blocking(3_000)  # models that answer at once: nothing ever waits
async def test_no_turn_is_lost_on_one_loop(store):
    """Thirty questions at once in one session: thirty turns, numbered, each with its own answer."""
    session, _ = talk(transport=ByQuestion(lambda p: _answer("to " + _asked(p))), store=store)
    async with escalade.scope() as run:
        got = await asyncio.gather(*(session.asay(question=f"q{n}") for n in range(30)))
        turns = await session.aturns()
        assert run.spent == sum(turn.cost for turn in turns) == 30 * CALL
    assert [one.answer for one in got] == [f"to q{n}" for n in range(30)]
    assert [turn.number for turn in turns] == list(range(1, 31))
    assert {(t.inputs["question"], t.outputs["answer"]) for t in turns} == {(f"q{n}", f"to q{n}") for n in range(30)}


def _asked(prompt):
    return prompt.rpartition("[[ ## question ## ]]\n")[2].split("\n")[0]


def _many(path, name, count):
    """A process that says something many times in the same session."""
    session, _ = talk(
        transport=ByQuestion(lambda p: _answer("to " + _asked(p))), store=SqliteSessions(path), keep=1_000
    )
    with who():
        for n in range(count):
            session.say(question=f"{name} {n}")


@pytest.mark.slow
def test_no_turn_is_lost_among_processes(tmp_path):
    """Two processes and two threads answer in the same session: all turns are there, none twice, none overwritten."""
    path = tmp_path / "s.db"
    spawn = multiprocessing.get_context("spawn")
    others = [spawn.Process(target=_many, args=(path, f"p{n}", 20)) for n in range(2)]
    here = [threading.Thread(target=_many, args=(path, f"t{n}", 20)) for n in range(2)]
    for one in (*others, *here):
        one.start()
    for one in (*others, *here):
        one.join()
    assert [one.exitcode for one in others] == [0, 0]
    session, _ = talk(store=SqliteSessions(path))
    with who():
        turns = session.turns()
    assert [turn.number for turn in turns] == list(range(1, 81))
    assert {turn.inputs["question"] for turn in turns} == {
        f"{x}{n} {k}" for x in "pt" for n in range(2) for k in range(20)
    }
    assert all(turn.seen < turn.number for turn in turns)


def test_who_answered_beside_it_is_known(store):
    """A turn that was answered while another one was says which turns it knew of."""
    session, _ = talk(["outer", "never"], store=store)
    inner, _ = talk(["inner"], store=store)
    program, asked = session.program, []

    class Slow(dspy.Module):
        signature = program.signature

        def forward(self, **inputs):
            if not asked:
                asked.append(1)
                inner.say(question="meanwhile")
            return program(**inputs)

    session.program = Slow()
    with who():
        session.say(question="first")
        assert [(t.inputs["question"], t.seen) for t in session.turns()] == [("meanwhile", 0), ("first", 0)]


# --------------------------------------------------------------------------------------------------------- forgetting


def test_time_to_live(store):
    """So many seconds after its last turn a session is forgotten, and what is left of it can be swept."""
    session, model = talk(["a", "b", "c"], store=store, ttl=60)
    with who():
        session.say(question="one")
        store.clock[0] += 59
        session.say(question="two")
        store.clock[0] += 59
        assert len(session.turns()) == 2
        store.clock[0] += 2
        assert session.turns() == ()
        assert store.ids("acme", "ann") == []
        assert store.sweep() in {0, 1}
        session.say(question="three")
        assert [turn.number for turn in session.turns()] == [1]
    assert "two" not in prompts(model)[2]


@pytest.mark.slow
def test_what_expired_is_swept_by_others(store, tmp_path):
    """Nobody has to ask for it: what expired is deleted while other sessions are written."""
    gone, _ = talk(["zanzibar"], store=store, ttl=10)
    other, _ = talk(transport=ByQuestion(lambda p: _answer("x")), store=store)
    with who():
        gone.say(question="q")
    store.clock[0] += 11
    with who("bob"):
        for n in range(1 if isinstance(store, SqliteSessions) else 256):
            other.say(question=str(n))
    assert store.sweep() == 0


@pytest.mark.parametrize("whose", ["session", "user", "tenant"])
def test_forgotten_is_forgotten(store, whose):
    """A session, all of a user, all of a tenant: it is gone for good, others' stay."""
    for user, tenant in (("ann", "acme"), ("bob", "acme"), ("ann", "other")):
        session, _ = talk(["x"], store=store)
        with who(user, tenant):
            session.say(question="remember me")
    with who():
        assert session.forget() if whose == "session" else store.forget("acme", None if whose == "tenant" else "ann")
        assert session.turns() == ()
        assert session.forget() is False
    assert store.ids("acme", "bob") == ([] if whose == "tenant" else ["s"])
    assert store.ids("other", "ann") == ["s"]


def test_what_is_deleted_is_not_in_the_file(tmp_path):
    """No byte of a forgotten conversation is left in the database or its journal."""
    store = SqliteSessions(tmp_path / "s.db")
    session, _ = talk(["the answer is zanzibar"], store=store)
    with who():
        session.say(question="what is the codeword?")
        on_disk = lambda: b"".join(path.read_bytes() for path in tmp_path.iterdir())  # noqa: E731
        assert b"zanzibar" in on_disk()
        session.forget()
    assert b"zanzibar" not in on_disk()
    assert b"codeword" not in on_disk()
    assert (tmp_path / "s.db").stat().st_mode & 0o077 == 0
    store.close()


@pytest.mark.parametrize("again", [False, True])
def test_a_call_under_way_brings_nothing_back(store, again):
    """Deleted while a question is answered, a session stays deleted, and one that was begun since gets no old turn."""
    session, _ = talk(["first", "late", "new"], store=store)
    program, inner = session.program, talk(["fresh"], store=store)[0]

    class Slow(dspy.Module):
        signature = program.signature

        def forward(self, **inputs):
            if inputs["question"] == "two":
                session.forget()
                if again:
                    inner.say(question="begun anew")
            return program(**inputs)

    session.program = Slow()
    with who():
        session.say(question="one")
        assert session.say(question="two").answer == "late"
        assert [turn.inputs["question"] for turn in session.turns()] == (["begun anew"] if again else [])


# ------------------------------------------------------------------------------------------------------------ privacy


@pytest.mark.parametrize("mode", MODES)
def test_a_redactor_stores_no_personal_data(store, mode):
    """The model is told what the user said; what is stored, and shown later, is without it."""
    session, model = talk(["I'll write to ana@example.com", "done"], store=store, privacy=Redactor())
    with who():
        assert "ana@example.com" in say(session, mode, question="Write to ana@example.com").answer
        say(session, mode, question="Done?")
        kept = store.load(Key("acme", "ann", "s")).data
    assert b"ana@example.com" not in kept
    assert "ana@example.com" in prompts(model)[0]
    assert "ana@example.com" not in prompts(model)[1]
    assert "<email>" in prompts(model)[1]


@pytest.mark.parametrize("mode", MODES)
def test_a_vault_keeps_it_from_the_model(store, mode):
    """The model sees tokens, the store has tokens, the user gets what they stand for, turns later, too."""
    vault = Vault(key=b"0" * 16)
    token = vault.tokenise("ana@example.com")
    session, model = talk([f"To {token}.", f"{token} again"], store=store, privacy=vault)
    with who():
        assert say(session, mode, question="Write to ana@example.com").answer == "To ana@example.com."
        assert say(session, mode, question="Whom?").answer == "ana@example.com again"
        kept = store.load(Key("acme", "ann", "s")).data
    assert b"ana@example.com" not in kept
    assert all("ana@example.com" not in prompt for prompt in prompts(model))
    assert token in prompts(model)[1]


# ------------------------------------------------------------------------------------------------- programs, bad input


@pytest.mark.parametrize("style", ["text", "native"])
def test_with_an_agent(style):
    """A ToolAgent is told of earlier turns in both styles."""
    script = (
        [*done("Ada"), *done("Yes, Ada")]
        if style == "text"
        else [[("submit", {"answer": "Ada"})], [("submit", {"answer": "Yes, Ada"})]]
    )
    model = Calling(script)
    agent = ToolAgent(
        SIGNATURE, tools=["db.read"], registry=Registry([read]), gateway=gateway_of(m=model), model="m", style=style
    )
    session = Session(agent, id="s")
    with escalade.scope(budget="1"):
        assert session.say(question="Who?").answer == "Ada"
        assert session.say(question="Sure?").answer == "Yes, Ada"
    assert "answer: Ada" in str(model.requests[-1])


def test_with_a_climb_that_escalates():
    """Both rungs of a climb know the conversation, and its bound counts it."""
    small, big = Scripted([_unsure("?"), _unsure("??")]), Scripted([_unsure("Ada", 0.9), _unsure("yes", 0.9)])
    qa = Escalate(SIGNATURE, rungs=["a", "b"], policy=Threshold(0.5), gateway=gateway_of(a=small, b=big))
    session = Session(qa, id="s")
    with escalade.scope(budget="1"):
        session.say(question="Who?")
        assert session.say(question="Sure?").escalated
    assert "Ada" in prompts(small)[1]
    assert "Ada" in prompts(big)[1]


def _unsure(answer, confidence=0.1):
    return fields(answer=answer, confidence=confidence)


def test_plain_modules():
    """A ChainOfThought of one's own is as good a program."""
    model = Scripted([fields(reasoning="r", answer="Ada"), fields(reasoning="r", answer="yes")])
    session = Session(dspy.ChainOfThought(SIGNATURE), id="s")
    with escalade.scope(), dspy.context(lm=gateway_of(m=model).lm("m")):
        session.say(question="Who?")
        session.say(question="Sure?")
        assert [dict(turn.outputs) for turn in session.turns()] == [{"answer": "Ada"}, {"answer": "yes"}]


@pytest.mark.parametrize("plain", [False, True])
async def test_a_session_can_be_followed(store, plain):
    """Tokens of the answer, not of the summary; the turn is kept when the answer is complete, and only then."""
    main = Scripted([_answer(f"answer {n} " + "x" * 150) for n in range(9)])
    gateway = gateway_of(m=main, s=Scripted([fields(summary="in short") for _ in range(9)]))
    program = dspy.Predict(SIGNATURE)
    program.set_lm(gateway.lm("m"))
    if not plain:
        program = Escalate(SIGNATURE, rungs=["m"], policy=Constant(0), gateway=gateway, confidence=False)
    session = Session(program, id="s", store=store, max_tokens=600, summarise="s", gateway=gateway)
    async with who() as run:
        for n in range(5):
            told = [event async for event in session.stream(question=f"q{n}")]
            said = "".join(event.text for event in told if isinstance(event, Token))
            assert said == told[-1].result.answer == f"answer {n} " + "x" * 150
        async with session.stream(question="left") as open_:
            async for _ in open_:
                break
        assert len(await session.aturns()) == 5
        assert any(turn.summary_cost for turn in await session.aturns())
        assert run.purse.held == 0
        assert await session.aforget() is True


def test_bad_input_is_told():
    """Each mistake says what was expected."""
    session, _ = talk(["x"])
    with pytest.raises(BadInput, match="add `history: dspy.History`"):
        Session(dspy.Predict("question -> answer"), id="s")
    with pytest.raises(BadInput, match="add `history: dspy.History`"):
        Session(lambda: 1, id="s")
    for wrong in (
        {"id": ""},
        {"max_tokens": 1},
        {"keep": 0},
        {"ttl": 0},
        {"privacy": "yes"},
        {"summarise": "nope", "gateway": gateway_of(m=Scripted())},
    ):
        with pytest.raises(BadInput):
            Session(session.program, **{"id": "s", **wrong})
    with who(), pytest.raises(BadInput, match="leave it out"):
        session.say(question="q", history=dspy.History(messages=[]))
    store = MemorySessions()
    broken, _ = talk(["x"], store=store)
    for data in (b"{", b'{"format": 9, "turns": []}', b"[]", b'{"format": 1, "turns": [{"x": 1}]}'):
        store._kept[Key("acme", "ann", "s")] = (Kept(data, "v"), None)
        with who(), pytest.raises(BadInput, match="stored session"):
            broken.say(question="q")


def test_it_is_json(store):
    """What is stored can be read by anything: JSON, and no pickle."""
    session, _ = talk(["ünï"], store=store)
    with who():
        session.say(question="q")
    kept = json.loads(store.load(Key("acme", "ann", "s")).data)
    assert kept["turns"][0]["outputs"] == {"answer": "ünï"}
    state = State.load(store.load(Key("acme", "ann", "s")).data)
    assert State.load(state.dump()) == state


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [({"store": "sessions.db"}, "store: expected one, like"), ({"ttl": "30d"}, "ttl: expected sec")],
)
def test_settings_are_of_their_types(wrong, expected):
    """A path for a store and a text for seconds are told before anybody says anything."""
    session, _ = talk(["x"])
    with pytest.raises(BadInput, match=expected):
        Session(session.program, id="s", **wrong)


@pytest.mark.slow
@pytest.mark.blocking(20_000)
async def test_without_a_session_nothing_is_remembered():
    """1,000 calls of one Escalate at once, without a session: each has its own answer, cost and climb."""
    gateway = gateway_of(m=ByQuestion(lambda p: _answer("to " + _asked(p))))
    qa = Escalate("question -> answer", rungs=["m"], policy=Constant(0), gateway=gateway, confidence=False)
    async with escalade.scope(budget="100", ledger=Ledger()) as run:
        got = await asyncio.gather(*(qa.acall(question=f"q{n}") for n in range(1_000)))
        assert run.spent == 1_000 * CALL == sum(one.cost for one in got)
        assert run.purse.held == 0
    assert [one.answer for one in got] == [f"to q{n}" for n in range(1_000)]
