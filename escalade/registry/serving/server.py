"""A registry served over MCP, by the official SDK.

    server = ToolServer(registry, access=policy, principal_of=Tokens(...), ledger=Ledger([...]), recorder=log)
    server.run_http("127.0.0.1", 8000)         # or server.run_stdio(), or server.app() in an application of yours

Each request has a scope of its own, in its principal's name: `tools/list` shows what he may call, `tools/call` goes
through the guard as any call does. A tool that he may not call is as unknown to him as one that there is not. Whatever
goes wrong is one line, as an error of the tool.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from escalade.errors import BadInput, UnknownName
from escalade.registry import messages
from escalade.registry.canonical import digest
from escalade.registry.journal import Journal
from escalade.registry.ledger import Ledger
from escalade.registry.messages import Told
from escalade.registry.opening import scope
from escalade.registry.serving.principals import PrincipalOf
from escalade.scopes import Access, Desk, Entered, Principal, Recorder, current

if TYPE_CHECKING:
    from escalade.registry.catalogue import Registry
    from escalade.registry.governed import GovernedTool
    from escalade.registry.tools import ToolSpec

logger = logging.getLogger(__name__)

PRINCIPAL = "escalade.principal"
"""Where an HTTP request carries who asks."""


class ToolServer:
    """What clients may list and call, and under what.

    `access`, `ledger`, `recorder`, `approvals`: as of a scope; one ledger and one recorder for all clients. Without
    `access`, the scope that was configured for the process holds, and each client's principal is nested in it.
    `principal_of`: who asks, by the headers of his request. `principal`: instead, who every client is. `budget`:
    dollars that one call may cost at most; `deadline`: seconds that it may take. Raises BadInput, NoPolicy.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        access: Access | None = None,
        ledger: Ledger | None = None,
        recorder: Recorder | None = None,
        approvals: Desk | None = None,
        principal_of: PrincipalOf | None = None,
        principal: Principal | None = None,
        budget: str | None = None,
        deadline: float | None = 60.0,
        name: str = "escalade",
    ) -> None:
        if (principal_of is None) == (principal is None):
            raise BadInput("a server needs to know who asks: either principal_of=Tokens(...), or one principal=...")
        self.registry, self.name = registry, name
        self.principal_of, self.principal = principal_of, principal
        self._stable_runs = approvals is not None
        self._options: dict[str, Any] = {"budget": budget, "deadline": deadline}
        if access is not None:
            self._options |= {
                "access": access,
                "ledger": Ledger() if ledger is None else ledger,
                "recorder": Journal() if recorder is None else recorder,
                "approvals": approvals,
            }
        elif current() is None or any(one is not None for one in (ledger, recorder, approvals)):
            raise BadInput(
                "a server needs access=..., a policy that says what its clients may do "
                "(or escalade.configure(access=...) before it, and then nothing else of it here)"
            )
        with self.opened(principal or Principal("nobody")):
            """So that a policy that grants nothing, or lacks the principal's role, is told now."""

    def opened(self, principal: Principal) -> Entered:
        """The scope of one request. With approvals, all requests of a principal are one run: what was approved for him
        counts when he asks again.
        """
        options = self._options
        if self._stable_runs:
            options = {**options, "run_id": f"mcp-{digest([principal.tenant, principal.user])[:12]}"}
        return scope(principal=principal, name="mcp", **options)

    def sdk_server(self) -> Any:
        """The server of the MCP SDK, for transports of one's own. Raises BadInput where the SDK isn't installed."""
        sdk = _sdk()

        async def listed(context: Any, _: Any) -> Any:
            return sdk.types.ListToolsResult(tools=await self._listed(self._who(context)))

        async def called(context: Any, asked: Any) -> Any:
            return await self._called(self._who(context), asked.name, asked.arguments or {})

        return sdk.Server(self.name, on_list_tools=listed, on_call_tool=called, get_tool_input_schema=lambda _: None)

    def app(self, *, path: str = "/mcp", host: str = "127.0.0.1") -> Any:
        """An ASGI application, to be mounted or run. `host`: where it is served; on loopback, requests that were meant
        for other hosts are refused.
        """
        from escalade.registry.serving.transports import authenticated

        app = self.sdk_server().streamable_http_app(
            streamable_http_path=path, stateless_http=True, json_response=True, host=host
        )
        return authenticated(app, self.principal_of, self.principal)

    def run_http(self, host: str = "127.0.0.1", port: int = 8000, *, path: str = "/mcp") -> None:
        """Serve streamable HTTP until interrupted. Raises BadInput for a public address without `principal_of`."""
        from escalade.registry.serving.transports import run_http

        run_http(self, host, port, path)

    def run_stdio(self) -> None:
        """Serve the process that started this one, until it closes. Raises BadInput without a fixed `principal`."""
        from escalade.registry.serving.transports import run_stdio

        run_stdio(self)

    def _who(self, context: Any) -> Principal:
        request = getattr(context, "request", None)
        who: Principal | None = self.principal if request is None else request.scope.get(PRINCIPAL)
        if who is None:  # behind an app that isn't ours, say
            raise _sdk().MCPError(-32001, "unauthorized")
        return who

    async def _listed(self, who: Principal) -> list[Any]:
        sdk = _sdk()
        try:
            async with self.opened(who):
                tools = self.registry.tools_for()
        except Exception:
            logger.exception("tools could not be listed for %r", who.user)
            raise sdk.MCPError(-32603, "the tools can't be listed now") from None
        return [_described(sdk, tool) for tool in tools]

    async def _called(self, who: Principal, name: str, arguments: dict[str, Any]) -> Any:
        spec: ToolSpec | None = None
        try:
            async with self.opened(who):
                tool = self.registry.tool_for(name)
                spec = tool.spec
                return _answer(_sdk(), await tool.acall(**arguments))
        except Exception as error:  # noqa: BLE001 - told to the client in one line, and to the log
            return _error(_sdk(), _told(error, name, spec))


def _told(error: Exception, name: str, spec: ToolSpec | None) -> Told:
    if isinstance(error, UnknownName) and error.kind == "tool" and spec is None:
        return messages.unknown(name)
    if spec is None or getattr(error, "told", None) is None:
        logger.warning(
            "a call of %r failed in the server: %s", messages.scrubbed(name), type(error).__name__, exc_info=error
        )
    if spec is not None:
        return messages.told(error, spec)
    return Told("unavailable", "the call can't be made now")


def _described(sdk: Any, tool: GovernedTool) -> Any:
    function = tool.format_as_litellm_function_call()["function"]
    effects = tool.spec.side_effects
    hints = sdk.types.ToolAnnotations(
        read_only_hint=effects in {"none", "read"}, destructive_hint=effects == "irreversible"
    )
    return sdk.types.Tool(
        name=function["name"],
        description=function["description"],
        input_schema=function["parameters"],
        annotations=hints,
        _meta={"escalade/version": tool.spec.version},
    )


def _answer(sdk: Any, result: Any) -> Any:
    """The result as text for models and as JSON for programs, which is always an object there."""
    plain = json.loads(to_json(result, fallback=str, inf_nan_mode="null"))
    text = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
    structured = plain if isinstance(plain, dict) else {"result": plain}
    return sdk.types.CallToolResult(
        content=[sdk.types.TextContent(type="text", text=text)], structured_content=structured
    )


def _error(sdk: Any, told: Told) -> Any:
    facts = {"code": told.code, "retryable": told.retryable, "retry_after": told.retry_after}
    return sdk.types.CallToolResult(
        content=[sdk.types.TextContent(type="text", text=told.line)], is_error=True, _meta={"escalade/error": facts}
    )


def _sdk() -> Any:
    try:
        from escalade.registry.serving import _sdk as sdk
    except ImportError:
        raise BadInput("MCP needs the SDK: pip install 'escalade[mcp]'") from None
    return sdk
