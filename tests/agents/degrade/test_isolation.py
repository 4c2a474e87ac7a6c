"""Whatever is asked in whatever order, nobody gets what was made for another tenant, or what is too old."""

from __future__ import annotations

from typing import Any

import dspy
from dspy import lm15
from hypothesis import given, settings
from hypothesis import strategies as st

import escalade
from escalade.agents.degrade import Answers, Resilient
from escalade.registry.access import Roles
from escalade.scopes import Principal, current
from tests.registry.helpers import Clock

FRESH, STALE = 10.0, 100.0
POLICIES = (Roles({"a": ["model.*:call"], "b": ["tool:call"]}), Roles({"a": ["*"], "b": ["*"]}))
PEOPLE = st.builds(
    Principal, st.sampled_from(["ana", "bo"]), st.sampled_from(["acme", "evil"]), st.sampled_from(["a", "b"])
)
STEPS = st.lists(
    st.tuples(
        st.lists(PEOPLE, min_size=1, max_size=2),
        st.sampled_from(["q1", "q2"]),
        st.integers(0, 1),
        st.booleans(),
        st.sampled_from([0.0, 5.0, 11.0, 101.0]),
    ),
    max_size=30,
)


class Whose(dspy.Module):
    """Answers with whom it was asked for, by which policy, what, and when; or not at all."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock, self.down = clock, False

    def forward(self, question: str) -> Any:
        if self.down:
            raise lm15.ServerError("down", provider="test", status=500)
        scope = current()
        assert scope is not None
        whose = [[p.tenant, p.user, sorted(p.roles)] for p in scope.principals]
        return dspy.Prediction(whose=whose, policy=scope.access.digest, question=question, at=self.clock())


@given(steps=STEPS, per=st.sampled_from(["tenant", "user"]))
@settings(max_examples=60, deadline=None)
def test_nobody_gets_another_s_answer(steps: list[Any], per: Any) -> None:
    """An answer was made for the same tenants, roles, policy and question (and users, where it is kept per user), and
    is at most `stale` seconds old; one that is fresh is at most `fresh`.
    """
    clock = Clock(1_000.0)
    program = Whose(clock)
    resilient = Resilient(
        program, answers=Answers(fresh=FRESH, stale=STALE, per=per, now=clock), outputs=["whose"], name="whose"
    )
    for people, question, policy, down, wait in steps:
        program.down = down
        clock.forward(wait)
        with escalade.scope(principal=people[0], access=POLICIES[policy]):
            if len(people) == 1:
                answer = resilient(question=question)
            else:
                with escalade.scope(principal=people[1]):
                    answer = resilient(question=question)
        if answer.level == 5:
            assert down
            continue
        kept = 2 if per == "user" or answer.level == 2 else 1  # tenant, and user where that counts
        mine = [[*[p.tenant, p.user][:kept], sorted(p.roles)] for p in people]
        assert [[*each[:kept], each[2]] for each in answer.whose] == mine
        assert (answer.policy, answer.question) == (POLICIES[policy].digest, question)
        assert clock() - answer["at"] <= (FRESH if answer.level == 1 else STALE)
        assert answer.level != 4 or down
