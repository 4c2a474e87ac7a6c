"""GovernedTool: what DSPy sees of it, how it runs, when it ends, and that there is no way around it."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
import threading
import time
from typing import Annotated, Any, Literal

import dspy
import pytest
from pydantic import BaseModel, Field

import escalade
from escalade import GovernedTool, Registry, tool
from escalade.errors import (
    BadInput,
    BudgetExceeded,
    CircuitOpen,
    DeadlineExceeded,
    InvalidArguments,
    NoScope,
    RateLimited,
    ToolError,
    ToolTimeout,
    UnknownName,
)
from escalade.money import Money
from escalade.scopes import current


class Filter(BaseModel):
    field: str
    equals: str | None = None


def search(
    query: Annotated[str, Field(description="what to look for")],
    where: list[Filter] | None = None,
    mode: Literal["fast", "slow"] = "fast",
) -> list[str]:
    """Customers that match."""
    return [query, mode, *(f.field for f in where or [])]


async def ping(host: str, wait: float = 0.0) -> str:
    """Asks a host."""
    await asyncio.sleep(wait)
    return f"pong {host}"


def made(function: Any, **said: Any) -> GovernedTool:
    """The function as a governed tool of a registry of its own, which the tool keeps alive."""
    return Registry([tool(**said)(function)], name="tests").resolve(said.get("name", function.__name__))


# -------------------------------------------------------------------------------------------------- what DSPy sees of
# it


def test_what_dspy_sees() -> None:
    """A dspy.Tool with a name that every provider takes, its description, its arguments, and an honest signature."""
    governed = made(search, name="crm.search")
    assert isinstance(governed, dspy.Tool)
    assert (governed.name, governed.desc, governed.has_kwargs) == ("crm_search", "Customers that match.", False)
    assert governed.args["query"] == {"type": "string", "description": "what to look for"}
    assert governed.args["mode"]["default"] == "fast"
    assert governed.arg_types["mode"] == Literal["fast", "slow"]
    assert str(inspect.signature(governed.func)).startswith("(query: ")
    assert list(inspect.signature(governed.func).parameters) == ["query", "where", "mode"]
    assert (governed.func.__name__, governed.func.__doc__) == ("crm_search", "Customers that match.")
    assert governed.spec.label == "crm.search@1.0.0"


def test_native_function_calling_gets_the_whole_schema() -> None:
    """Optional arguments are optional even where their default is null, nested models are spelt out, extras
    forbidden.
    """
    function = made(search, name="crm.search").format_as_litellm_function_call()["function"]
    assert function["name"] == "crm_search"
    assert function["parameters"]["required"] == ["query"]
    assert function["parameters"]["additionalProperties"] is False
    assert "$ref" not in repr(function)
    assert "field" in repr(function["parameters"]["properties"]["where"])


def test_optimisers_may_reword_it() -> None:
    """Descriptions may be rewritten, for this copy alone; they reach the model and decide nothing."""
    governed = made(search)
    other = copy.deepcopy(governed)
    other.desc = "Better words."
    other.args["query"]["description"] = "better"
    assert governed.desc == "Customers that match."
    assert governed.args["query"]["description"] == "what to look for"
    function = other.format_as_litellm_function_call()["function"]
    assert function["description"] == "Better words."
    assert function["parameters"]["properties"]["query"]["description"] == "better"
    assert copy.copy(other).desc == copy.deepcopy(other).desc == "Better words."


# ---------------------------------------------------------------------------------------------------------------
# running


async def test_every_way_in_gives_the_result() -> None:
    """Called, awaited, by `func` with names or positions, by `ToolCall.execute`, by a dspy.Tool made of `func`."""
    governed, pinging = made(search), made(ping)
    call = dspy.ToolCalls.ToolCall(name="search", args={"query": "x"})
    async with escalade.scope() as scope:
        expected = ["x", "fast"]
        assert governed(query="x") == expected
        assert await governed.acall(query="x") == expected
        assert governed.func(query="x") == governed.func("x") == expected
        assert call.execute([governed]) == expected
        assert call.execute({"search": governed}) == expected
        assert dspy.Tool(governed.func)(query="x") == expected
        assert await pinging.acall(host="a") == await pinging.func("a") == "pong a"
        assert len(scope.recorder.entries()) == 9  # type: ignore[attr-defined]


def test_values_arrive_in_their_python_types() -> None:
    """Nested models are built from the JSON that a model sends."""
    with escalade.scope():
        assert made(search)(query="x", where=[{"field": "name"}]) == ["x", "fast", "name"]


@pytest.mark.parametrize("timeout", [None, 5.0])
def test_an_async_tool_called_synchronously(timeout: float | None) -> None:
    """It runs in a loop of its own; and, where this thread is inside a running loop (a notebook), in another thread."""
    pinging = made(ping, timeout=timeout)

    async def inside() -> Any:
        return pinging(host="b")

    with escalade.scope() as scope:
        assert pinging(host="a") == "pong a"
        assert asyncio.run(inside()) == "pong b"
        assert len(scope.recorder.entries()) == 2  # type: ignore[attr-defined]


def where_am_i() -> tuple[int, Any]:
    """Says its thread and its scope."""
    return threading.get_ident(), current()


async def test_a_sync_tool_stays_off_the_event_loop() -> None:
    """Awaited, it runs in a thread of ours, in the caller's context; three slow ones run at once."""
    all_three = threading.Barrier(3)

    def slow() -> Any:
        """Slow."""
        all_three.wait(30)
        return dspy.settings.get("mine"), *where_am_i()

    governed = made(slow)
    async with escalade.scope() as scope:
        with dspy.context(mine="yes"):
            results = await asyncio.gather(*(governed.acall() for _ in range(3)))
    assert {(mine, found is scope) for mine, _, found in results} == {("yes", True)}
    assert threading.get_ident() not in {thread for _, thread, _ in results}
    assert "escalade" in str([t.name for t in threading.enumerate()])


async def test_it_leaves_the_executor_of_asyncio_alone() -> None:
    """With asyncio's default executor full of other work, awaited tools still run."""
    loop, release = asyncio.get_running_loop(), threading.Event()
    blockers = [loop.run_in_executor(None, release.wait, 5) for _ in range(64)]
    async with escalade.scope():
        assert (await asyncio.wait_for(made(where_am_i).acall(), 2))[1] is current()
    release.set()
    await asyncio.gather(*blockers)


def test_a_sync_tool_runs_in_the_callers_thread() -> None:
    """Called without timeout or deadline, it stays in this thread: some things (SQLite) want that."""
    with escalade.scope():
        assert made(where_am_i)()[0] == threading.get_ident()
    with escalade.scope(deadline=60):
        assert made(where_am_i)()[0] != threading.get_ident()


def test_the_tools_own_errors_come_through() -> None:
    """What the tool raises is what the caller gets, also its own TimeoutError, and it is paid."""

    def broken(kind: Literal["value", "timeout", "tool"]) -> None:
        """Break."""
        raise {"value": ValueError, "timeout": TimeoutError, "tool": ToolError}[kind]("its own")

    async def abroken(kind: Literal["value", "timeout", "tool"]) -> None:
        """Break."""
        broken(kind)

    for function in (broken, abroken):
        for timeout in (None, 5.0):
            governed = made(function, cost="0.000000010", timeout=timeout)
            with escalade.scope() as scope:
                for kind, error in (("value", ValueError), ("timeout", TimeoutError), ("tool", ToolError)):
                    with pytest.raises(error, match="its own"):
                        governed(kind=kind)
                    with pytest.raises(error, match="its own"):
                        asyncio.run(governed.acall(kind=kind))
                assert scope.spent == 60


def test_a_coroutine_in_disguise() -> None:
    """A sync function that returns an awaitable must say that it is async; the coroutine is not left dangling."""

    def disguised(host: str) -> Any:
        """Ask."""
        return ping(host)

    with escalade.scope():
        with pytest.raises(ToolError, match="returned an awaitable; declare it `async def`"):
            made(disguised)(host="a")
        with pytest.raises(ToolError, match="returned an awaitable"):
            asyncio.run(made(disguised).acall(host="a"))


def test_a_generator_is_no_answer() -> None:
    """A generator has done nothing yet, and would do it outside of the guard: a tool that returns one fails."""
    ran: list[int] = []

    def numbers() -> Any:
        ran.append(1)
        yield 1

    async def anumbers() -> Any:
        ran.append(1)
        yield 1

    def lazy() -> Any:
        """Lazy."""
        return numbers()

    async def alazy() -> Any:
        """Lazy."""
        return anumbers()

    for function in (lazy, alazy):
        governed = Registry([tool(name="lazy")(function)], name="lazy").get_tool("lazy")
        with escalade.scope(), pytest.raises(ToolError, match="returned a generator"):
            governed()
    assert ran == []


# -------------------------------------------------------------------------------------------------------------- time
# is up


def nap(seconds: float) -> str:
    """Sleeps."""
    time.sleep(seconds)
    return "rested"


@pytest.mark.parametrize("function", [nap, ping])
@pytest.mark.parametrize("way", ["sync", "async"])
def test_timeouts(function: Any, way: str) -> None:
    """A tool that takes too long: ToolTimeout in time, in one line; its money is settled, its failure known to the
    breaker.
    """
    governed = made(function, timeout=0.05, cost="0.000000010")
    args = {"seconds": 5.0} if function is nap else {"host": "a", "wait": 5.0}
    with escalade.scope() as scope:
        start = time.perf_counter()
        with pytest.raises(ToolTimeout, match=r"did not answer within 0.05 s"):
            governed(**args) if way == "sync" else asyncio.run(governed.acall(**args))
        assert time.perf_counter() - start < 4.5
        assert (scope.spent, scope.purse.held) == (10, 0)
        for _ in range(4):
            with pytest.raises(ToolTimeout):
                governed(**args)
        with pytest.raises(CircuitOpen):
            governed(**args)


@pytest.mark.parametrize("function", [nap, ping])
@pytest.mark.parametrize("way", ["sync", "async"])
def test_the_deadline_of_the_scope(function: Any, way: str) -> None:
    """The scope's deadline ends a running tool too, as DeadlineExceeded, and isn't the tool's fault."""
    governed = made(function, timeout=5.0, cost="0.000000010")
    args = {"seconds": 0.4} if function is nap else {"host": "a", "wait": 5.0}
    with escalade.scope(deadline=0.05) as scope:
        with pytest.raises(DeadlineExceeded, match=r"passed while .*@1.0.0 ran"):
            governed(**args) if way == "sync" else asyncio.run(governed.acall(**args))
        assert (scope.spent, scope.purse.held) == (10, 0)
    assert governed._registered.resource.breaker.state == "closed"


async def test_cancelling() -> None:
    """A cancelled tool call settles its money at once, sync tool or async."""
    for governed, args in ((made(nap, cost="1"), {"seconds": 0.2}), (made(ping, cost="1"), {"host": "a", "wait": 5.0})):
        async with escalade.scope() as scope:
            task = asyncio.create_task(governed.acall(**args))
            await asyncio.sleep(0.02)
            assert scope.purse.held == Money.of("1")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (scope.purse.held, scope.spent) == (0, Money.of("1"))


# -------------------------------------------------------------------------------------------------- copies, pickles,
# escapes


def test_copies_share_what_counts() -> None:
    """Deep copies, of a tool or of a program that holds it, share limits and usage."""
    governed = made(search, limits="3/h")
    program = dspy.ReAct("question -> answer", tools=[governed])
    copies = [governed, copy.deepcopy(governed), copy.copy(governed), program.deepcopy().tools["search"]]
    assert all(isinstance(one, GovernedTool) for one in copies)
    assert len({id(one) for one in copies}) == 4
    with escalade.scope():
        for one in copies[:3]:
            one(query="x")
        with pytest.raises(RateLimited):
            copies[3](query="x")
    (usage,) = governed._registered.registry.usage()
    assert (usage.calls, usage.denied) == (3, 1)


def test_pickles_find_their_registry() -> None:
    """Unpickled, a tool is the registered one, with its own description; the function is never in the pickle."""
    registry = Registry([tool(name="crm.search", version="1.1.0")(search)], name="pickling")
    governed = registry.resolve("crm.search")
    governed.desc = "Reworded."
    pickled = pickle.dumps(governed)
    assert b"tests" not in pickled
    again = pickle.loads(pickled)
    assert again._registered is governed._registered
    assert (again.desc, again.args, again.spec) == ("Reworded.", governed.args, governed.spec)
    registry.register(tool(name="crm.search", version="1.2.0")(search))
    assert pickle.loads(pickled).spec.version == "1.1.0", "the version that it was, not the newest"


def test_pickles_that_would_find_another_registry() -> None:
    """A registry whose name another one has taken can't be pickled by it; a pickle without its registry says so."""
    governed = made(search)
    pickled = pickle.dumps(governed)
    other = made(ping)
    with pytest.raises(pickle.PicklingError, match="another registry has taken the name 'tests'"):
        pickle.dumps(governed)
    with pytest.raises(UnknownName, match="unknown tool 'search'"):
        pickle.loads(pickled)
    assert other.spec.name == "ping"


def test_programs_with_tools_save_and_load(tmp_path: Any) -> None:
    """A program that holds governed tools is saved whole and loaded, and is governed as before."""
    registry = Registry([tool(search)], name="saving")
    program = dspy.ReAct("question -> answer", tools=registry.tools(["search"]))
    program.save(str(tmp_path / "program"), save_program=True)
    loaded = dspy.load(str(tmp_path / "program"), allow_pickle=True)
    assert loaded.tools["search"]._registered is registry.resolve("search")._registered
    with pytest.raises(NoScope):
        loaded.tools["search"](query="x")


@pytest.mark.parametrize("field", ["func", "name", "arg_types", "has_kwargs"])
def test_what_decides_can_not_be_replaced(field: str) -> None:
    """The function, the name and the types of a governed tool stay as registered."""
    governed = made(search)
    with pytest.raises(BadInput, match=f"'{field}' of governed tool search@1.0.0 can't be replaced"):
        setattr(governed, field, print)
    with escalade.scope():
        assert governed(query="x") == ["x", "fast"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_function_is_nowhere_to_be_had() -> None:
    """No attribute of the tool, of its function or of its definition leads to the function that is guarded."""
    definition = tool(search)
    governed = Registry([definition]).resolve("search")
    for owner in (governed, governed.func, definition):
        assert not hasattr(owner, "__wrapped__")
        public = [getattr(owner, name) for name in dir(owner) if not name.startswith(("_", "model_"))]
        assert all(value is not search for value in public)
    assert inspect.unwrap(governed.func) is governed.func


def test_a_replaced_function_is_not_what_a_call_runs() -> None:
    """Who forces another function into a copy gets a copy that still calls the registered one."""
    ran = []
    governed = made(search).model_copy(update={"func": lambda **_: ran.append(1)})
    with escalade.scope():
        assert governed(query="x") == ["x", "fast"]
    assert ran == []


# -------------------------------------------------------------------------------------------------------------
# callbacks


class Watcher(dspy.utils.BaseCallback):
    """Counts the tool calls that DSPy's callbacks see."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []

    def on_tool_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self.seen.append(("start", inputs))

    def on_tool_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        self.seen.append(("end", exception if outputs is None else outputs))


@pytest.mark.parametrize("ways", [[], [dspy.utils.BaseCallback()]], ids=["without callbacks", "with callbacks"])
async def test_arguments_of_any_name(ways: list[Any]) -> None:
    """A parameter may have any name, also one that a method on the way to the function has."""

    def start(self: str, instance: str, args: int, kwargs: int, scope: int, fn: int, registered: int) -> str:
        return f"{self} {instance} {args + kwargs + scope + fn + registered}"

    given: dict[str, Any] = {"self": "me", "instance": "i-1", "args": 1, "kwargs": 2, "scope": 3, "fn": 4}
    given["registered"] = 5
    with escalade.scope(), dspy.context(callbacks=ways):
        tool = made(start)
        assert tool(**given) == await tool.acall(**given) == tool.func(**given) == "me i-1 15"


async def test_callbacks_see_it() -> None:
    """DSPy's callbacks are told of each call, sync and async, and of its error."""
    watcher, governed = Watcher(), made(search)
    with dspy.context(callbacks=[watcher]):
        async with escalade.scope():
            governed(query="x")
            await governed.acall(query="y")
            with pytest.raises(InvalidArguments):
                governed()
    assert [what for what, _ in watcher.seen] == ["start", "end"] * 3
    assert isinstance(watcher.seen[-1][1], InvalidArguments)


def test_a_tool_that_uses_a_tool() -> None:
    """A tool may use governed tools itself: they are paid on the same purse, and their refusal isn't its failure."""
    inner = made(search, cost="0.000000020")

    def outer(query: str) -> list[str]:
        """Search twice."""
        return [*inner(query=query), *inner(query=query)]

    governed = made(outer, cost="0.000000001")
    with pytest.raises(BudgetExceeded), escalade.scope(budget="0.00000005") as scope:
        assert governed(query="x") == ["x", "fast"] * 2
        with pytest.raises(BudgetExceeded):
            governed(query="x")
        assert scope.spent == 42
        assert scope.purse.held == 0
    assert governed._registered.resource.breaker.state == "closed"
