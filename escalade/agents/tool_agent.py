"""`ToolAgent`: ReAct and ReActV2 on governed tools, with a budget, a deadline, and a bound of its price.

    agent = ToolAgent("question -> answer", tools=["crm.search@^1", "mail.send"], model="small")
    with escalade.scope(budget="0.05"):
        answer = agent(question="Who bought the red bicycle?")
    print(answer.answer, answer.cost, answer.explain())

A tool that refuses or fails is one line that the model reads (`registry/messages.py`), and an entry in the trajectory.
The same call again and again ends the loop. Calls of one turn that only read run at once. The agent keeps no state
between calls; optimisers find its predictors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

import dspy

from escalade.agents._agent_bill import bill as bill_of
from escalade.agents._agent_bill import bounds, growth, model_of
from escalade.agents._agent_run import Run, adrive, drive, native_adapter
from escalade.agents._estimate import Bill, model_on
from escalade.agents._shapes import CONVERSATION, Prompt, conversation, shaped, talkless
from escalade.agents._spans import working
from escalade.agents._specialist import as_tool
from escalade.agents._steps import AgentAnswer, Step, Used
from escalade.agents.gateway import Gateway, find_gateway
from escalade.agents.models import Model
from escalade.agents.streaming import Stream
from escalade.errors import BadInput, BudgetExceeded, UnknownName
from escalade.money import Money, money_or_none
from escalade.registry.catalogue import Registry, find_registry
from escalade.registry.governed import GovernedTool
from escalade.registry.tools import ToolDefinition
from escalade.scopes import Entered, Scope, require

__all__ = ["AgentAnswer", "Step", "ToolAgent", "Used", "as_tool"]


class ToolAgent(dspy.Module):
    """An agent that uses tools until it can answer.

    `signature`: as for `dspy.Predict`; an input that is a `dspy.History` may be left out of calls. `tools`: governed
    ones, or names ("crm.search@^1") to look up in `registry`, the one named "default" if None: within a run, a name
    means one version. `style`: "text" (ReAct) or "native" (ReActV2, the provider's own tool calls). `model`: its alias
    on `gateway`; without one the agent uses the language model around it, as on a rung of `Escalate`.

    `max_steps`: turns of the model before it has to answer. `budget`: dollars that one call may spend. `deadline`:
    seconds that it may take. `on_budget`: when money runs short, "answer" with what it has, keeping enough for that, or
    "raise" BudgetExceeded. `repeats`: how often the very same call may be made. `shown`: bytes of a thought, of
    arguments and of a result that later turns show.

    Raises BadInput, UnknownName. A call raises what the model's last call raised, BudgetExceeded and DeadlineExceeded.
    """

    def __init__(
        self,
        signature: Any,
        *,
        tools: Sequence[str | GovernedTool],
        style: Literal["text", "native"] = "text",
        registry: Registry | None = None,
        gateway: Gateway | None = None,
        model: str | None = None,
        max_steps: int = 8,
        budget: str | Decimal | Money | None = None,
        deadline: float | None = None,
        on_budget: Literal["answer", "raise"] = "answer",
        repeats: int = 2,
        shown: int = 2_000,
    ) -> None:
        super().__init__()
        self.signature = dspy.ensure_signature(signature)
        self.max_steps, self.deadline, self.on_budget = max_steps, deadline, on_budget
        self.budget = money_or_none(budget)
        _check(max_steps, self.budget, deadline, on_budget, repeats, shown)
        self.repeats, self.shown = repeats, shown
        self._registry = None if registry is None else _Found(registry)
        self._names: dict[str | None, str] = {}
        self.tools: dict[str, GovernedTool] = {}
        for tool in _listed(tools):
            self._add(tool)
        inner, self._history = talkless(self.signature)
        self._shape, predictors = shaped(style, inner, list(self.tools.values()))
        for name, predictor in predictors.items():
            setattr(self, name, predictor)
        if model is None and gateway is not None:
            raise BadInput("a gateway, and no model on it: ToolAgent(..., gateway=gateway, model='small')")
        self.model = None if model is None else (gateway or find_gateway("default")).model(model).name
        self._lm = None if model is None else (gateway or find_gateway("default")).lm(model)

    def _add(self, tool: str | GovernedTool) -> None:
        if isinstance(tool, str):
            found = self._tools().resolve(tool)
            self._names[found.name] = tool
        elif isinstance(tool, GovernedTool):
            found = tool
        else:
            raise BadInput(
                f"tools: expected names or governed tools, got {tool!r}; register it, "
                f"Registry([...]), and hand in registry.get_tool(name)"
            )
        if found.name in self.tools:
            raise BadInput(f"tools: {found.spec.name!r} is there twice; models couldn't tell one from the other")
        self.tools[str(found.name)] = found

    def forward(self, **inputs: Any) -> AgentAnswer:
        """Answer, synchronously."""
        entered = self._entered(inputs)
        with entered as scope, working(type(self).__name__, scope), dspy.context(**self._settings()):
            try:
                return drive(self._run(inputs, scope))
            except BudgetExceeded as refusal:
                self._gave_up(scope, refusal)
                raise

    async def aforward(self, **inputs: Any) -> AgentAnswer:
        """Answer."""
        entered = self._entered(inputs)
        async with entered as scope:
            with working(type(self).__name__, scope), dspy.context(**self._settings()):
                try:
                    return await adrive(self._run(inputs, scope))
                except BudgetExceeded as refusal:
                    self._gave_up(scope, refusal)
                    raise

    def stream(self, *, provisional: bool = True, **inputs: Any) -> Stream:
        """Follow one call, by `async for` or by `for`; see `streaming.py`."""
        return Stream(self, inputs, provisional=provisional)

    @property
    def own_model(self) -> Model | None:
        """The model that it was given, None for the one around it."""
        return model_on(self._lm)

    def bill(self, model: Model, inputs: Mapping[str, Any]) -> Bill:
        """(expected price, upper bound) of one call in nano-dollars, None where unknown: steps times the bound of one.

        `model`: of the rung that the agent stands on. Raises BadInput when the agent has one of its own.
        """
        if self.model is not None and self.model != model.name:
            raise BadInput(
                f"the agent is set to model {self.model!r} and stands on a rung of {model.name!r}: leave its "
                f"model= out, and it uses the rung's"
            )
        asked = self._asked(inputs)
        with dspy.context(**self._settings()):
            price, most = bill_of(
                self._shape, self._predictors(), model, asked, self.tools.values(), self.max_steps, self.shown
            )
        if self.budget is None:
            return price, most
        least = int(self.budget) if most is None else min(most, int(self.budget))
        return price if price is None else min(price, least), least

    def as_tool(self, name: str, *, description: str, **options: Any) -> ToolDefinition:
        """The agent as a tool of other agents, to be put into a registry; `options` as of `as_tool`."""
        effects = [tool.spec.side_effects for tool in self.tools.values()]
        order = ("none", "read", "write", "irreversible")
        options.setdefault("side_effects", max(effects, key=order.index, default="none"))
        return as_tool(self, name, description=description, **options)

    def get_lm(self) -> Any:
        """The LM that was set on all predictors, else the agent's own, None if it has none."""
        return super().get_lm() or self._lm

    # -- one call

    def _predictors(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._shape.names}

    def _settings(self) -> dict[str, Any]:
        own = {} if self._lm is None else {"lm": self._lm}
        return {**own, **(native_adapter() if self._shape.submits else {})}

    def _asked(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs as the predictors have them. Raises BadInput, UnknownName."""
        wanted = self.signature.input_fields
        for name in inputs.keys() - wanted.keys():
            raise UnknownName("input", name, list(wanted))
        missing = wanted.keys() - inputs.keys() - {self._history}
        if missing:
            raise BadInput(f"the agent needs {', '.join(sorted(missing))}; got {', '.join(inputs) or 'nothing'}")
        asked = {name: value for name, value in inputs.items() if name != self._history}
        return {**asked, CONVERSATION: conversation(inputs.get(self._history))} if self._history else asked

    def _entered(self, inputs: Mapping[str, Any]) -> Entered:
        outer, limit = require("an agent"), self.budget
        if outer.purse.limited:  # what it says that it costs at most, it costs at most
            with dspy.context(**self._settings()):
                model = model_of(next(iter(self._predictors().values())))
                most = None if model is None else self.bill(model, inputs)[1]
            limit = limit if most is None else Money(most)
        optional = self.on_budget == "answer"
        return Entered(
            lambda: outer.narrow(name="agent", budget=limit, deadline=self.deadline, optional=optional), check=False
        )

    def _run(self, inputs: Mapping[str, Any], scope: Scope) -> Run:
        predictors, more = self._predictors(), growth(self._shape, self.shown)

        def bound(next_: Prompt, last: Prompt) -> tuple[int, int] | None:
            model = model_of(predictors[next_.predictor])
            if model is None or not scope.purse.limited or self.on_budget == "raise":
                return None
            return bounds(predictors, model, next_, last, more)

        return Run(
            shape=self._shape,
            predictors=predictors,
            tools={name: self._now(name, tool) for name, tool in self.tools.items()},
            inputs=self._asked(inputs),
            scope=scope,
            max_steps=self.max_steps,
            repeats=self.repeats,
            shown=self.shown,
            insists=self.on_budget == "raise",
            bounds=bound,
        )

    def _now(self, name: str, built: GovernedTool) -> GovernedTool:
        """The version that a name means in this run; what optimisers wrote about it stays, where it is the same."""
        if name not in self._names:
            return built
        found = self._tools().resolve(self._names[name])
        return built if found.spec.version == built.spec.version else found

    def _tools(self) -> Registry:
        return find_registry("default") if self._registry is None else self._registry.registry

    def _gave_up(self, scope: Scope, refusal: BudgetExceeded) -> None:
        """No answer for want of money: it sticks to the scope outside, since DSPy may swallow what is raised."""
        if scope.parent is not None:
            scope.parent.purse.exhaust(refusal)


class _Found:
    """A registry that copies of the agent share; pickles hold its name, and find it again."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def __deepcopy__(self, memo: dict[int, Any]) -> _Found:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _found, (self.registry.name,)


def _found(name: str) -> _Found:
    return _Found(find_registry(name))


def _listed(tools: Any) -> list[Any]:
    if isinstance(tools, str | GovernedTool) or callable(tools):
        raise BadInput(f"tools: expected a list, [{tools!r}]")
    return list(tools)


def _check(
    max_steps: int, budget: Money | None, deadline: float | None, on_budget: str, repeats: int, shown: int
) -> None:
    for wrong, message in (
        (max_steps < 1, f"max_steps: expected 1 or more, got {max_steps!r}"),
        (budget is not None and int(budget) < 0, f"budget: expected dollars, 0 or more, got {budget}"),
        (deadline is not None and not deadline > 0, f"deadline: expected seconds > 0, got {deadline!r}"),
        (on_budget not in {"answer", "raise"}, f"on_budget: expected 'answer' or 'raise', got {on_budget!r}"),
        (repeats < 1, f"repeats: expected 1 or more, got {repeats!r}"),
        (shown < 100, f"shown: expected 100 bytes or more, got {shown!r}"),
    ):
        if wrong:
            raise BadInput(message)
