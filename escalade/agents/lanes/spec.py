"""What a file of models says of a lane; see `models_file.py`."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from escalade.agents.lanes.lane import Lane
from escalade.errors import BadInput
from escalade.registry.limits import parse_limits


def _limits(value: str | None) -> str | None:
    try:
        parse_limits(value)
    except BadInput as error:
        raise ValueError(str(error)) from None
    return value


class LaneSpec(BaseModel):
    """An account at a provider, which several models share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rpm: int | None = Field(None, ge=1, description="Requests per minute.")
    tpm: int | None = Field(None, ge=1, description="Tokens per minute.")
    limits: Annotated[str | None, AfterValidator(_limits)] = Field(None, description="More limits of starts, like 5/s.")
    at_once: int = Field(512, ge=1, description="Attempts under way, at most.")
    max_waiting: int = Field(10_000, ge=1, description="How many may wait in line.")
    patience: float | None = Field(None, ge=0, description="Seconds that an attempt waits at most, deadlines apart.")

    def built(self, name: str) -> Lane:
        """The lane."""
        given = self.model_dump(exclude={"patience"})
        return Lane(name, **given, patience=math.inf if self.patience is None else self.patience)


def lane_schema() -> dict[str, Any]:
    """The JSON schema of `LaneSpec`."""
    spec = LaneSpec.model_json_schema()
    fields = {
        name: {key: one for key, one in each.items() if key != "title"} for name, each in spec["properties"].items()
    }
    return {"type": "object", "additionalProperties": False, "properties": fields}
