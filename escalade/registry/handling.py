"""How a tool is handled: what may be repeated, kept, waited for, and what it may cost. A part of `ToolSpec`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from escalade.money import Money, money_or_none

_HARMLESS = frozenset({"none", "read"})


class Handling(BaseModel):
    """The part of a ToolSpec that says how its calls are handled.

    `max_cost`: dollars that one call costs at most, reserved before it; for a tool that is `metered` (says by
    `escalade.charge` what it spends), whose cost depends on its arguments, or whose cost nobody knows (it is the bill
    then). `wait`: a call that a rate limit refuses waits for its turn, within the scope's deadline, and without one as
    long as it takes: `timeout` is for the tool, not for the line. `when_store_is_down`: whether calls are refused
    ("closed") or go on without rate limits ("open") while the store of the limits can't be reached. `idempotent`: doing
    it twice is doing it once; so are all tools without side effects. `retries`: further attempts after a failure, only
    for what is idempotent. `max_concurrent`: calls that run at once; the others wait, within the deadline and no longer
    than the tool's own timeout. `once`: the same call in the same step of a run is executed once, and repetitions get
    its result. `cache`: seconds for which a result may be used again for the same arguments, only without side effects;
    `cache_per`: whether each user has his own.
    """

    max_cost: Annotated[Money | None, BeforeValidator(money_or_none)] = None
    metered: bool = False
    wait: bool = False
    when_store_is_down: Literal["closed", "open"] = "closed"
    idempotent: bool = False
    retries: int = Field(default=0, ge=0, le=10)
    max_concurrent: int | None = Field(default=None, ge=1)
    once: bool = False
    cache: float | None = Field(default=None, gt=0)
    cache_per: Literal["tenant", "user"] = "tenant"

    @property
    def repeatable(self) -> bool:
        """May it be done twice?"""
        return self.idempotent or getattr(self, "side_effects", "write") in _HARMLESS

    @model_validator(mode="after")
    def _check_handling(self) -> Any:
        harmless = getattr(self, "side_effects", "write") in _HARMLESS
        cost: Money | None = getattr(self, "cost", None)
        for wrong, message in (
            (self.retries and not self.repeatable, "retries are for what may be done twice; say idempotent=True if so"),
            (self.cache and not harmless, "a cache is for tools without side effects; say side_effects='read' if so"),
            (
                self.cache and getattr(self, "approval", None) is not None,
                "what a person must approve each time can't come from a cache",
            ),
            (self.once and harmless, "once is for tools with side effects; for others there is cache="),
            (
                self.metered and self.max_cost is None,
                "a metered tool needs max_cost=..., which is reserved before each call",
            ),
            (self.max_cost is not None and self.max_cost < 0, f"a cost can't be negative: {self.max_cost}"),
            (
                self.metered and cost is not None,
                "a metered tool says itself what a call costs, and has no cost of its own (null in a file)",
            ),
            (
                cost is not None and self.max_cost is not None and cost > self.max_cost,
                f"a cost of {cost} is more than the max_cost of {self.max_cost}",
            ),
        ):
            if wrong:
                raise ValueError(message)
        return self
