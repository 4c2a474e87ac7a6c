"""The load run of the benchmarks (`python -m benchmarks load`) at a twelfth of its size: the same must hold."""

from __future__ import annotations

import pytest

from benchmarks.load import ANSWERED, UNKNOWN, Load, loaded
from escalade.agents.transports import LiteLLM
from tests.servers.fault_server import MIXED

pytestmark = [
    # litellm builds its pydantic models on the first call, and pydantic doesn't like them.
    pytest.mark.filterwarnings("ignore:Item 'summary' on TypedDict class:UserWarning"),
]

REQUESTS = 160


@pytest.fixture(scope="module")
def load() -> Load:
    """160 requests by 16 agents."""
    LiteLLM.preload().join()
    return loaded(REQUESTS, agents=16, timeout=1.5)


def test_no_request_is_lost(load: Load) -> None:
    """Each has an answer, an apology or a clear error, and nearly all have an answer, though a fifth of the calls fail
    and one of two providers is dead for half of the time.
    """
    assert load.lost == 0
    assert load.ends.total() == len(load.seconds) == REQUESTS
    assert load.answered >= ANSWERED


def test_no_money_is_wrong(load: Load) -> None:
    """Each attempt is settled at the provider's count, at its reservation where nobody knows, at nothing where surely
    nothing was billed; the budgets of the tenants add up to that, and nothing stays held.
    """
    assert load.wrong == load.held == 0
    assert load.settled == load.booked
    assert load.settled >= load.billed > 0


def test_all_kinds_of_faults_happened(load: Load) -> None:
    """Each of the six kinds, and the dead provider; every one is an attempt in the journal that failed for it."""
    assert all(load.faults[fault] > 0 for fault in (*MIXED, "dead"))
    assert load.failures["RateLimitError"] == load.faults["e429:1"]
    assert load.failures["ServerError"] == load.faults["e500"]
    assert load.failures["ContextLengthError"] == load.faults["ctx"]
    assert load.failures["ProviderError"] == load.faults["badjson"]
    assert load.failures.total() >= load.faults.total()
    assert all(load.failures[error] > 0 for error in UNKNOWN)
