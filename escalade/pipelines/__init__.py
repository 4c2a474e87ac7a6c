"""How they are arranged: graphs of DSPy modules that are DSPy modules.

Structured: no task outlives its parent, budgets and deadlines flow down. Imports the registry and the agents.

    pipeline, shape                          what all kinds have in common; a pipeline as plain data
    chain, fan_out, map, branch, loop, race  the kinds
    joins, joined                            when a fan-out has enough; what it returns
    node, ask                                a node with options; a node that waits for a person
    options/                                 what one node can be told: retry, hedge, cache, group, ...
    checking/                                before a run: fields and types; what it may cost and take
    watching/                                seeing a run: live tree, profile, events as lines
    drawing/                                 pictures: SVG, Mermaid, a tree
    durable/                                 runs that survive: journal, engines, workers
    values                                   results as JSON and back
    _run, _node, _group, _gather, _bridge    the machine: one node, many at once, under a rule, sync and async
"""
