"""Canaries of every kind, planted at once wherever a user can put them, and looked for where anything is kept or shown.

What is kept as it was, on purpose, is in `KEPT`, with the reason.
"""

from __future__ import annotations

import asyncio
import copy
import io
import json
import logging
import pickle
import pkgutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import dspy
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import escalade
from escalade import cli, telemetry
from escalade.errors import EscaladeError
from escalade.registry import messages, privacy, secrets
from escalade.registry.audit import AuditLog, reading
from escalade.registry.audit.verify import verify
from escalade.registry.budgets import Budget
from escalade.registry.catalogue import Registry
from escalade.registry.journal import Journal
from escalade.registry.metrics import usage_metrics
from escalade.registry.opening import scope
from escalade.registry.privacy import alias, alias_key, names, redact
from escalade.registry.secrets import Secret
from escalade.registry.stores.claims import SqliteClaims
from escalade.registry.stores.sqlite_ledger import SqliteLedger
from escalade.registry.stores.sqlite_limits import SqliteLimiter
from tests.registry import ways
from tests.registry.helpers import react_script, scripted_lm
from tests.registry.privacy.aviary import (
    CANARIES,
    GIVEN,
    KINDS,
    RUN,
    SECRETS,
    TEXT,
    VARIABLE,
    WHO,
    fly,
    folder_leaks,
    leaks,
    policy,
    prompts,
    refused,
    registry,
)

NAMES = (WHO.user, WHO.tenant)
KEPT: dict[str, tuple[tuple[str, ...], str]] = {
    "approvals.db": (tuple(set(CANARIES) - {*SECRETS, "feathers7"}), "a person has to see what he approves"),
    "claims.db": (CANARIES, "who asks again gets the very same result"),
    "cassette.jsonl": (CANARIES, "a replay gives the very same result"),
    "ledger.db": (NAMES, "budgets are set by the names of users and tenants"),
}
"""File -> the canaries that it may hold, and why."""


@dataclass
class Flight:
    """What a run left behind."""

    folder: Path
    tools: Registry
    raised: list[BaseException]
    journal: Journal
    events: list[Any]
    running: dict[str, list[str]]
    """Leaks while all files were open."""
    log: str
    spans: list[Any]
    received: list[Any] = field(default_factory=list)


class Handed(logging.Handler):
    """Writes each record with all its fields, as structured logs do."""

    def __init__(self) -> None:
        super().__init__()
        self.out = io.StringIO()

    def emit(self, record: logging.LogRecord) -> None:
        said = {**vars(record), "text": self.format(record), "exc": repr(record.exc_info)}
        self.out.write(f"{said}\n")


@pytest.fixture(scope="module")
def log() -> Iterator[Handed]:
    """A handler of an application, on the root, for all levels."""
    root, tree, handler = logging.getLogger(), logging.getLogger("escalade"), Handed()
    root.addHandler(handler)
    before, tree.level = tree.level, 1
    logging.Logger.manager._clear_cache()  # type: ignore[attr-defined]
    yield handler
    root.removeHandler(handler)
    tree.setLevel(before)


@pytest.fixture(scope="module")
def flight(tmp_path_factory: pytest.TempPathFactory, log: Handed) -> Iterator[Flight]:
    """Each tool was used in each way, with everything that can be switched on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CANARY_KEY", VARIABLE)
        Secret("env:CANARY_KEY").reveal()
        folder, journal = tmp_path_factory.mktemp("aviary"), Journal()
        received: list[Any] = []
        events: list[Any] = []
        exporter, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        telemetry.enable(provider)
        limiter = SqliteLimiter(folder / "limits.db")
        tools = registry(received, claims=SqliteClaims(folder / "claims.db"), limiter=limiter)
        ledger = SqliteLedger(folder / "ledger.db", [Budget("user:*/*", "5"), Budget("tenant:*", "9")])
        audit = AuditLog(folder / "audit.db", anchors=[folder / "anchor.jsonl"])
        options = {"ledger": ledger, "listen": events.append, "mode": "record", "cassette": folder / "cassette.jsonl"}
        with audit:
            raised = fly(tools, folder, recorder=audit, **options)
            running = folder_leaks(folder)
        telemetry.disable()
        with scope(recorder=journal):
            tools.get_tool("crm.find")(to=TEXT)
            refused(tools.get_tool("crm.fail"), to=TEXT)
            refused(tools.get_tool("crm.find"), to=TEXT, **{TEXT: TEXT})
        yield Flight(
            folder, tools, raised, journal, events, running, log.out.getvalue(), list(exporter.get_finished_spans()),
            received,
        )  # fmt: skip
        ledger.close()


def test_everything_was_planted(flight: Flight) -> None:
    """The tools got the canaries, each kind of canary is found by its pattern, and each refusal was met."""
    assert flight.received.count(TEXT) >= 4
    assert all(redact(value).counts == {kind: 1} for kind, value in KINDS.items())
    met = {type(error).__name__ for error in flight.raised}
    assert met >= {
        "InvalidArguments", "RateLimited", "ToolFailed", "ToolTimeout", "ToolError", "ApprovalRequired", "UnknownTool",
        "BudgetExceeded", "UnknownName",
    }  # fmt: skip
    events = [row.event for row in reading.rows(flight.folder / "audit.db")]
    assert min(events.count(event) for event in ("intent", "outcome", "denied")) >= 6


def test_files(flight: Flight) -> None:
    """No file has a canary, neither while it was open nor afterwards, write-ahead logs included, but for those that
    keep something on purpose; all are for their owner's eyes only.
    """
    for found in (flight.running, folder_leaks(flight.folder)):
        for name, canaries in found.items():
            kept, _ = KEPT[name.removesuffix("-wal")]
            assert set(canaries) <= set(kept), name
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in flight.folder.iterdir()}
    assert {name for name, mode in modes.items() if mode != 0o600} <= {"anchor.jsonl"}


def test_audit(flight: Flight) -> None:
    """The rows have aliases where names hold personal data; they are told apart, found again, and verified."""
    path = flight.folder / "audit.db"
    rows = [row.fields() for row in reading.rows(path) if row.event in {"intent", "outcome", "denied"}]
    assert {row["user"] for row in rows} == {alias(WHO.user)}
    assert {row["tenant"] for row in rows} == {alias(WHO.tenant)}
    assert all(row["roles"] == sorted(map(alias, WHO.roles)) for row in rows)
    assert {row["run"] for row in rows} == {alias(RUN)}
    assert "canary.bir" not in repr(rows), "of a tool that there isn't, no half of a name either"
    assert verify(path, [flight.folder / "anchor.jsonl"]).ok


def test_cassette(flight: Flight) -> None:
    """Of a recorded call only the result is as it was, and a replay gives it back."""
    lines = [json.loads(line) for line in (flight.folder / "cassette.jsonl").read_text().splitlines()]
    assert {"result", "error"} <= {key for line in lines for key in line}
    for line in lines:
        line.pop("result", None)
        assert not leaks(json.dumps(line)), line
    with scope(mode="replay", cassette=flight.folder / "cassette.jsonl"):
        found = flight.tools.get_tool("crm.find")(to=TEXT, more={KINDS["email"]: [TEXT], "password": GIVEN})
    assert found["email"] == KINDS["email"], "a replay gives what was recorded"


@pytest.mark.parametrize("command", [["tools", "stats"], ["audit", "tail"], ["audit", "export"], ["audit", "verify"]])
def test_commands(flight: Flight, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What the terminal shows of the audit has no canary, as a table and as JSON."""
    for more in ([], ["--json"]) if command[1] != "export" else ([],):
        assert cli.main([*command, str(flight.folder / "audit.db"), *more]) == 0
        out = capsys.readouterr()
        assert len(out.out) > 100
        assert not leaks(out.out + out.err)


def test_exceptions(flight: Flight) -> None:
    """No exception that a call raises has a canary: as text, in its fields, pickled, and in the exceptions of ours that
    it came from. What the tool itself raised is its cause, for developers, as it was.
    """
    foreign = set()
    for error in flight.raised:
        assert not leaks(pickle.dumps(error))
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, EscaladeError):
                said = {k: v for k, v in vars(cause).items() if not isinstance(v, BaseException)}
                assert not leaks(f"{cause} {cause!r} {cause.args!r} {said!r}"), type(cause)
            else:
                foreign.add(type(cause).__name__)
            cause = cause.__cause__
    assert foreign <= {"ValueError", "TimeoutError", "ExceptionGroup", f"No {TEXT}"}


def test_spans(flight: Flight) -> None:
    """No span has one in its name, attributes, events, links, status or resource."""
    assert len(flight.spans) > 20
    assert any(span.status.status_code.name == "ERROR" for span in flight.spans)
    assert not leaks("".join(span.to_json() for span in flight.spans))
    runs = {span.attributes["escalade.run.id"] for span in flight.spans if span.attributes}
    assert runs == {alias(RUN)}, "spans and audit rows are joined by the same alias"


def test_spans_of_the_application(flight: Flight) -> None:
    """A span of somebody else's around a call that fails records the exception with its cause, as the tool raised it;
    past a RedactingExporter it has no canary, and is otherwise the same.
    """
    bare, clean, provider = InMemorySpanExporter(), InMemorySpanExporter(), TracerProvider()
    for exporter in (bare, privacy.RedactingExporter(clean)):
        provider.add_span_processor(SimpleSpanProcessor(exporter))
    tools = registry([], name="aviary of spans")
    tracer = provider.get_tracer("app")
    with pytest.raises(ValueError), scope(), tracer.start_as_current_span(f"for {WHO.user}", attributes={"n": [1, 2]}):
        tools.get_tool("crm.fail")(to=TEXT)
    ((one,), (two,)) = bare.get_finished_spans(), clean.get_finished_spans()
    assert leaks(one.to_json()), "hence the exporter"
    assert not leaks(two.to_json())
    assert (two.context, two.parent, two.kind, two.start_time, two.end_time, two.status.status_code) == (
        one.context, one.parent, one.kind, one.start_time, one.end_time, one.status.status_code
    )  # fmt: skip
    assert two.attributes == one.attributes
    assert [event.name for event in two.events] == ["exception"]
    assert "ValueError" in two.events[0].attributes["exception.stacktrace"]
    assert provider.force_flush()
    provider.shutdown()


def test_metrics_usage_and_reprs(flight: Flight) -> None:
    """No figure, label, event or repr has one; of events only what an application named its roles and its run."""
    assert not leaks(usage_metrics(flight.tools))
    assert not leaks(repr(flight.tools.usage()))
    assert not leaks(repr([flight.tools, flight.tools.get_tool("crm.find"), flight.journal]))
    assert not leaks(repr(flight.journal.entries() + flight.journal.denials()))
    named = set(leaks(repr(sorted(WHO.roles)) + RUN))
    assert set(leaks(repr(flight.events))) <= named


@pytest.mark.slow
def test_log(flight: Flight, log: Handed) -> None:
    """Whatever any logger of ours says at any level, in a message, its arguments, fields, exceptions: no canary comes
    out. So for loggers that were made after the last scope was opened.
    """
    for module in pkgutil.walk_packages(escalade.__path__, "escalade."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    logging.getLogger("escalade.made.later")
    ours = [name for name in logging.Logger.manager.loggerDict if name.split(".")[0] == "escalade"]
    assert len(ours) > 15
    before = len(log.out.getvalue())
    for name in ours:
        for level in (1, logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
            logger = logging.getLogger(name)
            logger.log(level, "said %s and %r", TEXT, {"to": TEXT}, extra={"who": WHO, "body": [TEXT]})
            try:
                raise ValueError(f"{TEXT} {VARIABLE}")
            except ValueError:
                logger.log(level, TEXT, exc_info=True, stack_info=True)
    written = log.out.getvalue()
    assert written.count("said <email>", before) >= len(ours) * 6
    assert not leaks(written)
    assert not leaks(flight.log)


def test_prompts(flight: Flight) -> None:
    """An agent that works with tokens: neither its prompts nor its history, trajectory or answer has a canary."""
    for name, value in prompts(flight.tools).items():
        assert not leaks(repr(value)), name


@pytest.mark.filterwarnings("ignore:.*ReActV2.*experimental:Warning")
@pytest.mark.parametrize("name", ["crm.find", "crm.fail"])
@pytest.mark.parametrize("way", [*ways.WAYS, ways.rlm], ids=ways.named)
def test_tokens_by_each_way(flight: Flight, way: ways.Way, name: str) -> None:
    """By whichever way a tool is reached, it gets what tokens stand for; its result and its failure come back with
    tokens, to the caller and into prompts.
    """
    received: list[Any] = []
    tools = registry(received, name=f"aviary of {way.__name__} {name}")
    ways.prompts.clear()
    with scope(), privacy.tokens() as vault:
        argument = {"to": vault.tokenise(f"{TEXT} {way.__name__}")}
        try:
            shown = way(tools.get_tool(name), argument)
        except (ValueError, RuntimeError) as error:  # which DSPy makes of it, with the same text
            shown = repr(error)
    assert received == [f"{TEXT} {way.__name__}"], shown
    assert "<email" in shown
    assert not leaks(shown)
    assert not leaks(" ".join(ways.prompts))


def test_pickles(flight: Flight, tmp_path: Path) -> None:
    """Tools and programs that have run, copied, pickled and saved."""
    tool = flight.tools.get_tool("crm.find")
    with scope() as run:
        agent = dspy.ReAct("question -> answer", tools=flight.tools.tools(["crm.find", "crm.fail"]))
        with dspy.context(lm=scripted_lm(*react_script("crm_fail", {"to": "nobody"}))):
            agent(question="who?")
        for keep in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError):  # it has a ledger: a scope is of its process
                keep(run)
    agent.save(tmp_path / "agent.json")
    agent.save(tmp_path / "agent.pkl")
    assert not folder_leaks(tmp_path)
    for one in (tool, copy.deepcopy(tool), copy.copy(tool)):
        assert not leaks(pickle.dumps(one))
    assert not leaks(repr(copy.deepcopy(agent)))


def test_served(flight: Flight, log: Handed) -> None:
    """A client reads no canary in an error: of a tool, of arguments, of a tool that isn't there or not for him."""
    mcp = pytest.importorskip("mcp")
    from escalade.registry.serving.server import ToolServer

    server = ToolServer(flight.tools, access=policy(), principal=WHO)

    async def asked() -> list[Any]:
        calls: list[tuple[str, dict[str, Any]]] = [
            ("crm_fail", {"to": TEXT}), ("crm_find", {TEXT: TEXT}), ("crm_find", {"to": [TEXT]}),
            ("hidden_tool", {"to": TEXT}), (TEXT, {}), ("x" * 55 + KINDS["email"], {}), ("crm_dear", {"to": 1}),
        ]  # fmt: skip
        async with mcp.Client(server.sdk_server()) as client:
            return [await client.call_tool(name, arguments) for name, arguments in calls]

    answers = asyncio.run(asked())
    assert all(answer.is_error for answer in answers)
    assert not leaks(repr(answers))
    assert not leaks(log.out.getvalue())
    assert "canary" not in log.out.getvalue().rpartition("aviary")[2]


@pytest.mark.parametrize("canary", [KINDS["email"], KINDS["api_key"], KINDS["iban"]])
def test_no_cut_leaves_half_of_one(flight: Flight, canary: str) -> None:
    """Long texts are cut after they were redacted: wherever the cut falls, no part of a canary is left."""
    find, half = flight.tools.get_tool("crm.find"), canary[: len(canary) * 2 // 3]
    journal = Journal()
    with scope(recorder=journal):
        for before in range(0, 330, 3):
            text = f"{'x ' * (before // 2)}{'x' * (before % 2)} {canary}"
            said = [refused(find, to="a", more=text), refused(find, to="a", **{text: 1})]
            said += [ValueError(messages.scrubbed(text)), refused(find, to=[text])]
            assert not [one for one in said if half in str(one)], before
        assert half not in repr(journal.denials())


def test_approvals_forget(flight: Flight, tmp_path: Path) -> None:
    """A day after a request has expired its arguments are overwritten, in the write-ahead log, too; what stays is who
    decided what about which tool, and a digest.
    """
    from escalade.registry.approvals import Approvals, SqliteRequests

    now = [1_000_000.0]
    store = SqliteRequests(tmp_path / "approvals.db")
    clerks = escalade.Roles({"clerk": ["pay.*:call"], "boss": ["pay.*:approve"]})
    desk = Approvals(store, access=clerks, clock=lambda: now[0])
    pay = flight.tools.get_tool("pay.out")
    who = escalade.Principal("ana", "acme", frozenset({"clerk"}))
    with scope(principal=who, access=clerks, approvals=desk, run_id="r"):
        refused(pay, to=TEXT, key=KINDS["api_key"])
        (request,) = desk.requests()
        assert KINDS["email"] in request.arguments
        assert not leaks(request.arguments, SECRETS)
        desk.approve(request.id, by=escalade.Principal("mia", "acme", frozenset({"boss"})))
        assert pay(to=TEXT, key=KINDS["api_key"]) == f"paid {TEXT}"
        assert "approvals.db-wal" in folder_leaks(tmp_path)
        now[0] += 3600 + 86_401
        refused(pay, to="somebody", key="k")
    assert [one.arguments for one in desk.requests()] == ["null", '{"key":"k","to":"somebody"}']
    assert desk.get(request.id).decided_by == "mia"
    assert desk.get(request.id).args_digest == request.args_digest
    assert not folder_leaks(tmp_path)
    store.close()
    assert not folder_leaks(tmp_path)


def test_names_of_who_decides(flight: Flight) -> None:
    """What is said of a decision names people by their aliases, and quotes reasons redacted."""
    from escalade.registry.approvals import Approvals

    roles = frozenset({"clerk", "boss"})
    clerks = escalade.Roles({"clerk": ["pay.*:call"], "boss": ["pay.*:approve"]})
    desk, pay = Approvals(access=clerks), flight.tools.get_tool("pay.out")
    who, boss = escalade.Principal("ana", WHO.tenant, roles), escalade.Principal(WHO.user, WHO.tenant, roles)
    with scope(principal=who, access=clerks, approvals=desk, run_id="r"):
        refused(pay, to="a", key="k")
        (request,) = desk.requests()
        strangers = (escalade.Principal(WHO.user, "other", roles), escalade.Principal(WHO.user, WHO.tenant))
        said = [refused(desk.approve, request.id, by=one) for one in strangers]
        desk.deny(request.id, by=boss, reason=f"because of {TEXT}")
        said += [refused(desk.approve, request.id, by=boss), refused(pay, to="a", key="k")]
    said += [error.__cause__ for error in said if error.__cause__ is not None]
    assert "because of <email>" in str(said[-1])
    assert not leaks(repr(said))


def test_two_secrets_are_two_requests(tmp_path: Path, flight: Flight) -> None:
    """What a person doesn't see binds all the same: an approval for one key isn't one for another."""
    from escalade.registry.approvals import Approvals

    desk, pay = Approvals(access=policy()), flight.tools.get_tool("pay.out")
    with scope(principal=WHO, access=policy(), approvals=desk):
        refused(pay, to="a", key=KINDS["api_key"])
        refused(pay, to="a", key=KINDS["api_key"] + "x")
    one, two = desk.requests()
    assert one.arguments == two.arguments
    assert one.key != two.key


class TestAlias:
    """What stands for names."""

    def test_plain_names(self) -> None:
        """A name in which nothing is found is itself."""
        assert [alias(name) for name in ("ana", "acme", "user-4711", "")] == ["ana", "acme", "user-4711", ""]

    def test_stable_and_told_apart(self) -> None:
        """The same name has the same alias, of its kind; another one has another; an alias is its own."""
        one, two = alias("ana@example.com"), alias("bo@example.com")
        assert one == alias("ana@example.com") == alias(one) == redact(one).text
        assert one != two
        assert one.startswith("<email:")
        assert alias("user:acme/ana@example.com") == f"user:acme/{one}"

    def test_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With a key they are others, which nobody can find by trying names; a short key is refused."""
        monkeypatch.setattr(names, "_key", b"")
        monkeypatch.setenv("ALIAS_KEY", "0123456789abcdef-of-the-aliases")
        bare = alias("ana@example.com")
        alias_key("env:ALIAS_KEY")
        assert alias("ana@example.com") != bare
        monkeypatch.setattr(secrets, "_managers", {**secrets._managers, "short": lambda _: "short"})
        with pytest.raises(escalade.BadInput, match="16 characters"):
            alias_key("short:x")
