"""An answer as it is kept: JSON, and nothing that a round trip would change.

What is read may have been written by anybody who can write to the folder: it is parsed, checked by the types of
`dspy.lm15`, and never unpickled.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspy.clients.call_result import CallResult

    from escalade.agents.models import Model

_GOOD = frozenset({"stop", "tool_call"})
_BILL = "escalade"


@dataclass(frozen=True, slots=True)
class Record:
    """`id`: of this very answer. `at`: when it was given, seconds since the epoch. `kind`: of the question. `by`: the
    models that answered, one per candidate, "" where that isn't known. `cost`: nano-dollars that it took, None for
    unknown.
    """

    id: str
    at: float
    kind: str
    by: tuple[str, ...]
    cost: int | None
    responses: tuple[Any, ...]
    outputs: list[Any]
    model: str | None

    @classmethod
    def of(cls, result: CallResult, kind: str, at: float, model: Model) -> Record:
        """What a call of this model brought; one of its fallbacks may have answered."""
        bills = [_bill(response, model) for response in result.responses]
        costs = [bill.get("cost") for bill in bills]
        known = [cost for cost in costs if isinstance(cost, int)]
        return cls(
            id=uuid.uuid4().hex[:12],
            at=at,
            kind=kind,
            by=tuple(str(bill.get("model", "")) for bill in bills),
            cost=sum(known) if known and len(known) == len(costs) else None,
            responses=tuple(result.responses),
            outputs=list(result.outputs),
            model=result.response_model,
        )

    def dumped(self) -> bytes | None:
        """As JSON; None for what would not come back as it was."""
        import orjson
        from dspy._vendor.lm15.serde import response_to_dict

        told = {name: getattr(self, name) for name in ("id", "at", "kind", "by", "cost", "outputs", "model")}
        told["responses"] = [response_to_dict(one, include_provider_data=True) for one in self.responses]
        try:
            text = orjson.dumps(told)
            return text if Record.loaded(text) == self else None
        except (TypeError, ValueError):
            return None

    @classmethod
    def loaded(cls, text: bytes) -> Record:
        """Raises ValueError for what is no record of ours."""
        import orjson
        from dspy._vendor.lm15.serde import response_from_dict
        from dspy.clients.call_result import attributes

        try:
            told = orjson.loads(text)
            responses = tuple(response_from_dict(one) for one in told["responses"])
            record = cls(
                str(told["id"]),
                float(told["at"]),
                str(told["kind"]),
                tuple(told["by"]),
                told["cost"],
                responses,
                attributes(told["outputs"]),
                told["model"],
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"not an answer as the cache keeps it ({type(error).__name__})") from error
        if not responses or not isinstance(record.outputs, list):
            raise ValueError("not an answer as the cache keeps it")
        return record

    def result(self) -> CallResult:
        """As a call that cost nothing: no usage, and a bill of 0 that says what it would have been."""
        from dspy.clients.call_result import CallResult

        responses = tuple(_unbilled(one) for one in self.responses)
        one = responses[0] if len(responses) == 1 else None
        return CallResult(responses, list(self.outputs), {}, 0.0, one, self.model, True)


def flaw(result: CallResult) -> str:
    """Why an answer is not kept: truncated, refused, empty; "" for a good one."""
    from dspy.lm15 import RefusalPart

    if not result.responses:
        return "empty"
    for response, output in zip(result.responses, result.outputs, strict=False):
        if response.finish_reason == "length":
            return "truncated"
        if response.finish_reason not in _GOOD or any(isinstance(p, RefusalPart) for p in response.message.parts):
            return "refused"
        told = output if isinstance(output, dict) else {"text": output}
        if not told.get("tool_calls") and not str(told.get("text") or "").strip():
            return "empty"
    return ""


def _bill(response: Any, model: Model) -> dict[str, Any]:
    """The gateway's bill. Streams have none: who answered is known, then, if nobody else could, or if it says so."""
    bill = (response.provider_data or {}).get(_BILL)
    if isinstance(bill, dict):
        return bill
    mine = not model.fallbacks or response.model == model.id
    return {"model": model.name, "cost": model.bill(response.usage)} if mine else {}


def _unbilled(response: Any) -> Any:
    from dataclasses import replace

    data = response.provider_data or {}
    bill = data.get(_BILL)
    if not isinstance(bill, dict):
        return response
    kept = {**bill, "cost": 0, "list_cost": bill.get("cost"), "cached": True}
    return replace(response, provider_data={**data, _BILL: kept})
