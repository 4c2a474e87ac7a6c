"""Rate limits: never more than N in any window; several windows at once, or none; refused uses are free."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import hypothesis.strategies as st
import pytest
from hypothesis import given

from escalade.errors import BadInput
from escalade.registry.limits import Limiter, RateLimit, Taken, parse_limits
from tests.registry.helpers import Clock

rate_limits = st.builds(RateLimit, st.integers(1, 4), st.sampled_from([1.0, 2.0, 5.0]))
steps = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0]), st.sampled_from(["keep", "keep", "give back"])), max_size=60
)


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("5/s, 100/min", (RateLimit(5, 1), RateLimit(100, 60))),
        ("10/30s", (RateLimit(10, 30),)),
        ("3 / 2 h", (RateLimit(3, 7200),)),
        ("1/day", (RateLimit(1, 86400),)),
        ("2/s, 2/s, 2/1s", (RateLimit(2, 1),)),  # said twice, it counts once
        (None, ()),
        (RateLimit(1, 2), (RateLimit(1, 2),)),
        ((RateLimit(1, 2),), (RateLimit(1, 2),)),
    ],
)
def test_limits_as_text(text, limits: tuple[RateLimit, ...]) -> None:
    """Rate limits are written as one would say them."""
    assert parse_limits(text) == limits


@pytest.mark.parametrize("text", ["", "5", "0/s", "5/0s", "5/week", "five/s", "5/s 100/min", "-1/s"])
def test_what_is_no_limit(text: str) -> None:
    """Anything else is refused, with an example."""
    with pytest.raises(BadInput, match="write it like '5/s'"):
        parse_limits(text)


@pytest.mark.parametrize("bad", [lambda: parse_limits(5), lambda: RateLimit(0, 1), lambda: RateLimit(1, float("nan"))])
def test_limits_that_allow_nothing(bad) -> None:
    """A number is no limit, and one that allows nothing at all, or has no time, is a mistake."""
    with pytest.raises(BadInput):
        bad()


def test_limits_read_as_they_are_written() -> None:
    """A limit prints in the form that it is written in."""
    assert [str(limit) for limit in parse_limits("5/s, 100/min, 10/30s")] == ["5/s", "100/min", "10/30s"]


def test_it_says_when_to_come_back() -> None:
    """A refusal tells the seconds until the fullest window has room again; then there is room."""
    clock, limits = Clock(), parse_limits("1/s, 2/min")
    limiter = Limiter(clock)
    assert isinstance(limiter.take("k", limits), Taken)
    assert limiter.take("k", limits) == 1.0
    clock.forward(1)
    assert isinstance(limiter.take("k", limits), Taken)
    assert limiter.take("k", limits) == 59.0
    clock.forward(59)
    assert isinstance(limiter.take("k", limits), Taken)


def test_keys_do_not_share() -> None:
    """Each key has windows of its own."""
    limiter, limits = Limiter(Clock()), parse_limits("1/s")
    assert isinstance(limiter.take("a", limits), Taken)
    assert isinstance(limiter.take("b", limits), Taken)
    assert limiter.take("a", limits) == 1.0


@given(st.lists(rate_limits, min_size=1, max_size=3, unique=True), steps)
def test_never_more_than_n_in_any_window(limits: list[RateLimit], steps: list[tuple[float, str]]) -> None:
    """However uses come, and whichever are given back, no window of any limit ever holds more uses than it may; and a
    refusal only comes when some window is really full: refused and undone uses were debited nowhere.
    """
    clock = Clock()
    limiter, wanted = Limiter(clock), tuple(limits)
    used: list[float] = []
    undone: list[Taken] = []
    for wait, then in steps:
        clock.forward(wait)
        if then == "give back" and undone:
            taken = undone.pop(0)
            limiter.give_back(taken)
            used.remove(taken.at)
            continue
        got = limiter.take("k", wanted)
        full = [limit for limit in wanted if _inside(used, limit, clock.now) >= limit.calls]
        assert isinstance(got, Taken) == (not full)
        if isinstance(got, Taken):
            used.append(clock.now)
            undone.append(got)
            assert all(_inside(used, limit, clock.now) <= limit.calls for limit in wanted)
        else:
            assert 0 < got <= max(limit.seconds for limit in full)


def _inside(used: list[float], limit: RateLimit, now: float) -> int:
    return sum(now - limit.seconds < at <= now for at in used)


def test_giving_back_undoes_that_use_and_no_other() -> None:
    """When an early use is given back after a later one was taken, the later one still counts, at its own time."""
    clock, limits = Clock(), parse_limits("2/10s")
    limiter = Limiter(clock)
    early = limiter.take("k", limits)
    clock.forward(9)
    limiter.take("k", limits)
    assert isinstance(early, Taken)
    limiter.give_back(early)
    clock.forward(1.5)
    assert isinstance(limiter.take("k", limits), Taken)
    assert limiter.take("k", limits) == pytest.approx(8.5)


def test_giving_back_too_late_or_twice_changes_nothing() -> None:
    """A use whose window has passed, or that was given back already, can be given back without effect."""
    clock, limits = Clock(), parse_limits("1/s")
    limiter = Limiter(clock)
    taken = limiter.take("k", limits)
    assert isinstance(taken, Taken)
    limiter.give_back(taken)
    limiter.give_back(taken)
    clock.forward(5)
    limiter.take("other", limits)
    limiter.give_back(taken)
    assert isinstance(limiter.take("k", limits), Taken)


def test_keys_that_left_are_forgotten() -> None:
    """The limiter doesn't grow with every user that it ever saw."""
    clock, limits = Clock(), parse_limits("1/s")
    limiter = Limiter(clock)
    for user in range(3 * Limiter._SWEEP):
        limiter.take(f"user {user}", limits)
        clock.forward(0.01)
    assert len(limiter._uses) <= Limiter._SWEEP + 101


class Yielding(int):
    """A number that lets another thread run whenever it is compared."""

    def __le__(self, other: int) -> bool:
        time.sleep(0)
        return int(self) <= other


def test_threads_get_no_more_than_the_limit() -> None:
    """1,000 uses from 16 threads at once, with a switch at each comparison: as many come through as the limit says."""
    limiter, limits = Limiter(Clock()), (RateLimit(Yielding(100), 1), RateLimit(Yielding(60), 60))
    with ThreadPoolExecutor(16) as pool:
        got = list(pool.map(lambda _: limiter.take("k", limits), range(1000)))
    assert sum(isinstance(one, Taken) for one in got) == 60
    assert len(limiter._uses["k", limits[0]]) == 60, "the other window was debited by nobody else"
