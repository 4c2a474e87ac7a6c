"""The breaker: by example, as a state machine, and exactly one probe under concurrency."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from escalade.errors import BadInput
from escalade.registry.breaker import Breaker, Pass
from tests.registry.helpers import Clock


def fail(breaker: Breaker, times: int) -> None:
    """Use the resource in vain."""
    for _ in range(times):
        used = breaker.allow()
        assert isinstance(used, Pass)
        breaker.failure(used)


def test_it_opens_after_failures_in_a_row() -> None:
    """Five failures in a row open it; a success in between starts the count anew."""
    breaker = Breaker(now=Clock())
    fail(breaker, 4)
    used = breaker.allow()
    assert isinstance(used, Pass)
    breaker.success(used)
    fail(breaker, 4)
    assert breaker.state == "closed"
    fail(breaker, 1)
    assert breaker.state == "open"
    assert breaker.allow() == 30.0


def test_it_opens_when_half_of_the_window_failed() -> None:
    """Failures that never come five in a row open it too, once the window is full and half of it failed."""
    breaker = Breaker(window=20, now=Clock())
    for turn in range(20):
        assert breaker.state == "closed"
        used = breaker.allow()
        assert isinstance(used, Pass)
        (breaker.failure if turn % 2 else breaker.success)(used)
    assert breaker.state == "open"


def test_the_probe_decides() -> None:
    """After the cooldown one use may try: its success closes the breaker, its failure opens it for another cooldown."""
    clock = Clock()
    breaker = Breaker(failures=1, cooldown=10, now=clock)
    fail(breaker, 1)
    clock.forward(9)
    assert breaker.allow() == 1.0
    clock.forward(1)
    assert breaker.state == "half-open"
    fail(breaker, 1)
    assert (breaker.state, breaker.allow()) == ("open", 10)
    clock.forward(10)
    probe = breaker.allow()
    assert isinstance(probe, Pass)
    assert breaker.allow() == 1.0, "somebody else is trying: come back in a second"
    breaker.success(probe)
    assert breaker.state == "closed"


def test_a_probe_that_tells_nothing_is_given_back() -> None:
    """A probe that was cancelled leaves the place to the next one; it neither opens nor closes."""
    clock = Clock()
    breaker = Breaker(failures=1, now=clock)
    fail(breaker, 1)
    clock.forward(30)
    probe = breaker.allow()
    assert isinstance(probe, Pass)
    breaker.forget(probe)
    assert breaker.state == "half-open"
    assert isinstance(breaker.allow(), Pass)


def test_late_news_of_old_uses_decide_nothing() -> None:
    """A use that began before the breaker opened and ends while it is open neither closes it nor prolongs it."""
    clock = Clock()
    breaker = Breaker(failures=1, now=clock)
    old = [breaker.allow(), breaker.allow()]
    fail(breaker, 1)
    clock.forward(10)
    for used, tell in zip(old, (breaker.success, breaker.failure), strict=True):
        assert isinstance(used, Pass)
        tell(used)
    assert breaker.allow() == 20.0


@pytest.mark.parametrize("bad", [{"failures": 0}, {"window": 0}, {"cooldown": 0}, {"cooldown": float("nan")}])
def test_nonsense_is_refused(bad: dict[str, float]) -> None:
    """A breaker that could never open, or never close, is refused."""
    with pytest.raises(BadInput, match="breaker: expected"):
        Breaker(**bad)  # type: ignore[arg-type]


def test_exactly_one_probe_under_concurrency(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 32 threads that come when the cooldown is over, one gets to try; and so again, after its failure."""
    clock = Clock()

    class Slow(Pass):
        def __init__(self) -> None:
            time.sleep(0)  # another thread runs between the decision to let one through and the note that it was

    monkeypatch.setattr("escalade.registry.breaker.Pass", Slow)
    breaker = Breaker(failures=1, now=clock)
    breaker.failure(breaker.allow())  # type: ignore[arg-type]
    for _ in range(20):
        clock.forward(30)
        start = threading.Barrier(32)

        def come(_: int, start: threading.Barrier = start) -> Pass | float:
            start.wait()
            return breaker.allow()

        with ThreadPoolExecutor(32) as pool:
            probes = [got for got in pool.map(come, range(32)) if isinstance(got, Pass)]
        assert len(probes) == 1
        breaker.failure(probes[0])


class BreakerMachine(RuleBasedStateMachine):
    """Uses that begin and end in any order, while time passes."""

    passes = Bundle("passes")

    @initialize(failures=st.integers(1, 3), window=st.integers(1, 4))
    def start(self, failures: int, window: int) -> None:
        self.clock = Clock()
        self.breaker = Breaker(failures=failures, window=window, cooldown=10, now=self.clock)
        self.probes: list[Pass] = []
        self.before = self.breaker.state

    @rule(target=passes)
    def begin(self) -> Pass | float:
        state = self.breaker.state
        got = self.breaker.allow()
        if state == "open":
            assert isinstance(got, float), "an open breaker lets nobody through"
        if state == "half-open" and isinstance(got, Pass):
            self.probes.append(got)
        if state == "closed":
            assert isinstance(got, Pass)
        return got

    @rule(used=consumes(passes), how=st.sampled_from(["success", "failure", "forget"]))
    def end(self, used: Pass | float, how: str) -> None:
        if isinstance(used, float):
            assert used > 0, "who is refused is told how long to wait"
            return
        state, probe = self.breaker.state, used in self.probes
        getattr(self.breaker, how)(used)
        if probe:
            self.probes.remove(used)
            assert self.breaker.state == {"success": "closed", "failure": "open", "forget": "half-open"}[how]
        elif state != "closed":
            assert self.breaker.state == state, "only the probe moves a breaker that isn't closed"
        elif how != "failure":
            assert self.breaker.state == "closed", "only failures open it"

    @rule(seconds=st.sampled_from([1, 5, 10]))
    def wait(self, seconds: float) -> None:
        self.clock.forward(seconds)

    @invariant()
    def one_probe_at_most(self) -> None:
        assert len(getattr(self, "probes", ())) <= 1


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(max_examples=80, stateful_step_count=40)
