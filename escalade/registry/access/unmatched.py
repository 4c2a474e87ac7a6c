"""Rules that speak of nothing that there is: meant for tools to come, or misspelt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from escalade.registry.access.explain import asked_for
from escalade.registry.access.index import Index
from escalade.registry.access.near import is_near
from escalade.registry.access.policy import Roles
from escalade.registry.access.rules import Rule, names_of


def unmatched(policy: Roles, tools: Iterable[Any]) -> list[str]:
    """A line for each rule that speaks of none of these tools, with what it nearly matches. `tools`: as `explain` takes
    them, such as `registry.specs()`. Rules for models are left out.
    """
    asked = [asked_for(tool) for tool in tools]
    rules = [rule for rule in policy.rules() if not rule.pattern.startswith("model.")]
    index, spoken, names = Index(rule.pattern for rule in rules), set(), []
    for one in asked:
        granted, denied = names_of(one.permission, one.effect)
        names += [*denied, f"{one.permission.rpartition(':')[0]}:approve"]
        spoken |= {n for name in (*granted, names[-1]) for n in index.find(name)}
        spoken |= {n for name in denied for n in index.find(name) if not rules[n].allows}
    return [_line(rule, names, len(asked)) for n, rule in enumerate(rules) if n not in spoken]


def _line(rule: Rule, names: list[str], tools: int) -> str:
    near = next((name for name in names if is_near(rule.pattern, name)), "")
    return f"{rule}: none of the {tools} tools has it" + (f"; did you mean {near!r}?" if near else "")
