"""A model as a resource: what it is called, where it is, what it costs, who may use it, what stands in for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from escalade.agents._bounds import media, open_ended, thinking
from escalade.agents.lanes.lane import Lane
from escalade.errors import BadInput, one_of
from escalade.registry.breaker import Breaker
from escalade.registry.guard import Resource
from escalade.registry.limits import RateLimit, parse_limits
from escalade.registry.prices import Price, listed_price
from escalade.registry.usage import Meter
from escalade.telemetry.names import model_named

if TYPE_CHECKING:
    from dspy.lm15 import Request, Usage

    from escalade.agents.transports import Transport

Bound = Callable[[int], int]
"""UTF-8 bytes of a prompt -> an upper bound of its tokens."""

TIERS = (1, 2, 3, 4)
"""Fast, balanced, advanced, premium."""

Kind = Literal["chat", "embedding"]

FallbackTiers = Literal["same", "up", "down", "any"]

_MOST_BYTES = 16
"""Of one token, over a whole prompt: English has 4.5, indented code with runs of blanks up to 12."""


def hard_bound(size: int) -> int:
    """One token per byte: the only bound that no tokenizer breaks."""
    return size


def measured_bound(size: int) -> int:
    """0.75 tokens per byte: above the worst that was measured for cl100k and o200k (base64 0.72, emoji 0.69)."""
    return -(-size * 3 // 4)


@dataclass(eq=False)
class Model:
    """One model behind the gateway.

    `name`: the alias that programs use. `id`: the provider's model string, like `openai/gpt-4o-mini`. `transport`: how
    it is reached. `price`: None looks it up in the frozen table; it may stay unknown. `max_output`: tokens that one
    answer may have; a request for more is clamped, since the reservation counts on it. `timeout`: seconds for one
    attempt, for a stream between two events. `fallbacks`: aliases to try when this one fails. `limits`: rate limits, as
    for tools: "60/min", {"user": "5/min"}. `permission`: what a role must grant. `expected_output`: tokens of a usual
    answer, for the expected price. `bound`: how many tokens a prompt can have. `media_tokens`: how many an image,
    recording or document can have; None is unknown, and they are then refused under a budget.

    `tier`: 1 (fast) to 4 (premium). `fallback_tiers`: the tiers that may stand in for it, if it has one: its own, also
    dearer ("up") or cheaper ones ("down"), or "any". `context`: tokens that prompt and answer may have together; a
    prompt that can't fit is not sent, and the next model is tried. `tpm`: tokens per minute. `lane`: the
    account at its provider, see `lanes/`; one of its own for `tpm` by default. `region`: where it runs.
    `roles`: who may use it, of those whom the policy lets; empty is all of them. `kind`: "embedding" for one that
    turns texts into vectors (`Gateway.embedder`).
    """

    name: str
    id: str
    transport: Transport
    price: Price | None = None
    max_output: int = 1024
    timeout: float = 60.0
    fallbacks: tuple[str, ...] = ()
    limits: str | Mapping[str, str] | tuple[RateLimit, ...] | None = None
    permission: str = ""
    expected_output: int = 200
    bound: Bound = hard_bound
    media_tokens: int | None = None
    tier: int | None = None
    fallback_tiers: FallbackTiers = "same"
    context: int | None = None
    tpm: int | None = None
    lane: Lane | None = None
    region: str = ""
    roles: tuple[str, ...] = ()
    kind: Kind = "chat"
    breaker: Breaker = field(default_factory=Breaker)
    resource: Resource = field(init=False, repr=False)
    meter: Meter = field(init=False, repr=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Model:
        return self  # copies of a program share its limits and its breaker

    def __post_init__(self) -> None:
        if not self.name or self.max_output < 1 or self.timeout <= 0:
            raise BadInput(f"model {self.name!r}: expected a name, max_output >= 1 and timeout > 0")
        self._check_types()
        one_of(f"model {self.name!r}: fallback_tiers", self.fallback_tiers, get_args(FallbackTiers))
        if self.kind not in {"chat", "embedding"} or (self.kind == "embedding" and self.fallbacks):
            raise BadInput(
                f"model {self.name!r}: expected kind chat or embedding, and no fallbacks of an embedding model: "
                f"vectors of two models don't compare"
            )
        if self.tier is not None and self.tier not in TIERS:
            raise BadInput(f"model {self.name!r}: expected a tier from 1 to 4, got {self.tier!r}")
        if self.context is not None and self.context <= self.max_output:
            raise BadInput(
                f"model {self.name!r}: a context of {self.context} has no room beside {self.max_output} of output"
            )
        if self.price is None:
            self.price = listed_price(self.id, self.kind)
        self.fallbacks = (self.fallbacks,) if isinstance(self.fallbacks, str) else tuple(self.fallbacks)
        self.roles = (self.roles,) if isinstance(self.roles, str) else tuple(self.roles)
        if self.lane is None and self.tpm is not None:
            self.lane = Lane(self.name, tpm=self.tpm)
        if self.lane is not None and self.tpm not in {None, self.lane.tpm}:
            raise BadInput(f"model {self.name!r}: its tokens per minute are those of {self.lane}, not {self.tpm:,}")
        self.meter = Meter(self.name, "")
        self.resource = Resource(
            name=self.name,
            version="",
            kind="model",
            permission=self.permission or f"model.{self.name}:call",
            limits=parse_limits(dict(self.limits) if isinstance(self.limits, Mapping) else self.limits),
            breaker=self.breaker,
            observe=self.meter.observe,
            described=model_named(self.name, self.id, "embeddings" if self.kind == "embedding" else "chat"),
        )

    def _check_types(self) -> None:
        if isinstance(self.transport, type) or not hasattr(self.transport, "complete"):
            raise BadInput(f"model {self.name!r}: expected a transport, like LiteLLM(), got {self.transport!r}")
        if not isinstance(self.price, Price | None):
            raise BadInput(f'model {self.name!r}: expected Price.of("0.15", "0.60") or None, got {self.price!r}')
        if not isinstance(self.lane, Lane | None):
            raise BadInput(f"model {self.name!r}: expected a Lane({self.lane!r}, rpm=60), got {self.lane!r}")

    def counted(self, usage: Usage | None) -> None:
        """What the provider counted in an answer."""
        if usage is not None:
            self.meter.tokens(input=usage.input_tokens, output=usage.output_tokens)

    def ceiling(self, size: int, max_tokens: int | None = None) -> int | None:
        """Upper bound of the price of one call with a prompt of `size` bytes, nano-dollars; None when unpriced."""
        if self.price is None:
            return None
        return int(self.price.most(self.bound(size), self.clamp(max_tokens)))

    def most(self, request: Request) -> int | None:
        """Upper bound of the price of a request as it is sent, nano-dollars; None when unpriced or open-ended."""
        if self.price is None or open_ended(request, self):
            return None
        output = self.clamp(request.config.max_tokens) + thinking(request)
        return int(self.price.most(self.input_bound(request), output))

    def input_bound(self, request: Request) -> int:
        """How many tokens the provider may count as input."""
        tokens = self.bound(prompt_size(request))
        return tokens + media(request) * self.media_tokens if self.media_tokens else tokens

    def check_fits(self, request: Request) -> None:
        """Raises `lm15.ContextLengthError` for a prompt that is longer than the context by any tokenizer of use."""
        if self.context is not None and prompt_size(request) > self.context * _MOST_BYTES:
            from dspy import lm15

            raise lm15.ContextLengthError(
                f"a prompt of {prompt_size(request):,} bytes doesn't fit the {self.context:,} tokens "
                f"of model {self.name!r}"
            )

    def expected(self, size: int) -> int | None:
        """Expected price of one call, nano-dollars: four bytes per token, a usual answer; None when unpriced."""
        return None if self.price is None else int(self.price.cost(-(-size // 4), self.expected_output))

    def clamp(self, max_tokens: int | None) -> int:
        """Tokens that the answer may have."""
        return self.max_output if max_tokens is None else min(max_tokens, self.max_output)

    def bill(self, usage: Usage | None) -> int | None:
        """What a call cost by the provider's own count, nano-dollars; None when it did not say or has no price."""
        if self.price is None or usage is None or usage.input_tokens is None or usage.output_tokens is None:
            return None
        cached = min(usage.cache_read_tokens or 0, usage.input_tokens)
        written = min(usage.cache_write_tokens or 0, usage.input_tokens - cached)
        return int(self.price.cost(usage.input_tokens, usage.output_tokens, cached, written))


def prompt_size(request: Request) -> int:
    """UTF-8 bytes of everything that the provider will count as input, with room for its own framing of messages."""
    size = _text_size(request.system) + 64
    for message in request.messages:
        size += _text_size(message.parts) + 16
    for extra in (request.tools, request.config.response_format):
        if extra:
            size += len(repr(extra).encode()) + 64
    return size


def _text_size(parts: Any) -> int:
    if parts is None:
        return 0
    if isinstance(parts, str):
        return len(parts.encode())
    total = 0
    for part in parts:
        text = getattr(part, "text", None)
        total += len(text.encode()) if isinstance(text, str) else len(repr(part).encode())
    return total
