"""Uses the public API as its users would, for the type checker (`scripts/check`); it is never run.

`assert_type` where an inferred type is a promise; plain calls where it is enough that they are accepted.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, assert_type

import escalade
from escalade import (
    LM15,
    Agreement,
    Approvals,
    Attempt,
    AuditLog,
    Branch,
    Branched,
    BranchStatus,
    Budget,
    Budgeted,
    BudgetExceeded,
    CedarAccess,
    Chain,
    Classify,
    Climb,
    Combined,
    Confidence,
    Constant,
    EscaladeError,
    Escalate,
    FanOut,
    Fields,
    FileAnchor,
    Finding,
    Gateway,
    GovernedTool,
    Guardrails,
    Isotonic,
    Joined,
    JoinFailed,
    Journal,
    JsonFormatter,
    Lane,
    Ledger,
    LiteLLM,
    Lock,
    Logprob,
    Loop,
    Looped,
    Map,
    Metered,
    Model,
    Money,
    NodeError,
    Outcomes,
    Peers,
    Pins,
    Platt,
    Policy,
    Price,
    PriceTable,
    Principal,
    PromptLength,
    Race,
    RandomMix,
    RateLimited,
    Recorded,
    Redactor,
    Refused,
    Registry,
    Roles,
    Routed,
    Router,
    RoutingTable,
    Rung,
    Samples,
    Scope,
    Secret,
    Session,
    Shadow,
    SimModel,
    Simulated,
    SqliteRequests,
    SqliteSessions,
    Stop,
    Temperature,
    Threshold,
    TierTable,
    Tokens,
    ToolAgent,
    ToolServer,
    ToolSpec,
    Try,
    TypedDecision,
    Vault,
    Verbalised,
    Verifier,
    View,
    World,
    allow_stdio,
    as_tool,
    import_mcp,
    import_openapi,
    json_logs,
    load_program,
    node,
    priority,
    save_program,
    stream,
    telemetry,
    tool,
    usage_metrics,
    watch_metrics,
)
from escalade import events as escalade_events
from escalade.agents.transports import Transport
from escalade.pipelines.events import Event, NodeFinished, Token


def money() -> None:
    """Dollars in as strings or decimals, `Money` out."""
    assert_type(Money.of("0.05") + Money.of(Decimal(1)), Money)
    assert_type(Money.of("0.05").dollars, Decimal)


def scopes() -> None:
    """Who, how much, until when."""
    roles = Roles({"analyst": ["crm.*:call"]})
    ledger = Ledger([Budget("tenant:acme", "100.00", period="month")])
    who = Principal(user="ann", tenant="acme", roles=frozenset({"analyst"}))
    with escalade.scope(
        budget="0.05", deadline=30, principal=who, access=roles, ledger=ledger, recorder=Journal()
    ) as run:
        assert_type(run, Scope)
        assert_type(run.spent, Money)
        assert_type(run.left, Money | None)
    assert_type(escalade.configure(budget=Decimal("5.00")), Scope)


async def async_scopes() -> None:
    """The same with `async with`."""
    async with escalade.scope(budget="0.05") as run:
        assert_type(run.principal, Principal)


ALL_ERRORS: tuple[type[EscaladeError], ...] = (
    escalade.BadInput,
    escalade.CircuitOpen,
    escalade.ApprovalDenied,
    escalade.ApprovalRequired,
    escalade.ArgumentsDenied,
    escalade.AuditIncomplete,
    escalade.AuditUnavailable,
    escalade.Censored,
    escalade.DataError,
    escalade.DeadlineExceeded,
    escalade.DuplicateVersion,
    escalade.ForeignModel,
    escalade.IncompatibleVersion,
    escalade.LockDrift,
    escalade.ModeForbids,
    escalade.NotRecorded,
    escalade.Overloaded,
    escalade.StoreUnavailable,
    escalade.InvalidArguments,
    escalade.NodeTimeout,
    escalade.NoPolicy,
    escalade.NoScope,
    escalade.PermissionDenied,
    escalade.Quarantined,
    escalade.ScopeClosed,
    escalade.ScopeError,
    escalade.ToolError,
    escalade.ToolFailed,
    escalade.ToolRetired,
    escalade.OutcomeUnknown,
    escalade.ToolTimeout,
    escalade.UnknownName,
    escalade.UnknownPrice,
)


def errors() -> None:
    """Errors carry what a caller needs to go on."""
    try:
        scopes()
    except RateLimited as limited:
        assert_type(limited.retry_after, float | None)
    except BudgetExceeded as refusal:
        assert_type(refusal.left, int | None)
    except NodeError as failed:
        assert_type(failed.path, str)
    except Refused as refused:
        assert_type(refused.retry_after, float | None)
    except EscaladeError:
        pass


def models(transport: Transport) -> None:
    """Models behind one gateway."""
    assert_type(Price.of("0.15", "0.60").cost(1000, 500), Money)
    table = PriceTable({"mine/small": Price.of("0.1", "0.2")})
    assert_type(table.get("mine/small"), Price | None)
    small = Model("small", "openai/gpt-4o-mini", transport, price=table.get("mine/small"), fallbacks=("big",))
    gateway = Gateway([small, Model("big", "openai/gpt-4o", transport)])
    Gateway([Model("a", "openai/a", LM15(api_key="env:KEY")), Model("b", "openai/b", LiteLLM(timeout=30.0))])
    escalade.ChatAdapter(use_json_adapter_fallback=False)
    shared = Lane("openai", rpm=500, tpm=200_000, limits="20/s", at_once=64, max_waiting=1_000, patience=30.0)
    laned = Gateway([Model("a", "openai/a", transport, lane=shared)])
    with priority("batch"):
        laned.lm("a", priority="interactive")
    assert_type(shared.status.waiting, int)
    Gateway([Model("c", "openai/c", Recorded("answers.jsonl")), Model("d", "sim/d", Simulated(World()))])
    gateway.lm("small", temperature=0.7)
    limit, patient = escalade.RateLimit(60, 60.0), escalade.Retry()
    strict = Model(
        "e", "openai/e", transport, limits=(limit,), breaker=escalade.Breaker(), bound=escalade.measured_bound
    )
    Gateway([strict], retry=patient)
    filed = Gateway.from_file("models.yaml", "models.prod.yaml", transport=transport, regions={"tenant:acme": "eu"})
    assert_type(filed.tier(1), tuple[Model, ...])


def caches(transport: Transport) -> None:
    """Answers and vectors that are kept."""
    similar = escalade.SimilarityCache()
    assert_type(similar.calibrate([("one", "another", False)], max_false_hits=0.05).threshold, float)
    cache = escalade.ResponseCache("answers", ttl={"news": 60.0}, per="user", joins="all", similar=similar)
    gateway = Gateway([Model("v", "openai/v", transport, kind="embedding")], cache=cache)
    gateway.embedder("v", batch_size=10)
    with cache.kind("news"):
        cache.evict(tenant="acme", model="small")
    assert_type(cache.stats().saved, Money)


def routing(gateway: Gateway) -> None:
    """Which tier should answer."""
    routed = escalade.route("hello", Principal("ann"), segment="vip")
    assert_type(routed, Routed)
    assert_type(routed.tier, int)
    assert_type(routed.model(gateway), Model)
    router = Router(RoutingTable.load("routing.yaml"), Classify(gateway.lm("small")))
    Escalate("question -> answer", rungs=["small"], policy=TierTable.of(router.table), features=router.features)


class Stubborn:
    """A policy of one's own: nothing to inherit."""

    name = "stubborn"

    def decide(self, view: View) -> Try | Stop:
        """Every rung, then the last."""
        return Try(len(view.attempts)) if len(view.attempts) < len(view.rungs) else Stop(-1, "no more rungs")


def policies() -> list[Policy]:
    """All of them fit the protocol."""
    return [
        Stubborn(),
        Constant(0),
        Threshold(0.8),
        Agreement(members=(0, 1), then=2),
        RandomMix(0.5, low=0, high=2, seed=1),
        PromptLength(200, low=0, high=2),
        Budgeted(Threshold(0.8), "0.01"),
    ]


async def climbs(view: View) -> None:
    """The loop, with attempts of one's own."""

    async def attempt(rung: int) -> Attempt:
        return Attempt(rung, answer="42", confidence=0.9, cost=1000)

    done = await escalade.climb(Threshold(0.8), attempt, view)
    assert_type(done, Climb)
    assert_type(done.path, tuple[int, ...])
    assert_type(done.chosen, Attempt | None)


async def agents() -> None:
    """A climb as a DSPy module."""
    answer = Escalate("question -> answer", rungs=[Rung("cheap", "Predict", "small")], policy=Threshold(0.8))
    answer(question="6 x 7")
    await answer.acall(question="6 x 7")


def registry() -> None:
    """Tools, their versions, who may use them."""

    @tool(name="crm.search", cost="0.001", limits="5/s", permission="crm.search:call", side_effects="read")
    def search(query: str, limit: int = 10) -> list[str]:
        """Search customers."""
        return [query] * limit

    catalogue = Registry([search])
    assert_type(catalogue.resolve("crm.search", "^1.0"), GovernedTool)
    assert_type(catalogue.tools_for(Principal(user="ann")), list[GovernedTool])
    assert_type(catalogue.spec("crm.search"), ToolSpec)
    assert_type(catalogue.write_lock("escalade.lock", ["crm.search@^1"]), Lock)
    rollout = catalogue.rollout(
        "crm.search", "1.1.0", share=0.1, guardrails=Guardrails(alpha=0.01), shadow=Shadow(budget="0.50")
    )
    assert_type(rollout.new.calls, int)
    assert_type(usage_metrics(catalogue), str)


def tuning(qa: Escalate, examples: list[Any], metric: Any) -> None:
    """Tuned within a budget, scored by quality and cost, and compared."""
    tuned = escalade.tune(qa, examples, metric, budget="2.00", guarantee=(0.05, 0.1))
    assert_type(tuned.program, Escalate)
    assert_type(tuned.report.spent, Money)
    aware = escalade.cost_aware_metric(metric, dollars_per_point=Decimal("0.05"))
    aware(examples[0], Metered(qa)(question="?"))
    assert_type(escalade.cost_of(qa(question="?")), Money)
    assert_type(escalade.frontier({"qa": qa}, examples, metric)[0].on_frontier, bool)


def programs(program: Any) -> None:
    """Compiled programs remember their tools."""
    save_program(program, "agent.json")
    assert_type(load_program(program, "agent.json", drift="warn"), list[str])


def elsewhere() -> None:
    """Tools from other servers, pinned; ours for other clients; what is traced."""
    allow_stdio("crm-server", "--read-only")
    pins, catalogue = Pins("escalade.pins.json"), Registry()
    crm = import_mcp(catalogue, "crm", command=["crm-server", "--read-only"], tools="*", pins=pins)
    assert_type(crm.accept("search"), ToolSpec)
    shop = import_openapi(catalogue, "shop", "shop.yaml", operations=["listOrders"], pins=pins, side_effects="read")
    assert_type(shop.tools, dict[str, str])
    access = CedarAccess("permit (principal, action, resource);")
    server = ToolServer(catalogue, access=access, principal_of=Tokens([("env:ANA_TOKEN", Principal("ana"))]))
    server.run_http("127.0.0.1", 8000)
    telemetry.enable()
    json_logs(previews=True).setFormatter(JsonFormatter())
    watch_metrics(catalogue, Ledger())()


def pipelines() -> None:
    """Graphs of modules are modules."""
    fan = FanOut(short=Escalate("question -> answer", rungs=[Rung("cheap", "Predict", "small")], policy=Constant(0)))
    Chain(fan, node(Map(lambda item: {"doubled": item * 2}, over="items"), principal=Principal("ana"), budget="0.10"))


def composition() -> None:
    """One of several, again and again, and by operators."""
    choose = Branch(lambda n: n > 3, true=lambda n: {"n": n - 1}, otherwise=lambda: {"n": 0}, timeout=2)
    loop = Loop(choose, until=lambda n: n < 3, most=5, on_most="raise", carry={"n": "n"})
    chain = loop >> node(lambda n: {"n": n})
    assert_type(chain, Chain)
    assert_type(chain.check(), list[Finding])
    assert_type(Chain(choose, inputs={"n": int}).inputs, Fields)
    result = loop(n=9)
    if isinstance(result, Looped):
        assert_type(result.rounds, int)
    if isinstance(result, Branched):
        assert_type(result.taken, str)
    assert_type(node(lambda n: n, name="a") | loop, FanOut)


def options() -> None:
    """What one node can be told."""
    cheap = node(lambda n: -n, name="cheap", priority="batch", tags="cheap")
    retry = escalade.NodeRetry(3, base=0.1, on=(OSError,), within=20.0)
    kept = escalade.NodeCache(escalade.DiskCache("results"), seconds=60.0, per="user")
    dear = node(lambda n: n, retry=retry, hedge=escalade.Hedge("p95", share=0.05), fallback=cheap, cache=kept)
    crowd = node(Chain(dear), group=escalade.Group("gpu", 4), once=True, optional=True, priority=3, tags=["slow"])
    assert_type([found.path for found in FanOut(a=crowd).nodes(tag="slow")], list[str])


def joins() -> None:
    """Not all have to end well."""
    fan = FanOut(a=lambda n: n, b=lambda n: -n, partial=True, within=2.5, least=1, reduce=lambda all_, name, n: n)
    result = Race(fast=fan, slow=FanOut(c=lambda n: n, quorum=1), stagger=0.5)(n=1)
    assert isinstance(result, Joined)
    assert_type(result.winner, str)
    for status in result.statuses.values():
        assert_type(status, BranchStatus)
        assert_type(status.cost, int | None)
    try:
        fan(n=1)
    except JoinFailed as failed:
        assert_type(failed.causes, dict[Any, BaseException])


async def tool_agents(registry: Registry) -> None:
    """Agents with tools, as tools, followed, and in conversations."""
    agent = ToolAgent("task -> answer", tools=["crm.search@^1"], model="small", budget="0.05", on_budget="raise")
    registry.register(agent.as_tool("expert", description="Knows customers.", budget=0.25))
    registry.register(as_tool(agent, "other", description="The same.", budget="0.01", timeout=5))
    async for event in agent.stream(task="…"):
        assert_type(event, escalade_events.Event)
    for event in stream(agent, provisional=False, task="…"):
        assert_type(event, escalade_events.Event)
    session = Session(
        agent, id="s1", store=SqliteSessions("sessions.db"), summarise="small", ttl=3600, privacy=Redactor()
    )
    session.say(task="…")
    await session.asay(task="…")
    assert_type(session.forget(), bool)


def world() -> Gateway:
    """Simulated models, for work without a key."""
    made = World(
        {"small": SimModel(skill=0.6), "big": SimModel(skill=0.9, price_in="5")}, seed=1, tasks={"6 x 7": "42"}
    )
    assert_type(made.as_models(), list[Model])
    return Gateway(made.as_models())


def confidence(outcomes: Outcomes) -> None:
    """A float, whatever the model wrote; sources that it may come from; what makes it a probability."""
    said: float = Confidence("80%")
    assert_type(said < Confidence(0.9), bool)
    both = Combined((Verbalised(), Logprob("quantile", 0.1), Verifier("big")), weights=(1, 1, 2))
    rungs = ["small", "big", "huge"]
    Escalate("q -> a", rungs=rungs, policy=Constant(0), confidence=TypedDecision("score"))
    Escalate("q -> a", rungs=rungs, policy=Constant(0), confidence=both, features=lambda inputs: {"n": len(inputs)})
    answer = Escalate(
        "q -> a",
        rungs=rungs,
        policy=Constant(0),
        confidence={0: Samples(5), "Predict/big": Peers(("small", ("ChainOfThought", "small"))), 2: False},
    )
    fitted = escalade.calibrate(answer, outcomes, Isotonic, rows=range(100))
    assert_type(escalade.calibrated(outcomes, fitted), Outcomes)
    answer.calibrators["Predict/small"] = Platt.fit([0.9] * 50, [1.0] * 50)
    assert_type(Temperature(1.5)(said), float)


def world_metric(example: Any, prediction: Any) -> float:
    """A metric, as DSPy's."""
    return float(example.a == prediction.a)


def records(path: str) -> None:
    """What is recorded, approved, redacted and kept secret."""
    with AuditLog(path, anchors=[FileAnchor(path + ".anchors")]) as log, escalade.scope(recorder=log):
        pass
    with escalade.scope(approvals=Approvals(SqliteRequests(path), access=Roles({"boss": ["*"]}))):
        pass
    assert_type(Redactor().redact("ada@example.com").text, str)
    assert_type(Vault().tokenise("ada@example.com"), str)
    assert_type(Secret("env:KEY").reveal(), str)


def evals() -> None:
    """Outcomes are columns; a comparison is rows and JSON."""
    recorded = escalade.load_outcomes("long:answers.csv", limit=100, prices={"gpt-4": Price.of("10", "30")})
    assert_type(recorded, Outcomes)
    assert_type(escalade.record(Escalate("q -> a", rungs=["small"], policy=Constant(0)), [], world_metric), Outcomes)
    study = escalade.Study(data="simulated:20", metric="simulated", rungs=None, budget="1.00")
    assert_type(escalade.Study.load("study.yaml"), escalade.Study)
    assert_type(study.run("runs/mine", progress=True), escalade.StudyRun)
    compared = escalade.compare(recorded, [*policies(), "oracle"], baseline="gpt-4", per_request="0.02", seed=1)
    assert_type(compared, escalade.Comparison)
    program = Escalate("q -> a", rungs=["small"], policy=Constant(0))
    assert_type(escalade.confirm("threshold-0.8", program, [], world_metric, compared), escalade.Confirmation)
    assert_type(compared.row("gpt-4"), escalade.Row)
    assert_type(compared.to_json(), dict[str, Any])
    assert_type(recorded.only_rungs(["gpt-4"]).save("mine.jsonl"), Path)
    assert_type(recorded.n, int)
    assert_type(recorded.view(0), View)


def learned(view: View) -> None:
    """What is fitted on outcomes is a policy as any other."""
    ladder = escalade.load_outcomes()
    fitted: list[Policy] = [
        escalade.Gain.fit(ladder, "small", "big", margin=0.01),
        escalade.Nearest.fit(ladder, "small", "big", k=50),
        escalade.AnswerInView.fit(ladder, ("small", "mid"), "big", rows=range(600)),
        escalade.CascadeRouting.fit(ladder, ("small", "big"), worth=1.0),
        escalade.Guaranteed.fit(ladder, escalade.cuts_of(Threshold(0.8)), "big", epsilon=0.05),
    ]
    bandit = escalade.Bandit(("small", "big"), worth=0.5)
    assert_type(bandit.learned(view, bandit.decide(view), 1.0), escalade.Bandit)
    Escalate("q -> a", rungs=["small", "big"], policy=fitted[0])


def stores() -> None:
    """Ledgers and limiters that processes share; what a tool charges; steps of a run."""
    ledger: Ledger = escalade.SqliteLedger("budgets.db", [Budget("tenant:acme", "50", "day")])
    with escalade.scope(ledger=escalade.RedisLedger("redis://localhost:6379/0"), mode="live-read-only"):
        Registry([], limiter=escalade.SqliteLimiter("limits.db"))
        Registry([], limiter=escalade.RedisLimiter("redis://localhost:6379/0"))
        Registry([], claims=escalade.SqliteClaims("calls.db"))
        Registry([], claims=escalade.RedisClaims("redis://localhost:6379/0"))
        Registry([], cache=escalade.DiskCache("cache", size_limit=1 << 20))
        Registry([], cache=escalade.RedisCache("redis://localhost:6379/1")).cache.clear("crm.search")
    url = "postgresql://me:pw@localhost/app"
    Registry([], limiter=escalade.PostgresLimiter(url), claims=escalade.PostgresClaims(url))
    Registry([], limiter=escalade.open_limiter(url), claims=escalade.open_claims(url), cache=escalade.open_cache(url))
    Registry([], cache=escalade.PostgresCache(url, size_limit=1 << 30))
    desk = escalade.Approvals(escalade.open_requests(url) if url else escalade.PostgresRequests(url))
    with escalade.scope(recorder=escalade.AuditLog(url), approvals=desk):
        desk.requests("pending")
    ledger = escalade.open_ledger(url) if url else escalade.PostgresLedger(url)
    with escalade.scope(ledger=ledger, mode="replay", cassette="calls.jsonl"), escalade.step("one"):
        escalade.charge("0.003")


def degrading(program: Any) -> None:
    """Budgets of a file, who is told of them, and answers that get worse instead of failing."""
    tell = escalade.Alerts(
        print, escalade.Webhook("https://hooks.example.com/x", token="env:TOKEN", allow=["10.0.0.0/8"])
    )
    ledger = escalade.SqliteLedger("budgets.db", escalade.load_budgets("budgets.yaml"), listen=tell)
    cheaply: Policy = escalade.Braked(Threshold(0.8), tier=1)
    climb = Escalate("q -> a", rungs=["small", "big"], policy=cheaply)
    answers = escalade.Answers(escalade.DiskCache("answers"), fresh=60, stale=3600, per="user")
    replies = escalade.Replies([escalade.Reply("From 9 to 18 h.", pattern="open")])
    resilient = escalade.Resilient(climb, fallbacks=[program], answers=answers, replies=replies, also=["budget"])
    with escalade.scope(ledger=ledger):
        answer = resilient.forward(q="When do you open?")
    assert_type(answer.level, int)
    assert_type(answer.retry_after, float | None)
    assert_type(answer.explain(), str)


async def seeing(pipeline: Chain) -> None:
    """What happens in a run: a file of it, a stream, progress."""
    with escalade.JsonlEvents("runs.jsonl", on=NodeFinished) as log, escalade.scope(listen=log):
        escalade.progress(1, 3, message="page 1", partial=["so far"])
    assert_type(list(escalade.read_events("runs.jsonl")), list[Event])
    async for event in pipeline.stream({"on": 1}, tokens=True, results=True, on=(NodeFinished, Token), q="q"):
        assert_type(event, Event)


async def profiling(pipeline: Chain) -> None:
    """Where time and money went."""
    with escalade.profile() as run:
        pipeline(q="q")
    assert_type(run.speed_up, float)
    assert_type(run.cost, Money)
    assert_type(escalade.Profile.of([]).nodes[0].percentile(0.95), float)


def run_durably() -> None:
    config = escalade.load_config("escalade.yaml")
    nightly = escalade.RunQueue(concurrency=2, rate="20/min", pipelines=("report",))
    engine = escalade.DbosEngine(config.url, workers=0, queues={"nightly": nightly})
    assert_type(engine.recover(), int)


def start_durably(pipeline: escalade.Chain) -> None:
    runs = escalade.Runs("sqlite:///runs.sqlite", engine=escalade.Inline(concurrency=8), pipelines={"report": pipeline})
    try:
        run = runs.start("report", run_id="one", budget="0.50", topic="batteries")
    except (escalade.RunConflict, escalade.PipelineChanged, escalade.RunError):
        return
    assert_type(run, escalade.Run)
    assert_type(run.cancel(), Literal["queued", "running", "waiting", "done", "failed", "cancelled"])


def ask_people(runs: escalade.Runs) -> None:
    ask = escalade.Ask("Publish?", show=["draft"], options=["yes", "no"], timeout=60, otherwise="no")
    assert_type(ask.question, escalade.Question)
    with escalade.asking(lambda question: escalade.Answer("yes", "choose", by="ana")):
        ask(draft="...")
    for question in runs.questions():
        runs.answer(question.ticket, "yes", by=escalade.Principal("ana"))


def watching(pipeline: Chain) -> None:
    """A live tree."""
    with escalade.live(pipeline, lines=20), escalade.scope(listen=escalade.live()):
        pipeline(q="q")


def drawing(pipeline: Chain, run: escalade.Profile) -> None:
    """Pictures."""
    assert_type(pipeline.draw(run).save("pipeline.svg"), Path)
    assert_type(pipeline.draw([]).svg + pipeline.draw().mermaid, str)
    assert_type(pipeline.draw(), escalade.Drawing)


def tuning_graphs(examples: list[Any]) -> None:
    """Knobs of a pipeline."""
    knobs = {"width": [1, 3]}
    tuned = escalade.tune_graph(lambda width: Chain(str), knobs, examples, lambda a, b: 1.0, dollars_per_point="0.01")
    assert_type(tuned.report.spent, Money)


def robust(recorded: Outcomes, compared: escalade.Comparison) -> None:
    """Splits, leaks, other prices, other words, other data, another model."""
    examples = escalade.load_examples("dspy:colors", limit=20)
    sides = escalade.split(examples, 0.3, seed=1, by="group")
    assert_type(escalade.load_split(sides.save("split.json")).digest, str)
    assert_type(escalade.duplicates(recorded, near=0.9).said, tuple[str, ...])
    assert_type(escalade.overlap(examples, examples).share, float)
    assert_type(escalade.reprice(recorded, {"gpt-4": Price.of("5", "15")}), Outcomes)
    assert_type([one.share for one in escalade.flips(compared, paraphrases={"q1": ["What?"]})], list[float])
    assert_type([one.alarm for one in escalade.drift(recorded, recorded)], list[bool])
    assert_type(escalade.transfer(recorded, recorded, ["gain"]).overlap.said, str)
    assert_type(escalade.findings(compared).sentences, tuple[str, ...])


def online(cheap: Policy, new: Policy) -> None:
    """A policy in an app: watched, tried on some users, shadowed, explored; graders by name."""
    log, shadow = escalade.DecisionLog("decisions.jsonl"), escalade.PolicyShadow(new)
    policy = escalade.watch(escalade.Canary(cheap, new, share=0.1), log, shadow=shadow)
    assert_type(policy.name, str)
    assert_type(escalade.Epsilon(cheap, share=0.05).share, float)
    assert_type(log.feedback(1.0, run="r"), int)
    assert_type(shadow.report().served_cost, Money)
    assert_type(escalade.estimate(log.lines(), new).quality.value, float)
    assert_type(escalade.grader("number(answer)").name, str)
