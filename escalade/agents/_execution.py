"""DSPy's way from an LM to its async engine, without its threads.

DSPy 3.4 prepares, prices and keeps each async call in threads: 2 to 4 hops of 35-80 us, on the executor that blocking
tools of the application share. None of that blocks for a custom engine, so that it is done right here; what may block
is left in a thread: a typed Request, which may name local files, and DSPy's own cache on disk. The steps are DSPy's own
functions, in the order of its `aexecute`; `tests/agents/test_gateway_lm.py` holds the two equal.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from dspy.clients import execution as dspys
from dspy.clients.call_result import combine
from dspy.clients.errors import error_boundary
from dspy.lm15 import Request

if TYPE_CHECKING:
    from dspy.clients.call_result import CallResult
    from dspy.clients.execution import PreparedCall


async def aprepared(lm: Any, prompt: Any, messages: Any, kwargs: dict[str, Any]) -> PreparedCall:
    """The call, checked."""
    if isinstance(prompt, Request) or "request" in kwargs:
        return await asyncio.to_thread(dspys.prepare, lm, prompt, messages, kwargs, asynchronous=True)
    return dspys.prepare(lm, prompt, messages, kwargs, asynchronous=True)


async def aexecuted(lm: Any, call: PreparedCall) -> CallResult:
    """The answer. Raises as `dspy.LM` does."""
    if lm.num_retries or not call.managed:
        return await dspys.aexecute(lm, call)
    if call.cache and (found := await asyncio.to_thread(dspys._cached, lm, call, True)):
        return found
    return await _made(lm, call)


async def _made(lm: Any, call: PreparedCall) -> CallResult:
    backend, request, provider = dspys._engine(lm, call, True)
    results: list[CallResult] = []
    try:
        for _ in range(call.n):
            state = dspys._Attempt()
            with error_boundary(lm.model, provider=provider, unexpected=True):
                await dspys._aattempt(lm, call, backend, request, provider, state, results)
            dspys._price_result(lm, state.result, state.response, provider, request)  # says that it knows no price
        result = results[0] if len(results) == 1 else combine(results, model_type=lm.model_type)
        if call.cache:
            await asyncio.to_thread(dspys._store, lm, call, result, True)
    except BaseException as error:
        dspys._hint_responses_api(lm, error)
        dspys._account_failed_call(lm, results, error)
        raise
    return result
