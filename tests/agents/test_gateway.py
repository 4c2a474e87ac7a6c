"""The gateway: every attempt is one pass through the guard, whatever becomes of it."""

from __future__ import annotations

import asyncio
import copy
import pickle
import time

import dspy
import pytest
from dspy import lm15
from hypothesis import given
from hypothesis import strategies as st

from escalade.agents._route import Retry
from escalade.agents.gateway import Gateway, find_gateway
from escalade.agents.models import Model, hard_bound, measured_bound, prompt_size
from escalade.errors import (
    BadInput,
    BudgetExceeded,
    CircuitOpen,
    DeadlineExceeded,
    ForeignModel,
    NoScope,
    PermissionDenied,
    RateLimited,
    UnknownName,
    UnknownPrice,
)
from escalade.money import Money
from escalade.registry.access import Roles
from escalade.registry.breaker import Breaker
from escalade.registry.journal import Journal
from escalade.registry.opening import scope
from escalade.registry.prices import Price, frozen_prices, listed_price
from escalade.scopes import Principal
from tests.agents.scripted import ANSWER, Scripted, rate_limited

CHEAP, DEAR = Price.of("0.10", "0.40"), Price.of("10", "30")
COST = int(CHEAP.cost(100, 20))
AT_ONCE = Retry(retries=2, base=0.0)
MODES = ("sync", "async")


def two(small=(), big=(), *, retry=AT_ONCE, name="default", **options):
    """A gateway with a small model that falls back to a big one, both scripted."""
    first, second = Scripted(small), Scripted(big)
    gateway = Gateway(
        [
            Model("small", "sim/small", first, price=CHEAP, fallbacks="big", **options),
            Model("big", "sim/big", second, price=DEAR),
        ],
        retry=retry,
        name=name,
    )
    return gateway, first, second


def ask(gateway, mode, model="small", **inputs):
    """One Predict on the model, sync or async, without DSPy's adapter fallback."""
    predict = dspy.Predict("question -> answer")
    inputs = inputs or {"question": "q"}
    with dspy.context(lm=gateway.lm(model), adapter=dspy.ChatAdapter(use_json_adapter_fallback=False)):
        return predict(**inputs) if mode == "sync" else asyncio.run(predict.acall(**inputs))


def outcomes(journal):
    """[(model, outcome, cost), ...] of the admitted attempts."""
    return [(e.resource, e.outcome, e.cost) for e in journal.entries()]


@pytest.mark.parametrize("mode", MODES)
def test_answer_costs_what_the_provider_counted(mode):
    """One attempt, settled at the list price of the provider's own token counts."""
    gateway, small, _ = two()
    with scope(budget="0.10", recorder=(journal := Journal())) as run:
        assert ask(gateway, mode).answer == "42"
        assert run.spent == COST
        assert run.purse.held == 0
    assert outcomes(journal) == [("small", "ok", COST)]
    assert small.requests[0].model == "sim/small"


@pytest.mark.parametrize("mode", MODES)
def test_call_without_a_scope_is_refused(mode):
    """No scope, no call: fail closed, with a message that says how to open one."""
    gateway, small, _ = two()
    with pytest.raises(NoScope, match=r"escalade\.scope"):
        ask(gateway, mode)
    assert small.requests == []


TABLE = [
    # failure of the small model,          retried, small is billed for its failed attempts, big answers
    (rate_limited(0.0), True, False),
    (lm15.ServerError("boom"), True, False),
    (lm15.TimeoutError("late"), True, True),
    (lm15.TransportError("connection lost"), True, True),
    (lm15.AuthError("no"), False, False),
    (lm15.BillingError("quota"), False, False),
    (lm15.UnsupportedModelError("gone"), False, False),
    (lm15.ContextLengthError("too long"), False, False),
    (lm15.ProviderError("broken JSON"), False, True),
    (lm15.StreamAssemblyError("cut"), False, True),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("error", "retried", "is_billed"), TABLE, ids=lambda v: type(v).__name__)
def test_failure_is_retried_billed_and_falls_back_as_the_table_says(mode, error, retried, is_billed):
    """Each kind of failure does what the table in _route.py says, and each attempt is reserved and settled."""
    attempts = 3 if retried else 1
    gateway, small, big = two([error] * 3)
    with scope(budget="1.00", recorder=(journal := Journal())) as run:
        assert ask(gateway, mode).answer == "42"
        assert run.purse.held == 0
        assert run.spent == sum(e.cost for e in journal.entries())
    assert len(small.requests) == attempts
    assert len(big.requests) == 1
    failed = journal.entries()[:-1]
    assert [e.outcome for e in failed] == ["failed"] * attempts
    assert all(e.cost == (e.held if is_billed else 0) for e in failed)
    assert journal.running() == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("error", [lm15.InvalidRequestError("bad"), lm15.UnsupportedFeatureError("no")], ids=repr)
def test_mistake_of_the_caller_is_raised_at_once(mode, error):
    """A request that is wrong is wrong everywhere: no retry, no fallback, nothing billed."""
    gateway, small, big = two([error])
    with scope(budget="1.00") as run, pytest.raises(dspy.utils.exceptions.LMError):
        ask(gateway, mode)
    assert (len(small.requests), len(big.requests), run.spent) == (1, 0, 0)


def test_connection_that_was_never_made_costs_nothing():
    """A refused connection is a transport failure that billed nothing: nobody ever got the request."""
    refused = lm15.TransportError("refused")
    refused.__cause__ = ConnectionRefusedError()
    gateway, _, _ = two([refused] * 3)
    with scope(budget="1.00", recorder=(journal := Journal())):
        ask(gateway, "sync")
    assert [e.cost for e in journal.entries()[:3]] == [0, 0, 0]


@pytest.mark.parametrize("mode", MODES)
def test_retry_after_is_honoured(mode):
    """The provider's own Retry-After is waited for, once per failure."""
    gateway, small, _ = two([rate_limited(0.15)])
    began = time.perf_counter()
    with scope(budget="1.00"):
        ask(gateway, mode)
    assert time.perf_counter() - began >= 0.15
    assert len(small.requests) == 2


def test_long_retry_after_falls_back_at_once():
    """A wait beyond the patience isn't worth it when somebody else can answer."""
    gateway, small, big = two([rate_limited(3600.0)])
    with scope(budget="1.00"):
        ask(gateway, "sync")
    assert (len(small.requests), len(big.requests)) == (1, 1)


def test_wait_beyond_the_deadline_is_not_begun():
    """With less time left than the wait, the next model is tried instead."""
    gateway, small, big = two([rate_limited(10.0)])
    began = time.perf_counter()
    with scope(budget="1.00", deadline=5.0):
        ask(gateway, "sync")
    assert time.perf_counter() - began < 5.0
    assert (len(small.requests), len(big.requests)) == (1, 1)


@pytest.mark.parametrize("mode", MODES)
def test_last_error_is_raised_when_everything_failed(mode):
    """When all models fail, the error is of the kind of the last one, and names all."""
    gateway, _, _ = two([lm15.AuthError("bad key")], [lm15.ServerError("boom")] * 3)
    with (
        scope(budget="1.00") as run,
        pytest.raises(
            dspy.utils.exceptions.LMServerError,
            match=r"small: AuthError: bad key; big: ServerError: boom \(3 attempts\)",
        ),
    ):
        ask(gateway, mode)
    assert run.purse.held == 0


def test_open_circuit_is_not_tried_and_not_retried():
    """After enough failures in a row the route is left alone: no attempt, no wait, the fallback answers."""
    gateway, small, big = two([lm15.ServerError("boom")] * 99, breaker=Breaker(failures=3, cooldown=60))
    with scope(budget="1.00", recorder=(journal := Journal())):
        for _ in range(4):
            ask(gateway, "sync")
    assert len(small.requests) == 3
    assert len(big.requests) == 4
    assert [e.outcome for e in journal.denials()] == ["CircuitOpen"] * 3


def test_open_circuit_without_a_fallback_says_so():
    """With nobody to fall back to, CircuitOpen is raised and says when to come back."""
    lonely = Gateway([Model("only", "sim/only", Scripted(), price=CHEAP, breaker=Breaker(failures=1, cooldown=60))])
    lonely.model("only").breaker.failure(lonely.model("only").breaker.allow())
    with scope(budget="1.00"), pytest.raises(CircuitOpen, match="left alone") as caught:
        ask(lonely, "sync", "only")
    assert 0 < caught.value.retry_after <= 60


def test_caller_mistakes_do_not_open_the_circuit():
    """A context that is too long says nothing about the route's health."""
    breaker = Breaker(failures=2)
    gateway, small, _ = two([lm15.ContextLengthError("long")] * 9, breaker=breaker)
    with scope(budget="1.00"):
        for _ in range(5):
            ask(gateway, "sync")
    assert breaker.state == "closed"
    assert len(small.requests) == 5


def test_request_is_clamped_to_what_was_reserved():
    """max_tokens of the request never exceeds the model's: the reservation counts on it."""
    transport = Scripted()
    gateway = Gateway([Model("m", "sim/m", transport, price=CHEAP, max_output=50)])
    with scope(budget="1.00"):
        gateway.lm("m", max_tokens=4000)("hi")
        gateway.lm("m", max_tokens=20)("hi")
    assert [r.config.max_tokens for r in transport.requests] == [50, 20]


@pytest.mark.parametrize("mode", MODES)
def test_budget_is_checked_before_the_attempt(mode):
    """What doesn't fit is not sent, and the scope raises on exit even when the refusal was swallowed."""
    gateway, small, _ = two()
    with pytest.raises(BudgetExceeded), scope(budget="0.0000001"):
        with pytest.raises(BudgetExceeded, match="small may cost up to"):
            ask(gateway, mode)
    assert small.requests == []


def test_unpriced_model_under_a_budget_is_refused():
    """Unknown is never zero: under a budget it is refused by name, without one it runs."""
    gateway = Gateway([Model("x", "nobody/knows", Scripted())])
    with scope(budget="1.00"), pytest.raises(UnknownPrice, match="'x' has no known price"):
        ask(gateway, "sync", "x")
    with scope():
        assert ask(gateway, "sync", "x").answer == "42"


def test_usage_that_is_missing_settles_the_reservation():
    """A provider that doesn't count is billed at the upper bound."""
    gateway = Gateway([Model("x", "sim/x", Scripted(tokens=None), price=CHEAP)])
    with scope(budget="1.00", recorder=(journal := Journal())):
        ask(gateway, "sync", "x")
    (entry,) = journal.entries()
    assert entry.cost == entry.held > 0


def test_no_frozen_price_is_half_known():
    """Where the map that the snapshot was taken from has a 0, the price is unknown and not free; what has no answers to
    pay is no chat model.
    """
    prices = frozen_prices()._prices
    assert len(prices) > 2_000
    assert all(price.input > 0 for price in prices.values())
    free = {name for name, price in prices.items() if price.output == 0}
    assert not any(listed_price(name) for name in free)
    assert all(listed_price(name, "embedding") for name in free)


def test_usage_by_half_settles_the_reservation():
    """A provider that counts the prompt and not the answer has not told the price: unknown output is not free."""
    model = Model("x", "sim/x", Scripted(), price=CHEAP)
    assert model.bill(lm15.Usage(input_tokens=5)) is None
    assert model.bill(lm15.Usage(output_tokens=5)) is None
    assert model.bill(lm15.Usage(input_tokens=5, output_tokens=0)) == CHEAP.cost(5, 0)


def asked(text="hi", *, tools=(), parts=None, **config):
    """A request as one may build it by hand, for the model `x` of a gateway."""
    message = lm15.Message.user(parts or text)
    settings = lm15.Config(max_tokens=10, **config)
    return lm15.Request(model="escalade/x", messages=(message,), tools=tuple(tools), config=settings)


PICTURE = lm15.ImagePart(url="https://example.com/huge.png")
UNBOUNDED = {
    "setting 'max_completion_tokens'": asked(extensions={"max_completion_tokens": 10**6}),
    "setting 'best_of'": asked(extensions={"verbosity": "low", "best_of": 20}),
    "tool that the provider runs": asked(tools=[lm15.BuiltinTool("web_search")]),
    "service tier 'priority'": asked(service_tier="priority"),
    "image": asked(parts=[PICTURE]),
}


@pytest.mark.parametrize("what", UNBOUNDED)
def test_what_nothing_bounds_is_refused_under_a_budget(what):
    """What could cost more than any reservation is not sent under a budget, and billed as counted without one."""
    gateway = Gateway([Model("x", "sim/x", transport := Scripted(), price=CHEAP)])
    with scope(budget="1.00"), pytest.raises(UnknownPrice, match=what):
        gateway.lm("x")(UNBOUNDED[what])
    assert transport.requests == []
    with scope() as free:
        gateway.lm("x")(UNBOUNDED[what])
        assert free.spent == COST


def test_a_known_bound_of_media_is_reserved():
    """Whoever says how many tokens an image has at most, may send images under a budget."""
    gateway = Gateway([Model("x", "sim/x", Scripted(), price=CHEAP, media_tokens=5_000)])
    with scope(budget="1.00", recorder=(journal := Journal())):
        for n in range(3):
            gateway.lm("x")(asked(parts=[lm15.TextPart("hi"), *[PICTURE] * n]))
    none, one, two = (entry.held for entry in journal.entries())
    assert two - one >= one - none >= CHEAP.cost(5_000, 0)


@pytest.mark.parametrize(
    ("model", "reasoning", "more"),
    [
        ("sim/x", lm15.Reasoning(effort="high", thinking_budget=60_000), 60_000),
        ("anthropic/claude-haiku-4-5", lm15.Reasoning(effort="high"), 16_384),
        ("anthropic/claude-haiku-4-5", lm15.Reasoning(effort="off"), 0),
        ("openai/o3", lm15.Reasoning(effort="high"), 0),
    ],
)
def test_thinking_beside_the_answer_is_reserved(model, reasoning, more):
    """Where a route adds the budget for thinking to max_tokens, the reservation has it too."""
    gateway = Gateway([Model("x", model, Scripted(), price=CHEAP)])
    with scope(budget="1.00", recorder=(journal := Journal())):
        gateway.lm("x")(asked())
        gateway.lm("x")(asked(reasoning=reasoning))
    plain, thoughtful = (entry.held for entry in journal.entries())
    assert thoughtful - plain == CHEAP.cost(0, more)


@pytest.mark.parametrize("alias", ["gpt-5-mini", "o3"])
def test_an_alias_is_only_a_name(alias):
    """DSPy's rules for models of certain names don't hold for aliases: any settings go."""
    gateway = Gateway([Model(alias, "sim/x", transport := Scripted(), price=CHEAP)])
    with scope(budget="1.00"):
        gateway.lm(alias, temperature=0.0)("hi")
    (request,) = transport.requests
    assert (request.config.temperature, request.config.max_tokens) == (0.0, 1024)


def test_candidates_of_a_copy_are_those_of_its_model():
    """A copy on another alias is checked at that model's price; one on another engine is foreign, with n too."""
    gateway, small, big = two()
    both = int(DEAR.cost(50, 1024)) * 2
    with pytest.raises(BudgetExceeded), scope(budget=Money(both)):
        gateway.lm("small").copy(model="escalade/big")("hi", n=3)
    assert (small.requests, big.requests) == ([], [])
    with scope(), pytest.raises(ForeignModel):
        gateway.lm("small").copy(engine="auto", model="openai/gpt-4o")("hi", n=3)


def test_denied_model_is_not_called_and_a_denied_fallback_is_skipped():
    """Roles hold for models; a fallback that the caller may not use is no fallback, and the real error is raised."""
    access = Roles({"junior": ["model.small:call"]})
    who = Principal("ana", roles={"junior"})
    gateway, small, big = two([lm15.AuthError("bad key")])
    with scope(budget="1.00", principal=who, access=access):
        with pytest.raises(PermissionDenied, match="'ana' may not use model 'big'"):
            ask(gateway, "sync", "big")
        with pytest.raises(dspy.utils.exceptions.LMAuthError):
            ask(gateway, "sync", "small")
    assert (len(small.requests), len(big.requests)) == (1, 0)


def test_own_rate_limit_falls_back():
    """A model at its rate limit is passed over; without a fallback RateLimited says when to come back."""
    gateway, small, big = two(limits="1/min")
    with scope(budget="1.00"):
        ask(gateway, "sync")
        ask(gateway, "sync")
    assert (len(small.requests), len(big.requests)) == (1, 1)
    lonely = Gateway([Model("only", "sim/only", Scripted(), price=CHEAP, limits="1/min")])
    with scope(budget="1.00"):
        ask(lonely, "sync", "only")
        with pytest.raises(RateLimited, match="1/min") as caught:
            ask(lonely, "sync", "only")
    assert 0 < caught.value.retry_after <= 60


async def test_timeout_of_the_model_ends_the_attempt():
    """An attempt that takes longer than the model's timeout is cancelled, billed in full, and falls back."""
    gateway, _, big = two([5.0], retry=Retry(retries=0), timeout=0.05)
    with scope(budget="1.00", recorder=(journal := Journal())), dspy.context(lm=gateway.lm("small")):
        assert (await dspy.Predict("question -> answer").acall(question="q")).answer == "42"
    first = journal.entries()[0]
    assert first.outcome == "failed"
    assert first.cost == first.held
    assert len(big.requests) == 1


async def test_deadline_of_the_scope_ends_the_attempt():
    """When the scope's time is up, DeadlineExceeded is raised and nothing else is tried."""
    gateway, _, big = two([5.0])
    with scope(budget="1.00", deadline=0.1) as run, dspy.context(lm=gateway.lm("small")):
        with pytest.raises(DeadlineExceeded):
            await dspy.Predict("question -> answer").acall(question="q")
        assert run.purse.held == 0
    assert big.requests == []


async def test_cancelled_attempt_is_settled_once():
    """A cancelled call may have been billed: it settles at its reservation, exactly once, and holds nothing."""
    gateway, small, _ = two([30.0])
    with scope(budget="1.00", recorder=(journal := Journal())) as run, dspy.context(lm=gateway.lm("small")):
        task = asyncio.create_task(dspy.Predict("question -> answer").acall(question="q"))
        while not small.at_once:  # noqa: ASYNC110 - a model that is asked
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (entry,) = journal.entries()
        assert entry.outcome == "cancelled"
        assert run.spent == entry.cost == entry.held
        assert run.purse.held == 0


async def test_hundred_concurrent_calls_never_pass_the_budget():
    """Of a hundred concurrent calls exactly those that fit are made."""
    gateway, small, _ = two([0.001] * 200)
    predict = dspy.Predict("question -> answer")
    with pytest.raises(BudgetExceeded), scope(budget="0.005") as run, dspy.context(lm=gateway.lm("small")):
        done = await asyncio.gather(*(predict.acall(question="q") for _ in range(100)), return_exceptions=True)
        assert run.spent + run.purse.held <= 5_000_000
        refused = [d for d in done if isinstance(d, BudgetExceeded)]
        assert refused
        assert len(small.requests) == 100 - len(refused)


def test_candidates_that_do_not_fit_together_are_refused_before_the_first():
    """n=5 with money for three: DSPy would pay three and lose them all; nothing is paid."""
    gateway, small, _ = two()
    one = gateway.model("small").ceiling(70, None)
    with pytest.raises(BudgetExceeded), scope(budget=f"{3 * one / 1e9:.9f}"):
        with pytest.raises(BudgetExceeded, match="5 candidates"):
            gateway.lm("small")("hi", n=5)
    assert small.requests == []


def test_each_candidate_is_an_attempt_of_its_own():
    """n=3 makes three requests, three entries, three bills, and the history carries their sum."""
    gateway, small, _ = two()
    lm = gateway.lm("small")
    with scope(budget="1.00") as run:
        assert len(lm("hi", n=3)) == 3
        assert run.spent == 3 * COST
    assert len(small.requests) == 3
    assert lm.history[-1]["cost"] == pytest.approx(3 * COST / 1e9)


@pytest.mark.parametrize("mode", MODES)
def test_unparsable_answer_pays_for_dspys_second_call_too(mode):
    """The adapter's silent second call (Chat, then JSON) goes through the guard like any other."""
    gateway, small, _ = two(["no markers", '{"answer": "42"}'])
    predict = dspy.Predict("question -> answer")
    with scope(budget="1.00") as run, dspy.context(lm=gateway.lm("small"), adapter=dspy.ChatAdapter()):
        got = predict(question="q") if mode == "sync" else asyncio.run(predict.acall(question="q"))
        assert got.answer == "42"
        assert run.spent == 2 * COST
    assert len(small.requests) == 2


# ------------------------------------------------------------------------------------------------------- streams


async def read(gateway, question="q", *, stop_after=None):
    """Chunks of a streamified Predict; read in a task of its own, since leaving one early hurts its own task."""
    program = dspy.streamify(
        dspy.Predict("question -> answer"),
        stream_listeners=[dspy.streaming.StreamListener(signature_field_name="answer")],
    )
    got = []
    async for chunk in program(question=question):
        got.append(chunk)
        if stop_after is not None and len(got) >= stop_after:
            break
    return got


async def test_stream_is_settled_by_the_providers_count():
    """A stream that came to its end costs what the provider counted."""
    gateway, _, _ = two()
    with scope(budget="1.00") as run, dspy.context(lm=gateway.lm("small")):
        got = await read(gateway)
        assert got[-1].answer == "42"
        assert run.spent == COST


async def test_stream_falls_back_only_before_the_first_event():
    """A failure before anything was shown falls back; one in the middle is raised and billed by what was seen."""
    gateway, small, big = two([lm15.ServerError("boom")] * 3)
    with scope(budget="1.00"), dspy.context(lm=gateway.lm("small")):
        assert (await read(gateway))[-1].answer == "42"
    assert (len(small.requests), len(big.requests)) == (3, 1)


async def test_engine_stream_that_is_cut_is_billed_by_what_was_seen():
    """A cut stream raises its error and settles the prompt's bound and what came, at most the reservation."""
    gateway, _, big = two([(ANSWER, lm15.StreamAssemblyError("cut"))])
    engine = gateway.lm("small")._async_engine_spec
    request = lm15.Request(model="escalade/small", messages=(lm15.Message.user("hi"),))
    with scope(budget="1.00", recorder=(journal := Journal())) as run:
        with pytest.raises(lm15.StreamAssemblyError):
            async for _ in engine.stream(request):
                pass
        assert run.purse.held == 0
    (entry,) = journal.entries()
    assert 0 < entry.cost < entry.held
    assert big.requests == []


@pytest.mark.parametrize("mode", MODES)
def test_stream_that_is_left_early_is_settled(mode):
    """Leaving a stream ends the attempt: its reservation is settled by what was seen."""
    gateway, _, _ = two()
    lm = gateway.lm("small")
    request = lm15.Request(model="escalade/small", messages=(lm15.Message.user("hi"),))

    async def leave():
        events = lm._async_engine_spec.stream(request)
        await anext(events)
        await anext(events)
        await events.aclose()

    with scope(budget="1.00", recorder=(journal := Journal())) as run:
        if mode == "async":
            asyncio.run(leave())
        else:
            events = lm._engine_spec.stream(request)
            next(events), next(events)
            events.close()
        (entry,) = journal.entries()
        assert entry.outcome == "cancelled"
        assert 0 < run.spent < entry.held
        assert run.purse.held == 0


def test_sync_stream_falls_back_before_the_first_event():
    """The sync stream follows the same rules as the async one."""
    gateway, small, big = two([lm15.AuthError("no")])
    request = lm15.Request(model="escalade/small", messages=(lm15.Message.user("hi"),))
    with scope(budget="1.00") as run:
        events = list(gateway.lm("small")._engine_spec.stream(request))
        assert events[-1].type == "end"
        assert run.spent == DEAR.cost(100, 20)
    assert (len(small.requests), len(big.requests)) == (1, 1)


# ------------------------------------------------------------------------------------------------------ identity


def test_copies_share_the_gateway():
    """Deepcopy, copy and pickle of an LM keep its gateway: budgets and breakers are never split."""
    gateway, _, _ = two(name="shared")
    lm = gateway.lm("small")
    for twin in (copy.copy(lm), copy.deepcopy(lm), lm.copy(temperature=0.5), pickle.loads(pickle.dumps(lm))):
        assert twin._engine_spec.gateway is gateway
        assert twin._async_engine_spec.gateway is gateway
    assert copy.deepcopy(gateway) is gateway
    assert pickle.loads(pickle.dumps(gateway)) is gateway


def test_unknown_names_are_said():
    """An unknown model or gateway is named, with what is known."""
    gateway, _, _ = two()
    with pytest.raises(UnknownName, match="unknown model 'smal'; did you mean 'small'"):
        gateway.lm("smal")
    with pytest.raises(UnknownName, match="unknown gateway 'nowhere'"):
        find_gateway("nowhere")


def test_gateways_that_make_no_sense_are_refused():
    """Aliases are unique, there is at least one, fallbacks exist, numbers are positive."""
    with pytest.raises(BadInput, match="at least one"):
        Gateway([])
    with pytest.raises(BadInput, match="there twice"):
        Gateway([Model("a", "sim/a", Scripted()), Model("a", "sim/b", Scripted())])
    with pytest.raises(UnknownName, match="unknown model 'b'"):
        Gateway([Model("a", "sim/a", Scripted(), fallbacks=("b",))])
    with pytest.raises(BadInput, match="max_output"):
        Model("a", "sim/a", Scripted(), max_output=0)
    with pytest.raises(BadInput, match="retry"):
        Retry(retries=-1)
    with pytest.raises(BadInput, match="retry"):
        Retry(retries="2")


def test_fallbacks_of_fallbacks_are_followed_without_circles():
    """A -> b -> c -> a is tried as a, b, c."""
    broken = [lm15.AuthError("no")]
    gateway = Gateway(
        [
            Model("a", "sim/a", Scripted(broken), price=CHEAP, fallbacks="b"),
            Model("b", "sim/b", Scripted(broken), price=CHEAP, fallbacks="c"),
            Model("c", "sim/c", Scripted(), price=CHEAP, fallbacks="a"),
        ]
    )
    with scope(budget="1.00", recorder=(journal := Journal())):
        ask(gateway, "sync", "a")
    assert [e.resource for e in journal.entries()] == ["a", "b", "c"]


# -------------------------------------------------------------------------------------------------------- bounds


@given(st.text(max_size=200), st.integers(0, 10_000))
def test_reservation_bounds_the_bill(text, output):
    """For any prompt and any answer within max_tokens the reservation is at least the bill: one token per byte."""
    model = Model("m", "sim/m", Scripted(), price=CHEAP, max_output=5_000)
    request = lm15.Request(model="m", messages=(lm15.Message.user(text or "x"),))
    size = prompt_size(request)
    assert size >= len(text.encode())
    assert model.ceiling(size, output) >= CHEAP.cost(len(text.encode()), min(output, 5_000))


@given(st.integers(0, 10**9))
def test_measured_bound_is_tighter_and_monotone(size):
    """The measured bound lies between half and all of the hard one, and grows with the prompt."""
    assert size / 2 <= measured_bound(size) <= hard_bound(size)
    assert measured_bound(size) <= measured_bound(size + 1)


@pytest.mark.parametrize("wrong", ["models.yaml", Model("a", "a", Scripted())])
def test_a_gateway_takes_a_list(wrong):
    """One model, and the name of a file, are told from a list of models."""
    with pytest.raises(BadInput, match="a gateway takes a list of models, or Gateway.from_file"):
        Gateway(wrong)


@pytest.mark.parametrize("wrong", [True, "answers"])
def test_a_cache_is_one(wrong):
    """A switch or a path is no cache; it is told before the first call."""
    with pytest.raises(BadInput, match=r"cache: expected ResponseCache\('answers'\) or None"):
        Gateway([Model("a", "a", Scripted())], cache=wrong)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"transport": "litellm"}, r"model 'a': expected a transport, like LiteLLM\(\), got 'litellm'"),
        ({"transport": Scripted}, "model 'a': expected a transport"),
        ({"price": "0.15"}, r"model 'a': expected Price.of\(\"0.15\", \"0.60\"\) or None, got '0.15'"),
        ({"lane": "acme"}, r"model 'a': expected a Lane\('acme', rpm=60\), got 'acme'"),
    ],
)
def test_fields_of_a_model_are_of_their_types(fields, expected):
    """What would fail at the first call is refused when the model is made."""
    with pytest.raises(BadInput, match=expected):
        Model(**{"name": "a", "id": "a", "transport": Scripted(), **fields})


def test_a_gateway_that_nobody_named(monkeypatch):
    """Without `gateway=` it is the one named "default"; where there is none, the error says what to hand in."""
    monkeypatch.setattr("escalade.agents._gateways._gateways", {"one": object()})
    with pytest.raises(BadInput, match=r"Hand it in, gateway=Gateway\(.* \(there are: one\)"):
        find_gateway("default")
