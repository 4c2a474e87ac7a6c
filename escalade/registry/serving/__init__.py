"""The registry served to others, over MCP: `serve` and `ToolServer`.

server       what a client may list and call, under its principal's roles, limits, budget and audit
principals   who a client is: tokens, or one fixed principal
transports   stdio and streamable HTTP; where it may be bound
"""
