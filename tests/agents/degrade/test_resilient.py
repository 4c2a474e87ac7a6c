"""Resilient by example: five levels, what is degraded and what never is, in threads and in coroutines."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import dspy
import pytest
from dspy import lm15

import escalade
from escalade import events
from escalade.agents._route import Retry
from escalade.agents.cache import ResponseCache
from escalade.agents.cache.similar import SimilarityCache
from escalade.agents.degrade import Answers, Replies, Reply, Resilient
from escalade.agents.escalate import Escalate
from escalade.agents.gateway import Gateway
from escalade.agents.models import Model
from escalade.agents.policies import Threshold
from escalade.errors import (
    ApprovalRequired,
    AuditUnavailable,
    BadInput,
    BudgetExceeded,
    NoScope,
    PermissionDenied,
    ScopeClosed,
)
from escalade.registry.access import Roles
from escalade.registry.audit import AuditLog
from escalade.registry.audit.reading import tail
from escalade.registry.breaker import Breaker
from escalade.registry.catalogue import Registry
from escalade.registry.limits import RateLimit
from escalade.registry.prices import Price
from escalade.registry.stores.disk_cache import DiskCache
from escalade.registry.tools import tool
from escalade.scopes import Principal
from tests.agents.scripted import Scripted
from tests.registry.approvals.calls import BOSS, charge, desk, governed
from tests.registry.approvals.calls import scope as approving
from tests.registry.helpers import Clock

PRICE = Price.of("1", "2")
DOWN = lm15.ServerError("boom", provider="test", status=500)
FOREVER = 99
ROLES = Roles({"user": ["model.*:call", "search:call"], "guest": ["model.other:call"]})
ANA, BO = Principal("ana", "acme", "user"), Principal("bo", "acme", "user")
EVE, GUEST = Principal("eve", "evil", "user"), Principal("gus", "acme", "guest")

Mode = Literal["sync", "async"]


@pytest.fixture(params=["sync", "async"])
def mode(request: pytest.FixtureRequest) -> Mode:
    """Called from a thread, or awaited."""
    found: Mode = request.param
    return found


def models(script: Any = (), spare: Any = None, **options: Any) -> tuple[dspy.Module, Scripted]:
    """A Predict on a scripted model, which has a fallback where `spare` is a script."""
    first = Scripted(script)
    made = [Model("main", "sim/main", first, price=PRICE, fallbacks=() if spare is None else "spare", **options)]
    if spare is not None:
        made.append(Model("spare", "sim/spare", Scripted(spare), price=PRICE))
    gateway = Gateway(made, name="resilient", retry=Retry(retries=0))
    program = dspy.Predict("question -> answer")
    program.set_lm(gateway.lm("main"))
    return program, first


def ask(program: dspy.Module, mode: Mode = "sync", question: str = "When?", **inputs: Any) -> Any:
    """One question."""
    if mode == "sync":
        return program(question=question, **inputs)
    return asyncio.run(program.acall(question=question, **inputs))


def who(principal: Principal, **options: Any) -> Any:
    """A scope for him."""
    return escalade.scope(principal=principal, access=ROLES, **options)


def test_the_primary_answers(mode: Mode) -> None:
    """Level 2: the program answered, on the model that it asked for; its prediction is at hand."""
    program, _ = models()
    with escalade.scope():
        answer = ask(Resilient(program), mode)
    assert (answer.answer, answer.level, answer.source) == ("42", 2, "primary")
    assert (answer.apology, answer.retry_after, answer.age, answer.model) == ("", None, None, "")
    assert answer.result.answer == "42"
    assert answer.explain() == "level 2, primary: answered"


def test_a_fallback_of_the_gateway(mode: Mode) -> None:
    """Level 3: another model answered, and the prediction says which."""
    program, _ = models([DOWN], spare=())
    with escalade.scope():
        answer = ask(Resilient(program), mode)
    assert (answer.answer, answer.level, answer.source, answer.model) == ("42", 3, "fallback", "spare")


def test_another_program(mode: Mode) -> None:
    """Level 3: a program that was given as a fallback; the reason of the first one's failure is told."""
    program, _ = models([DOWN] * FOREVER)
    spare = dspy.Predict("question -> answer")
    spare.set_lm(Gateway([Model("own", "sim/own", Scripted(), price=PRICE)], name="resilient own").lm("own"))
    with escalade.scope():
        answer = ask(Resilient(program, fallbacks=[spare]), mode)
    assert (answer.answer, answer.level, answer.source) == ("42", 3, "fallback")
    first, last = answer.explain().splitlines()
    assert first.startswith("level 2, primary: LMServerError")
    assert last == "level 3, fallback: another program"


def test_fresh_answers_cost_nothing(mode: Mode) -> None:
    """Level 1: within `fresh` seconds the answer of before is given, and nobody is called."""
    clock = Clock(1000.0)
    program, model = models()
    resilient = Resilient(program, answers=Answers(fresh=60, now=clock))
    with escalade.scope() as scope:
        ask(resilient, mode)
        spent = scope.spent
        clock.forward(59)
        answer = ask(resilient, mode)
        assert scope.spent == spent
        assert (answer.answer, answer.level, answer.source, answer.age) == ("42", 1, "cache", 59.0)
        clock.forward(2)
        assert ask(resilient, mode).level == 2
    assert len(model.requests) == 2


def test_the_response_cache_is_level_one(mode: Mode) -> None:
    """An answer that the gateway's own cache had is level 1, too."""
    gateway = Gateway([Model("main", "sim/main", Scripted(), price=PRICE)], name="cached", cache=ResponseCache())
    program = dspy.Predict("question -> answer")
    program.set_lm(gateway.lm("main", temperature=0.0))
    resilient = Resilient(program)
    with escalade.scope():
        assert [ask(resilient, mode).source for _ in range(2)] == ["primary", "cache"]


def test_stale_answers(mode: Mode) -> None:
    """Level 4: when nothing answers, an old answer does, up to `stale` seconds; it says how old it is, and when to try
    again.
    """
    clock = Clock(1000.0)
    program, _ = models(["[[ ## answer ## ]]\nold\n\n[[ ## completed ## ]]", *[DOWN] * FOREVER])
    resilient = Resilient(program, answers=Answers(fresh=0, stale=600, now=clock))
    with escalade.scope():
        ask(resilient, mode)
        clock.forward(599)
        answer = ask(resilient, mode)
        assert (answer.answer, answer.level, answer.source, answer.age) == ("old", 4, "stale", 599.0)
        assert (answer.retry_after, answer.apology) == (60.0, "")
        assert answer.explain().splitlines()[-1] == "level 4, stale: an answer 599 s old"
        clock.forward(2)
        assert ask(resilient, mode).level == 5


def test_static_replies(mode: Mode, tmp_path: Path) -> None:
    """Level 4: what somebody wrote, by pattern; where none matches, level 5."""
    program, _ = models([DOWN] * FOREVER)
    replies = Replies([Reply("From 9 to 18 h.", pattern="when .* open", name="hours")])
    resilient = Resilient(program, replies=replies)
    with escalade.scope():
        answer = ask(resilient, mode, "WHEN do you open?")
        assert (answer.answer, answer.level, answer.source) == ("From 9 to 18 h.", 4, "static")
        assert answer.explain().splitlines()[-1] == "level 4, static: reply 'hours'"
        assert ask(resilient, mode, "Who are you?").level == 5


def test_an_apology(mode: Mode) -> None:
    """Level 5: no exception but a prediction without an answer, with something to say and a time to try again."""
    program, _ = models([lm15.RateLimitError("slow down", provider="test", status=429, retry_after=120)])
    with escalade.scope():
        answer = ask(Resilient(program, apology="Volte mais tarde."), mode)
    assert (answer.answer, answer.level, answer.source) == (None, 5, "apology")
    assert (answer.apology, answer.retry_after) == ("Volte mais tarde.", 120.0)
    assert answer.explain().splitlines()[-1] == "level 5, apology: try again in 120 s"


def test_without_an_apology_it_raises(mode: Mode) -> None:
    """Where exceptions are wanted, the failure itself is raised."""
    program, _ = models([DOWN])
    with escalade.scope(), pytest.raises(dspy.LMError, match="boom"):
        ask(Resilient(program, apology=None), mode)


@pytest.mark.parametrize(
    ("failure", "wait"),
    [
        (lm15.AuthError("no key", provider="test", status=401), 60.0),
        (lm15.BillingError("no money", provider="test", status=429), 60.0),
        (lm15.TransportError("gone"), 60.0),
        (lm15.TimeoutError("hangs"), 60.0),
        (lm15.ProviderError("nonsense", provider="test"), 60.0),
        (lm15.UnsupportedModelError("who?", provider="test", status=404), 60.0),
        (lm15.NotConfiguredError("no key", provider="test"), 60.0),
    ],
)  # fmt: skip
def test_faults_of_providers(mode: Mode, failure: Exception, wait: float) -> None:
    """Whatever is wrong with a provider is degraded."""
    program, _ = models([failure])
    with escalade.scope():
        answer = ask(Resilient(program), mode)
    assert (answer.level, answer.retry_after) == (5, wait)


@pytest.mark.parametrize(
    "failure",
    [
        lm15.InvalidRequestError("bad", provider="test", status=400),
        lm15.ContextLengthError("too long", provider="test", status=400),
    ],
)
def test_the_caller_s_mistakes_are_not(mode: Mode, failure: Exception) -> None:
    """What would fail tomorrow, too, is raised."""
    program, _ = models([failure])
    with escalade.scope(), pytest.raises(dspy.LMError):
        ask(Resilient(program), mode)


def test_errors_of_programs_are_not(mode: Mode) -> None:
    """A mistake in the program is no fault that will pass."""

    class Wrong(dspy.Module):
        def forward(self, question: str) -> Any:
            raise KeyError(question)

        async def aforward(self, question: str) -> Any:
            raise KeyError(question)

    with escalade.scope(), pytest.raises(KeyError):
        ask(Resilient(Wrong()), mode)


def test_an_open_circuit(mode: Mode) -> None:
    """While the breaker is open the model is left alone, and the apology says for how long."""
    program, model = models([DOWN, DOWN], breaker=Breaker(failures=2, cooldown=30.0))
    resilient = Resilient(program)
    with escalade.scope():
        answers = [ask(resilient, mode) for _ in range(3)]
    assert len(model.requests) == 2
    assert "CircuitOpen" in answers[2].explain()
    assert 25.0 < answers[2].retry_after <= 30.0


def test_a_rate_limit_of_ours(mode: Mode) -> None:
    """A limit that is full is degraded, and says when there is room again."""
    program, _ = models(limits=(RateLimit(1, 60.0),))
    resilient = Resilient(program)
    with escalade.scope():
        assert [ask(resilient, mode, question).level for question in ("a", "b")] == [2, 5]
        assert 50 < ask(resilient, mode, "c").retry_after <= 60


def test_a_model_that_hangs(mode: Mode) -> None:
    """A timeout of the model, or of the program, ends in a worse answer, not in a wait."""
    program, _ = models([3.0] * FOREVER, timeout=0.05)
    with escalade.scope():
        if mode == "async":
            assert ask(Resilient(program), mode).level == 5

    class Sleeps(dspy.Module):
        async def aforward(self, question: str) -> Any:
            await asyncio.sleep(30)

    if mode == "async":
        with escalade.scope():
            answer = ask(Resilient(Sleeps(), timeout=0.05, outputs=["answer"]), mode)
        assert (answer.level, answer.answer) == (5, None)
        assert "TimeoutError" in answer.explain()


def test_a_deadline_that_has_passed(mode: Mode) -> None:
    """Time that is up is no reason for silence: what costs no call is given all the same."""
    program, model = models()
    with escalade.scope(deadline=0.01):
        import time

        time.sleep(0.02)
        answer = ask(Resilient(program, replies=Replies([Reply("Soon.", words=("when",))])), mode)
    assert (answer.answer, answer.level) == ("Soon.", 4)
    assert "DeadlineExceeded" in answer.explain()
    assert model.requests == []


def test_a_denial_is_never_masked(mode: Mode) -> None:
    """Who may not use the model is told so: no answer of others, no reply, no apology; fresh or stale."""
    program, _ = models()
    replies = Replies([Reply("From 9 to 18 h.", words=("when",))])
    resilient = Resilient(program, answers=Answers(), replies=replies)
    with who(ANA):
        assert ask(resilient, mode).level == 2
    with who(GUEST), pytest.raises(PermissionDenied):
        ask(resilient, mode)


def test_a_closed_scope_is_never_masked(mode: Mode) -> None:
    """What outlives its scope gets nothing, not even what is kept."""
    program, _ = models()
    resilient = Resilient(program, answers=Answers())
    with escalade.scope() as scope:
        ask(resilient, mode)
    with dspy.context(escalade=scope), pytest.raises(ScopeClosed):
        ask(resilient, mode)
    with pytest.raises(NoScope):
        ask(resilient, mode)


def test_budgets_are_degraded_where_asked(mode: Mode) -> None:
    """A budget that is used up is raised, and sticks to the scope; with also=["budget"] it is a worse answer, and the
    scope goes on.
    """
    program, _ = models()
    with pytest.raises(BudgetExceeded), escalade.scope(budget="0.000001"):
        with pytest.raises(BudgetExceeded):
            ask(Resilient(program), mode)
    with escalade.scope(budget="0.000001") as scope:
        answer = ask(Resilient(program, also=["budget"]), mode)
        assert answer.level == 5
        assert "BudgetExceeded" in answer.explain()
        assert scope.spent == 0


def test_a_budget_that_was_swallowed(mode: Mode) -> None:
    """A refusal that the program hides is a refusal all the same."""
    program, _ = models()

    class Swallows(dspy.Module):
        def forward(self, question: str) -> Any:
            try:
                return program(question=question)
            except BudgetExceeded:
                return dspy.Prediction(answer="all is well")

        async def aforward(self, question: str) -> Any:
            try:
                return await program.acall(question=question)
            except BudgetExceeded:
                return dspy.Prediction(answer="all is well")

    with escalade.scope(budget="0.000001"):
        assert ask(Resilient(Swallows(), also=["budget"], outputs=["answer"]), mode).level == 5


def test_an_answer_that_does_not_parse(mode: Mode) -> None:
    """Garbage is raised, or degraded where that is asked for."""
    program, _ = models(["garbage"] * FOREVER)
    with escalade.scope():
        with pytest.raises(dspy.utils.exceptions.AdapterParseError):
            ask(Resilient(program), mode)
        assert ask(Resilient(program, also=["format"]), mode).level == 5


# -- whose answers


def test_tenants_share_nothing(mode: Mode) -> None:
    """Users of one tenant with the same roles share answers; another tenant has none, stale or fresh."""
    program, _ = models(["[[ ## answer ## ]]\nours\n\n[[ ## completed ## ]]", *[DOWN] * FOREVER])
    resilient = Resilient(program, answers=Answers())
    with who(ANA):
        ask(resilient, mode)
    with who(BO):
        assert ask(resilient, mode).answer == "ours"
    with who(EVE):
        assert (ask(resilient, mode).level, ask(resilient, mode).answer) == (5, None)
    with who(ANA), escalade.scope(principal=EVE):
        assert ask(resilient, mode).level == 5


def test_answers_per_user(mode: Mode) -> None:
    """Kept per user, nobody else has them."""
    program, _ = models(["[[ ## answer ## ]]\nmine\n\n[[ ## completed ## ]]", *[DOWN] * FOREVER])
    resilient = Resilient(program, answers=Answers(per="user"))
    with who(ANA):
        ask(resilient, mode)
        assert ask(resilient, mode).answer == "mine"
    with who(BO):
        assert ask(resilient, mode).level == 5


def test_what_was_used_must_be_allowed_now(mode: Mode) -> None:
    """An answer that was made with a tool is not for a user who may not use it, though his roles are the same: a policy
    may look at the user.
    """

    class Fickle:
        """The roles' policy, with users that are barred from the tool."""

        digest = ROLES.digest
        barred: frozenset[str] = frozenset()

        def decide(self, principal: Principal, permission: str, effect: str = "") -> Any:
            if permission == "search:call" and principal.user in self.barred:
                return ROLES.decide(Principal("x", "x", "guest"), permission, effect)
            return ROLES.decide(principal, permission, effect)

        def check_roles(self, roles: frozenset[str]) -> None:
            ROLES.check_roles(roles)

    @tool(version="1.0.0", cost="0.01", side_effects="read")
    def search(question: str) -> str:
        """Search."""
        return f"found {question}"

    find = Registry([search]).resolve("search")

    class Searches(dspy.Module):
        def forward(self, question: str) -> Any:
            return dspy.Prediction(answer=find(question=question))

        async def aforward(self, question: str) -> Any:
            return dspy.Prediction(answer=find(question=question))

    access = Fickle()
    resilient = Resilient(Searches(), answers=Answers(), outputs=["answer"])
    with escalade.scope(principal=ANA, access=access):
        assert ask(resilient, mode).level == 2
        assert ask(resilient, mode).level == 1
    access.barred = frozenset({"bo"})
    with escalade.scope(principal=BO, access=access), pytest.raises(PermissionDenied):
        ask(resilient, mode)


def test_inputs_and_programs_are_told_apart(mode: Mode) -> None:
    """Another question, and another program on the same cache, find nothing."""
    program, _ = models()
    answers = Answers()
    with escalade.scope():
        ask(Resilient(program, answers=answers, name="one"), mode)
        assert ask(Resilient(program, answers=answers, name="one"), mode).level == 1
        assert ask(Resilient(program, answers=answers, name="two"), mode).level == 2
        assert ask(Resilient(program, answers=answers, name="one"), mode, "Who?").level == 2


def test_what_is_not_kept(mode: Mode) -> None:
    """Neither stale answers, replies and apologies, nor answers that were cut off, nor those that are no JSON."""
    program, _ = models([DOWN] * FOREVER)
    replies, answers = Replies([Reply("Soon.", words=("when",))]), Answers()
    with escalade.scope():
        assert [ask(Resilient(program, replies=replies, answers=answers), mode).level for _ in range(2)] == [4, 4]

    class Odd(dspy.Module):
        def forward(self, question: str) -> Any:
            return dspy.Prediction(answer=(1, 2))

        async def aforward(self, question: str) -> Any:
            return self.forward(question)

    with escalade.scope():
        resilient = Resilient(Odd(), answers=Answers(), outputs=["answer"])
        assert [ask(resilient, mode).level for _ in range(2)] == [2, 2]


@pytest.mark.parametrize(("effect", "levels"), [("read", [2, 1]), ("write", [2, 2])])
def test_what_changes_the_world_is_not_kept(mode: Mode, effect: Any, levels: list[int]) -> None:
    """An answer that was made with a writing tool is given once: it would not be true the second time."""

    @tool(version="1.0.0", cost="0.01", side_effects=effect)
    def book(question: str) -> str:
        """Book it."""
        return "booked"

    call = Registry([book]).resolve("book")

    class Books(dspy.Module):
        def forward(self, question: str) -> Any:
            return dspy.Prediction(answer=call(question=question))

        async def aforward(self, question: str) -> Any:
            return self.forward(question)

    resilient = Resilient(Books(), answers=Answers(), outputs=["answer"])
    with escalade.scope():
        assert [ask(resilient, mode).level for _ in range(2)] == levels


@pytest.mark.parametrize("grant", [{"permit": "search:call", "when": {"question": {"in": ["When?"]}}}])
def test_arguments_that_a_policy_looks_at(mode: Mode, grant: Any) -> None:
    """Where it depends on the arguments who may use a tool, an answer of before is given to nobody."""

    @tool(version="1.0.0", cost="0.01", side_effects="read")
    def search(question: str) -> str:
        """Search."""
        return "found"

    call = Registry([search]).resolve("search")

    class Searches(dspy.Module):
        def forward(self, question: str) -> Any:
            return dspy.Prediction(answer=call(question=question))

        async def aforward(self, question: str) -> Any:
            return self.forward(question)

    resilient = Resilient(Searches(), answers=Answers(), outputs=["answer"])
    with escalade.scope(principal=ANA, access=Roles({"user": {"grants": [grant]}})):
        assert [ask(resilient, mode).level for _ in range(2)] == [2, 2]


def test_one_consent_is_one_answer(mode: Mode) -> None:
    """An answer that was made with a call that a person approved is given once; the next one asks again."""
    used = governed(charge, approval="always", side_effects="read")
    at = desk()

    class Charges(dspy.Module):
        def forward(self, question: str) -> Any:
            return dspy.Prediction(answer=used(amount=5))

        async def aforward(self, question: str) -> Any:
            return self.forward(question)

    resilient = Resilient(Charges(), answers=Answers(), outputs=["answer"])
    with approving(at):
        with pytest.raises(ApprovalRequired) as caught:
            ask(resilient, mode)
        at.approve(caught.value.request_id, BOSS)
        assert ask(resilient, mode).level == 2
        with pytest.raises(ApprovalRequired):
            ask(resilient, mode)


def test_answers_on_disk(mode: Mode, tmp_path: Path) -> None:
    """Kept on disk, answers survive the process; a row that is none of ours is a miss."""
    program, _ = models()
    with escalade.scope():
        ask(Resilient(program, answers=Answers(DiskCache(tmp_path / "a"))), mode)
    down, _ = models([DOWN] * FOREVER)
    answers = Answers(DiskCache(tmp_path / "a"))
    with escalade.scope():
        assert ask(Resilient(down, answers=answers), mode).level == 1
    key = answers._key("Predict answer", {"question": "When?"}, scope_of_owner())
    assert key is not None
    answers._cache.set(key, b'{"at": "yesterday"}', 60, "")
    with escalade.scope():
        assert ask(Resilient(down, answers=answers), mode).level == 5
    assert answers.failed == 1


def scope_of_owner() -> Any:
    """The scope of a script."""
    with escalade.scope() as scope:
        return scope


class Letters:
    """Two questions are the same when their first words are."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], str] = {}

    def find(self, family: str, question: str) -> str | None:
        return self.known.get((family, question.split(maxsplit=1)[0]))

    def learn(self, family: str, question: str, key: str) -> None:
        self.known[family, question.split(maxsplit=1)[0]] = key


def test_similar_answers(mode: Mode) -> None:
    """Level 4: the answer to nearly the same question of the same tenant, where all other inputs are the same."""
    program, _ = models(["[[ ## answer ## ]]\nours\n\n[[ ## completed ## ]]", *[DOWN] * FOREVER])
    resilient = Resilient(program, answers=Answers(similar=Letters()))
    with who(ANA):
        ask(resilient, mode, "Opening hours please?")
        answer = ask(resilient, mode, "Opening times?")
        assert (answer.answer, answer.level, answer.source) == ("ours", 4, "similar")
        assert ask(resilient, mode, "Closing times?").level == 5
    with who(EVE):
        assert ask(resilient, mode, "Opening times?").level == 5


class Broken:
    """An index whose embedder is down, too."""

    def find(self, family: str, question: str) -> str | None:
        raise lm15.ServerError("boom", provider="test", status=500)

    def learn(self, family: str, question: str, key: str) -> None:
        raise lm15.ServerError("boom", provider="test", status=500)


def test_an_index_that_fails_is_a_miss(mode: Mode) -> None:
    """Where nothing can be compared, nothing is similar; the answer itself is kept, and the failures are counted."""
    program, _ = models(["[[ ## answer ## ]]\nours\n\n[[ ## completed ## ]]", *[DOWN] * FOREVER])
    answers = Answers(similar=Broken())
    resilient = Resilient(program, answers=answers)
    with who(ANA):
        assert ask(resilient, mode, "Opening hours?").level == 2
        assert ask(resilient, mode, "Opening times?").level == 5
        assert ask(resilient, mode, "Opening hours?").level == 1
    assert answers.failed == 2


def test_inputs_that_are_no_json_are_not_kept(mode: Mode) -> None:
    """What can't be a key finds nothing, and disturbs nothing."""

    class Takes(dspy.Module):
        def forward(self, question: Any) -> Any:
            return dspy.Prediction(answer="yes")

        async def aforward(self, question: Any) -> Any:
            return self.forward(question)

    resilient = Resilient(Takes(), answers=Answers(similar=Letters()), outputs=["answer"])
    with escalade.scope():
        for odd in (object(), float("nan")):
            assert [ask(resilient, mode, odd).level for _ in range(2)] == [2, 2]  # type: ignore[arg-type]


def test_similar_answers_by_ngrams(mode: Mode) -> None:
    """With the index of the response cache: other words for the same are found, another number is not."""
    program, _ = models(["[[ ## answer ## ]]\nours\n\n[[ ## completed ## ]]", *[DOWN] * FOREVER])
    resilient = Resilient(program, answers=Answers(similar=SimilarityCache(threshold=0.6)))
    with who(ANA):
        ask(resilient, mode, "What does the small box cost?")
        assert ask(resilient, mode, "What does the small box cost").source == "similar"
        assert ask(resilient, mode, "What do 12 small boxes cost?").level == 5


# -- around it


def test_answers_of_before_are_recorded(mode: Mode, tmp_path: Path) -> None:
    """Whoever is given an answer of before is in the record, with where it came from; without a record he gets none."""
    program, _ = models([*["[[ ## answer ## ]]\nours\n\n[[ ## completed ## ]]"], *[DOWN] * FOREVER])
    resilient = Resilient(program, answers=Answers())
    with AuditLog(tmp_path / "audit.sqlite") as log:
        with who(ANA, recorder=log):
            ask(resilient, mode)
        with who(BO, recorder=log):
            assert ask(resilient, mode).level == 1
        log.flush()
        rows = [row.fields() for row in tail(tmp_path / "audit.sqlite", 20) if row.event == "outcome"]
    assert [(row["user"], row["kind"], row["cost"]) for row in rows] == [
        ("ana", "model", 140_000),
        ("bo", "program", 0),
    ]
    assert rows[1]["source"] == "cache"
    with pytest.raises(AuditUnavailable), who(BO, recorder=log):
        ask(resilient, mode)


def test_events_and_counts(mode: Mode) -> None:
    """Each answer is an event with its level and the first reason; the module and its copies count together."""
    program, _ = models([DOWN, DOWN])
    resilient = Resilient(program)
    heard: list[Any] = []
    with escalade.scope(listen=heard.append):
        ask(resilient, mode)
        ask(copy.deepcopy(resilient), mode)
        ask(resilient, mode)
    served = [event for event in heard if isinstance(event, events.Served)]
    assert [(event.level, event.source) for event in served] == [(5, "apology"), (5, "apology"), (2, "primary")]
    assert served[0].why.startswith("level 2, primary: LMServerError")
    assert served[2].why == ""
    assert resilient.served == {1: 0, 2: 1, 3: 0, 4: 0, 5: 2}


def test_a_climb_in_it(mode: Mode) -> None:
    """Around Escalate: the climb is at hand, and one that fails on all rungs is degraded."""
    first = Scripted(["[[ ## answer ## ]]\n7\n\n[[ ## completed ## ]]", *[DOWN] * FOREVER])
    gateway = Gateway([Model("main", "sim/main", first, price=PRICE)], name="climbs", retry=Retry(retries=0))
    climb = Escalate("question -> answer", rungs=["main"], policy=Threshold(0.0), gateway=gateway, confidence=False)
    resilient = Resilient(climb)
    with escalade.scope(budget="1"):
        answer = ask(resilient, mode)
        assert (answer.answer, answer.level) == ("7", 2)
        assert answer.result.rung.name == "Predict/main"
        assert ask(resilient, mode).level == 5


def test_predictors_are_found_and_saved(tmp_path: Path) -> None:
    """Optimisers find the predictors of the program and of its fallbacks; state is saved and loaded."""
    (one, _), (two, _) = models(), models()
    resilient = Resilient(one, fallbacks=[two])
    assert [name for name, _ in resilient.named_predictors()] == ["program", "fallbacks[0]"]
    one.demos = [dspy.Example(question="q", answer="a")]
    resilient.save(tmp_path / "program.json")
    other = Resilient(models()[0], fallbacks=[models()[0]])
    other.load(tmp_path / "program.json", allow_unsafe_lm_state=True)
    assert [dict(demo) for demo in other.program.demos] == [{"question": "q", "answer": "a"}]


def test_many_at_once() -> None:
    """A hundred questions at once, half of which fail: each has the level that is its own."""

    class Half(dspy.Module):
        async def aforward(self, question: str) -> Any:
            await asyncio.sleep(0)
            if int(question) % 2:
                raise lm15.ServerError("boom", provider="test", status=500)
            return dspy.Prediction(answer=question)

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(resilient.acall(question=str(i)) for i in range(100)))

    resilient = Resilient(Half(), outputs=["answer"])
    with escalade.scope():
        answers = asyncio.run(all_of_them())
    assert [answer.level for answer in answers] == [2, 5] * 50
    assert resilient.served == {1: 0, 2: 50, 3: 0, 4: 0, 5: 50}


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"also": ["rbac"]}, r"also=\['rbac'\] can't be degraded"),
        ({"fallbacks": ["main"]}, "expected a dspy.Module, got 'main'"),
        ({"timeout": 0}, "expected seconds"),
        ({"retry_after": -1}, "expected seconds"),
        ({"replies": Replies([Reply({"anser": "x"}, words=("x",), name="typo")])}, "'typo': .* no output 'anser'"),
    ],
)
def test_bad_settings(options: Mapping[str, Any], what: str) -> None:
    """What can't be meant is told where it is written."""
    with pytest.raises(BadInput, match=what):
        Resilient(models()[0], **options)


def test_bad_answers() -> None:
    """Seconds have an order, and owners two kinds."""
    with pytest.raises(BadInput, match="0 <= fresh <= stale"):
        Answers(fresh=10, stale=5)
    with pytest.raises(BadInput, match="per 'tenant' or per 'user'"):
        Answers(per="role")  # type: ignore[arg-type]
