"""The command `escalade tools serve`. What it needs is imported when it runs."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from escalade._cli_kept import Kept
from escalade._cli_tools import allow, import_from_here
from escalade.errors import BadInput

if TYPE_CHECKING:
    from escalade.registry.access.policy import Roles
    from escalade.registry.budgets import Budget
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
    kept: Kept | None = None,
    per_call: str | None = None,
    deadline: float = 60.0,
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
    per_call
        Dollars that one call may cost at most.
    deadline
        Seconds that a call may take.
    allow_stdio
        A command that the manifest may start as an MCP server, with its arguments. Can be repeated.
    """
    if stdio == (http is not None):
        raise BadInput("say how to serve: --stdio, or --http 127.0.0.1:8000")
    if (principals is None) == (user is None):
        raise BadInput("say who the clients are: --principals FILE, or --user NAME --role ROLE for one that all are")
    from escalade.registry.access.policy import Roles
    from escalade.registry.serving.transports import check_address

    where = None if http is None else _address(http)
    import_from_here()
    allow(allow_stdio)
    access = Roles.load(policy)
    kept = kept or Kept()
    with kept.opened([_budget(one) for one in budget or []], access) as books:
        options = {**books, "budget": per_call, "deadline": deadline}
        server = _server(manifest, access, options, principals, (user, tenant, role or []))
        if kept.audit is None:
            sys.stderr.write("warning: calls are recorded nowhere; --audit FILE keeps a record\n")
        if where is None:
            server.run_stdio()
        else:
            check_address(where[0], tokens=principals is not None)
            sys.stderr.write(f"serving tools at http://{where[0]}:{where[1]}/mcp; Ctrl-C ends it\n")
            server.run_http(*where)
    return OK


def _server(
    manifest: str,
    access: Roles,
    options: dict[str, Any],
    principals: str | None,
    one: tuple[str | None, str, list[str]],
) -> ToolServer:
    from escalade.registry.catalogue import Registry
    from escalade.registry.serving.principals import read_tokens
    from escalade.registry.serving.server import ToolServer
    from escalade.scopes import Principal

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
