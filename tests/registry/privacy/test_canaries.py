"""Canaries: personal data and secrets, planted wherever they can come in, and looked for where anything comes out."""

from __future__ import annotations

import io
import logging
import pickle
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import dspy
import pytest

from escalade.agents.gateway import Gateway
from escalade.agents.models import Model
from escalade.agents.transports import LM15, LiteLLM
from escalade.agents.transports.simulated import Simulated
from escalade.agents.world import SimModel, World
from escalade.errors import EscaladeError
from escalade.registry import privacy
from escalade.registry.catalogue import Registry
from escalade.registry.journal import Journal
from escalade.registry.opening import scope
from escalade.registry.prices import Price
from escalade.registry.secrets import Secret, register_secret_manager
from escalade.registry.tools import tool
from tests.registry.helpers import react_script, scripted_lm

EMAIL, CARD, IBAN = "canary.bird@example.com", "4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00"
KEY, PLAIN = "sk-canary0123456789abcdefCANARY", "plain canary words of a manager"
VARIABLE = "the-canary-in-the-environment-1"
HOME = "/" + "home/canary/secret"
PERSONAL = (EMAIL, CARD, IBAN)
SECRETS = (KEY, PLAIN, VARIABLE)
OTHERS = ("canary.bird", "canary0123", "canary words", "/canary/")


@dataclass
class Aviary:
    """What came out: by its name, as text."""

    seen: dict[str, str] = field(default_factory=dict)

    def keep(self, name: str, value: Any) -> None:
        """Keep it as text, and pickled where it can be."""
        self.seen[name] = value if isinstance(value, str) else repr(value)

    def escaped(self, canaries: tuple[str, ...]) -> list[str]:
        """What has a canary in it."""
        return [f"{name}: {c}" for name, text in self.seen.items() for c in canaries if c in text]


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that is logged below `escalade`, as an application's handler gets it."""
    out, tree = io.StringIO(), logging.getLogger("escalade")
    handler, level = logging.StreamHandler(out), tree.level
    tree.addHandler(handler)
    tree.setLevel(logging.DEBUG)
    yield out
    tree.removeHandler(handler)
    tree.setLevel(level)


def tools(received: list[str]) -> Registry:
    """Tools through which canaries come in: in results, in exceptions, and out of a secret manager."""
    register_secret_manager("aviary", {"crm": PLAIN}.get)
    token = Secret("aviary:crm")

    @tool(name="crm.find", side_effects="read")
    def find(name: str) -> dict[str, str]:
        """Find a customer."""
        token.reveal()
        return {"name": name, "email": EMAIL, "card": CARD, "iban": IBAN}

    @tool(name="crm.fail", side_effects="read")
    def fail(to: str, amount: int = 1) -> str:
        """Fail."""
        received.append(to)
        raise ValueError(f"{to} has card {CARD}; token {token.reveal()} and {KEY} in {HOME}/crm.py")

    return Registry([find, fail], name="aviary")


def out_of(error: BaseException) -> str:
    """What ReAct makes of an exception, and what a model reads of it."""
    return f"{error} {error!r} {error.args!r}"


def test_journal_and_refusals(log) -> None:
    """Arguments that are refused are quoted nowhere: not in the journal, the events, the log, or to the model."""
    out, events, journal, received = Aviary(), [], Journal(), []
    (fail,) = tools(received).tools(["crm.fail"])
    with scope(budget="1", recorder=journal, listen=events.append):
        for arguments in ({"to": EMAIL, "amount": KEY}, {"to": EMAIL, CARD: 1}, {"to": EMAIL, "amount": EMAIL}):
            with pytest.raises(EscaladeError) as caught:
                fail(**arguments)
            out.keep(f"refusal {len(out.seen)}", out_of(caught.value))
    out.keep("journal", journal.entries() + journal.denials())
    out.keep("events", events)
    out.keep("log", log.getvalue())
    assert len(journal.denials()) == 3
    assert not received
    assert not out.escaped((*PERSONAL, *SECRETS, *OTHERS))


async def test_exceptions_of_tools(log) -> None:
    """What a tool raises reaches the model as one line without canaries, sync and async; the journal has its class."""
    out, journal, received = Aviary(), Journal(), []
    (fail,) = tools(received).tools(["crm.fail"])
    with scope(recorder=journal):
        with pytest.raises(ValueError, match="card") as caught:
            fail(to=EMAIL)
        out.keep("sync", out_of(caught.value))
        with pytest.raises(ValueError, match="card") as caught:
            await fail.acall(to=EMAIL)
        out.keep("async", out_of(caught.value))
        out.keep("pickle", pickle.dumps(caught.value))
    out.keep("journal", journal.entries())
    out.keep("log", log.getvalue())
    assert received == [EMAIL, EMAIL]
    assert not out.escaped((*PERSONAL, *SECRETS, *OTHERS))
    assert "\n" not in out.seen["sync"]


@pytest.mark.parametrize("called", ["crm_find", "crm_fail"])
def test_prompts(log, called: str) -> None:
    """With tokens, no prompt of an agent has a canary, whether its tool answers or raises; its history neither."""
    out, received, registry = Aviary(), [], None
    registry = tools(received)
    with scope(), privacy.tokens() as vault:
        question = vault.tokenise(f"Who is {EMAIL}?")
        token = vault.tokenise(EMAIL)
        lm = scripted_lm(*react_script(called, {"name": token} if called == "crm_find" else {"to": token}))
        with dspy.context(lm=lm):
            agent = dspy.ReAct("question -> answer", tools=registry.tools(["crm.find", "crm.fail"]), max_iters=3)
            answer = agent(question=question)
        out.keep("requests", lm._engine_spec.requests)
        out.keep("history", lm.history)
        out.keep("answer", answer)
        out.keep("vault", vault)
    out.keep("log", log.getvalue())
    assert received == ([EMAIL] if called == "crm_fail" else [])  # the tool itself gets the address
    assert token in out.seen["requests"]
    assert not out.escaped((*PERSONAL, *SECRETS, *OTHERS))


def test_pickles_saves_and_reprs(tmp_path, monkeypatch) -> None:
    """Tools, LMs, gateways, transports and saved programs show none of the keys that they work with."""
    monkeypatch.setenv("CANARY_KEY", VARIABLE)
    out = Aviary()
    registry = tools([])
    world = World({"small": SimModel(skill=0.9)}, seed=1)
    transports = [
        LM15(api_key=KEY), LM15(api_key="env:CANARY_KEY"), LM15(api_key=Secret("aviary:crm")), LiteLLM(api_key=KEY),
        LiteLLM(api_key="env:CANARY_KEY", extra_headers={"Authorization": f"Bearer {KEY}", "X": "y"}),
    ]  # fmt: skip
    price = Price.of("1", "1")
    models = [Model(f"m{n}", f"openai/m{n}", t, price=price) for n, t in enumerate(transports)]
    gateway = Gateway([*models, Model("small", "small", Simulated(world), price=price)], name="aviary")
    for transport in transports:
        out.keep(f"repr {len(out.seen)}", [transport, vars(transport)])
    lm = gateway.lm("m0", temperature=0.0)
    program = dspy.ReAct("question -> answer", tools=registry.tools(["crm.find"]))
    program.set_lm(lm)
    program.save(tmp_path / "program.json")
    out.keep("saved", (tmp_path / "program.json").read_text("utf-8"))
    out.keep("state", [lm.dump_state(), program.dump_state()])
    out.keep("repr", [gateway, models, lm, program, registry, Secret.of(KEY)])
    for name, value in {
        "lm": lm,
        "gateway": gateway,
        "tool": registry.get_tool("crm.find"),
        "secret": Secret.of(KEY),
    }.items():
        out.keep(f"pickled {name}", pickle.dumps(value).decode("latin-1"))
    out.keep("pickled LiteLLM", pickle.dumps(transports[4]).decode("latin-1"))
    assert not out.escaped((*SECRETS, "canary0123"))


def test_what_a_provider_is_sent_is_no_canary_elsewhere(monkeypatch) -> None:
    """A missing key is told by its reference; a key that was used is replaced in whatever quotes it afterwards."""
    monkeypatch.delenv("CANARY_KEY", raising=False)
    out = Aviary()
    for transport in (LM15(api_key="env:CANARY_KEY"), LiteLLM(api_key="env:CANARY_KEY")):
        with pytest.raises(Exception, match="env:CANARY_KEY") as caught:
            from dspy.lm15 import Message, Request

            transport.complete(Request(model="openai/gpt-4o-mini", messages=(Message.user("hi"),)))
        out.keep(type(transport).__name__, "".join(traceback.format_exception(caught.value)))
    monkeypatch.setenv("CANARY_KEY", VARIABLE)
    Secret("env:CANARY_KEY").reveal()
    out.keep("quoted", privacy.safe_line(f"401: invalid key {VARIABLE} ({VARIABLE[::-1]})"))
    assert "<secret>" in out.seen["quoted"]
    assert not out.escaped(SECRETS)
