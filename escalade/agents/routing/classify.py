"""A classifier that asks a model: `Router(classifier=Classify(gateway.lm("small")))`.

Its calls go through the gateway like all others: under the scope, on its budget, in its record; `Routed.cost` says what
they came to. Where the model gives no class (a failure, a refusal, an answer in the wrong form), the word lists do: a
question has to be routed somewhere. It is a `dspy.Module`: optimisers find, compile and save its predictor.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError, LMError

from escalade.agents.routing.local import Classified, LocalClassifier
from escalade.agents.routing.table import COMPLEXITIES, INTENTS, Complexity, Intent, RoutingTable, default_table
from escalade.errors import EscaladeError
from escalade.money import Money
from escalade.registry.opening import scope
from escalade.scopes import require


class Message(dspy.Signature):
    """Classify the message that a user sent to a business: how hard it is to answer well, and what he wants."""

    text: str = dspy.InputField(desc="the message, in any language")
    complexity: Complexity = dspy.OutputField(
        desc="low: a short answer from common knowledge of the business; medium: several facts, or one technical "
        "matter; high: code, several technical matters, or steps that depend on each other"
    )
    intent: Intent = dspy.OutputField(
        desc="greeting: hello, thanks, bye; faq: hours, delivery, payment, accounts; product: what something is or can "
        "do; support: something went wrong; sales: wants to buy, asks for a price; technical: software; other"
    )


class Classify(dspy.Module):
    """Complexity and intent by a model. `lm`: a gateway's; `table`: whose word lists stand in."""

    def __init__(self, lm: Any, table: RoutingTable | None = None) -> None:
        super().__init__()
        self.predict = dspy.Predict(Message)
        self.predict.lm = lm
        self._local = LocalClassifier(table or default_table())

    def forward(self, text: str) -> dspy.Prediction:
        return self.predict(text=text)

    async def aforward(self, text: str) -> dspy.Prediction:
        return await self.predict.acall(text=text)

    def classify(self, text: str) -> Classified:
        """Raises NoScope."""
        require("Classify")
        spent = []
        try:
            with scope(name="classify", optional=True) as run:
                spent.append(run)
                said = self._said(self(text=text))
        except (AdapterParseError, LMError, EscaladeError) as error:
            said = self._instead(text, error)
        return _paid(said, spent)

    async def aclassify(self, text: str) -> Classified:
        """As `classify`, without blocking the event loop."""
        require("Classify")
        spent = []
        try:
            async with scope(name="classify", optional=True) as run:
                spent.append(run)
                said = self._said(await self.acall(text=text))
        except (AdapterParseError, LMError, EscaladeError) as error:
            said = self._instead(text, error)
        return _paid(said, spent)

    def _said(self, prediction: dspy.Prediction) -> Classified:
        complexity, intent = str(prediction.complexity), str(prediction.intent)
        if complexity not in COMPLEXITIES or intent not in INTENTS:
            raise AdapterParseError(
                adapter_name="Classify", signature=Message, lm_response=repr(prediction), message="no class of ours"
            )
        name = getattr(self.predict.lm, "model", "the model")
        return Classified(
            complexity, intent, (f"complexity {complexity}: said {name}", f"intent {intent}: said {name}")
        )

    def _instead(self, text: str, error: Exception) -> Classified:
        said = self._local.classify(text)
        return replace(said, path=(f"the model gave no class ({type(error).__name__}): the word lists do", *said.path))


def _paid(said: Classified, spent: list[Any]) -> Classified:
    return replace(said, cost=sum((run.spent for run in spent), Money(0)))
