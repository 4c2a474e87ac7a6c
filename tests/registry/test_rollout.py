"""Rollouts: who gets a new version, when it is taken back, and what its shadows find."""

from __future__ import annotations

import copy
import pickle
import random
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

import escalade
from escalade import Journal, Principal, Registry, Roles, tool
from escalade.errors import BadInput
from escalade.money import Money
from escalade.registry.rollout import Guardrails, Rollout
from escalade.registry.shadow import Shadow

OPEN = Roles({"caller": ["*"], "tester": ["*"]})


def who(user: str = "ana", tenant: str = "acme", role: str = "caller") -> Principal:
    return Principal(user, tenant, frozenset({role}))


def said(text: str) -> Callable[..., str]:
    def answer(query: str = "") -> str:
        """Answer."""
        return text + query

    return answer


def shop(*versions: str, name: str = "a", **more: Any) -> Registry:
    settings_ = {"side_effects": "read", **more}
    return Registry([tool(name=name, version=v, **settings_)(said(v)) for v in versions], name="shop")


def gets(registry: Registry, principal: Principal, wanted: str | None = None, name: str = "a") -> str:
    with escalade.scope(principal=principal, access=OPEN):
        return registry.resolve(name, wanted).spec.version


users = st.builds(lambda n, t: who(f"user{n}", f"tenant{t}"), st.integers(0, 10**6), st.integers(0, 50))


@settings(max_examples=100)
@given(users, st.lists(st.floats(0, 1), min_size=2, max_size=5))
def test_sticky_and_monotone(principal: Principal, shares: list[float]) -> None:
    """The same caller gets the same answer at the same share, and keeps the new version when the share grows."""
    registry = shop("1.0.0", "1.1.0")
    had = False
    for share in sorted(shares):
        registry.rollout("a", "1.1.0", share=share)
        versions = {gets(registry, principal) for _ in range(2)}
        assert len(versions) == 1
        has = versions == {"1.1.0"}
        assert has or not had
        had = has


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_share_is_the_share(share: float) -> None:
    """Of 4,000 users about that share gets it; who does differs between tools and versions."""
    rollouts = {v: shop("1.0.0", "1.1.0", "1.2.0").rollout("a", v, share=share) for v in ("1.1.0", "1.2.0")}
    people = [who(f"user{n}") for n in range(4_000)]
    first, second = (
        {p.user for p in people if rollout.gives(version, p)} for version, rollout in rollouts.items()
    )  # fmt: skip
    assert len(first) / 4_000 == pytest.approx(share, abs=0.03)
    assert len(first & second) / 4_000 == pytest.approx(share * share, abs=0.03)


def test_stages() -> None:
    """Nobody, some, everybody; exact pins and other ranges are no question of the rollout."""
    registry = shop("1.0.0", "1.1.0", "2.0.0")
    rollout = registry.rollout("a", "2.0.0", share=0.0)
    assert rollout.baseline == "1.1.0"
    assert gets(registry, who()) == "1.1.0"
    assert gets(registry, who(), "^1") == "1.1.0"
    assert gets(registry, who(), "2.0.0") == "2.0.0"
    with escalade.scope(), pytest.raises(BadInput, match=r"no version in '\^2'; there is: .*2.0.0 \(in a rollout\)"):
        registry.resolve("a", "^2")
    assert registry.rollout("a", "2.0.0", share=1.0) is rollout
    assert (gets(registry, who()), gets(registry, who(), "^2")) == ("2.0.0", "2.0.0")
    rollout.promote()
    assert (rollout.status, gets(registry, who())) == ("promoted", "2.0.0")
    assert [one.version for one in registry.rollouts()] == ["2.0.0"]


def test_nobody_else_ever_gets_it() -> None:
    """`register(share=)` begins the rollout with the version: no call in between sees it."""
    registry = shop("1.0.0")
    registry.register(tool(name="a", version="1.1.0", side_effects="read")(said("new")), share=0.0)
    assert gets(registry, who()) == "1.0.0"
    with escalade.scope():
        assert [one.spec.version for one in registry.tools_for()] == ["1.0.0"], "listing agrees"


def test_settings_of_a_rollout_that_begins_with_its_version() -> None:
    """`register(share=, guardrails=)` says all of it at once; where it can't begin, the version isn't there either."""
    registry = shop("1.0.0")
    new = tool(name="a", version="1.1.0", side_effects="read")(said("new"))
    for wrong, message in (
        ({"share": 2.0}, "share: expected 0 to 1, got 2.0"),
        ({"share": 0.1, "sticky_by": "moon"}, "sticky_by: expected 'user' or 'tenant'"),
        ({"guardrails": Guardrails()}, "guardrails is for a rollout: say which share="),
    ):
        with pytest.raises(BadInput, match=message):
            registry.register(new, **wrong)
        assert [spec.version for spec in registry.specs()] == ["1.0.0"]
    with pytest.raises(BadInput, match="there is no other stable version to fall back to"):
        registry.register(tool(name="b")(said("b")), share=0.1)
    assert [spec.name for spec in registry.specs()] == ["a"]
    registry.register(new, share=0.0, guardrails=Guardrails(min_calls=8), sticky_by="tenant")
    (rollout,) = registry.rollouts()
    assert (rollout.guardrails.min_calls, rollout.sticky_by) == (8, "tenant")


def test_a_version_that_is_down_is_given_to_nobody() -> None:
    """Its breaker opens after five failures; from then on runs get the old version, until it may be tried again."""

    def dead(query: str = "") -> str:
        """Answer."""
        raise ConnectionError("down")

    registry = shop("1.0.0")
    registry.register(tool(name="a", version="1.1.0", side_effects="read")(dead), share=1.0)
    answers = []
    for _ in range(8):
        with escalade.scope(principal=who(), access=OPEN):
            try:
                answers.append(registry.resolve("a")())
            except ConnectionError:
                answers.append("down")
    assert answers == ["down"] * 5 + ["1.0.0"] * 3
    (rollout,) = registry.rollouts()
    assert rollout.status == "running"
    rollout._candidate.resource.breaker._now = lambda: time.monotonic() + 31
    assert gets(registry, who()) == "1.1.0", "half-open: somebody has to try"


def test_a_name_is_no_cohort() -> None:
    """Nobody is in the cohort of a tenant or a role by the name that he chose."""
    registry = shop("1.0.0", "1.1.0")
    rollout = registry.rollout("a", "1.1.0", cohorts={"beta": ["tenant:trial", "role:tester"]})
    for name in ("tenant:trial", "role:tester"):
        assert rollout.cohort(Principal(name)) is None


def test_cohorts_of_roles_that_others_inherit(caplog: pytest.LogCaptureFixture) -> None:
    """Who inherits a role is in its cohort, found by a range or held since before; one that there isn't is told."""
    registry = shop("1.0.0")
    held = registry.get_tool("a@^1")
    registry.register(tool(name="a", version="1.1.0", side_effects="read")(said("1.1.0")), share=0.0)
    registry.rollout("a", "1.1.0", cohorts={"beta": ["role:seller", "role:sellre"]})
    access = Roles({"seller": ["*:call"], "lead": {"inherits": ["seller"]}, "other": ["*:call"]})
    found = {}
    for role in ("seller", "lead", "other"):
        with escalade.scope(principal=Principal(f"a {role}", roles=frozenset({role})), access=access):
            found[role] = registry.spec("a", "^1").version, held()
    assert found == {"seller": ("1.1.0", "1.1.0"), "lead": ("1.1.0", "1.1.0"), "other": ("1.0.0", "1.0.0")}
    (told,) = caplog.messages
    assert told.startswith("the cohorts of the rollout of a@1.1.0: nobody has the role that is named there")


def test_cohorts() -> None:
    """Named groups of users, tenants and roles get it whatever the share is."""
    registry = shop("1.0.0", "1.1.0")
    rollout = registry.rollout("a", "1.1.0", cohorts={"beta": ["ana", "tenant:trial"], "inside": ["role:tester"]})
    people = {"beta": who("ana"), "inside": who("bob", role="tester"), None: who("eve")}
    for cohort, principal in people.items():
        assert rollout.cohort(principal) == cohort
        assert gets(registry, principal) == ("1.1.0" if cohort else "1.0.0")
    assert gets(registry, who("joe", "trial")) == "1.1.0"
    registry.rollout("a", "1.1.0", cohorts={})
    assert gets(registry, who("ana")) == "1.0.0"


def test_sticky_by_tenant() -> None:
    """All users of a tenant get the same."""
    registry = shop("1.0.0", "1.1.0")
    registry.rollout("a", "1.1.0", share=0.5, sticky_by="tenant")
    by_tenant = [{gets(registry, who(f"u{n}", f"t{t}")) for n in range(5)} for t in range(12)]
    assert all(len(versions) == 1 for versions in by_tenant)
    assert len(set().union(*by_tenant)) == 2


def test_a_run_keeps_its_version() -> None:
    """Neither another stage nor a rollback changes what a run has resolved."""
    registry = shop("1.0.0", "1.1.0")
    rollout = registry.rollout("a", "1.1.0", share=1.0)
    with escalade.scope():
        assert registry.resolve("a").spec.version == "1.1.0"
        rollout.rollback()
        assert registry.resolve("a").spec.version == "1.1.0"
    assert gets(registry, who()) == "1.0.0"


@pytest.mark.parametrize(
    ("said_", "message"),
    [
        ({"share": 1.5}, "share: expected 0 to 1, got 1.5"),
        ({"sticky_by": "planet"}, "sticky_by: expected 'user' or 'tenant', got 'planet'"),
    ],
)
def test_what_a_rollout_refuses(said_: dict[str, Any], message: str) -> None:
    """Bad settings, in one line; nothing is rolled out then."""
    registry = shop("1.0.0", "1.1.0")
    with pytest.raises(BadInput, match=message):
        registry.rollout("a", "1.1.0", **said_)
    assert registry.rollouts() == []
    with pytest.raises(BadInput, match="there is no other stable version to fall back to"):
        shop("1.0.0").rollout("a", "1.0.0")
    with pytest.raises(BadInput, match="no version in '3.0.0'"):
        registry.rollout("a", "3.0.0")
    running = registry.rollout("a", "1.1.0")
    with pytest.raises(BadInput, match="sticky_by can only be set at its beginning"):
        registry.rollout("a", "1.1.0", sticky_by="tenant")
    running.rollback()
    with pytest.raises(BadInput, match="is rolled_back; begin another one"):
        running.change(share=0.5)
    for wrong in ({"alpha": 0}, {"min_calls": 2}, {"slower": 0.5}):
        with pytest.raises(BadInput, match="expected 0 < alpha < 1"):
            Guardrails(**wrong)


# -------------------------------------------------------------------------------------------- agents built only once


def calls(called: Any, principal: Principal | None = None, **more: Any) -> str:
    """In a run of its own."""
    if principal is None:
        with escalade.scope(**more):
            return str(called(query="x"))
    with escalade.scope(principal=principal, access=OPEN, **more):
        return str(called(query="x"))


def newer(version: str, **more: Any) -> Any:
    return tool(name="a", version=version, **{"side_effects": "read", **more})(said(version))


def pickled(held: Any) -> Any:
    return pickle.loads(pickle.dumps(held))


@pytest.mark.parametrize("wanted", [None, "^1", ">=1.0.0"])
@pytest.mark.parametrize("form", [lambda held: held, copy.deepcopy, lambda held: held.func, pickled])
def test_a_tool_that_was_made_before_follows(wanted: str | None, form: Callable[[Any], Any]) -> None:
    """A tool that was made by a range outside of any run is turned to the new version for those who get it, and stays
    there when it is promoted; so are its copies, its function and its pickles.
    """
    registry = shop("1.0.0")
    held = form(registry.resolve("a", wanted))
    registry.register(newer("1.1.0"), share=0.0)
    rollout = registry.rollouts()[0]
    rollout.change(cohorts={"beta": ["ana"]})
    assert (calls(held, who("ana")), calls(held, who("eve"))) == ("1.1.0x", "1.0.0x")
    assert [(row.version, row.calls) for row in registry.usage()] == [("1.0.0", 1), ("1.1.0", 1)]
    rollout.change(share=1.0)
    assert calls(held, who("eve")) == "1.1.0x"
    rollout.promote()
    assert calls(held) == "1.1.0x"


async def test_async_calls_follow() -> None:
    """Awaited, too."""
    registry = shop("1.0.0")
    held = registry.resolve("a")
    registry.register(newer("1.2.0"), share=1.0)
    async with escalade.scope():
        assert await held.acall(query="x") == "1.2.0x"


@pytest.mark.parametrize("end", ["rollback", "yank"])
def test_back_to_the_old_version(end: str) -> None:
    """After a rollback, and when the new version was yanked."""
    registry = shop("1.0.0")
    held = registry.resolve("a")
    registry.register(newer("1.1.0"), share=1.0)
    assert calls(held) == "1.1.0x"
    if end == "yank":
        registry.yank("a", "1.1.0")
    else:
        registry.rollouts()[0].rollback()
    assert calls(held) == "1.0.0x"


def test_one_rollout_after_the_other() -> None:
    """From 1.0.0 by 1.1.0 to 1.2.0, each for those who get it."""
    registry = shop("1.0.0")
    held = registry.resolve("a")
    registry.register(newer("1.1.0"), share=1.0)
    registry.rollouts()[0].promote()
    registry.register(newer("1.2.0"), share=0.0)
    registry.rollouts()[0].change(cohorts={"beta": ["ana"]})
    assert (calls(held, who("ana")), calls(held, who("eve"))) == ("1.2.0x", "1.1.0x")


def test_what_does_not_follow(tmp_path: Path) -> None:
    """A pin; a range without the new version; a tool that was made in a run; a run with a lock."""
    registry = shop("1.0.0")
    registry.write_lock(tmp_path / "lock")
    with escalade.scope():
        made_in_a_run = registry.resolve("a")
    held = [registry.resolve("a", "1.0.0"), registry.resolve("a", "~1.0"), made_in_a_run]
    follows = registry.resolve("a")
    registry.register(newer("1.1.0"), share=1.0)
    assert [calls(one) for one in held] == ["1.0.0x"] * 3
    assert (calls(follows), calls(follows, lock=tmp_path / "lock")) == ("1.1.0x", "1.0.0x")


def other(text: str) -> str:
    """Answer."""
    return text


@pytest.mark.parametrize(
    "new",
    [
        tool(name="a", version="2.0.0", side_effects="read")(other),
        newer("2.0.0", permission="b:call"),
        newer("2.0.0", side_effects="none"),
    ],
)
def test_what_does_not_fit_is_not_turned_to(new: Any) -> None:
    """A version that doesn't take what the old one takes, or has another permission or other side effects, is for those
    who resolve it.
    """
    registry = shop("1.0.0")
    held = registry.resolve("a")
    registry.register(new, share=1.0)
    assert not registry.rollouts()[0].fits
    assert calls(held) == "1.0.0x"
    assert gets(registry, who()) == "2.0.0"


def test_turned_once_per_run() -> None:
    """A stage or a rollback in the middle of a run changes nothing for that run."""
    registry = shop("1.0.0")
    held = registry.resolve("a")
    registry.register(newer("1.1.0"), share=0.0)
    rollout = registry.rollouts()[0]
    with escalade.scope():
        before = held(query="x")
        rollout.change(share=1.0)
        assert (before, held(query="x")) == ("1.0.0x", "1.0.0x")
    with escalade.scope():
        before = held(query="x")
        rollout.rollback()
        assert (before, held(query="x")) == ("1.1.0x", "1.1.0x")


# ------------------------------------------------------------------------------------------------------- rolling back


def feed(rollout: Rollout, calls: int, rng: random.Random, *, fails: float, slow: float, cost: float) -> None:
    """Calls of both versions: the old one fails in 5 % and takes and costs 1."""
    for _ in range(calls):
        rollout._watch_old("failed" if rng.random() < 0.05 else "ok", rng.lognormvariate(0, 0.5), 1_000)
        outcome = "failed" if rng.random() < fails else "ok"
        rollout._watch_new(outcome, slow * rng.lognormvariate(0, 0.5), int(1_000 * cost))


@pytest.mark.parametrize(
    ("fails", "slow", "cost", "why"),
    [
        (0.5, 1.0, 1.0, "it fails more often: "),
        (0.05, 3.0, 1.0, "it is slower: "),
        (0.05, 1.0, 1.5, "it is dearer: 1500 n\\$ at the median, 1000 n\\$ before"),
    ],
)
def test_a_worse_version_is_taken_back(fails: float, slow: float, cost: float, why: str) -> None:
    """More failures, longer calls, dearer calls: whichever it is, the reason says so with figures."""
    registry = shop("1.0.0", "1.1.0")
    rollout = registry.rollout("a", "1.1.0", share=1.0)
    heard: list[Any] = []
    with escalade.scope(listen=heard.append):
        feed(rollout, 200, random.Random(3), fails=fails, slow=slow, cost=cost)
    assert rollout.status == "rolled_back"
    assert [(event.tool, event.to) for event in heard] == [("a@1.1.0", "1.0.0")]
    assert re.match(why, heard[0].why)
    assert rollout.reason == heard[0].why
    assert gets(registry, who()) == "1.0.0"
    with escalade.scope():
        assert registry.resolve("a", "1.1.0").spec.version == "1.1.0", "a pin still gets it"


@pytest.mark.slow
def test_a_version_that_is_no_worse_stays() -> None:
    """Of 100 rollouts of equal versions, looked at five times each, at most about alpha are taken back; a version that
    is a little slower, within what is tolerated, is hardly ever.
    """
    taken_back = {1.0: 0, 1.1: 0}
    for slow in taken_back:
        for seed in range(100):
            rollout = shop("1.0.0", "1.1.0").rollout(
                "a", "1.1.0", guardrails=Guardrails(alpha=0.05, min_calls=20, slower=1.25)
            )
            feed(rollout, 320, random.Random(seed), fails=0.05, slow=slow, cost=1.0)
            assert rollout.looks == 5 or rollout.status == "rolled_back"
            taken_back[slow] += rollout.status == "rolled_back"
    assert taken_back[1.0] <= 10, "5 % of 100, and what chance may add to it"
    assert taken_back[1.1] <= 10


def test_too_few_calls_decide_nothing() -> None:
    """Both versions need their minimum; calls that were cancelled tell nothing."""
    rollout = shop("1.0.0", "1.1.0").rollout("a", "1.1.0", share=1.0)
    for _ in range(49):
        rollout._watch_new("failed", 9.0, 9)
    for _ in range(500):
        rollout._watch_old("ok", 1.0, 1)
        rollout._watch_new("cancelled", 9.0, 9)
    assert (rollout.status, rollout.looks, rollout.new.calls) == ("running", 0, 49)
    rollout._watch_new("failed", 9.0, 9)
    assert (rollout.status, rollout.looks) == ("rolled_back", 1)


def test_calls_are_measured() -> None:
    """Through the guard, from whatever copy of the tool, on both sides; not after the end."""
    registry = shop("1.0.0", "1.1.0", cost="0.001")
    rollout = registry.rollout("a", "1.1.0", share=1.0)
    with escalade.scope():
        new, old = registry.resolve("a"), registry.resolve("a", "1.0.0")
        for _ in range(3):
            new(query="x")
        old(query="x")
        assert (rollout.new.calls, rollout.old.calls) == (3, 1)
        assert list(rollout.new.costs) == [10**6] * 3
        rollout.promote()
        new(query="x")
        assert rollout.new.calls == 3


def test_one_rollout_at_a_time() -> None:
    """A second one is refused while the first one runs, also one that begins with a registration, which then doesn't
    take place.
    """
    registry = shop("1.0.0", "1.1.0", "1.2.0")
    first = registry.rollout("a", "1.1.0", share=0.5)
    message = "a@1.1.0 is in a rollout: promote it or roll it back first"
    with pytest.raises(BadInput, match=message):
        registry.rollout("a", "1.2.0", share=0.5)
    with pytest.raises(BadInput, match=message):
        registry.register(newer("1.3.0"), share=0.5)
    assert [spec.version for spec in registry.specs()] == ["1.0.0", "1.1.0", "1.2.0"]
    first.promote()
    assert registry.rollout("a", "1.2.0", share=0.5).baseline == "1.1.0"


def test_what_was_taken_back_stays_away() -> None:
    """The next rollout falls back to the version before it, and so does everybody else; a rollout of the same version
    gives it another chance.
    """
    registry = shop("1.0.0", "1.1.0")
    registry.rollout("a", "1.1.0", share=1.0).rollback("it was bad")
    registry.register(newer("1.2.0"), share=0.0)
    assert registry.rollouts()[0].baseline == "1.0.0"
    assert gets(registry, who()) == "1.0.0"
    with escalade.scope(), pytest.raises(BadInput, match=r"1.1.0 \(rolled back\), 1.2.0 \(in a rollout\)"):
        registry.resolve("a", ">=1.1.0")
    registry.rollouts()[0].promote()
    assert gets(registry, who()) == "1.2.0"
    assert gets(registry, who(), "~1.1.0 || 1.0") == "1.0.0"
    assert registry.rollout("a", "1.1.0", share=1.0).baseline == "1.2.0"
    assert gets(registry, who(), "~1.1") == "1.1.0"


# ------------------------------------------------------------------------------------------------------------ shadows


def settled(rollout: Rollout) -> Any:
    """Its shadows, when none is under way any more."""
    until = time.monotonic() + 10
    shadow = rollout.shadow
    assert shadow is not None
    while shadow.running and time.monotonic() < until:
        time.sleep(0.005)
    return shadow


def test_shadows_are_compared_and_never_returned() -> None:
    """The new version gets the same arguments; results are compared; the caller has the old answer, pays for the old
    call alone and hears nothing of the other.
    """
    seen: list[str] = []

    def new(query: str = "") -> str:
        """Answer."""
        seen.append(query)
        return f"1.0.0{query}" if query == "same" else "other"

    registry = shop("1.0.0", cost="0.001")
    registry.register(tool(name="a", version="1.1.0", cost="0.002", side_effects="read")(new))
    rollout = registry.rollout("a", "1.1.0", shadow=Shadow(budget="1.00"))
    journal, heard = Journal(), []
    with escalade.scope(recorder=journal, listen=heard.append, budget="0.01") as run:
        for query in ("same", "x"):
            assert registry.resolve("a")(query=query) == f"1.0.0{query}"
            settled(rollout)
        assert run.spent == Money.of("0.002")
    shadow = settled(rollout)
    assert (shadow.same, shadow.different, shadow.spent) == (1, 1, Money.of("0.004"))
    assert seen == ["same", "x"]
    entries = {(entry.version, entry.run_id == f"{run.run_id}.shadow") for entry in journal.entries()}
    assert entries == {("1.0.0", False), ("1.1.0", True)}
    assert {event.tool for event in heard if hasattr(event, "tool")} == {"a@1.0.0"}
    assert rollout.new.calls == 2, "shadows are measured"


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_nobody_waits_for_a_shadow(kind: str) -> None:
    """A shadow that hangs or raises changes nothing for the caller; it also ends after the caller's scope did."""
    gate = threading.Event()

    def hangs(query: str = "") -> str:
        """Answer."""
        gate.wait(10)
        raise ValueError(query)

    registry = shop("1.0.0")
    registry.register(tool(name="a", version="1.1.0", side_effects="read")(hangs))
    rollout = registry.rollout("a", "1.1.0", shadow=Shadow(budget=None))
    with escalade.scope():
        called = registry.resolve("a")
        for _ in range(6):
            result = called(query="x") if kind == "sync" else await called.acall(query="x")
            assert result == "1.0.0x"
    gate.set()
    shadow = settled(rollout)
    assert (shadow.failed, shadow.skipped) == (4, 2), "four at once, the others are skipped"


def test_a_shadow_has_its_own_budget() -> None:
    """When it is used up, shadows are refused; callers notice nothing."""
    registry = shop("1.0.0", "1.1.0", cost="0.001")
    rollout = registry.rollout("a", "1.1.0", shadow=Shadow(budget="0.002"))
    with escalade.scope(budget="1.00"):
        for _ in range(4):
            registry.resolve("a")(query="x")
            settled(rollout)
    shadow = settled(rollout)
    assert (shadow.different, shadow.refused, shadow.spent) == (2, 2, Money.of("0.002"))


def test_some_of_the_calls() -> None:
    """`every=3`: the first, the fourth, …; none after the end of the rollout."""
    registry = shop("1.0.0", "1.1.0")
    rollout = registry.rollout("a", "1.1.0", shadow=Shadow(budget=None, every=3))
    with escalade.scope():
        for _ in range(7):
            registry.resolve("a")(query="x")
            settled(rollout)
        rollout.rollback()
        registry.resolve("a")(query="x")
    assert settled(rollout).different == 3
    with pytest.raises(BadInput, match="every: expected 1 or more"):
        Shadow(budget=None, every=0)


@pytest.mark.parametrize("effects", ["write", "irreversible"])
def test_writes_are_never_shadowed(effects: str) -> None:
    """Neither when the old version writes nor when the new one does."""
    registry = shop("1.0.0", "1.1.0", side_effects=effects)
    with pytest.raises(BadInput, match=f"has side effects .{effects}.: it would have them twice"):
        registry.rollout("a", "1.1.0", shadow=Shadow(budget="1.00"))
    mixed = shop("1.0.0")
    mixed.register(tool(name="a", version="2.0.0", side_effects=effects)(said("new")))
    with pytest.raises(BadInput, match="a@2.0.0 has side effects"):
        mixed.rollout("a", "2.0.0", shadow=Shadow(budget="1.00"))


@pytest.mark.parametrize(("mode", "shadows"), [("live", 1), ("live-read-only", 1), ("dry-run", 0)])
def test_shadows_are_for_live_calls(mode: Any, shadows: int) -> None:
    """Where nothing runs, nothing is shadowed."""
    registry = shop("1.0.0", "1.1.0", dry="dry")
    rollout = registry.rollout("a", "1.1.0", shadow=Shadow(budget=None))
    with escalade.scope(mode=mode):
        registry.resolve("a")(query="x")
    assert settled(rollout).different == shadows


def test_who_may_not_use_it_has_no_shadow() -> None:
    """A shadow passes the guard as any use does, in the caller's name."""
    registry = shop("1.0.0")
    registry.register(tool(name="a", version="1.1.0", permission="b:call", side_effects="read")(said("x")), gate="off")
    rollout = registry.rollout("a", "1.1.0", shadow=Shadow(budget=None))
    with escalade.scope(principal=who(), access=Roles({"caller": ["a:call"]})):
        registry.resolve("a")(query="x")
    assert settled(rollout).refused == 1
