"""What a study may say beside names and numbers: a split, and a ladder that is written down in place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from escalade.errors import BadInput
from escalade.registry.privacy.outlets import safe_line

if TYPE_CHECKING:
    from escalade.agents.escalate import Escalate
    from escalade.agents.gateway import Gateway

__all__ = ["SIMULATED", "Ladder", "Split"]

SIMULATED = "simulated"
"""As data (`simulated:200` questions), as metric and as models: the simulated world, offline and without a key."""


class Split(BaseModel):
    """Which of the questions: a question's own content and the seed decide, so that more rows move none of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    test: float = Field(default=0.5, gt=0, lt=1, description="Share of the questions in the test split.")
    use: Literal["test", "train"] = Field(default="test", description="Which side is recorded.")
    seed: int = Field(default=0, description="Other seeds draw other splits.")


class Ladder(BaseModel):
    """A ladder: rungs of one signature on the models of a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    signature: str = Field(description="As for dspy.Predict, like 'question -> answer'.")
    rungs: tuple[str | tuple[str, str] | tuple[str, str, str], ...] = Field(
        min_length=1,
        description="Cheapest first: a model, [strategy, model], or [strategy, model, dollars that bound its price].",
    )
    models: str = Field(default="models.yaml", description="A file of models, beside the study; or 'simulated'.")
    instructions: str | None = Field(default=None, description="What the models are told about the task.")
    confidence: bool = Field(default=True, description="Has each rung say how sure it is, in an output of its own.")

    def built(self, folder: Path, seed: int) -> Escalate:
        """The program. Raises BadInput, with what is wrong in the file of models, too."""
        import dspy

        from escalade.agents.escalate import Escalate
        from escalade.agents.policies import Constant

        signature: Any = self.signature if self.instructions is None else dspy.Signature(
            self.signature, self.instructions
        )  # fmt: skip
        try:
            return Escalate(
                signature,
                rungs=self.rungs,
                policy=Constant(0),
                gateway=self._gateway(folder, seed),
                confidence=self.confidence,
            )
        except (ValueError, TypeError) as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput(f"rungs: signature {self.signature!r}: {safe_line(error)}") from error

    def _gateway(self, folder: Path, seed: int) -> Gateway:
        from escalade.agents.gateway import Gateway

        if self.models == SIMULATED:
            from escalade.agents.world import World

            return Gateway(World(seed=seed).as_models(), name="study")
        return Gateway.from_file(folder / self.models, name="study")
