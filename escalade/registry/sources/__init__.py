"""Tools that live elsewhere: imported from an MCP server or an OpenAPI description, and governed like our own.

    mcp         `import_mcp`: tools of an MCP server, over streamable HTTP or stdio
    openapi     `import_openapi`: operations of a web API
    source      what both have in common: choosing, pinning, quarantine, accepting
    pins        what each imported tool was when it was accepted, in a file; what changed since is quarantined
    definitions from a foreign definition to a tool of ours: names, schemas, side effects
    declared    sources that a manifest declares, under `imports`

    _schema     foreign JSON schemas: checked, then arguments by them
    _net        where connections may go: no private addresses, no redirects to them, limits on what comes back
    _wire       the HTTP client: judged addresses, credentials at the last moment, answers that are counted
    _connection, _clients, _background    connections to MCP servers, in an event loop of their own
    _operations, _result    what is sent to a web API; what an MCP server's result is worth

Importing registers tools and runs none of them. What a foreign definition says is shown to models and people, and
trusted in nothing: not its annotations, its URLs, its references, its patterns or its sizes.
"""
