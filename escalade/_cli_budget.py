"""`escalade budget`: how budgets in a store stand, and setting them while programs run.

What the commands need is imported when they run. Exit codes: 0; 1 for a store that can't be used; 2 for what the user
can put right; 100 when an account has reached the mark that was asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from escalade._cli_view import print_, print_json, safe

if TYPE_CHECKING:
    from escalade.money import Money
    from escalade.registry.budgets import Budget, Period
    from escalade.registry.standing import Standing
    from escalade.registry.stores.shared import Store

OK, REACHED = 0, 100
"""Exit codes; `cli.main` has 1 and 2."""

Flag = Annotated[bool, Parameter(negative=(), show_default=False)]

app = App(name="budget", help="Budgets in a store that processes share: look at them, and set them while programs run.")


@app.command(sort_key=1)
def show(
    store: str,
    *accounts: str,
    fail_at: Literal["warn", "brake"] | None = None,
    prefix: str = "escalade",
    json: Flag = False,
) -> int:
    """What is spent, held and left of each account, and what a month costs at the present rate.

    The projection is arithmetic: what was spent in this period, over the time that it took, over a whole month.

    Parameters
    ----------
    store
        A file of SqliteLedger, or the URL of a Redis or PostgreSQL server.
    accounts
        Only these; all by default.
    fail_at
        Exit with 100 when one of them has reached this mark.
    prefix
        Of the keys in Redis; the schema in PostgreSQL.
    json
        One JSON object instead of a table.
    """
    from escalade.registry.budgets import is_pattern
    from escalade.registry.standing import standing
    from escalade.registry.stores.opened import open_store

    opened = open_store(store, prefix=prefix)
    now = opened.now()
    rows = _chosen(opened, accounts, now)
    stand = [standing(row, now) for row in rows if not is_pattern(row.name)]
    each = [row for row in rows if is_pattern(row.name)]
    if json:
        rules = [{"account": row.name, "limit": _dollars(row.limit), "period": row.period} for row in each]
        print_json({"accounts": [one.as_dict() for one in stand], "rules": rules})
    else:
        _show(stand, each)
    reached = {"warn", "brake"} if fail_at == "warn" else {fail_at}
    return REACHED if any(one.level in reached for one in stand) else OK


@app.command(name="set", sort_key=2)
def set_(
    store: str,
    account: str,
    limit: str,
    *,
    period: Literal["none", "day", "month"] | None = None,
    warn: float | None = None,
    brake: float | None = None,
    by: str | None = None,
    audit: str | None = None,
    create: Flag = False,
    prefix: str = "escalade",
) -> int:
    """Set the limit of an account. Programs that run use it from their next call on; what is spent stays spent.

    The store notes the change, as `escalade budget history` shows. A limit below what is spent refuses all that
    follows, until the period ends. A rule like user:acme/* holds for accounts that have no budget of their own yet.

    Parameters
    ----------
    store
        A file of SqliteLedger, or the URL of a Redis or PostgreSQL server.
    account
        everything, tenant:NAME, user:TENANT/NAME, a rule like tenant:* or user:acme/*, or request.
    limit
        Dollars, such as 25.00.
    period
        Calendar periods in UTC; the one that it has by default.
    warn
        Share of the limit at which listeners are warned.
    brake
        Share of the limit at which escalation stops.
    by
        Who sets it; the user of this system by default.
    audit
        An audit log that the change is recorded in, too: nothing is set if it can't be.
    create
        Make the store if there is none.
    prefix
        Of the keys in Redis; the schema in PostgreSQL.
    """
    from escalade.registry.stores.opened import open_store

    opened = open_store(store, prefix=prefix, create=create)
    was = _budget(opened, account)
    budget = _changed(was, account, limit, period, warn, brake)
    _recorded(opened, was, budget, _who(by), audit)
    before = "new" if was is None else _said(was)
    print_(f"{safe(budget.account)}: {before} -> [bold]{_said(budget)}[/]")
    return OK


@app.command(sort_key=3)
def load(store: str, file: str, *, by: str | None = None, create: Flag = False, prefix: str = "escalade") -> int:
    """Set all budgets of a file. Accounts that it doesn't name stay as they are.

    Parameters
    ----------
    store
        A file of SqliteLedger, or the URL of a Redis or PostgreSQL server.
    file
        Budgets in YAML, JSON or TOML.
    by
        Who sets them; the user of this system by default.
    create
        Make the store if there is none.
    prefix
        Of the keys in Redis; the schema in PostgreSQL.
    """
    from escalade.registry.budgets_file import load_budgets
    from escalade.registry.stores.opened import open_store

    budgets = load_budgets(file)
    opened = open_store(store, prefix=prefix, create=create)
    for budget in budgets:
        opened.set_budget(budget, opened.now(), by=_who(by))
        print_(f"{safe(budget.account)}: [bold]{_said(budget)}[/]")
    return OK


@app.command(sort_key=4)
def history(store: str, *, prefix: str = "escalade", json: Flag = False) -> int:
    """Who set which budget when, the latest first.

    Parameters
    ----------
    store
        A file of SqliteLedger, or the URL of a Redis or PostgreSQL server.
    prefix
        Of the keys in Redis; the schema in PostgreSQL.
    json
        One JSON object instead of lines.
    """
    from datetime import UTC, datetime

    from escalade.registry.stores.opened import open_store

    changes = open_store(store, prefix=prefix).changes()
    told = [
        {
            "at": datetime.fromtimestamp(change.at, UTC).isoformat(timespec="seconds"),
            "account": change.now.account,
            "was": None if change.was is None else _said(change.was),
            "now": _said(change.now),
            "by": change.by,
        }
        for change in changes
    ]
    if json:
        print_json({"changes": told})
    else:
        for one in told:
            by = f"by {one['by']}" if one["by"] else "by a program"
            print_(safe(f"{one['at']}  {one['account']}: {one['was'] or 'new'} -> {one['now']}, {by}"))
    return OK


@app.command(sort_key=5)
def schema() -> int:
    """The JSON schema of files of budgets, for editors."""
    from escalade.registry.budgets_file import budgets_schema

    print_json(budgets_schema())
    return OK


def _chosen(store: Store, accounts: tuple[str, ...], now: float) -> list[Any]:
    rows = sorted(store.read(None, now), key=lambda row: row.name)
    if not accounts:
        return rows
    from escalade.errors import UnknownName

    known = {row.name: row for row in rows}
    for name in accounts:
        if name not in known:
            raise UnknownName("account", name, list(known))
    return [known[name] for name in accounts]


def _budget(store: Store, account: str) -> Budget | None:
    from escalade.registry.stores.shared import budget_of

    return next((budget_of(row) for row in store.read([account], store.now())), None)


def _changed(
    was: Budget | None, account: str, limit: str, period: Period | None, warn: float | None, brake: float | None
) -> Budget:
    """What the budget shall be; what isn't said stays. Raises BadInput."""
    from escalade.registry.budgets import Budget

    said = {"period": period, "warn": warn, "brake": brake}
    kept: dict[str, Any] = {} if was is None else {"period": was.period, "warn": was.warn, "brake": was.brake}
    return Budget(account, limit, **{**kept, **{name: value for name, value in said.items() if value is not None}})


def _recorded(store: Store, was: Budget | None, budget: Budget, by: str, audit: str | None) -> None:
    """Set it; in the audit log, as an intent before and an outcome after."""
    if audit is None:
        store.set_budget(budget, store.now(), by=by)
        return
    import time

    from escalade.registry.audit import AuditLog, reading
    from escalade.scopes import Entry, Principal

    reading.tail(audit, 1)  # a log that is there, not a new one by a slip of the hand
    rule = f"{'new' if was is None else _said(was)} -> {_said(budget)}"
    who = Principal(user=by, tenant="operators")
    entry = Entry(f"budget-{time.time_ns()}", "", who, budget.account, "", "budget", rule=rule, started=time.time())
    entry.permission, entry.side_effects = "budget:set", "write"
    with AuditLog(audit) as log:
        log.intent(entry)
        entry.outcome = "failed"
        try:
            store.set_budget(budget, store.now(), by=by)
            entry.outcome = "ok"
        finally:
            log.outcome(entry)


def _who(by: str | None) -> str:
    import getpass

    return getpass.getuser() if by is None else by


def _said(budget: Budget) -> str:
    from escalade.money import Money

    every = {"none": "", "day": " a day", "month": " a month"}[budget.period]
    marks = f", warns at {budget.warn:.0%}, brakes at {budget.brake:.0%}"
    return f"{Money.of(budget.limit)}{every}{marks if (budget.warn, budget.brake) != (0.80, 0.95) else ''}"


def _dollars(nanos: int) -> str:
    from escalade.money import Money

    return format(Money(nanos).dollars, "f")


def _show(stand: list[Standing], each: list[Any]) -> None:
    from rich.table import Table

    from escalade.registry.stores.shared import budget_of

    table = Table(box=None, header_style="bold")
    for name in ("account", "period", "limit", "spent", "held", "left", "used", "month at this rate"):
        table.add_column(name, justify="left" if name in {"account", "period", "used"} else "right", no_wrap=True)
    for one in stand:
        month = "-" if one.month is None else _usd(one.month)
        over = one.month is not None and one.period == "month" and one.month > one.limit
        cells = [_usd(amount) for amount in (one.limit, one.spent, one.held, one.left)]
        period = "" if one.period == "none" else one.period
        table.add_row(safe(one.account), period, *cells, _bar(one), f"[red]{month}[/]" if over else month)
    print_(table if stand else "no account has a budget yet")
    for row in each:
        print_(f"each {safe(row.name)}: {_said(budget_of(row))}")


def _usd(amount: Money) -> str:
    """In cents; below one, all digits."""
    return f"${amount:.2f}" if amount >= 10_000_000 or not amount else str(amount)


def _bar(one: Standing) -> str:
    """Ten blocks and a percentage: green, yellow past the warning, red past the brake."""
    full = min(10, int(one.share * 10 + 0.5))
    colour = {"": "green", "warn": "yellow", "brake": "red"}[one.level]
    return f"[{colour}]{'█' * full}{'░' * (10 - full)}[/] {one.share:.0%}"
