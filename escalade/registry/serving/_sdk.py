"""What of the MCP SDK the server uses; imported when a server is made (about 2 s)."""

from mcp import types
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError

__all__ = ["MCPError", "Server", "types"]
