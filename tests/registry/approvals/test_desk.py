"""The desk: who may decide, once, in time; and who is told."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from escalade import Principal, Roles
from escalade.errors import ApprovalRequired, BadInput, NoPolicy, PermissionDenied, UnknownName
from escalade.registry.approvals import Approvals, Request
from tests.registry.approvals.calls import ANA, BOSS, JUNIOR, POLICY, desk, governed, only, ran, scope
from tests.registry.helpers import Clock


def asked(at: Approvals, amount: int = 500) -> Request:
    """Ana has asked for a charge."""
    with scope(at), pytest.raises(ApprovalRequired):
        governed()(amount=amount)
    return only(at)


def test_what_a_person_sees() -> None:
    """The request has the exact arguments with the defaults, who asks, in which run, under which policy and rule."""
    at = desk(clock=Clock(1000.0))
    request = asked(at)
    assert request.arguments == '{"amount":500,"currency":"EUR"}'
    assert (request.label, request.user, request.tenant, request.run_id) == ("pay.charge@1.0.0", "ana", "acme", "run-1")
    assert (request.policy_digest, request.rule) == (POLICY.digest, "role 'clerk' grants 'pay.charge:call'")
    assert (request.created, request.expires) == (1000.0, 4600.0)
    assert request.to_json()["arguments"] == {"amount": 500, "currency": "EUR"}
    assert request.to_json()["principals"] == [["ana", "acme", ["clerk"]]]


def test_who_approved_and_when() -> None:
    """A decision is kept with name, time and reason."""
    at = desk(clock=Clock(1000.0))
    done = at.approve(asked(at).id, BOSS, "agreed")
    assert (done.state, done.decided_by, done.decided_at, done.reason) == ("approved", "bea", 1000.0, "agreed")


@pytest.mark.parametrize(
    ("by", "message"),
    [
        (ANA, "'ana' asks for it and may not decide it"),
        (Principal("ANA ", "acme", frozenset({"boss"})), "asks for it and may not decide it"),
        (Principal("bob", "acme", frozenset({"clerk"})), "may not decide on pay.charge@1.0.0: nothing grants"),
        (Principal("bea", "globex", frozenset({"boss"})), "may not decide for tenant 'acme'"),
        (JUNIOR, "not with these arguments: role 'junior' grants 'pay.charge:approve' when amount <= 100"),
    ],
    ids=["the asker", "the asker in other letters", "no such permission", "another tenant", "too much for him"],
)
def test_who_may_not_decide(by: Principal, message: str) -> None:
    """Neither approving nor denying is for the asker, for strangers, for other tenants, or beyond one's condition."""
    at = desk()
    request = asked(at)
    for decide in (at.approve, at.deny):
        with pytest.raises(PermissionDenied, match=message):
            decide(request.id, by)
    assert only(at) == request


@pytest.mark.parametrize("by", ["bea", None])
def test_a_name_is_nobody_who_decides(by: Any) -> None:
    """Whoever decides has roles and a tenant: a Principal is expected."""
    at = desk()
    request = asked(at)
    with pytest.raises(BadInput, match="by: expected the Principal who decides, got "):
        at.approve(request.id, by=by)
    with pytest.raises(UnknownName, match="unknown approval request '7'"):
        at.deny(7, by=BOSS)  # type: ignore[arg-type]
    assert only(at) == request


def test_conditions_hold_for_approvers() -> None:
    """Who may approve up to an amount approves up to that amount."""
    at = desk()
    assert at.approve(asked(at, amount=100).id, JUNIOR).state == "approved"


def test_self_approval_only_where_allowed() -> None:
    """Where the desk says so, a person with the permission may approve what he asks for."""
    at = desk(self_approval=True)
    with scope(at, principal=BOSS), pytest.raises(ApprovalRequired):
        governed()(amount=1)
    assert at.approve(only(at).id, BOSS).state == "approved"


@pytest.mark.parametrize("name", ["ANA", " ana", "an\u200ba", "\u2060ana", "\uff41na", "ana\u00ad"])
def test_oneself_by_another_spelling(name: str) -> None:
    """Who asks is no second pair of eyes by a name that looks the same: case, width, letters that nobody sees."""
    at = desk()
    request = asked(at)
    with pytest.raises(PermissionDenied, match="asks for it"):
        at.approve(request.id, Principal(name, "acme", BOSS.roles))


def test_everybody_on_whose_behalf_it_is_asked_is_an_asker() -> None:
    """The outer principal of a nested scope can't approve what is done in his name."""
    at = desk()
    with scope(at, principal=BOSS), scope_inside(), pytest.raises(ApprovalRequired):
        governed()(amount=1)
    with pytest.raises(PermissionDenied, match="asks for it"):
        at.approve(only(at).id, BOSS)


def scope_inside():
    import escalade

    return escalade.scope(principal=ANA)


def test_decided_once_and_in_time() -> None:
    """A second decision and a late one are refused, and say what has become of it."""
    clock = Clock()
    at = desk(clock=clock, expires=10)
    request = asked(at)
    at.deny(request.id, BOSS, "no")
    with pytest.raises(BadInput, match="can't be approved: it is denied by 'bea'"):
        at.approve(request.id, BOSS)
    clock.forward(10)
    late = asked(at)
    assert late.id != request.id
    clock.forward(10)
    with pytest.raises(BadInput, match="can't be approved: it is expired"):
        at.approve(late.id, BOSS)
    assert [one.state for one in at.requests()] == ["expired", "expired"]
    with pytest.raises(UnknownName, match="unknown approval request 'nothing'"):
        at.approve("nothing", BOSS)


def test_no_policy_no_decision() -> None:
    """A desk without a policy lets nobody decide; roles that don't exist are named."""
    at = Approvals()
    with scope(at), pytest.raises(ApprovalRequired):
        governed()(amount=1)
    with pytest.raises(NoPolicy, match="says who may"):
        at.approve(only(at).id, BOSS)
    with pytest.raises(UnknownName, match="unknown role 'bos'; did you mean 'boss'"):
        desk(at.store).approve(only(at).id, Principal("bea", "acme", frozenset({"bos"})))


def test_somebody_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Each new request is told once; telling that fails is logged, and the request is open all the same."""
    told: list[Request] = []
    at = desk(on_request=told.append)
    with scope(at):
        tool = governed()
        for _ in range(2):
            with pytest.raises(ApprovalRequired):
                tool(amount=1)
    assert told == [only(at)]

    def failing(_: Request) -> None:
        raise OSError("no mail today")

    with caplog.at_level(logging.ERROR):
        at = desk(on_request=failing)
        asked(at)
    assert "telling of it failed" in caplog.text


def test_bad_settings() -> None:
    """Times are more than no time."""
    for bad in ({"expires": 0.0}, {"poll": -1.0}, {"expires": float("nan")}):
        with pytest.raises(BadInput, match="expected seconds > 0"):
            Approvals(**bad)


def test_one_open_request_for_many_calls() -> None:
    """A model that insists doesn't flood the desk."""
    at = desk()
    with scope(at):
        tool = governed()
        said = set()
        for _ in range(5):
            with pytest.raises(ApprovalRequired) as caught:
                tool(amount=1)
            said.add((str(caught.value), caught.value.request_id))
    number = only(at).id
    line = f"pay.charge@1.0.0 needs a person's approval of exactly this call; request {number} waits for a decision"
    assert [(line in text, request_id) for text, request_id in said] == [(True, number)]
    assert ran == []


def test_policies_can_ask_for_approval() -> None:
    """A rule that needs approval does it for any tool, without the tool's own saying."""
    policy = Roles({"clerk": [{"permit": "pay.*:call", "needs": "approval"}], "boss": ["*"]})
    at = Approvals(access=policy)
    with scope(at, access=policy):
        tool = governed(approval=None)
        with pytest.raises(ApprovalRequired):
            tool(amount=1)
        at.approve(only(at).id, BOSS)
        assert tool(amount=1) == "charged 1 EUR"
