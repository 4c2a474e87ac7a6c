"""Tiers, regions, roles, contexts and tokens per minute: what holds for models beyond price and rate limits."""

from __future__ import annotations

import threading
from contextlib import nullcontext

import dspy
import pytest
from dspy import lm15
from dspy.lm15 import Message, Request

from escalade import Journal, Principal, Roles, scope
from escalade.agents._route import Retry
from escalade.agents.gateway import Gateway
from escalade.agents.lanes.lane import Lane
from escalade.agents.models import Model
from escalade.agents.transports import Simulated
from escalade.agents.world import SimModel, World
from escalade.errors import BadInput, PermissionDenied, RateLimited
from escalade.registry.prices import Price
from tests.agents.lanes.clock import FakeClock

WORLD = World({"a": SimModel(), "b": SimModel()})
POLICY = Roles({"reader": ["model.*:call"], "analyst": ["model.*:call"]})


def model(name: str = "a", **options) -> Model:
    """A simulated one."""
    return Model(name, name, Simulated(WORLD), price=Price.of("0.1", "0.4"), **options)


def ask(gateway: Gateway, name: str = "a", text: str = "What is 2 + 2?"):
    """One call past DSPy's adapters."""
    request = Request(model=f"escalade/{name}", messages=(Message.user(text),))
    return gateway.lm(name)._engine_spec.complete(request)


def answered_by(gateway: Gateway, principal: Principal | None = None, text: str = "What is 2 + 2?") -> str:
    """Which model answered."""
    with scope(principal=principal, access=POLICY if principal else None):
        return ask(gateway, text=text).provider_data["escalade"]["model"]


def test_a_chain_keeps_to_its_tier_unless_said():
    """Fallbacks of another tier are refused, also those of fallbacks, unless `fallback_tiers` lets them."""
    far = [
        model("a", tier=1, fallbacks="b", fallback_tiers="same"),
        model("b", tier=1, fallbacks="c", fallback_tiers="up"),
    ]
    with pytest.raises(BadInput, match="'c' is of tier 3, and 'a' of tier 1 falls back to its own tier only"):
        Gateway([*far, model("c", tier=3)])
    for way, ok in (("same", False), ("up", True), ("down", False), ("any", True)):
        pair = [model("a", tier=1, fallbacks="b", fallback_tiers=way), model("b", tier=2)]
        if ok:
            assert [m.name for m in Gateway(pair)._routes["a"]] == ["a", "b"]
        else:
            with pytest.raises(BadInput, match="write `fallback_tiers: up`"):
                Gateway(pair)
    Gateway([model("a", tier=4, fallbacks="b", fallback_tiers="down"), model("b", tier=2)])
    Gateway([model("a", tier=4, fallbacks="b"), model("b")])  # no tier, no rule


def test_tiers_are_one_to_four():
    """Others are refused, in models and in questions."""
    for tier in (0, 5):
        with pytest.raises(BadInput, match="tier from 1 to 4"):
            model(tier=tier)
        with pytest.raises(BadInput, match="tier from 1 to 4"):
            Gateway([model()]).tier(tier)


def test_a_model_of_another_region_is_refused():
    """Tenants, roles and users can be bound to regions; a model that doesn't say where it is counts as elsewhere."""
    bound = {"tenant:acme": "eu", "role:analyst": ["eu", "us"]}
    acme, gov = Principal("ann", "acme", {"reader"}), Principal("bob", "other", {"analyst"})
    free = Principal("eve", "other", {"reader"})
    for region, allowed in (("eu", {acme, gov, free}), ("us", {gov, free}), ("", {free})):
        gateway = Gateway([model(region=region)], regions=bound)
        for who in (acme, gov, free):
            if who in allowed:
                assert answered_by(gateway, who) == "a"
            else:
                with pytest.raises(PermissionDenied, match="may use eu"):
                    answered_by(gateway, who)


def test_roles_of_models_and_regions_are_inherited():
    """Who inherits a role is bound to its regions, and gets the models that are for it."""
    policy = Roles({"gov": ["model.*:call"], "clerk": {"inherits": ["gov"]}, "free": ["model.*:call"]})
    bound = Gateway([model(region="us")], regions={"role:gov": "eu"})
    theirs = Gateway([model(roles=["gov"])])
    for role, answers in (("gov", (False, True)), ("clerk", (False, True)), ("free", (True, False))):
        for gateway, answer in zip((bound, theirs), answers, strict=True):
            refused = nullcontext() if answer else pytest.raises(PermissionDenied)
            with scope(principal=Principal("bob", roles={role}), access=policy), refused:
                ask(gateway)


def test_regions_hold_in_nested_scopes_and_are_recorded():
    """Whoever the inner scope is for, the outer one's tenant is still bound; the refusal is on record."""
    gateway = Gateway([model(region="us")], regions={"tenant:acme": "eu"})
    outer, inner = Principal("ann", "acme", {"reader"}), Principal("eve", "other", {"reader"})
    with scope(principal=outer, access=POLICY, recorder=(journal := Journal()), budget="1") as run:
        with scope(principal=inner), pytest.raises(PermissionDenied, match="'tenant:acme' may use eu only"):
            ask(gateway)
        assert run.purse.spent == run.purse.held == 0
    assert [entry.outcome for entry in journal.denials()] == ["PermissionDenied"]


def test_a_fallback_of_another_region_is_skipped():
    """The chain goes on to a model that is allowed."""
    broken = World({"a": SimModel(fail_every=1, error=lm15.AuthError("no"))})
    first = Model("a", "a", Simulated(broken), price=Price.of("1", "1"), region="eu", fallbacks=("us", "eu"))
    others = [Model(name, "b", Simulated(WORLD), price=Price.of("1", "1"), region=name) for name in ("us", "eu")]
    gateway = Gateway([first, *others], regions={"*": "eu"})
    assert answered_by(gateway, Principal("ann", "acme", {"reader"})) == "eu"


def test_wrong_regions_are_refused():
    """They are for somebody, and are names."""
    for wrong in ({"acme": "eu"}, {"tenant:acme": []}, {"tenant:acme": [""]}):
        with pytest.raises(BadInput, match="region"):
            Gateway([model()], regions=wrong)


def test_roles_of_a_model_narrow_the_policy():
    """Only who has one of them may use it; a script of one's own may, and the policy still has to grant it."""
    gateway = Gateway([model(roles=("analyst",))])
    assert answered_by(gateway, Principal("bob", "x", {"analyst"})) == "a"
    assert answered_by(gateway) == "a"
    with pytest.raises(PermissionDenied, match="is for the roles analyst; 'ann' has none of them"):
        answered_by(gateway, Principal("ann", "x", {"reader"}))
    with scope(principal=Principal("bob", "x", {"analyst"}), access=Roles({"analyst": ["crm.*:call"]})):
        with pytest.raises(PermissionDenied):
            ask(gateway)


def test_a_prompt_that_cannot_fit_is_not_sent():
    """The next model gets it, and the first one isn't asked; a prompt that may fit is."""
    world = World({"a": SimModel(), "b": SimModel()})
    small = Model("a", "a", Simulated(world), price=Price.of("1", "1"), max_output=10, context=100, fallbacks="b")
    big = Model("b", "b", Simulated(world), price=Price.of("1", "1"), context=100_000)
    gateway = Gateway([small, big])
    assert answered_by(gateway, text="word " * 400) == "b"
    assert world.calls == {"b": 1}
    assert answered_by(gateway, text="word " * 80) == "a"


def test_a_context_without_room_for_a_prompt_is_refused():
    """It is a mistake in the figures."""
    with pytest.raises(BadInput, match="no room"):
        model(context=1000, max_output=1000)


def test_rate_limits_by_whose_uses_count():
    """As for tools: each user has his own, and those of a tenant count together."""
    gateway = Gateway([model(limits={"user": "2/min", "tenant": "3/min"})])
    ann, bob = Principal("ann", "acme", {"reader"}), Principal("bob", "acme", {"reader"})
    asked = [ann, ann, ann, bob, bob, Principal("ann", "other", {"reader"})]
    told = []
    for who in asked:
        try:
            told.append(answered_by(gateway, who))
        except RateLimited:
            told.append("full")
    assert told == ["a", "a", "full", "a", "full", "a"]


def test_a_role_has_to_grant_the_model_by_its_name():
    """`model.NAME:call`, or what the model says instead."""
    gateway = Gateway([model("a"), model("b", permission="premium:use")])
    for grants, allowed in ((["model.a:call"], "a"), (["model.*:call"], "a"), (["premium:use"], "b")):
        with scope(principal=Principal("ann", "x", {"r"}), access=Roles({"r": grants})) as run:
            assert [name for name in ("a", "b") if gateway.allows(name, run)] == [allowed]
            ask(gateway, allowed)
            with pytest.raises(PermissionDenied):
                ask(gateway, {"a": "b", "b": "a"}[allowed])


def test_tokens_per_minute_hold_and_fall_back():
    """When a model's tokens are used up, the next one answers; without one, the refusal says when to come back."""
    tight = model("a", tpm=400, max_output=100, fallbacks="b")
    gateway = Gateway([tight, model("b")])
    by = [answered_by(gateway) for _ in range(60)]
    assert by[0] == "a"
    assert by[-1] == "b"
    assert 0 < tight.lane.status.tokens <= 400
    alone = Gateway([model("a", tpm=100, max_output=100)])
    answered_by(alone)
    with (
        scope(recorder=(journal := Journal()), deadline=5),
        pytest.raises(RateLimited, match="100 tokens/min; try again in") as full,
    ):
        ask(alone, text="What is 3 + 4?" * 5)
    assert 0 < (full.value.retry_after or 0) <= 60.0
    assert [entry.outcome for entry in journal.denials()] == ["RateLimited"]


def test_what_counts_is_the_providers_count():
    """A call that was expected to be long and was not, leaves room again; one that failed unbilled, all of it."""
    gateway = Gateway([model("a", tpm=10_000, max_output=5_000)])
    with scope():
        answer = ask(gateway)
    used = gateway.model("a").lane.status.tokens
    assert used == answer.usage.input_tokens + answer.usage.output_tokens < 1_000
    broken = World({"a": SimModel(fail_every=1, error=lm15.AuthError("no"))})
    failing = Gateway([Model("a", "a", Simulated(broken), price=Price.of("1", "1"), tpm=10_000)])
    with scope(), pytest.raises(lm15.AuthError):
        ask(failing)
    assert failing.model("a").lane.status.tokens == 0


def test_a_timeout_counts_whatever_the_price():
    """The provider may have counted it, also where its price isn't known here."""
    slow = World({"a": SimModel(fail_every=1, error=lm15.TimeoutError("late"))})
    gateway = Gateway([Model("a", "a", Simulated(slow), tpm=10_000, max_output=500)], retry=Retry(retries=0))
    with scope(), pytest.raises(lm15.TimeoutError):
        ask(gateway)
    assert gateway.model("a").lane.status.tokens > 500


async def test_streams_count_tokens_too():
    """By the provider's count at their end; one that is left early, by what it was expected to use."""
    gateway = Gateway([model("a", tpm=100_000, max_output=50)])
    engine = gateway.lm("a")._async_engine_spec
    request = Request(model="escalade/a", messages=(Message.user("What is 2 + 2?"),))
    with scope():
        events = [event async for event in engine.stream(request)]
        usage = events[-1].usage
        assert gateway.model("a").lane.status.tokens == usage.input_tokens + usage.output_tokens


def test_a_refusal_of_another_gate_takes_no_tokens():
    """A request that the budget refuses counts for nothing."""
    gateway = Gateway([model("a", tpm=10_000, max_output=1000)])
    with pytest.raises(dspy.utils.exceptions.LMError):
        with scope(budget="0.00000001"):
            ask(gateway)
    assert gateway.model("a").lane.status.tokens == 0


def test_the_window_slides():
    """After a minute tokens are free again; what is larger than the limit goes through alone."""
    clock = FakeClock()
    lane = Lane("m", tpm=100, clock=clock)
    lane.join(tokens=60)
    clock.move_to(10.0)
    lane.join(tokens=40)
    for tokens, wait in ((70, 60.0), (50, 50.0)):
        with pytest.raises(RateLimited) as full:
            lane.join(tokens=tokens, seconds=1.0)
        assert full.value.retry_after == pytest.approx(wait)
    clock.move_to(61.0)
    assert lane.status.tokens == 40
    clock.move_to(71.0)
    assert lane.join(tokens=1_000_000).state == "in"
    with pytest.raises(RateLimited):
        lane.join(tokens=1, seconds=1.0)


def test_threads_never_take_more_than_there_is():
    """Sixteen threads at once: what was let through never exceeds the limit."""
    lane, let = Lane("m", tpm=1_000, start=512), []

    def grab() -> None:
        for _ in range(50):
            try:
                lane.join(tokens=7, seconds=0.0)
            except RateLimited:
                return
            let.append(7)

    threads = [threading.Thread(target=grab) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(let) == lane.status.tokens == 994
