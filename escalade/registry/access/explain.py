"""Why somebody may or may not: the rule that decided, which others were looked at, and what it would take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from escalade.registry.access.conditions import Condition, finder
from escalade.registry.access.near import is_near
from escalade.registry.access.rules import Held, names_of
from escalade.scopes import Decided, Principal

if TYPE_CHECKING:
    from escalade.registry.access.policy import Plan, Roles

EFFECTS: dict[str, str] = {"none": "read", "read": "read", "write": "write", "irreversible": "irreversible", "": ""}
"""What a tool does to the world -> the action that a rule names."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for: `permission`, as the tool wants it; `effect`, the action of its side effects; `name`, for
    people; `schema` of its arguments, None where nothing is known.
    """

    name: str
    permission: str
    effect: str = ""
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Considered:
    """A rule that speaks of the permission, or a denial that nearly does. `verdict`: what became of it. `chain`: roles,
    from the principal's own.
    """

    rule: str
    chain: tuple[str, ...]
    verdict: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision with its reasons. `str()` of it is for people; `to_json()` for programs.

    `certain`: False when it depends on arguments that were not given. `approval`: whether a person must agree. `rule`:
    the one that decided. `chain`: by which inheritance of roles the principal has it. `needed`: what it would take, ""
    when it is allowed as it is.
    """

    principal: Principal
    tool: str
    permission: str
    allowed: bool
    certain: bool
    approval: bool
    rule: str
    chain: tuple[str, ...]
    considered: tuple[Considered, ...]
    needed: str

    @property
    def verdict(self) -> str:
        """In one phrase."""
        if not self.allowed:
            return "denied"
        if not self.certain:
            return "allowed for some arguments"
        return "allowed with approval" if self.approval else "allowed"

    def to_json(self) -> dict[str, Any]:
        """For programs; keys as the attributes."""
        return {
            "user": self.principal.user,
            "tenant": self.principal.tenant,
            "roles": sorted(self.principal.roles),
            "tool": self.tool,
            "permission": self.permission,
            "allowed": self.allowed,
            "certain": self.certain,
            "approval": self.approval,
            "rule": self.rule,
            "chain": list(self.chain),
            "considered": [{"rule": c.rule, "chain": list(c.chain), "verdict": c.verdict} for c in self.considered],
            "needed": self.needed,
        }

    def __str__(self) -> str:
        who = self.principal
        roles = ", ".join(sorted(who.roles)) or "no role"
        lines = [
            f"{who.user} of {who.tenant} ({roles}) calls {self.tool}: {self.verdict}",
            f"  decided by  {self.rule}",
        ]
        if len(self.chain) > 1:
            lines.append(f"  inherited   {' -> '.join(self.chain)}")
        lines += [f"  considered  {one.rule}: {one.verdict}" for one in self.considered]
        if self.needed:
            lines.append(f"  needed      {self.needed}")
        return "\n".join(lines)


def asked_for(tool: Any) -> Asked:
    """A ToolSpec, anything that has one (a GovernedTool, a definition), a name of a tool, or a permission."""
    if isinstance(tool, Asked):
        return tool
    if isinstance(tool, str):
        return Asked(tool, tool if ":" in tool else f"{tool}:call")
    spec = getattr(tool, "spec", tool)
    return Asked(spec.name, spec.permission, EFFECTS[spec.side_effects], spec.input_schema)


def with_defaults(schema: Mapping[str, Any] | None, args: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call, with those that the tool would fill in."""
    properties = {} if schema is None else schema.get("properties", {})
    return {**{name: one["default"] for name, one in properties.items() if "default" in one}, **args}


def explain(policy: Roles, principal: Principal, tool: Any, args: Mapping[str, Any] | None) -> Explanation:
    """See `Roles.explain`."""
    asked = asked_for(tool)
    plan = policy.plan(principal, asked.permission, asked.effect)
    known = None if args is None else with_defaults(asked.schema, args)
    decided = plan.decided if known is None else plan.decide(known)
    matching = policy.matching(principal, asked.permission, asked.effect)
    considered = [Considered(str(held), held.chain, _verdict(held, principal, known)) for held in matching]
    by = max((held for held in matching if str(held) in decided.rule), key=lambda held: len(str(held)), default=None)
    return Explanation(
        principal=principal,
        tool=asked.name,
        permission=asked.permission,
        allowed=decided.allowed,
        certain=not decided.closer,
        approval=decided.approval,
        rule=decided.rule,
        chain=() if by is None else by.chain,
        considered=(*considered, *_near_denials(policy, principal, asked)),
        needed=_needed(policy, principal, asked, plan, decided),
    )


def _near_denials(policy: Roles, principal: Principal, asked: Asked) -> Iterator[Considered]:
    """Denials that don't speak of it, and would but for a letter or two: perhaps they were meant to."""
    _, names = names_of(asked.permission, asked.effect)
    matching = policy.matching(principal, asked.permission, asked.effect)
    for held in policy.held(principal):
        if not held.rule.allows and held not in matching and any(is_near(held.rule.pattern, name) for name in names):
            yield Considered(str(held), held.chain, f"does not match {asked.permission!r}, though nearly")


def _verdict(held: Held, principal: Principal, args: Mapping[str, Any] | None) -> str:
    if not held.holds_in(principal.tenant):
        return f"not in tenant {principal.tenant!r}"
    if held.rule.when is None:
        return "applies"
    if args is None:
        return f"depends on {', '.join(dict.fromkeys('.'.join(test.path) for test in held.rule.when.tests))}"
    failing = _failing(held.rule.when, args)
    if not failing:
        return "applies"
    sure = [text for text, known in failing if known]
    unsure = [text for text, known in failing if not known]
    if sure or held.rule.allows:
        return f"does not apply: {' and '.join(sure or unsure)} {'does not hold' if sure else 'is not known to hold'}"
    return f"applies: {' and '.join(unsure)} can't be ruled out"


def _failing(when: Condition, args: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """The tests that don't hold, and whether that is known."""
    find = finder(args)
    held = [(test, test.holds(find(test.path))) for test in when.tests]
    return [(str(test), answer is False) for test, answer in held if not answer]


def _needed(policy: Roles, principal: Principal, asked: Asked, plan: Plan, decided: Decided) -> str:
    if decided.allowed:
        if decided.closer:
            return f"arguments that fit: {'; '.join(str(one.rule.when) for one in plan.grants if one.rule.when)}"
        return "a person's approval of the very call" if decided.approval else ""
    denial = next((held for held in plan.denials if held.rule.when is None), None)
    if denial is not None:
        return f"that role {denial.chain[0]!r} no longer has the denial; no grant outweighs it"
    if plan.grants:
        return "other arguments, or a role that grants it with these"
    others = [role for role in policy.roles if _would(policy, principal, role, asked)]
    return f"one of the roles: {', '.join(others)}" if others else "a rule: no role of this policy grants it here"


def _would(policy: Roles, principal: Principal, role: str, asked: Asked) -> bool:
    more = Principal(principal.user, principal.tenant, principal.roles | {role})
    return policy.decide(more, asked.permission, asked.effect).allowed
