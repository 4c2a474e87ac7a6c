"""The cache of responses: who gets a hit, what is kept, for how long, and what it is worth."""

from __future__ import annotations

import copy
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy import lm15

import escalade
from escalade.agents.cache import ResponseCache
from escalade.agents.gateway import Gateway
from escalade.agents.models import Model
from escalade.errors import BadInput, BudgetExceeded, DeadlineExceeded, NoScope, PermissionDenied, UnknownName
from escalade.events import CacheHit
from escalade.registry.access import Roles
from escalade.registry.journal import Journal
from escalade.registry.stores.redis_cache import RedisCache
from escalade.scopes import Principal
from tests.agents.cache.worlds import ANA, BOB, COST, EVE, MODES, PRICE, World, answering, scope_of
from tests.agents.scripted import Scripted
from tests.servers.redis_server import RedisServer


@pytest.fixture(params=["memory", "disk", "redis"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Options of a cache on each kind of store; nothing in memory where there is another."""
    if request.param == "redis":
        with RedisServer() as server:
            yield {"store": RedisCache(server.url, timeout=10.0), "memory": 0}
        return
    yield {} if request.param == "memory" else {"path": tmp_path / "answers", "memory": 0}


def test_second_call_is_answered_by_the_cache(where: dict[str, Any]) -> None:
    """Sync and async share entries; a hit costs nothing, and the live answer is the cached one."""
    world = World([answering("Lima")], **where)
    answers = [world.ask("Capital of Peru?", mode) for mode in (*MODES, *MODES)]
    assert [answer.answer for answer in answers] == ["Lima"] * 4
    assert world.calls == 1
    row = world.row()
    assert (sum(row.hits.values()), row.misses, row.saved, row.kept) == (3, 1, 3 * COST, 1)
    assert row.hit_rate == 0.75


@pytest.mark.parametrize("mode", MODES)
def test_hit_costs_nothing_and_is_recorded(mode: str) -> None:
    """The scope spends nothing on a hit; the record has it with its source; history says that it was one, at cost 0."""
    world = World()
    with scope_of(ANA, budget="1.00", recorder=(journal := Journal())) as run:
        lm = world.lm()
        for _ in range(2):
            world.with_lm(lm, mode=mode)
        assert run.spent == COST
        assert run.purse.held == 0
    assert [(e.outcome, e.cost, e.source) for e in journal.entries()] == [("ok", COST, ""), ("ok", 0, "cache")]
    assert [(h["cost"], h["cache_hit"], h["usage"] == {}) for h in lm.history] == [
        (COST / 1e9, False, False),
        (0.0, True, True),
    ]


def test_hit_is_an_event() -> None:
    """Listeners hear of each hit: the model, the kind, the level, what it saved, how old it was."""
    heard: list[Any] = []
    world = World()
    with scope_of(ANA, budget="1.00", listen=heard.append):
        world.here()
        world.clock.at += 7
        world.here()
    (hit,) = [event for event in heard if isinstance(event, CacheHit)]
    assert (hit.model, hit.kind, hit.level, hit.saved, hit.age) == ("small", "facts", "memory", COST, 7.0)


def test_tenants_share_nothing(where: dict[str, Any]) -> None:
    """Another tenant's equal question is a miss; another user of the same tenant has a hit."""
    world = World([answering("mine"), answering("yours")], **where)
    assert world.ask(who=ANA).answer == "mine"
    assert world.ask(who=EVE).answer == "yours"
    assert world.ask(who=BOB).answer == "mine"
    assert world.calls == 2


def test_cache_per_user() -> None:
    """`per="user"`: users of one tenant share nothing either."""
    world = World(per="user")
    for who in (ANA, BOB, ANA):
        world.ask(who=who)
    assert world.calls == 2
    world.cache.evict(tenant="acme", user="ana")
    world.ask(who=BOB)
    assert world.calls == 2
    world.ask(who=ANA)
    assert world.calls == 3
    with pytest.raises(BadInput, match="with his tenant"):
        world.cache.evict(user="ana")
    with pytest.raises(BadInput, match='per="user"'):
        World().cache.evict(tenant="acme", user="ana")


def test_inner_scope_of_another_tenant_is_another_caller() -> None:
    """Everybody on whose behalf a call is counts: a scope nested for another tenant doesn't find the outer one's."""
    world = World()
    with scope_of(ANA, budget="1.00"):
        world.here()
        with escalade.scope(principal=EVE):
            world.here()
    assert world.calls == 2


@pytest.mark.parametrize("mode", MODES)
def test_who_may_not_use_the_model_has_no_hit(mode: str) -> None:
    """A denied principal of the same tenant goes to the guard, which refuses, and records the denial."""
    access = Roles({"user": ["model.*:call"], "guest": ["tool.*:call"]})
    world = World()
    ana, guest = Principal("ana", "acme", "user"), Principal("gil", "acme", "guest")
    with escalade.scope(principal=ana, access=access, budget="1.00"):
        world.here()
    with (
        escalade.scope(principal=guest, access=access, budget="1.00", recorder=(journal := Journal())),
        pytest.raises(PermissionDenied),
    ):
        world.here(mode=mode)
    assert world.calls == 1
    assert [entry.outcome for entry in journal.denials()] == ["PermissionDenied"]
    assert world.cache.stats().hits == 0


def test_fallbacks_answer_is_not_for_who_may_not_use_the_fallback() -> None:
    """A stand-in's answer is a hit only for those who may use the stand-in; and it is kept for five minutes at most."""
    down, up = Scripted([lm15.AuthError("no")] * 9), Scripted([answering("big")] * 9)
    world = World()
    gateway = Gateway(
        [Model("small", "sim/s", down, price=PRICE, fallbacks="big"), Model("big", "sim/b", up, price=PRICE)],
        cache=world.cache,
        name="stand-in",
    )
    world.gateway = gateway
    access = Roles({"all": ["model.*:call"], "small": ["model.small:call"]})
    both, one = Principal("ana", "acme", "all"), Principal("bob", "acme", "small")
    with escalade.scope(principal=both, access=access):
        assert world.here().answer == "big"
        assert world.here().answer == "big"
        assert len(up.requests) == 1
        with pytest.raises(dspy.utils.exceptions.LMAuthError), escalade.scope(principal=one):
            world.here()
    with escalade.scope(principal=one, access=access), pytest.raises(dspy.utils.exceptions.LMAuthError):
        world.here()
    with escalade.scope(principal=both, access=access):
        world.clock.at += 301
        world.here()
    assert len(up.requests) == 2


def test_no_scope_no_cache() -> None:
    """Without a scope nothing is looked up and nothing answers, though the answer is there."""
    world = World()
    world.ask()
    with pytest.raises(NoScope):
        world.here()


def test_hit_in_a_scope_whose_deadline_has_passed_is_refused() -> None:
    """The guard asks of a hit what it asks of a call: an open scope."""
    world = World()
    world.ask()
    with scope_of(ANA, deadline=0.01), pytest.raises(DeadlineExceeded):
        time.sleep(0.02)
        world.here()


def test_budget_that_is_spent_still_has_hits() -> None:
    """What costs nothing fits any budget; n > 1 candidates that are there need no money either."""
    world = World()
    world.ask(n=2, temperature=1.0)
    with scope_of(ANA, budget="0.000000001"):
        assert world.here(n=2, temperature=1.0).answer == "42"
    with pytest.raises(BudgetExceeded), scope_of(ANA, budget="0.000000001"):
        world.here("another", n=2, temperature=1.0)


def test_rollouts_and_candidates_are_calls_of_their_own() -> None:
    """`rollout_id`, `n`, settings, the model and the messages are in the key; api keys can't be."""
    world = World()
    for settings in ({}, {"rollout_id": 1, "temperature": 1.0}, {"rollout_id": 2, "temperature": 1.0}, {"n": 2}):
        for _ in range(2):
            world.ask(**settings)
    assert world.calls == 5
    assert world.row().hits == {"memory": 4}


def test_same_alias_elsewhere_is_another_model() -> None:
    """Another gateway, another provider's model, another endpoint behind one alias never find each other's answers."""
    world = World()

    def gateway(name: str, model_id: str, address: str) -> Scripted:
        transport = Scripted()
        transport.address = address
        world.gateway = Gateway([Model("small", model_id, transport, price=PRICE)], cache=world.cache, name=name)
        return transport

    for place in (("a", "x/m", "1"), ("b", "x/m", "1"), ("a", "x/other", "1"), ("a", "x/m", "2")):
        transport = gateway(*place)
        world.ask()
        world.ask()
        assert len(transport.requests) == 1


def test_time_to_live_by_kind() -> None:
    """Facts are good for a day, code for an hour, what is of today for five minutes."""
    for question, seconds in (
        ("Capital of Peru?", 86_400),
        ("Write a Python function that sorts", 3_600),
        ("Qual a cotação do dólar hoje?", 300),
    ):
        world = World()
        world.ask(question)
        world.clock.at += seconds - 1
        world.ask(question)
        assert world.calls == 1
        world.clock.at += 1
        world.ask(question)
        assert world.calls == 2


def test_kind_that_the_caller_says() -> None:
    """`with cache.kind(...)` goes before the classifier; an older answer isn't good enough for a shorter-lived kind."""
    world = World(ttl={"minutes": 60.0})
    world.ask()
    world.clock.at += 61
    with world.cache.kind("minutes"):
        world.ask()
        assert world.calls == 2
        world.clock.at += 61
    world.ask()  # kept as "minutes": no longer good
    assert world.calls == 3
    with pytest.raises(UnknownName, match="minutes"), world.cache.kind("minuets"):
        pass


def test_kind_is_said_in_threads_of_parallel() -> None:
    """The kind reaches the threads of `dspy.Parallel`."""
    world = World(ttl={"never": 0.0})
    lm = world.lm()
    with scope_of(ANA), dspy.context(lm=lm), world.cache.kind("never"):
        dspy.Parallel(num_threads=2, disable_progress_bar=True)([(world.predict, {"question": q}) for q in "ab"])
    assert world.row().refused == {"never": 2}
    assert world.cache.stats().entries == 0


def test_kind_of_time_zero_is_never_kept() -> None:
    """A time of 0 keeps nothing and finds nothing."""
    world = World(ttl={"facts": 0})
    world.ask()
    world.ask()
    assert world.calls == 2


BAD = [
    ("length", "cut off", "truncated"),
    ("content_filter", answering("no"), "refused"),
    ("stop", "", "empty"),
]


class Finishing(Scripted):
    """Ends its first answer for some reason."""

    def __init__(self, finish: str, text: str) -> None:
        super().__init__([text])
        self.finish = finish

    def _response(self, request: Any, text: str, finish: str = "stop") -> Any:
        return super()._response(request, text, self.finish if len(self.requests) == 1 else finish)


@pytest.mark.parametrize(("finish", "text", "why"), BAD)
def test_bad_answers_are_not_kept(finish: str, text: str, why: str) -> None:
    """Truncated, refused and empty answers are handed out and not kept."""
    world = World(transport=Finishing(finish, text))
    with scope_of(ANA):
        lm = world.lm()
        lm("hello")
        lm("hello")
        lm("hello")
    assert world.calls == 2
    assert world.row().refused == {why: 1}


@pytest.mark.parametrize("mode", MODES)
def test_retry_is_not_served_the_same_unparsable_answer(where: dict[str, Any], mode: str) -> None:
    """What the adapter can't parse is taken back from memory and store: asked again, the model answers again."""
    world = World(["garbage", answering("fine")], **where)
    with pytest.raises(dspy.utils.exceptions.AdapterParseError):
        world.ask(mode=mode)
    assert world.ask(mode=mode).answer == "fine"
    assert world.ask(mode=mode).answer == "fine"
    assert world.calls == 2
    assert world.row().refused == {"unparsable": 1}


def test_history_of_copies_is_plain() -> None:
    """What remembers its entry is a list for everybody else: copied, it is just a list; a copied LM has the cache."""
    world = World()
    with scope_of(ANA):
        outputs = world.lm()("hello")
        assert type(copy.deepcopy(outputs)) is list
        assert copy.deepcopy(outputs) == outputs
        copy.deepcopy(world.lm())("hello")
        world.lm().copy(temperature=0.0)("hello")
    assert world.calls == 1


def test_cache_that_is_not_wanted() -> None:
    """`cache=False`, on the LM or in a call, neither looks nor keeps."""
    world = World()
    world.ask(cache=False)
    world.ask(cache=False)
    assert (world.calls, world.cache.stats().usage) == (2, ())


@pytest.mark.parametrize("mode", MODES)
def test_dspys_own_cache_is_never_asked(mode: str) -> None:
    """What our cache doesn't keep isn't kept by DSPy's, which knows no tenant; neither is what a saved program asks."""
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=True)
    world = World(ttl={"facts": 0})
    for who in (ANA, EVE):
        world.ask(who=who, mode=mode, cache=True)
    assert world.calls == 2
    state = world.lm().dump_state()
    world.gateway = Gateway([world.gateway.model("small")], name="cached")
    with scope_of(ANA):
        lm = dspy.LM.load_state(state, allow_custom_lm_class=True)
        for _ in range(2):
            world.with_lm(lm, mode=mode)
    assert world.calls == 4


def test_record_pays_what_calls_cost() -> None:
    """Outcomes that are recorded through a gateway with a cache have the prices of calls, not of hits."""
    world = World()
    rungs = [(dspy.Predict, "small")]
    program = escalade.Escalate("question -> answer", rungs=rungs, gateway=world.gateway, policy=escalade.Constant(0))
    examples = [dspy.Example(question="q", answer="42").with_inputs("question")] * 2
    with scope_of(ANA, budget="1.00"):
        outcomes = escalade.record(program, examples, lambda example, prediction: 1.0)
    assert outcomes.cost[0] == outcomes.cost[1] >= COST
    assert world.cache.stats().usage == ()


def test_evicted_by_tenant_model_and_kind(where: dict[str, Any]) -> None:
    """What is evicted is gone, from memory and store, and the rest stays."""
    world = World(**where)

    def hits() -> list[bool]:
        seen = []
        for who, question in ((ANA, "Capital of Peru?"), (ANA, "Weather today?"), (EVE, "Capital of Peru?")):
            before = world.calls
            world.ask(question, who=who)
            seen.append(world.calls == before)
        return seen

    assert hits() == [False] * 3
    assert hits() == [True] * 3
    world.cache.evict(tenant="evil")
    assert hits() == [True, True, False]
    world.cache.evict(kind="realtime")
    assert hits() == [True, False, True]
    world.cache.evict(model="small")
    assert hits() == [False] * 3
    world.cache.clear()
    assert hits() == [False] * 3
    with pytest.raises(BadInput, match="tenant, a model or a kind"):
        world.cache.evict()


def test_memory_holds_what_it_may() -> None:
    """Beyond its bytes, what was used longest ago goes first, and is counted."""
    world = World(memory=2_500)
    for question in "abcdef":
        world.ask(question)
    world.ask("f")
    stats = world.cache.stats()
    assert (stats.hits, stats.evicted + stats.entries) == (1, 6)
    assert stats.evicted >= 3
    assert stats.bytes <= 2_500


def test_store_that_fails_is_a_miss(tmp_path: Path) -> None:
    """A broken disk costs hits and no answers; it is counted."""
    world = World(path=tmp_path / "answers", memory=0)
    world.ask()
    (tmp_path / "answers" / "cache.db").write_bytes(b"not a database" * 1000)
    fresh = World(path=tmp_path / "answers", memory=0)
    assert fresh.ask().answer == "42"
    assert fresh.ask(mode="async").answer == "42"
    assert fresh.calls == 2
    assert fresh.cache.stats().failures >= 1


def test_store_that_is_locked_does_not_hold_up(tmp_path: Path) -> None:
    """While another process writes for long, calls are answered; what can't be kept is a failure, not an error."""
    world = World(path=tmp_path / "answers")
    world.ask("before")
    other = sqlite3.connect(tmp_path / "answers" / "cache.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert world.ask("meanwhile").answer == "42"
    other.execute("ROLLBACK")
    other.close()
    assert world.cache.stats().failures >= 1


def test_foreign_rows_are_not_answers(tmp_path: Path) -> None:
    """What somebody else wrote under our key, JSON or not, is a miss and counted."""
    for planted in (b"\xff", b"{}", b"[1]", b'{"responses":[],"id":1}', json.dumps({"responses": 3}).encode()):
        world = World(path=tmp_path / "answers", memory=0)
        world.ask()
        store: Any = world.cache.shelf.store
        (key,) = [row[0] for row in sqlite3.connect(tmp_path / "answers" / "cache.db").execute("SELECT key FROM Cache")]
        store.set(key, planted, 60.0)
        before = world.calls
        assert world.ask().answer == "42"
        assert world.calls == before + 1
        assert world.cache.stats().failures == 1
        store.clear()


@pytest.mark.parametrize(
    "wrong",
    [
        {"path": "x", "store": object()},
        {"per": "role"},
        {"joins": "some"},
        {"memory": -1},
        {"ttl": {"facts": -1}},
        {"ttl": float("nan")},
        {"ttl": {"": 1}},
    ],
)
def test_bad_options(wrong: dict[str, Any]) -> None:
    """Bad options are told by name."""
    with pytest.raises(BadInput):
        ResponseCache(**wrong)
