"""Agents under load over HTTP, through litellm: two providers that fail in six ways, one of them dead half of the time.

Each agent climbs up to three rungs; each rung is a model at the first provider; the models of the second stand in for
it, the one of its size first. What still fails is answered by an answer of before or an apology (`Resilient`).

A fifth of all calls to either provider fails: 429 with Retry-After, 500, silence until the timeout, a connection that
is dropped, a body that is no JSON, a prompt that is said to be too long. In the second and the fourth quarter of the
run the first provider hangs up on everybody.

What must hold: every request ends in an answer, an apology or an error of the tree, of lm15 or DSPy; nothing stays
held; the ledger has, attempt by attempt, what the provider's own count of tokens costs, and the reservation where
nobody can know whether he bills.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from dspy import lm15
from dspy.utils.exceptions import LMError

import escalade
from escalade.agents._route import Retry
from escalade.agents.degrade import Answers, Resilient
from escalade.agents.escalate import Escalate
from escalade.agents.gateway import Gateway
from escalade.agents.models import Model
from escalade.agents.policies import Threshold
from escalade.agents.transports import LiteLLM
from escalade.errors import EscaladeError
from escalade.money import Money
from escalade.registry.access import Roles
from escalade.registry.breaker import Breaker
from escalade.registry.journal import Journal
from escalade.registry.ledger import Budget, Ledger
from escalade.registry.prices import Price
from escalade.scopes import Entry, Principal
from tests.servers.fault_server import FaultServer

REQUESTS, AGENTS, PERCENT, ANSWERED = 2_000, 32, 20, 0.999
TIMEOUT, COOLDOWN, QUESTIONS = 4.0, 1.0, 500
PRICES = {"small": Price.of("1", "2"), "medium": Price.of("2", "6"), "large": Price.of("5", "20")}
STANDS_IN = ("", "-b")
"""What the models of the two providers are called beyond small, medium and large."""

TENANTS = ("acme", "umbrella")
ANSWERS = ("answered", "by a stand-in", "by an answer of before", "climbed")
UNKNOWN = {"TimeoutError", "TransportError", "ProviderError"}
"""Nobody knows whether the provider has billed them: settled at the reservation."""


def run(repeats: int = 1) -> list[dict[str, Any]]:
    """Each repeat has other luck; the worst of them counts."""
    loads = [loaded(REQUESTS, seed=2 * seed) for seed in range(repeats)]
    load = max(loads, key=lambda one: (one.lost, one.wrong, -one.answered))
    ends = ", ".join(f"{count:,} {end}" for end, count in load.ends.most_common())
    faults = ", ".join(f"{count} {fault.partition(':')[0]}" for fault, count in sorted(load.faults.items()))
    money = f"{Money(load.billed)} by the providers' counts, {Money(load.reserved)} for {_unknown(load)} unknown ends"
    return [
        _figure("requests lost", load.lost, "", "0", ok=load.lost == 0) | {"note": ends},
        _figure("wrong money", load.wrong, "nano$", "0", ok=load.wrong == 0) | {"note": money},
        _figure(
            "answered, worse ones counted",
            100 * load.answered, "%", f">= {100 * ANSWERED:g} %", ok=load.answered >= ANSWERED,
        ) | {"note": f"{load.calls:,} attempts; faults: {faults}"},
        _figure("time of a request, p95", load.p95, "s", "stated", ok=True)
        | {"note": f"median {statistics.median(load.seconds):.2f} s; timeout {TIMEOUT:g} s; {load.took:.0f} s in all"},
    ]  # fmt: skip


def _unknown(load: Load) -> int:
    return sum(count for error, count in load.failures.items() if error in UNKNOWN)


def _figure(name: str, value: float, unit: str, limit: str, *, ok: bool) -> dict[str, Any]:
    name = f"load: {REQUESTS:,} requests by {AGENTS} agents, {name}"
    return {"name": name, "value": value, "unit": unit, "limit": limit, "ok": ok, "ratio": None}


@dataclass
class Load:
    """What came of a run. `ends`: how the requests ended; `seconds`: of each; money in nano-dollars."""

    requests: int
    ends: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    took: float = 0.0
    settled: int = 0
    booked: int = 0
    held: int = 0
    billed: int = 0
    reserved: int = 0
    wrong: int = 0
    late: int = 0
    calls: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def lost(self) -> int:
        """Requests that ended in neither an answer nor an apology nor an error that says what happened."""
        return self.requests - sum(self.ends[end] for end in (*ANSWERS, "apology", "error"))

    @property
    def answered(self) -> float:
        """Share of the requests that have an answer."""
        return sum(self.ends[end] for end in ANSWERS) / self.requests

    @property
    def p95(self) -> float:
        """Seconds."""
        return statistics.quantiles(self.seconds, n=20)[-1]


def loaded(requests: int, *, agents: int = AGENTS, seed: int = 0, timeout: float = TIMEOUT) -> Load:
    """Run it: so many requests by so many agents at once. `timeout`: seconds that an attempt may take."""
    LiteLLM.preload().join()
    with FaultServer(seed) as first, FaultServer(seed + 1) as second:
        return asyncio.run(_Run(requests, agents, timeout, (first, second)).run())


class _Run:
    def __init__(self, requests: int, agents: int, timeout: float, servers: tuple[FaultServer, FaultServer]) -> None:
        self.load, self.agents, self.servers = Load(requests), agents, servers
        self.todo, self.numbers = iter(range(requests)), dict[str, int]()
        self.journal = Journal(keep=100 * requests)
        self.ledger = Ledger([Budget(f"tenant:{name}", "100000", period="month") for name in TENANTS])
        self.roles = Roles({"user": ["model.*:call"]})
        gateway = Gateway(_models(servers, timeout), name="load", retry=Retry(base=0.1))
        climb = Escalate("question -> answer", rungs=list(PRICES), policy=Threshold(0.8), gateway=gateway)
        self.agent = Resilient(climb, answers=Answers(fresh=0), name="load")

    async def run(self) -> Load:
        await _warm_up(self.servers[0])
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(self.agents):
                group.create_task(self._work())
        self.load.took = time.perf_counter() - began
        self._reconcile()
        return self.load

    async def _work(self) -> None:
        for number in self.todo:
            self.servers[0].dead = 4 * number // self.load.requests % 2 == 1
            began = time.perf_counter()
            self.load.ends[await self._asked(number)] += 1
            self.load.seconds.append(time.perf_counter() - began)

    async def _asked(self, number: int) -> str:
        who = Principal(f"user{number % 50}", TENANTS[number % len(TENANTS)], frozenset({"user"}))
        try:
            with escalade.scope(
                principal=who, access=self.roles, ledger=self.ledger, recorder=self.journal, budget="1", deadline=60
            ) as run:
                self.numbers[run.run_id] = number % QUESTIONS
                done = await self.agent.acall(question=f"What is {number % QUESTIONS} + 1?")
        except (EscaladeError, lm15.LM15Error, LMError) as error:
            self.load.errors.append(error)
            return "error"
        if done.level == 5:
            return "apology"
        if done.answer != "answer value":
            return "wrong"
        return "climbed" if done.level == 2 and done.result.escalated else ANSWERS[done.level - 2]

    def _reconcile(self) -> None:
        load, entries = self.load, self.journal.entries()
        load.calls, load.booked = len(entries), sum(entry.cost for entry in entries)
        load.failures = Counter(entry.error for entry in entries if entry.outcome != "ok")
        load.reserved = sum(entry.cost for entry in entries if entry.error in UNKNOWN)
        for server in self.servers:
            load.faults += server.faults
        for account in filter(None, (self.ledger.account(f"tenant:{name}") for name in TENANTS)):
            load.settled, load.held = load.settled + account.settled, load.held + account.held
        load.wrong = load.held + abs(load.settled - load.booked) + self._mistakes(entries)

    def _mistakes(self, entries: list[Entry]) -> int:
        """Nano-dollars that were settled otherwise than documented, attempt by attempt."""
        bills: defaultdict[tuple[str, int], Counter[int]] = defaultdict(Counter)
        for server, mark in zip(self.servers, STANDS_IN, strict=True):
            for model, text, used in server.answers:
                name = model.partition("/")[0]
                bill = int(PRICES[name].cost(used["prompt_tokens"], used["completion_tokens"]))
                bills[name + mark, _number(text)][bill] += 1
                self.load.billed += bill
        wrong = 0
        for entry in entries:
            unpaid = bills[entry.resource, self.numbers[entry.run_id]]
            if entry.outcome == "ok":
                wrong += 0 if unpaid[entry.cost] else entry.cost
                unpaid[entry.cost] -= 1
            else:
                wrong += abs(entry.cost - (entry.held if entry.error in UNKNOWN else 0))
        return wrong + self._unpaid(bills, entries)

    def _unpaid(self, bills: dict[tuple[str, int], Counter[int]], entries: list[Entry]) -> int:
        """What providers billed and the ledger has not; answers that came too late are covered by reservations."""
        late = Counter((e.resource, self.numbers[e.run_id]) for e in entries if e.error == "TimeoutError")
        owed = {place: +unpaid for place, unpaid in bills.items() if +unpaid}
        self.load.late = sum(unpaid.total() for unpaid in owed.values())
        return sum(bill for place, unpaid in owed.items() for bill in unpaid if unpaid.total() > late[place])


def _number(text: str) -> int:
    """Which question this prompt is about."""
    return int(re.findall(r"What is (\d+) \+ 1", text)[-1])


def _models(servers: tuple[FaultServer, FaultServer], timeout: float) -> list[Model]:
    """Three models at each provider; those of the second stand in for those of the first."""
    made = []
    for server, mark in zip(servers, STANDS_IN, strict=True):
        transport = LiteLLM(api_key="k", api_base=server.base, timeout=timeout)
        for name, price in PRICES.items():
            others = tuple(other + STANDS_IN[1] for other in dict.fromkeys([name, *PRICES]))
            options: dict[str, Any] = {"price": price, "timeout": timeout, "breaker": Breaker(cooldown=COOLDOWN)}
            made.append(Model(name + mark, f"openai/{name}/mixed:{PERCENT}", transport, fallbacks=others, **options))
    return made


async def _warm_up(server: FaultServer) -> None:
    """The first call through litellm takes a second or two by itself."""
    request = lm15.Request(model="openai/ok", messages=(lm15.Message.user("ready?"),))
    await LiteLLM(api_key="k", api_base=server.base).acomplete(request)
    server.reset()
