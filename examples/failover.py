"""The key of the primary provider is invalid, then all providers are down: who answers, and how well?

    python examples/failover.py

Nothing here raises. Each answer says on which level it was given, which model stood in, and why.
"""

import dspy
from dspy import lm15

import escalade
from escalade import Answers, Gateway, Replies, Reply, Resilient, SimModel, Simulated, World
from escalade.agents.models import Model

# Simulated providers: no key, no network. With real ones: Model("primary", "openai/gpt-4o-mini", transport=LM15()).
keys = {"primary": "sk-good", "secondary": "sk-good"}
outage = set()


def provider(name):
    """A model that refuses a wrong key, and everybody while there is an outage."""

    def fault(_):
        if name in outage:
            return lm15.ServerError("down for maintenance", provider=name, status=503)
        if keys[name] != "sk-good":
            return lm15.AuthError("Incorrect API key provided", provider=name, status=401)
        return None

    return SimModel(skill=0.9, faults=fault)


world = World({name: provider(name) for name in keys}, seed=1)
gateway = Gateway(
    [
        Model(
            "primary", "simulated/primary", Simulated(world), price=world.models["primary"].price, fallbacks="secondary"
        ),
        Model("secondary", "simulated/secondary", Simulated(world), price=world.models["secondary"].price),
    ],
    retry=escalade.Retry(retries=0),
)
program = dspy.Predict("question -> answer")
program.set_lm(gateway.lm("primary"))
ask = Resilient(
    program,
    answers=Answers(fresh=0, stale=7 * 86_400),
    replies=Replies([Reply("We are open from 9 to 18 h.", words=("open", "opening hours"))]),
    apology="I can't answer that right now.",
)

known, other = (example.question for example in world.task(2, seed=3))
levels = []


def show(title, question):
    """Ask, and tell how the answer came about."""
    answer = ask(question=question)
    levels.append(answer.level)
    said = answer.answer or f"{answer.apology} (try again in {answer.retry_after:.0f} s)"
    print(f"{title}\n  level {answer.level}, {answer.source}{f' ({answer.model})' * bool(answer.model)}: {said}")
    return answer


with escalade.scope(budget="0.10") as scope:
    show("All is well.", known)
    keys["primary"] = "invalid-key"
    show("The key of the primary is invalid.", known)
    outage.update(keys)
    show("All providers are down; the question was answered before.", known)
    show("All providers are down; somebody wrote a reply.", "When do you open?")
    last = show("All providers are down, and nobody knows.", other)
    outage.clear()
    keys["primary"] = "sk-good"
    show("The providers are back, the key is restored.", known)

print(f"\nWhy there was an apology:\n{last.explain()}\n\nanswers by level: {dict(ask.served)}, {scope.spent} spent")
