"""How they are arranged: graphs of DSPy modules that are DSPy modules.

Structured: no task outlives its parent, budgets and deadlines flow down. Imports the registry and the agents.
"""
