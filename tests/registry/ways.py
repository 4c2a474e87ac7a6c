"""Every way by which DSPy reaches a tool, and who knows DSPy. Each returns what the model or the caller is shown."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable
from typing import Any

import dspy
from dspy.primitives.local_interpreter import LocalInterpreter

from escalade import GovernedTool
from tests.registry.helpers import react_script, scripted_lm

Way = Callable[[GovernedTool, dict[str, Any]], str]

prompts: list[str] = []
"""What models were sent, by all ways that have one."""


def asked(lm: dspy.LM) -> None:
    """Keep what this model was sent."""
    prompts.extend(str(request) for engine in (lm._engine_spec, lm._async_engine_spec) for request in engine.requests)


def react(governed: GovernedTool, args: dict[str, Any]) -> str:
    return _reacted(governed, args, lambda agent: agent(question="?"))


def react_async(governed: GovernedTool, args: dict[str, Any]) -> str:
    return _reacted(governed, args, lambda agent: asyncio.run(agent.acall(question="?")))


def _reacted(governed: GovernedTool, args: dict[str, Any], run: Callable[[Any], Any]) -> str:
    agent = dspy.ReAct("question -> answer", tools=[governed], max_iters=2)
    lm = scripted_lm(*react_script(str(governed.name), args))
    with dspy.context(lm=lm):
        trajectory = run(agent).trajectory
    asked(lm)
    return str(trajectory["observation_0"])


SUBMIT = [("submit", {"answer": "42"})]


def react_v2(governed: GovernedTool, args: dict[str, Any]) -> str:
    return _reacted_v2(governed, args, lambda agent: agent(question="?"))


def react_v2_async(governed: GovernedTool, args: dict[str, Any]) -> str:
    return _reacted_v2(governed, args, lambda agent: asyncio.run(agent.acall(question="?")))


def _reacted_v2(governed: GovernedTool, args: dict[str, Any], run: Callable[[Any], Any]) -> str:
    agent = dspy.ReActV2("question -> answer", tools=[governed])
    lm = scripted_lm([(str(governed.name), args)], SUBMIT)
    with dspy.context(lm=lm, adapter=dspy.ChatAdapter(use_native_function_calling=True)):
        history = run(agent).history
    asked(lm)
    return str(history.messages[0]["tool_calls"].tool_call_results.tool_call_results[0].value)


class Native(dspy.Signature):
    """Answer, perhaps by tools."""

    question: str = dspy.InputField()
    tools: list[dspy.Tool] = dspy.InputField()
    outputs: dspy.ToolCalls = dspy.OutputField()


def native(governed: GovernedTool, args: dict[str, Any]) -> str:
    lm = scripted_lm([(str(governed.name), args)])
    with dspy.context(lm=lm, adapter=dspy.ChatAdapter(use_native_function_calling=True)):
        prediction = dspy.Predict(Native)(question="?", tools=[governed])
    asked(lm)
    (call,) = prediction.outputs.tool_calls
    return str(settled(call.execute([governed])))


CODE = """```python
try:
    print({tool}({args}))
except Exception as error:
    print(type(error).__name__, error)
```"""


def rlm(governed: GovernedTool, args: dict[str, Any]) -> str:
    """Python code of a model calls the tool, from a process of its own."""
    code = CODE.format(tool=governed.name, args=", ".join(f"{name}={value!r}" for name, value in args.items()))
    lm = scripted_lm(
        {"reasoning": "so", "code": code}, {"reasoning": "so", "code": "```python\nSUBMIT(answer='42')\n```"}
    )
    agent = dspy.RLM("question -> answer", tools=[governed], interpreter_factory=LocalInterpreter, max_iters=3)
    with dspy.context(lm=lm):
        trajectory = agent(question="?").trajectory
    asked(lm)
    return str(trajectory[0]["output"])


def execute(governed: GovernedTool, args: dict[str, Any]) -> str:
    return str(settled(_call(governed, args).execute([governed])))


def execute_by_name(governed: GovernedTool, args: dict[str, Any]) -> str:
    return str(_call(governed, args).execute({str(governed.name): governed}))


def _call(governed: GovernedTool, args: dict[str, Any]) -> Any:
    return dspy.ToolCalls.ToolCall(name=str(governed.name), args=args)


def func(governed: GovernedTool, args: dict[str, Any]) -> str:
    return str(settled(governed.func(**args)))


def call(governed: GovernedTool, args: dict[str, Any]) -> str:
    return str(governed(**args))


def acall(governed: GovernedTool, args: dict[str, Any]) -> str:
    return str(asyncio.run(governed.acall(**args)))


def renamed(governed: GovernedTool, args: dict[str, Any]) -> str:
    """A plain tool of DSPy, made of our function, under another name."""
    return str(settled(asyncio.run(dspy.Tool(governed.func, name="other").acall(**args))))


def copied(governed: GovernedTool, args: dict[str, Any]) -> str:
    return call(copy.deepcopy(governed), args)


def pickled(governed: GovernedTool, args: dict[str, Any]) -> str:
    return call(pickle.loads(pickle.dumps(governed)), args)


def settled(result: Any) -> Any:
    """The result of an async tool's `func` is a coroutine, as for any dspy.Tool."""

    async def wait() -> Any:
        return await result

    return asyncio.run(wait()) if asyncio.iscoroutine(result) else result


def named(way: Way) -> str:
    """As tests call it."""
    return way.__name__


AGENTS: list[Way] = [react, react_async, react_v2, react_v2_async, native]
WAYS: list[Way] = [*AGENTS, execute, execute_by_name, func, call, acall, renamed]
