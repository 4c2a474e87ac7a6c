"""The command `escalade tools serve`. What it needs is imported when it runs."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from escalade._cli_tools import allow, import_from_here
from escalade.errors import BadInput

if TYPE_CHECKING:
    from escalade.registry.budgets import Budget
    from escalade.registry.ledger import Ledger
    from escalade.registry.serving.server import ToolServer

OK = 0
Many = Parameter(negative=())
Flag = Parameter(negative=(), show_default=False)


def serve(
    *,
    manifest: str,
    policy: str,
    stdio: Annotated[bool, Flag] = False,
    http: str | None = None,
    principals: str | None = None,
    user: str | None = None,
    role: Annotated[list[str] | None, Many] = None,
    tenant: str = "default",
    budget: Annotated[list[str] | None, Many] = None,
    ledger: str | None = None,
    per_call: str | None = None,
    deadline: float = 60.0,
    audit: str | None = None,
    anchor: Annotated[list[str] | None, Many] = None,
    audit_key: str | None = None,
    approvals: str | None = None,
    allow_stdio: Annotated[list[str] | None, Many] = None,
) -> int:
    """Serve the tools of a manifest over MCP, to clients that may do what a policy says.

    Over HTTP, clients show who they are by a bearer token (`--principals`); over stdio, and over HTTP on loopback, one
    principal may stand for all of them (`--user`, `--role`). Ctrl-C ends it.

    Parameters
    ----------
    manifest
        The tools: a YAML, JSON or TOML file. It imports code.
    policy
        Who may call what: a YAML, JSON or TOML file.
    stdio
        Serve the process that starts this one.
    http
        Serve HTTP at ADDRESS:PORT, such as 127.0.0.1:8000; the path is /mcp. An address that other machines reach
        needs --principals.
    principals
        A file with `principals`, a list of {user, tenant, roles, token: env:NAME}.
    user
        Instead: the one principal of all clients.
    role
        One of his roles. Can be repeated.
    tenant
        His tenant.
    budget
        ACCOUNT=DOLLARS[/day|/month], such as user:acme/ana=5/day, tenant:*=100/month, everything=500. Can be repeated.
    ledger
        A SQLite file that keeps what was spent; without it, it is kept as long as the server runs.
    per_call
        Dollars that one call may cost at most.
    deadline
        Seconds that a call may take.
    audit
        The SQLite file of the record.
    anchor
        A file elsewhere that vouches for the record. Can be repeated.
    audit_key
        Signs what the anchors hold: env:NAME or file:PATH.
    approvals
        The SQLite file of requests, for tools that need a person.
    allow_stdio
        A command that the manifest may start as an MCP server, with its arguments. Can be repeated.
    """
    if stdio == (http is not None):
        raise BadInput("say how to serve: --stdio, or --http 127.0.0.1:8000")
    if (principals is None) == (user is None):
        raise BadInput("say who the clients are: --principals FILE, or --user NAME --role ROLE for one that all are")
    from escalade.registry.serving.transports import check_address

    where = None if http is None else _address(http)
    import_from_here()
    allow(allow_stdio)
    with contextlib.ExitStack() as open_files:
        options: dict[str, Any] = {
            "ledger": _ledger(ledger, [_budget(one) for one in budget or []]),
            "recorder": open_files.enter_context(_recorder(audit, anchor or [], audit_key)),
            "budget": per_call,
            "deadline": deadline,
        }
        server = _server(manifest, policy, options, approvals, principals, (user, tenant, role or []))
        if where is None:
            server.run_stdio()
        else:
            check_address(where[0], tokens=principals is not None)
            sys.stderr.write(f"serving tools at http://{where[0]}:{where[1]}/mcp; Ctrl-C ends it\n")
            server.run_http(*where)
    return OK


def _server(
    manifest: str,
    policy: str,
    options: dict[str, Any],
    approvals: str | None,
    principals: str | None,
    one: tuple[str | None, str, list[str]],
) -> ToolServer:
    from escalade.registry.access.policy import Roles
    from escalade.registry.catalogue import Registry
    from escalade.registry.serving.principals import read_tokens
    from escalade.registry.serving.server import ToolServer
    from escalade.scopes import Principal

    access = Roles.load(policy)
    if approvals is not None:
        from escalade.registry.approvals.desk import Approvals
        from escalade.registry.approvals.sqlite import SqliteRequests

        options = {**options, "approvals": Approvals(SqliteRequests(approvals), access=access)}
    if principals is not None:
        who: dict[str, Any] = {"principal_of": read_tokens(principals)}
    else:
        user, tenant, roles = one
        listed = frozenset(name for text in roles for name in text.split(",") if name)
        who = {"principal": Principal(str(user), tenant, listed)}
    return ToolServer(Registry.load(manifest), access=access, **who, **options)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536 or not host:
        raise BadInput(f"--http: expected ADDRESS:PORT such as 127.0.0.1:8000, got {text!r}")
    return host, int(port)


def _budget(text: str) -> Budget:
    from escalade.registry.budgets import Budget

    match = re.fullmatch(r"(.+)=([0-9.]+)(?:/(day|month))?", text)
    if match is None:
        raise BadInput(f"--budget: expected ACCOUNT=DOLLARS or ACCOUNT=DOLLARS/day, got {text!r}")
    period: Any = match[3] or "none"
    return Budget(match[1], match[2], period)


def _ledger(path: str | None, budgets: list[Budget]) -> Ledger:
    if path is None:
        from escalade.registry.ledger import Ledger

        return Ledger(budgets)
    from escalade.registry.stores.sqlite_ledger import SqliteLedger

    return SqliteLedger(path, budgets)


@contextlib.contextmanager
def _recorder(path: str | None, anchors: list[str], key: str | None) -> Iterator[Any]:
    if path is None:
        if anchors or key is not None:
            raise BadInput("--anchor and --audit-key are for a record in a file: say --audit FILE")
        from escalade.registry.journal import Journal

        yield Journal()
        return
    from escalade.registry.audit.log import AuditLog

    with AuditLog(path, anchors=anchors, key=key) as log:
        yield log
