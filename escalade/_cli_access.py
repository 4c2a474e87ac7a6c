"""The commands `escalade access` and `escalade approvals`. What they need is imported when they run."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from escalade._cli_view import json_object, new_table, print_, print_json, safe
from escalade.errors import BadInput, UnknownName

if TYPE_CHECKING:
    from escalade.registry.access.explain import Asked
    from escalade.registry.access.policy import Roles
    from escalade.registry.access.simulate import Changes, Redecided
    from escalade.registry.approvals.desk import Approvals
    from escalade.registry.approvals.requests import Request
    from escalade.scopes import Principal

OK, DIFFERS = 0, 100
"""Exit codes; `cli.main` has 2 for bad input and 1 for other refusals."""

Flag = Parameter(negative=(), show_default=False)
Many = Parameter(negative=())

access = App(name="access", help="Who may do what, why, and what another policy would change.")
approvals = App(name="approvals", help="Calls that wait for a person.")


@access.command
def explain(
    tool: str,
    /,
    *,
    policy: str,
    user: str = "somebody",
    role: Annotated[list[str] | None, Many] = None,
    tenant: str = "default",
    args: str | None = None,
    tools: str | None = None,
    effect: Literal["read", "write", "irreversible"] | None = None,
    json: Annotated[bool, Flag] = False,
) -> int:
    """Why somebody may call a tool, or why not.

    Parameters
    ----------
    tool
        Its name, or a permission like crm.search:call. With --tools, a name that stands there.
    policy
        A YAML, JSON or TOML file.
    user
        His name.
    role
        One of his roles. Can be repeated.
    tenant
        Of the user.
    args
        The arguments of the call, as a JSON object; without them, whether some call is allowed.
    tools
        A file that says what tools do and take: `tools`, a list of {name, side_effects, input_schema}.
    effect
        What the tool does to the world, where no file says it.
    json
        One JSON object instead of text.
    """
    from escalade.registry.access.explain import Asked, asked_for
    from escalade.registry.access.policy import Roles
    from escalade.registry.access.simulate import read_tools

    rules = Roles.load(policy)
    who = _principal(user, tenant, role or [])
    rules.check_roles(who.roles)
    known = {} if tools is None else {one.name: one for one in read_tools(tools)}
    if tools is not None and tool not in known and ":" not in tool:
        raise UnknownName("tool", tool, list(known))
    asked = known.get(tool) or asked_for(tool)
    if effect is not None:
        asked = Asked(asked.name, asked.permission, effect, asked.schema)
    found = rules.explain(who, asked, None if args is None else json_object(args, "--args", '{"amount": 100}'))
    if tools is not None:
        _note(rules, known.values())
    if json:
        print_json(found.to_json() | {"policy": rules.digest})
    else:
        print_(safe(str(found)))
    return OK


@access.command
def simulate(
    old: str,
    new: str | None = None,
    /,
    *,
    principals: str | None = None,
    tools: str | None = None,
    audit: str | None = None,
    last: int = 1_000,
    fail_on_loss: Annotated[bool, Flag] = False,
    fail_on_gain: Annotated[bool, Flag] = False,
    json: Annotated[bool, Flag] = False,
) -> int:
    """Who gains and who loses what when one policy takes the place of another; or which recorded calls would be decided
    otherwise: `simulate NEW --audit LOG`.

    Parameters
    ----------
    old
        The policy that holds: a YAML, JSON or TOML file. With --audit, the one that is proposed.
    new
        The one that is proposed.
    principals
        A file with `principals`, a list of {user, tenant, roles}.
    tools
        A file with `tools`, a list of {name, side_effects, permission, input_schema}.
    audit
        Instead of people and tools: an audit log, or what `escalade audit export` made of it (.jsonl).
    last
        With --audit: so many decisions, the newest.
    fail_on_loss
        Exit with 100 when somebody loses something, or may lose it by the arguments of a call.
    fail_on_gain
        Exit with 100 when somebody gains something, or may gain it.
    json
        One JSON object instead of a table.
    """
    if audit is not None:
        if new or principals or tools:
            raise BadInput("--audit: the record says who did what under which policy; expected the proposed one alone")
        gains, losses = _replayed(old, audit, last, json=json)
    elif new and principals and tools:
        gains, losses = _compared(old, new, principals, tools, json=json)
    else:
        raise BadInput("expected OLD NEW --principals FILE --tools FILE, or NEW --audit LOG")
    return DIFFERS if (fail_on_loss and losses) or (fail_on_gain and gains) else OK


def _compared(old: str, new: str, principals: str, tools: str, *, json: bool) -> tuple[int, int]:
    """How much was gained and lost, once it was shown."""
    from escalade.registry.access import simulate as simulation
    from escalade.registry.access.policy import Roles

    proposed, known = Roles.load(new), simulation.read_tools(tools)
    changes = simulation.simulate(Roles.load(old), proposed, simulation.read_principals(principals), known)
    _note(proposed, known)
    if json:
        print_json(changes.to_json())
    else:
        _show_changes(changes)
    return len(changes.gains), len(changes.losses)


def _replayed(policy: str, audit: str, last: int, *, json: bool) -> tuple[int, int]:
    """The same of what was recorded."""
    from escalade.registry.access.policy import Roles
    from escalade.registry.access.simulate import replay
    from escalade.registry.audit.entries import decisions

    entries = decisions(audit, last)
    found = replay(entries, Roles.load(policy))
    gains, losses = sum(one.gains for one in found), sum(one.loses for one in found)
    if json:
        counts = {"asked": len(entries), "gains": gains, "losses": losses}
        print_json(counts | {"certain": sum(one.certain for one in found), "changes": [one.to_json() for one in found]})
    else:
        _show_replayed(found, len(entries))
    return gains, losses


@approvals.command(name="list")
def list_(
    *,
    store: str,
    state: Literal["pending", "approved", "denied", "used", "expired", "all"] = "pending",
    json: Annotated[bool, Flag] = False,
) -> int:
    """Calls that wait for a decision, and what became of others.

    Parameters
    ----------
    store
        Where requests are: a SQLite file, or postgresql://...
    state
        Which ones.
    json
        One JSON object instead of a table.
    """
    found = _desk(store, None).requests(None if state == "all" else state)
    if json:
        print_json({"requests": [one.to_json() for one in found]})
    else:
        _show_requests(found, state)
    return OK


@approvals.command
def approve(
    request: str,
    /,
    *,
    store: str,
    by: str,
    policy: str,
    role: Annotated[list[str] | None, Many] = None,
    tenant: str | None = None,
    principals: str | None = None,
    reason: str = "",
    json: Annotated[bool, Flag] = False,
) -> int:
    """Approve one call, with exactly these arguments, once.

    Parameters
    ----------
    request
        Its id.
    store
        Where requests are: a SQLite file, or postgresql://...
    by
        Who approves.
    policy
        The policy that must grant him TOOL:approve.
    role
        One of his roles. Can be repeated.
    tenant
        His tenant; by default that of the request.
    principals
        Instead of roles and tenant: a file with `principals`, a list of {user, tenant, roles}.
    reason
        For the record.
    json
        One JSON object instead of a line.
    """
    return _decided("approve", request, store, by, policy, role, tenant, principals, reason, json)


@approvals.command
def deny(
    request: str,
    /,
    *,
    store: str,
    by: str,
    policy: str,
    role: Annotated[list[str] | None, Many] = None,
    tenant: str | None = None,
    principals: str | None = None,
    reason: str = "",
    json: Annotated[bool, Flag] = False,
) -> int:
    """Deny one call; the reason is told to whoever asked.

    Parameters
    ----------
    request
        Its id.
    store
        Where requests are: a SQLite file, or postgresql://...
    by
        Who denies.
    policy
        The policy that must grant him TOOL:approve.
    role
        One of his roles. Can be repeated.
    tenant
        His tenant; by default that of the request.
    principals
        Instead of roles and tenant: a file with `principals`, a list of {user, tenant, roles}.
    reason
        Why.
    json
        One JSON object instead of a line.
    """
    return _decided("deny", request, store, by, policy, role, tenant, principals, reason, json)


def _decided(
    verb: Literal["approve", "deny"],
    request: str,
    store: str,
    by: str,
    policy: str,
    role: list[str] | None,
    tenant: str | None,
    principals: str | None,
    reason: str,
    json: bool,  # noqa: FBT001 - passed on as it came
) -> int:
    desk = _desk(store, policy)
    asked = desk.get(request)
    if principals is None:
        who = _principal(by, asked.tenant if tenant is None else tenant, role or [])
    else:
        who = _known(by, principals, tenant)
    done = (desk.approve if verb == "approve" else desk.deny)(request, who, reason)
    if json:
        print_json(done.to_json())
    else:
        told = f"{done.state}: {done.label} {done.arguments} for {done.user} of {done.tenant}, by {done.decided_by}"
        print_(safe(told))
    return OK


def _desk(store: str, policy: str | None) -> Approvals:
    from escalade.registry.access.policy import Roles
    from escalade.registry.approvals.desk import Approvals
    from escalade.registry.stores.opened import open_requests

    return Approvals(open_requests(store, create=False), access=None if policy is None else Roles.load(policy))


def _known(name: str, file: str, tenant: str | None) -> Principal:
    from escalade.registry.access.simulate import read_principals

    people = read_principals(file)
    found = [one for one in people if one.user == name and tenant in {None, one.tenant}]
    if not found:
        raise UnknownName("principal", name, [one.user for one in people])
    if len(found) > 1:
        raise BadInput(f"{file}: there are {len(found)} of the name {name!r}; say which --tenant")
    return found[0]


def _principal(user: str, tenant: str, roles: list[str]) -> Principal:
    from escalade.scopes import Principal

    return Principal(user, tenant, frozenset(one for listed in roles for one in listed.split(",") if one))


def _note(policy: Roles, tools: Iterable[Asked]) -> None:
    """Which rules speak of nothing that there is: beside what was asked for, since tools may be to come."""
    from escalade.registry.access.unmatched import unmatched

    for line in unmatched(policy, tools):
        sys.stderr.write(f"note: {safe(line)}\n")


def _show_changes(changes: Changes) -> None:
    table = _table("user", "tenant", "", "tool", "before", "after", "for example")
    colours = {"gains": "[green]gains[/]", "loses": "[red]loses[/]", "changes": "[yellow]gains and loses[/]"}
    for one in changes:
        who = one.principal
        texts = [safe(text) for text in (who.user, who.tenant, one.tool, one.before, one.after, one.example)]
        table.add_row(*texts[:2], colours[one.kind], *texts[2:])
    if len(changes):
        print_(table)
    print_(f"{len(changes.gains)} gained, {len(changes.losses)} lost, of {changes.asked} asked")


def _show_replayed(found: list[Redecided], asked: int) -> None:
    table = _table("user", "tenant", "tool", "before", "after", "calls", "rule")
    kinds = Counter(
        (one.entry.principal.user, one.entry.principal.tenant, one.entry.resource, one.before, one.after, one.rule)
        for one in found
    )
    for (*texts, rule), calls in kinds.items():
        table.add_row(*map(safe, texts), f"{calls:,}", safe(rule))
    if found:
        print_(table)
    sure = [one for one in found if one.certain]
    gained, lost = sum(one.gains for one in sure), sum(one.loses for one in sure)
    print_(
        f"{gained} gained, {lost} lost, {len(found) - len(sure)} not to be told from the record, of {asked} decisions"
    )


def _show_requests(found: list[Request], state: str) -> None:
    if not found:
        print_("no requests" if state == "all" else f"no {state} requests")
        return
    table = _table("id", "state", "tool", "arguments", "asked by", "until", "decided by", "reason")
    for one in found:
        until = datetime.fromtimestamp(one.expires, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        who, arguments = f"{one.user} of {one.tenant}", safe(one.arguments)
        table.add_row(one.id, one.state, one.label, arguments, safe(who), until, safe(one.decided_by), safe(one.reason))
    print_(table)


def _table(*columns: str) -> Any:
    table = new_table(*columns)
    for column in table.columns[:4]:
        column.overflow = "fold"  # what one has to copy is never cut
    return table
