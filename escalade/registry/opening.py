"""Opening a scope: `escalade.scope(...)` for a block, `escalade.configure(...)` for a process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from decimal import Decimal
from os import PathLike
from typing import Any, cast

from escalade.errors import BadInput, NoPolicy
from escalade.events import new_run_id, unscoped
from escalade.money import Money, money_or_none
from escalade.registry.access import everything_allowed
from escalade.registry.budgets import UNLIMITED, run_account
from escalade.registry.elsewhere import elsewhere, is_remote
from escalade.registry.journal import Journal
from escalade.registry.ledger import Account, Budget, Ledger, LedgerPurse
from escalade.registry.lock import Lock, locked
from escalade.registry.modes import Mode, moded, rewound
from escalade.scopes import (
    NOBODY,
    Access,
    Desk,
    Entered,
    Entry,
    Principal,
    Recorder,
    Scope,
    current,
    set_default,
    set_runs,
)

OWNER = Principal(user="owner", roles=frozenset({"owner"}))
"""Who runs a script without saying who: may use everything, in his own name."""

_EXPECTED = {
    "principal": ("roles", 'a Principal("ada", "acme", {"analyst"})'),
    "ledger": ("purse", 'a Ledger([Budget("tenant:acme", "100")])'),
    "access": ("check_roles", 'a policy, like Roles({"analyst": ["crm.*:call"]}) or Roles.load("policy.yaml")'),
    "recorder": ("denied", 'a recorder, like AuditLog("audit.sqlite")'),
    "approvals": ("ticket", 'a desk, like Approvals(SqliteRequests("approvals.sqlite"), access=policy)'),
}
"""What a scope takes, each told by an attribute that it has, and how it is written."""


def scope(
    *,
    budget: str | Decimal | Money | None = None,
    principal: Principal | None = None,
    deadline: float | None = None,
    ledger: Ledger | None = None,
    access: Access | None = None,
    recorder: Recorder | None = None,
    approvals: Desk | None = None,
    listen: Callable[[Any], None] | Iterable[Callable[[Any], None]] = (),
    name: str = "run",
    run_id: str | None = None,
    optional: bool = False,
    lock: Lock | str | PathLike[str] | None = None,
    mode: Mode | None = None,
    cassette: str | PathLike[str] | None = None,
) -> Entered:
    """A scope for a `with` or `async with` block: who, how much, until when, where it is recorded.

    Inside another scope it narrows that one: the tighter budget, the earlier deadline, the smaller set of permissions;
    `ledger`, `access`, `recorder`, `approvals` and `run_id` can't be replaced there.

        with escalade.scope(budget="0.05", deadline=30):
            answer = agent(question="…")

    `budget`: dollars, None for no limit of its own; a ledger's budget for `request` holds all the same. `deadline`:
    seconds from entering. `listen`: called with each event. `approvals`: where people approve the calls that need it.
    `run_id`: goes on with an earlier run, so that what was approved for it counts; a new one by default. `optional`: a
    refusal inside doesn't exhaust the outer scope.
    `lock`: the versions that ranges mean in this run, as `registry.write_lock` wrote them; only on the outermost.
    `mode`: what tools do, see `registry/modes.py`: live, record, live-read-only, dry-run or replay; "record" and
    "replay" need a `cassette`, a file. A nested mode is never more live.

    Leaving the block raises BudgetExceeded when a use was refused for money, even if DSPy swallowed the exception.
    Raises BadInput, NoPolicy, UnknownName (a role).
    """
    limit = money_or_none(budget)
    _check_kinds(principal=principal, ledger=ledger, access=access, recorder=recorder, approvals=approvals)
    if deadline is not None and not (isinstance(deadline, int | float) and deadline > 0):  # nan is refused, too
        raise BadInput(f"deadline: expected seconds > 0, got {deadline!r}")
    listeners = (listen,) if callable(listen) else tuple(listen)

    def make() -> Scope:
        _wall()
        outer = current()
        if outer is None:
            cap = _cap(ledger, limit)
            most = limit if cap is None else Money.of(cap.limit)
            heard = (*unscoped()[1], *listeners)  # who listens already, outside of any scope
            made = _root(most, principal, deadline, ledger, access, recorder, heard, name, approvals, run_id)
            return moded(locked(_marked(replace(made, once={}), cap), lock), mode, cassette)
        if any(given is not None for given in (ledger, access, recorder, approvals, run_id)):
            raise BadInput(
                "a nested scope narrows the outer one: ledger, access, recorder, approvals and run_id are set on the "
                "outermost"
            )
        outer.check_open()
        cap = _cap(getattr(outer.purse, "ledger", None), limit) if outer.once is None else None
        inner = outer.narrow(
            name=name,
            budget=limit if cap is None else Money.of(cap.limit),
            deadline=deadline,
            principal=principal,
            optional=optional,
            listeners=listeners,
        )
        if outer.once is None:  # the configured one: this is a run of its own
            inner = _marked(rewound(inner), cap)
        return moded(locked(inner, lock), mode, cassette)

    async def amake() -> Scope:
        """`make`; a store is asked for the budgets in a thread, so that the event loop goes on."""
        outer = current()
        if outer is None:
            asked = ledger
        else:
            asked = getattr(outer.purse, "ledger", None) if principal or outer.once is None else None
        return await elsewhere(make) if is_remote(asked) else make()

    return Entered(make, amake=amake)


def run_scope(
    run_id: str,
    *,
    principal: Principal | None = None,
    budget: int | None = None,
    spent: int = 0,
    deadline: float | None = None,
    ledger: Ledger | None = None,
    book: Ledger | None = None,
    access: Access | None = None,
    recorder: Recorder | None = None,
    approvals: Desk | None = None,
    listen: Iterable[Callable[[Any], None]] = (),
) -> Scope:
    """The scope of an attempt at a durable run: within the configured one, if there is one, for all that isn't given.

    It has an account of the ledger, which outlives processes where the ledger does. `budget`: nano-dollars of the run,
    over all attempts together; None: the account only counts. `spent`: of earlier attempts, as far as is known; where
    the ledger knows of more, that counts. `book`: the ledger where none is given and no scope is configured. Blocks.
    """
    _wall()
    outer = current()
    if outer is None:
        ledger = book if ledger is None else ledger
        made = _root(None, principal, deadline, ledger, access, recorder, tuple(listen), "run", approvals, run_id)
    else:
        within = _replaced(outer, ledger, access, recorder, approvals)
        made = within.narrow(name="run", deadline=deadline, principal=principal, listeners=tuple(listen))
        made = replace(rewound(made), run_id=run_id)
    purse = cast("LedgerPurse", made.purse)
    kept = purse.ledger
    cap = kept.per_request()
    limit = (
        budget if cap is None else min(int(Money.of(cap.limit)), int(Money.of(cap.limit)) if budget is None else budget)
    )
    name = run_account(run_id)
    most = UNLIMITED if limit is None else Money(limit)
    kept.set_budget(Budget(name, most, warn=1.0, brake=1.0))  # the scope's own account warns and brakes
    (account,) = kept._budgeted(name)
    purse = LedgerPurse(kept, (purse.account, account, *purse.path[1:]), run_id)
    _caught_up(kept, account, spent)
    if limit is not None:
        purse.account.set_marks(limit, cap.warn if cap else 0.8, cap.brake if cap else 0.95)
    purse.account.settled = max(spent, account.settled + account.overrun)
    return replace(made, purse=purse, once={})


def also_paid_by(made: Scope, name: str) -> Scope:
    """The scope, where what is spent counts on this account of its ledger, too: `run_account(...)` of several runs that
    share a budget. Its budget is set by whoever begins them. Raises BadInput for an account that isn't there.
    """
    purse = cast("LedgerPurse", made.purse)
    path = (purse.account, *account_of(made, name).path, *purse.path[1:])
    return replace(made, purse=LedgerPurse(purse.ledger, path, purse.account.name))


def account_of(made: Scope, name: str) -> LedgerPurse:
    """An account of the scope's ledger, by itself. Raises BadInput for one that isn't there."""
    purse = cast("LedgerPurse", made.purse)
    found = purse.ledger._budgeted(name)
    if not found:
        raise BadInput(f"the ledger has no budget {name!r}: runs that share it need the ledger in which it was set")
    return LedgerPurse(purse.ledger, found, purse.run)


def _caught_up(ledger: Ledger, account: Account, spent: int) -> None:
    """A run that had ended has a new account, which must know what was spent before: the next attempt asks it alone.
    What a dead process still holds will be booked there.
    """
    missing = spent - account.used - account.overrun
    if missing > 0:
        fits = missing if account.left is None else min(missing, account.left)
        ledger._reserve((account,), fits, "earlier attempts").settle(missing)


def _replaced(
    outer: Scope, ledger: Ledger | None, access: Access | None, recorder: Recorder | None, approvals: Desk | None
) -> Scope:
    """The configured scope, with what is given in its place. A policy comes with its own principals."""
    given = {"recorder": recorder, "approvals": approvals, "access": access}
    found: dict[str, Any] = {name: one for name, one in given.items() if one is not None}
    if access is not None:
        _check_policy(access, None, recorder, "run", outer.run_id)
        found["principals"] = ()
    if ledger is not None:
        found["purse"] = ledger.purse(name="configured")
    return replace(outer, **found)


def _cap(ledger: Ledger | None, limit: Money | None) -> Budget | None:
    """The ledger's budget of each run, where it is tighter than the run's own."""
    cap = None if ledger is None else ledger.per_request()
    return None if cap is None or (limit is not None and limit <= Money.of(cap.limit)) else cap


def _marked(run: Scope, cap: Budget | None) -> Scope:
    """The run, which warns and brakes where the budget of each run does."""
    if cap is not None and isinstance(run.purse, LedgerPurse):
        run.purse.account.set_marks(run.purse.account.limit, cap.warn, cap.brake)
    return run


def configure(
    *,
    budget: str | Decimal | Money | None = None,
    principal: Principal | None = None,
    ledger: Ledger | None = None,
    access: Access | None = None,
    recorder: Recorder | None = None,
    approvals: Desk | None = None,
    listen: Callable[[Any], None] | Iterable[Callable[[Any], None]] = (),
    mode: Mode | None = None,
    cassette: str | PathLike[str] | None = None,
    runs: Any = None,
) -> Scope:
    """Install the scope that holds wherever none was opened; one line for notebooks and applications.

    With `access` and without `principal` nobody may do anything until a nested scope says who asks: the shape of a
    server. Called again, it replaces the former one. Arguments as for `scope`; each run that is opened within it
    replays its `cassette` from the beginning. `runs`: the durable runs that `pipeline.start(...)` means from now on.
    """
    if runs is not None:
        set_runs(runs)
    _wall()
    limit = money_or_none(budget)
    _check_kinds(principal=principal, ledger=ledger, access=access, recorder=recorder, approvals=approvals)
    listeners = (listen,) if callable(listen) else tuple(listen)
    made = _root(limit, principal, None, ledger, access, recorder, listeners, "configured", approvals)
    made = moded(made, mode, cassette)
    set_default(made)
    return made


def _root(
    limit: Money | None,
    principal: Principal | None,
    deadline: float | None,
    ledger: Ledger | None,
    access: Access | None,
    recorder: Recorder | None,
    listeners: tuple[Callable[[Any], None], ...],
    name: str,
    approvals: Desk | None = None,
    run_id: str | None = None,
) -> Scope:
    run_id = new_run_id() if run_id is None else run_id
    _check_policy(access, principal, recorder, name, run_id)
    if access is None:
        access, principal = everything_allowed(), OWNER
    if principal is not None:
        access.check_roles(principal.roles)
    book = Ledger() if ledger is None else ledger
    until = float("inf") if deadline is None else time.monotonic() + deadline
    return Scope(
        principals=() if principal is None else (principal,),
        purse=book.purse(principal, limit=limit, name=name, run=run_id),
        access=access,
        recorder=Journal() if recorder is None else recorder,
        deadline=until,
        run_id=run_id,
        listeners=listeners,
        approvals=approvals,
    )


def _check_kinds(**given: object) -> None:
    """Raises BadInput for a path, a dict or a list where an object of ours belongs: here, not at the first call."""
    for name, one in given.items():
        attribute, example = _EXPECTED[name]
        if one is not None and (isinstance(one, type) or not hasattr(one, attribute)):
            raise BadInput(f"{name}: expected {example}, got {one!r}")


def _check_policy(
    access: Access | None, principal: Principal | None, recorder: Recorder | None, name: str, run_id: str
) -> None:
    """Raises NoPolicy. No scope opens then, but who asked for one is in the record, as for any refusal."""
    if principal is not None and access is None:
        why = (
            "a principal needs an access policy that says what his roles may do: "
            'escalade.scope(principal=..., access=Roles({"analyst": ["crm.*:call", "model.*:call"]}))'
        )
    elif getattr(access, "empty", False):
        why = "the access policy grants nothing to anybody; load one with Roles.load(...)"
    else:
        return
    if recorder is not None:
        who = NOBODY if principal is None else principal
        refused = Entry(new_run_id(), run_id, who, name, "", "scope", started=time.time(), principals=(who,))
        refused.outcome, refused.error = "NoPolicy", why
        recorder.denied(refused)
    raise NoPolicy(why)


def _wall() -> None:
    from escalade.registry import privacy, wall

    wall.build()
    privacy.install()
