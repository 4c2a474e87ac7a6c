"""Who uses it: DSPy modules on governed models, and the climb.

    models, gateway, transports   models, the engines under `dspy.LM`, and what carries a request to a provider
    climb, policies, confidence   the loop, what decides in it, and what it decides by
    calibration                   from what a source says to how often it is right then
    escalate                      the climb as a `dspy.Module`
    tool_agent                    agents that use governed tools, and agents as their tools
    streaming, sessions           following a call; conversations that go on
    world                         simulated models with a skill, a price and a latency, for work without a key

Imports the registry and nothing above.
"""
