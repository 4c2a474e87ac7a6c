"""What may be used, by whom, at what price, how often, and the record of it.

    tools, catalogue, governed   a tool, its versions, and the tool that DSPy agents are handed
    schema, versions, usage      its input schema, ranges of versions, what it was used for
    manifest, search, lifecycle  tools out of a file; finding them; deprecated and yanked versions
    lock, programs               what ranges mean for a run; the tools that a compiled program was made for
    gate, subschema              what a new version may not break
    rollout, comparison, shadow  new versions for some callers first, and back when they are worse
    metrics                      usage as Prometheus reads it
    calling, workers             from a call to the function, in this thread or one of ours
    call, idempotency, joining   answers that are there already: made once, or being made
    cache, modes, results        answers that were kept: in a cache, or on a cassette
    guard                        the one door that every use of a tool or a model goes through
    access, limits, breaker      who may, how often, and when to leave it alone
    ledger, prices, journal      budgets, prices, the record of every use
    messages, code_act           what models read of a call that failed; why CodeAct gets no tools
    sources, serving             tools of MCP servers and web APIs; the registry as an MCP server
    opening                      `escalade.scope` and `escalade.configure`
    wall                         refuses language models that don't go through the guard

The ground floor: imports no other room.
"""
