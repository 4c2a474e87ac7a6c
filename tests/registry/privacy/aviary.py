"""Canaries of every kind, tools through which they come in, and a run that plants them wherever a user can."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import dspy

import escalade
from escalade.registry import privacy
from escalade.registry.approvals import Approvals, SqliteRequests
from escalade.registry.catalogue import Registry
from escalade.registry.opening import scope
from escalade.registry.secrets import Secret, register_secret_manager
from escalade.registry.tools import tool
from escalade.scopes import Principal
from tests.registry.helpers import scripted_lm

KINDS = {
    "email": "canary.bird@example.com",
    "phone": "+1 415 555 2671",
    "card": "4111 1111 1111 1111",
    "iban": "DE89 3704 0044 0532 0130 00",
    "ssn": "536-22-8726",
    "cpf": "529.982.247-25",
    "cnpj": "11.222.333/0001-81",
    "ip": "203.0.113.77",
    "api_key": "sk-planted9876543210zyxwvPLANTED",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJlY2FuYXJ5",
    "url_credentials": "https://canary:feathers7@db.example/x",
}
"""One canary of each kind that has a pattern."""
GIVEN, VARIABLE = "plain canary words of a manager", "the-canary-in-the-environment-1"
"""A secret out of a manager, and one out of a variable: no pattern knows them, only that they were revealed."""
SECRETS = (GIVEN, VARIABLE, KINDS["api_key"], KINDS["jwt"])
CANARIES = (*KINDS.values(), "feathers7", GIVEN, VARIABLE)
TEXT = " , ".join(KINDS.values())
WHO = Principal(KINDS["email"], KINDS["card"], frozenset({f"role of {KINDS['iban']}", KINDS["ssn"]}))
RUN = f"run of {KINDS['cpf']} at {KINDS['ip']}"


def leaks(text: str | bytes, canaries: tuple[str, ...] = CANARIES) -> list[str]:
    """The canaries in it, as they are, without the spaces and signs in them, or as JSON and URLs write them."""
    plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    bare = "".join(plain.split())
    return [one for one in canaries if one in plain or "".join(one.split()) in bare or json.dumps(one)[1:-1] in plain]


def folder_leaks(folder: Path, canaries: tuple[str, ...] = CANARIES) -> dict[str, list[str]]:
    """The canaries in each file, as the disk has it: write-ahead logs, too."""
    found = {path.name: leaks(path.read_bytes(), canaries) for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: these for name, these in found.items() if these}


def policy() -> Any:
    """It names its roles as some people do."""
    return escalade.Roles({role: ["crm.*:call", "pay.*:call"] for role in WHO.roles} | {"boss": ["pay.*:approve"]})


def _rarities() -> list[Any]:
    """Tools that fail in rare ways."""

    @tool(name="crm.rare", side_effects="read")
    def rare(to: str) -> str:
        """Fail with a class that is made for it."""
        rare = type(f"No {to}", (Exception,), {"__notes__": [to]})
        raise ExceptionGroup(f"about {to}", [rare(to)]) if to.endswith("!") else rare(to)

    @tool(name="crm.slow", timeout=0.01)
    async def slow(to: str) -> str:
        """Too slow."""
        await asyncio.sleep(5)
        return to

    @tool(name="crm.strange", cost=lambda args: str(args["to"]), max_cost="1")
    def strange(to: str) -> str:
        """Its cost can't be told."""
        return to

    return [rare, slow, strange]


def registry(received: list[Any], name: str = "aviary", **stores: Any) -> Registry:
    """Tools that are given canaries, answer with them, and raise them."""
    register_secret_manager("aviary", {"crm": GIVEN}.get)

    def everything() -> str:
        return f"{TEXT} {Secret('aviary:crm').reveal()} {Secret('env:CANARY_KEY').reveal()}"

    @tool(name="crm.find", side_effects="read", cache=60, cost="0.001")
    def find(to: str, more: dict[str, Any] | None = None) -> dict[str, Any]:
        """Find a customer."""
        received.append(to)
        return {"all": everything(), **KINDS, KINDS["email"]: [to, more]}

    @tool(name="crm.fail", side_effects="read")
    def fail(to: str) -> str:
        """Fail."""
        received.append(to)
        raise ValueError(f"{to}: {everything()}")

    @tool(name="crm.write", once=True, limits={"user": "5/h", "tenant": "9/h"}, cost="0.001")
    def write(to: str) -> str:
        """Write."""
        return f"written to {to}: {everything()}"

    @tool(name="crm.dear", cost="900")
    def dear(to: str) -> str:
        """Never paid for."""
        return to

    @tool(name="pay.out", approval="always")
    def pay(to: str, key: str) -> str:
        """Pay."""
        return f"paid {to}"

    @tool(name="hidden.tool")
    def hidden(to: str) -> str:
        """Not for him."""
        return to

    return Registry([find, fail, write, dear, pay, hidden, *_rarities()], name=name, **stores)


def refused(call: Any, *args: Any, **kwargs: Any) -> BaseException:
    """What it raises."""
    try:
        call(*args, **kwargs)
    except Exception as error:
        return error
    raise AssertionError(f"{call} raised nothing")


def fly(tools: Registry, folder: Path, **options: Any) -> list[BaseException]:
    """Use each tool in each way that goes well or badly, and give back what was raised."""
    desk = Approvals(SqliteRequests(folder / "approvals.db"), access=policy())
    raised: list[BaseException] = []

    def run(name: str, **arguments: Any) -> None:
        governed = tools.get_tool(name)
        raised.append(refused(governed, **arguments))
        raised.append(refused(governed.func, **arguments))

    with contextlib.suppress(escalade.BudgetExceeded):
        with scope(principal=WHO, access=policy(), approvals=desk, run_id=RUN, **options):
            find, write = tools.get_tool("crm.find"), tools.get_tool("crm.write")
            for _ in range(2):
                find(to=TEXT, more={KINDS["email"]: [TEXT], "password": GIVEN})
                with escalade.step(TEXT):
                    write(to=TEXT)
            raised += [refused(find, **wrong) for wrong in ({"to": 7}, {"to": TEXT, TEXT: TEXT}, {"more": TEXT})]
            for number in range(6):
                with contextlib.suppress(Exception):
                    write(to=f"{TEXT} {number}")
            run("crm.write", to=TEXT + "!")
            run("crm.fail", to=TEXT)
            run("crm.rare", to=TEXT)
            run("crm.rare", to=TEXT + "!")
            raised.append(refused(tools.get_tool("crm.slow"), to=TEXT))
            run("crm.strange", to=TEXT)
            run("pay.out", to=TEXT, key=KINDS["api_key"])
            raised.append(refused(lambda: tools.get_tool("hidden.tool")(to=TEXT)))
            raised += [refused(tools.tool_for, name) for name in (TEXT, f"{'x' * 55} {WHO.user}")]
            with contextlib.suppress(escalade.BudgetExceeded):
                with scope(budget="1", name=KINDS["email"]):
                    run("crm.dear", to=TEXT)
    return raised


def prompts(tools: Registry, **options: Any) -> dict[str, Any]:
    """An agent that is asked about canaries, with tokens; what its model was sent."""
    with scope(principal=WHO, access=policy(), **options), privacy.tokens() as vault:
        question = vault.tokenise(f"Who is it? {TEXT} {GIVEN} {VARIABLE}")
        token = json.dumps({"to": vault.tokenise(TEXT)})
        steps = [
            {"next_thought": "a", "next_tool_name": "crm_find", "next_tool_args": token},
            {"next_thought": "b", "next_tool_name": "crm_fail", "next_tool_args": token},
            {"next_thought": "c", "next_tool_name": "finish", "next_tool_args": "{}"},
            {"reasoning": "d", "answer": "done"},
        ]
        lm = scripted_lm(*steps)
        with dspy.context(lm=lm):
            agent = dspy.ReAct("question -> answer", tools=tools.tools(["crm.find", "crm.fail"]), max_iters=4)
            answer = agent(question=question)
        return {
            "requests": lm._engine_spec.requests,
            "history": lm.history,
            "answer": answer,
            "trajectory": answer.trajectory,
            "vault": vault,
        }
