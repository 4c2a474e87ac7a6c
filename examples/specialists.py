"""One model or several? A coordinator on a dear model asks specialists on cheap ones, within shares of its budget.

    python examples/specialists.py

Each specialist is an agent with tools of its own, and a tool of the coordinator: roles decide who may ask it, its share
bounds what it may spend, and what it spends is counted once, where it was asked. The same team on one model is a line
of difference, so that the price of specialisation can be looked at.
"""

import escalade
from escalade import Gateway, Registry, Roles, ToolAgent, World, tool
from escalade.agents.world import SimModel
from escalade.scopes import Principal

QUESTION = "Our invoice 4711 is 120 dollars too high, and the printer is offline. What do we do?"
world = World(
    {
        "cheap": SimModel(skill=1.0, price_in="0.10", price_out="0.40"),
        "dear": SimModel(skill=1.0, price_in="2.50", price_out="10.00"),
    },
    tasks={QUESTION: "Credit the invoice with 120 dollars and restart the printer."},
    tool_args={"billing": {"task": "invoice 4711"}, "hardware": {"task": "printer"}},
)
gateway = Gateway(world.as_models())


@tool(name="invoices.find", side_effects="read", cost="0.0002")
def find(number: str) -> str:
    """An invoice by its number."""
    return f"{number}: 120 dollars too high"


@tool(name="devices.status", side_effects="read")
def status(device: str) -> str:
    """Whether a device is up."""
    return f"{device} is offline; a restart helps"


tools = Registry([find, status], name="tools")


def team(model: str) -> ToolAgent:
    """A coordinator on the dear model, and specialists on this one."""
    experts = {
        "billing": ("Knows invoices.", "invoices.find"),
        "hardware": ("Knows devices.", "devices.status"),
    }
    made = [
        ToolAgent("task -> answer", tools=[its], registry=tools, gateway=gateway, model=model).as_tool(
            name, description=description, budget=0.25
        )
        for name, (description, its) in experts.items()
    ]
    registry = Registry(made, name=f"specialists on {model}")
    return ToolAgent(
        "question -> answer",
        tools=["billing", "hardware"],
        registry=registry,
        gateway=gateway,
        model="dear",
        max_steps=4,
    )


roles = Roles({"clerk": ["billing:call", "invoices.*:call", "model.*:call"], "it": ["*"]})

for model in ("cheap", "dear"):
    with escalade.scope(budget="1.00") as run:
        answer = team(model)(question=QUESTION)
    print(f"specialists on the {model} model: {run.spent}")
    print(answer.explain(), "\n")

# A clerk may not ask the hardware specialist: for his coordinator it doesn't exist.
with escalade.scope(budget="1.00", principal=Principal("ana", "acme", frozenset({"clerk"})), access=roles):
    clerk = team("cheap")(question=QUESTION)
print(clerk.explain())
print(clerk.refusals[0].observation)
print(f"\n{clerk.answer}")
