"""escalade: DSPy agents that climb to a dearer rung only when it pays.

    registry    what may be used, by whom, at what price, how often, and the record of it
    agents      who uses it: models behind one gateway, confidence, policies, the climb
    pipelines   how they are arranged: chains, fan-outs, maps
    evals       how we know: outcomes, replay, statistics

This page is the table of contents. Names are imported from their modules when they are first used, so that
`import escalade` costs milliseconds and brings in neither DSPy nor litellm (`_homes.py` says which module that is);
`tests/test_exports.py` holds the lists equal.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from escalade import telemetry
    from escalade.agents._route import Retry
    from escalade.agents.adapter import ChatAdapter
    from escalade.agents.braked import Braked
    from escalade.agents.cache import ResponseCache, SimilarityCache
    from escalade.agents.calibration import Isotonic, Platt, Temperature
    from escalade.agents.climb import Attempt, Climb, Policy, Rung, Stop, Try, View, climb
    from escalade.agents.confidence import (
        Combined,
        Confidence,
        Logprob,
        Peers,
        Samples,
        TypedDecision,
        Verbalised,
        Verifier,
    )
    from escalade.agents.cost_aware import Metered, cost_aware_metric, cost_of
    from escalade.agents.degrade import Answers, Replies, Reply, Resilient
    from escalade.agents.escalate import Escalate
    from escalade.agents.gateway import Gateway
    from escalade.agents.lanes.lane import Lane
    from escalade.agents.lanes.priority import priority
    from escalade.agents.learned.answers import AnswerInView
    from escalade.agents.learned.bandit import Bandit
    from escalade.agents.learned.cascade import CascadeRouting
    from escalade.agents.learned.gain import Gain
    from escalade.agents.learned.guarantee import Guaranteed, cuts_of
    from escalade.agents.learned.nearest import Nearest
    from escalade.agents.models import Model, measured_bound
    from escalade.agents.policies import Agreement, Budgeted, Constant, PromptLength, RandomMix, Threshold
    from escalade.agents.routing.classify import Classify
    from escalade.agents.routing.policy import TierTable
    from escalade.agents.routing.router import Routed, Router, route
    from escalade.agents.routing.table import RoutingTable
    from escalade.agents.sessions import Session, SqliteSessions
    from escalade.agents.streaming import stream
    from escalade.agents.tool_agent import ToolAgent, as_tool
    from escalade.agents.transports import LM15, LiteLLM, Recorded, Simulated
    from escalade.agents.world import SimModel, World
    from escalade.errors import (
        ApprovalDenied,
        ApprovalRequired,
        ArgumentsDenied,
        AuditIncomplete,
        AuditUnavailable,
        BadInput,
        BudgetExceeded,
        Censored,
        CircuitOpen,
        DataError,
        DeadlineExceeded,
        DuplicateVersion,
        EscaladeError,
        ForeignModel,
        IncompatibleVersion,
        InvalidArguments,
        JoinFailed,
        LockDrift,
        ModeForbids,
        NodeError,
        NodeTimeout,
        NoPolicy,
        NoScope,
        NotRecorded,
        OutcomeUnknown,
        Overloaded,
        PermissionDenied,
        PipelineChanged,
        Quarantined,
        RateLimited,
        Refused,
        RunConflict,
        RunError,
        ScopeClosed,
        ScopeError,
        StoreUnavailable,
        ToolError,
        ToolFailed,
        ToolRetired,
        ToolTimeout,
        UnknownName,
        UnknownPrice,
    )
    from escalade.evals.calibrating import calibrate, calibrated
    from escalade.evals.checking.graders import grader
    from escalade.evals.compare import Comparison, Row, compare
    from escalade.evals.findings import findings
    from escalade.evals.frontier import frontier
    from escalade.evals.graph_tuning import tune_graph
    from escalade.evals.loaders import load_outcomes
    from escalade.evals.loading.examples import load_examples
    from escalade.evals.loading.leaks import duplicates, overlap
    from escalade.evals.loading.splits import load_split, split
    from escalade.evals.online.canary import Canary
    from escalade.evals.online.epsilon import Epsilon
    from escalade.evals.online.estimates import estimate
    from escalade.evals.online.log import DecisionLog
    from escalade.evals.online.shadow import PolicyShadow
    from escalade.evals.online.watching import watch
    from escalade.evals.outcomes import Outcomes
    from escalade.evals.record import record
    from escalade.evals.robustness.drift import drift
    from escalade.evals.robustness.flips import flips
    from escalade.evals.robustness.reprice import reprice
    from escalade.evals.robustness.transfer import transfer
    from escalade.evals.studies.confirmation import Confirmation
    from escalade.evals.studies.live import confirm
    from escalade.evals.studies.running import StudyRun
    from escalade.evals.studies.study import Study
    from escalade.evals.tuning import tune
    from escalade.money import Money
    from escalade.pipelines.ask import Answer, Ask, Question, asking
    from escalade.pipelines.branch import Branch, Branched
    from escalade.pipelines.chain import Chain
    from escalade.pipelines.checking.checks import Fields, Finding
    from escalade.pipelines.drawing.drawing import Drawing
    from escalade.pipelines.durable.config import load_config
    from escalade.pipelines.durable.dbos_engine import DbosEngine
    from escalade.pipelines.durable.inline import Inline
    from escalade.pipelines.durable.queues import RunQueue
    from escalade.pipelines.durable.run import Run
    from escalade.pipelines.durable.runs import Runs
    from escalade.pipelines.fan_out import FanOut
    from escalade.pipelines.joined import Joined
    from escalade.pipelines.joins import BranchStatus
    from escalade.pipelines.loop import Loop, Looped
    from escalade.pipelines.map import Map
    from escalade.pipelines.node import node
    from escalade.pipelines.options.groups import Group
    from escalade.pipelines.options.hedge import Hedge
    from escalade.pipelines.options.retry import NodeRetry
    from escalade.pipelines.options.reuse import NodeCache
    from escalade.pipelines.race import Race
    from escalade.pipelines.watching.jsonl import JsonlEvents, read_events
    from escalade.pipelines.watching.live import live
    from escalade.pipelines.watching.profile import Profile, profile
    from escalade.pipelines.watching.progress import progress
    from escalade.registry.access import Roles
    from escalade.registry.access.cedar import CedarAccess
    from escalade.registry.alerts import Alerts, Webhook
    from escalade.registry.approvals import Approvals, PostgresRequests, SqliteRequests
    from escalade.registry.audit import AuditLog, FileAnchor
    from escalade.registry.breaker import Breaker
    from escalade.registry.budgets import Budget
    from escalade.registry.budgets_file import load_budgets
    from escalade.registry.catalogue import Registry
    from escalade.registry.governed import GovernedTool
    from escalade.registry.idempotency import step
    from escalade.registry.journal import Journal
    from escalade.registry.ledger import Ledger
    from escalade.registry.limits import RateLimit
    from escalade.registry.lock import Lock
    from escalade.registry.logs import JsonFormatter, json_logs
    from escalade.registry.metering import charge
    from escalade.registry.metrics import usage_metrics, watch_metrics
    from escalade.registry.opening import configure, scope
    from escalade.registry.prices import Price, PriceTable
    from escalade.registry.privacy import Redactor, Vault
    from escalade.registry.programs import load_program, save_program
    from escalade.registry.rollout import Guardrails
    from escalade.registry.secrets import Secret
    from escalade.registry.serving.principals import Tokens
    from escalade.registry.serving.server import ToolServer
    from escalade.registry.shadow import Shadow
    from escalade.registry.sources.mcp import allow_stdio, import_mcp
    from escalade.registry.sources.openapi import import_openapi
    from escalade.registry.sources.pins import Pins
    from escalade.registry.stores.claims import RedisClaims, SqliteClaims
    from escalade.registry.stores.disk_cache import DiskCache
    from escalade.registry.stores.opened import open_cache, open_claims, open_ledger, open_limiter, open_requests
    from escalade.registry.stores.postgres_cache import PostgresCache
    from escalade.registry.stores.postgres_claims import PostgresClaims
    from escalade.registry.stores.postgres_ledger import PostgresLedger
    from escalade.registry.stores.postgres_limits import PostgresLimiter
    from escalade.registry.stores.redis_cache import RedisCache
    from escalade.registry.stores.redis_ledger import RedisLedger
    from escalade.registry.stores.redis_limits import RedisLimiter
    from escalade.registry.stores.sqlite_ledger import SqliteLedger
    from escalade.registry.stores.sqlite_limits import SqliteLimiter
    from escalade.registry.tools import ToolSpec, tool
    from escalade.scopes import Principal, Scope

__version__ = "0.1.0"

__all__ = [
    "LM15",
    "Agreement",
    "Alerts",
    "Answer",
    "AnswerInView",
    "Answers",
    "ApprovalDenied",
    "ApprovalRequired",
    "Approvals",
    "ArgumentsDenied",
    "Ask",
    "Attempt",
    "AuditIncomplete",
    "AuditLog",
    "AuditUnavailable",
    "BadInput",
    "Bandit",
    "Braked",
    "Branch",
    "BranchStatus",
    "Branched",
    "Breaker",
    "Budget",
    "BudgetExceeded",
    "Budgeted",
    "Canary",
    "CascadeRouting",
    "CedarAccess",
    "Censored",
    "Chain",
    "ChatAdapter",
    "CircuitOpen",
    "Classify",
    "Climb",
    "Combined",
    "Comparison",
    "Confidence",
    "Confirmation",
    "Constant",
    "DataError",
    "DbosEngine",
    "DeadlineExceeded",
    "DecisionLog",
    "DiskCache",
    "Drawing",
    "DuplicateVersion",
    "Epsilon",
    "EscaladeError",
    "Escalate",
    "FanOut",
    "Fields",
    "FileAnchor",
    "Finding",
    "ForeignModel",
    "Gain",
    "Gateway",
    "GovernedTool",
    "Group",
    "Guaranteed",
    "Guardrails",
    "Hedge",
    "IncompatibleVersion",
    "Inline",
    "InvalidArguments",
    "Isotonic",
    "JoinFailed",
    "Joined",
    "Journal",
    "JsonFormatter",
    "JsonlEvents",
    "Lane",
    "Ledger",
    "LiteLLM",
    "Lock",
    "LockDrift",
    "Logprob",
    "Loop",
    "Looped",
    "Map",
    "Metered",
    "ModeForbids",
    "Model",
    "Money",
    "Nearest",
    "NoPolicy",
    "NoScope",
    "NodeCache",
    "NodeError",
    "NodeRetry",
    "NodeTimeout",
    "NotRecorded",
    "OutcomeUnknown",
    "Outcomes",
    "Overloaded",
    "Peers",
    "PermissionDenied",
    "Pins",
    "PipelineChanged",
    "Platt",
    "Policy",
    "PolicyShadow",
    "PostgresCache",
    "PostgresClaims",
    "PostgresLedger",
    "PostgresLimiter",
    "PostgresRequests",
    "Price",
    "PriceTable",
    "Principal",
    "Profile",
    "PromptLength",
    "Quarantined",
    "Question",
    "Race",
    "RandomMix",
    "RateLimit",
    "RateLimited",
    "Recorded",
    "Redactor",
    "RedisCache",
    "RedisClaims",
    "RedisLedger",
    "RedisLimiter",
    "Refused",
    "Registry",
    "Replies",
    "Reply",
    "Resilient",
    "ResponseCache",
    "Retry",
    "Roles",
    "Routed",
    "Router",
    "RoutingTable",
    "Row",
    "Run",
    "RunConflict",
    "RunError",
    "RunQueue",
    "Rung",
    "Runs",
    "Samples",
    "Scope",
    "ScopeClosed",
    "ScopeError",
    "Secret",
    "Session",
    "Shadow",
    "SimModel",
    "SimilarityCache",
    "Simulated",
    "SqliteClaims",
    "SqliteLedger",
    "SqliteLimiter",
    "SqliteRequests",
    "SqliteSessions",
    "Stop",
    "StoreUnavailable",
    "Study",
    "StudyRun",
    "Temperature",
    "Threshold",
    "TierTable",
    "Tokens",
    "ToolAgent",
    "ToolError",
    "ToolFailed",
    "ToolRetired",
    "ToolServer",
    "ToolSpec",
    "ToolTimeout",
    "Try",
    "TypedDecision",
    "UnknownName",
    "UnknownPrice",
    "Vault",
    "Verbalised",
    "Verifier",
    "View",
    "Webhook",
    "World",
    "allow_stdio",
    "as_tool",
    "asking",
    "calibrate",
    "calibrated",
    "charge",
    "climb",
    "compare",
    "configure",
    "confirm",
    "cost_aware_metric",
    "cost_of",
    "cuts_of",
    "drift",
    "duplicates",
    "estimate",
    "findings",
    "flips",
    "frontier",
    "grader",
    "import_mcp",
    "import_openapi",
    "json_logs",
    "live",
    "load_budgets",
    "load_config",
    "load_examples",
    "load_outcomes",
    "load_program",
    "load_split",
    "measured_bound",
    "node",
    "open_cache",
    "open_claims",
    "open_ledger",
    "open_limiter",
    "open_requests",
    "overlap",
    "priority",
    "profile",
    "progress",
    "read_events",
    "record",
    "reprice",
    "route",
    "save_program",
    "scope",
    "split",
    "step",
    "stream",
    "telemetry",
    "tool",
    "transfer",
    "tune",
    "tune_graph",
    "usage_metrics",
    "watch",
    "watch_metrics",
]

_homes = importlib.import_module("escalade._homes")
_HOME: dict[str, str] = {name: module for module, names in _homes.MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name from its module, once. All names without a module of their own are errors."""
    if name not in __all__:
        raise AttributeError(f"module 'escalade' has no attribute {name!r}")
    module = importlib.import_module(f"escalade.{_HOME.get(name, 'errors')}")
    value = module if name == _HOME.get(name) else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
