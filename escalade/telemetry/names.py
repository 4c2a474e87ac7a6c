"""What attributes of spans, labels of metrics and keys of log lines are called.

The GenAI conventions of OpenTelemetry, as far as they go; all of them are in development, so the constants are written
out here. What has no agreed name (money, budgets, rungs) stands in our own namespace.

Source: https://github.com/open-telemetry/semantic-conventions-genai
"""

from __future__ import annotations

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_ID = "gen_ai.response.id"
MAX_TOKENS = "gen_ai.request.max_tokens"
TEMPERATURE = "gen_ai.request.temperature"
STREAM = "gen_ai.request.stream"
FINISH_REASONS = "gen_ai.response.finish_reasons"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 - no password
TOOL_NAME = "gen_ai.tool.name"
TOOL_TYPE = "gen_ai.tool.type"
AGENT_NAME = "gen_ai.agent.name"
WORKFLOW_NAME = "gen_ai.workflow.name"
ERROR_TYPE = "error.type"

RUN_ID = "escalade.run.id"
CALL_ID = "escalade.call.id"
NODE = "escalade.node"
QUEUE = "escalade.queue.seconds"
WORK = "escalade.work.seconds"
MODELS = "escalade.models.seconds"
TOOLS = "escalade.tools.seconds"
CRITICAL = "escalade.critical_path"
TAGS = "escalade.node.tags"
MODEL = "escalade.model"
TOOL_VERSION = "escalade.tool.version"
COST = "escalade.cost.nanos"
PRICED = "escalade.cost.known"
OUTCOME = "escalade.outcome"
SOURCE = "escalade.source"
CACHE_LEVEL = "escalade.cache.level"
UNCHECKED = "escalade.unchecked"
ATTEMPT = "escalade.attempt"
RUNG = "escalade.rung"
RUNGS = "escalade.rungs"
CONFIDENCE = "escalade.confidence"
CONFIDENCE_COST = "escalade.confidence.cost.nanos"
STATUS = "escalade.status"
WHY = "escalade.why"

_PROVIDERS = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "vertex": "gcp.vertex_ai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""The conventions' names by those of model strings, where they differ."""


def model_named(name: str, id: str, operation: str = "chat") -> dict[str, str]:  # noqa: A002 - its name everywhere
    """What spans and metrics say of a model: its alias, provider and model out of a string like "openai/gpt-4o", and
    what is asked of it: chat or embeddings.

    >>> model_named("small", "gemini/gemini-2.0-flash")["gen_ai.provider.name"]
    'gcp.gemini'
    """
    head, slash, rest = id.partition("/")
    provider = _PROVIDERS.get(head, head) if slash else "_OTHER"
    return {OPERATION: operation, PROVIDER: provider, REQUEST_MODEL: rest if slash else id, MODEL: name}
