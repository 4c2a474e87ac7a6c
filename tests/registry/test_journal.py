"""The journal: an intent and an outcome for each use, a denial instead of both, nothing lost."""

from __future__ import annotations

import asyncio

import pytest

import escalade
from escalade.errors import PermissionDenied
from escalade.money import Money
from escalade.registry.guard import Resource, admit, ause, use
from escalade.registry.journal import Journal
from escalade.scopes import Principal


def resource(name: str = "t") -> Resource:
    return Resource(name, "1.0.0", "tool", f"{name}:call")


def test_each_use_has_an_intent_and_an_outcome() -> None:
    """While a use runs, its intent stands in the journal; when it has ended, so does what became of it."""
    journal = Journal()
    with escalade.scope(recorder=journal), admit(resource(), ceiling=7) as admission:
        (running,) = journal.running()
        assert (running.outcome, running.held, running.cost) == ("", 7, 0)
        admission.cost = 3
    assert journal.running() == []
    (entry,) = journal.entries()
    assert (entry.outcome, entry.held, entry.cost, entry.resource, entry.version) == ("ok", 7, 3, "t", "1.0.0")
    assert entry.seconds >= 0
    assert entry.principal.user == "owner"
    assert journal.settled == Money(3)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ValueError, "failed"),
        (asyncio.CancelledError, "cancelled"),
        (KeyboardInterrupt, "cancelled"),
        (SystemExit, "failed"),
    ],
)
def test_an_outcome_for_each_kind_of_end(error: type[BaseException], outcome: str) -> None:
    """Failed or cancelled, with the class of the error: every intent gets its outcome."""
    journal = Journal()

    def body() -> None:
        raise error

    with escalade.scope(recorder=journal), pytest.raises(error):
        use(resource(), body, ceiling=5)
    (entry,) = journal.entries()
    assert (entry.outcome, entry.error, entry.cost) == (outcome, error.__name__, 5)
    assert journal.running() == []


def test_a_denial_stands_apart() -> None:
    """A refused use has no intent and no outcome; the denial names the refusal, the caller and the rule."""
    journal = Journal()
    access = escalade.Roles({"reader": ["other:call"]})
    with (
        escalade.scope(recorder=journal, principal=Principal("ana", roles={"reader"}), access=access),
        pytest.raises(PermissionDenied),
    ):
        use(resource(), int, ceiling=0)
    assert journal.entries() == []
    (entry,) = journal.denials()
    assert (entry.outcome, entry.principal.user) == ("PermissionDenied", "ana")
    assert entry.rule == "nothing grants 't:call' to reader"
    assert entry.cost == entry.held == 0


async def test_call_ids_are_unique_across_tasks() -> None:
    """Each use has an id of its own, however many run at once."""
    journal = Journal()

    async def body() -> None:
        await asyncio.sleep(0)

    async with escalade.scope(recorder=journal):
        await asyncio.gather(*(ause(resource(), body, ceiling=0) for _ in range(100)))
    assert len({entry.call_id for entry in journal.entries()}) == 100


def test_it_is_bounded_and_the_total_is_not() -> None:
    """The journal keeps the newest entries, and counts the money of all of them."""
    journal = Journal(keep=3)
    with escalade.scope(recorder=journal):
        for name in "abcde":
            use(resource(name), int, ceiling=2)
    assert [entry.resource for entry in journal.entries()] == ["c", "d", "e"]
    assert journal.settled == Money(10)


def test_an_unknown_price_is_not_a_price_of_zero() -> None:
    """The cost of a use without a known price is marked as unknown; a bill makes it known."""
    journal = Journal()
    with escalade.scope(recorder=journal):
        use(resource(), int, ceiling=None)
        use(resource(), int, ceiling=None, cost=lambda _: 4)
        use(resource(), int, ceiling=0)
    assert [(entry.cost, entry.priced) for entry in journal.entries()] == [(0, False), (4, True), (0, True)]
