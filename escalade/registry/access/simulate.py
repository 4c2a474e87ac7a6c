"""Another policy, before it is in force: who would gain and who would lose what, and which recorded decisions would
have been others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from escalade.errors import ArgumentsDenied, BadInput, PermissionDenied
from escalade.registry.access.conditions import MISSING
from escalade.registry.access.explain import Asked, asked_for
from escalade.registry.access.files import read_file
from escalade.registry.access.policy import Plan, Roles
from escalade.registry.access.reach import Example, allows, examples, reachable, wants_approval
from escalade.scopes import Access, CallAccess, Decided, Entry, Principal

Verdict = Literal["denied", "some calls", "with approval", "allowed"]
"""What a policy says of a tool: no call, some (by their arguments), all once a person agrees, all."""
Again = Literal["denied", "depends on arguments", "with approval", "allowed"]
"""What it says of one recorded use, whose arguments the record may not have."""
Kind = Literal["gains", "loses", "changes"]

_DENIALS = frozenset({PermissionDenied.__name__, ArgumentsDenied.__name__})


@dataclass(frozen=True, slots=True)
class Change:
    """One principal and one tool of which two policies say different things.

    `kind`: "changes" where some calls are gained and others lost. `example`: arguments that are decided differently, ""
    where all are or none could be found. `rule`: of the new policy.
    """

    principal: Principal
    tool: str
    kind: Kind
    before: Verdict
    after: Verdict
    rule: str
    example: str = ""

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        who = self.principal
        return {
            "user": who.user,
            "tenant": who.tenant,
            "roles": sorted(who.roles),
            "tool": self.tool,
            "kind": self.kind,
            "before": self.before,
            "after": self.after,
            "rule": self.rule,
            "example": self.example,
        }


@dataclass(frozen=True, slots=True)
class Changes:
    """All of them, by user and tool. `asked`: how many pairs of a principal and a tool were compared."""

    changes: tuple[Change, ...]
    asked: int

    @property
    def gains(self) -> list[Change]:
        """Where somebody may do something that he might not before."""
        return [one for one in self.changes if one.kind in {"gains", "changes"}]

    @property
    def losses(self) -> list[Change]:
        """Where somebody may no longer do something."""
        return [one for one in self.changes if one.kind in {"loses", "changes"}]

    def __iter__(self) -> Iterator[Change]:
        return iter(self.changes)

    def __len__(self) -> int:
        return len(self.changes)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "asked": self.asked,
            "gains": len(self.gains),
            "losses": len(self.losses),
            "changes": [one.to_json() for one in self.changes],
        }

    def __str__(self) -> str:
        lines = [
            f"{one.principal.user} of {one.principal.tenant} {one.kind} {one.tool}: {one.before} -> {one.after}"
            + (f", like {one.example}" if one.example else "")
            for one in self.changes
        ]
        return "\n".join([*lines, f"{len(self.gains)} gained, {len(self.losses)} lost, of {self.asked} asked"])


@dataclass(frozen=True, slots=True)
class Redecided:
    """A recorded use that the policy would have decided otherwise, or may have. `certain`: False where that depends on
    what the record doesn't have: the arguments, or whether it was the tool that wanted a person, whatever the policy.
    """

    entry: Entry
    before: Again
    after: Again
    rule: str

    @property
    def certain(self) -> bool:
        return self.after != _OPEN and (self.before, self.after) != ("with approval", "allowed")

    @property
    def gains(self) -> bool:
        """Is more allowed than was then? In doubt, yes."""
        return self.before != "allowed" if self.after == _OPEN else _RANK[self.after] > _RANK[self.before]

    @property
    def loses(self) -> bool:
        """Is less allowed than was then? In doubt, yes."""
        return self.before != "denied" if self.after == _OPEN else _RANK[self.after] < _RANK[self.before]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        entry, who = self.entry, self.entry.principal
        return {
            "call": entry.call_id,
            "started": entry.started,
            "user": who.user,
            "tenant": who.tenant,
            "resource": entry.resource,
            "version": entry.version,
            "before": self.before,
            "after": self.after,
            "rule": self.rule,
            "certain": self.certain,
        }


_OPEN: Again = "depends on arguments"
_RANK: dict[str, int] = {"denied": 0, "with approval": 1, "allowed": 2}


def simulate(old: Roles, new: Roles, principals: Iterable[Principal], tools: Iterable[Any]) -> Changes:
    """Compare two policies for these people and tools. `tools`: specs, governed tools, or names.

    Roles that a policy doesn't have grant nothing in it. Differences in conditions are found by example, see `reach`.
    """
    wanted = [asked_for(tool) for tool in tools]
    people = list(principals)
    found = [_change(old, new, who, asked) for who in people for asked in wanted]
    return Changes(tuple(one for one in found if one is not None), len(found))


def replay(entries: Iterable[Entry], policy: Access) -> list[Redecided]:
    """Which of these recorded uses the policy would have decided otherwise, or may have, in their order.

        from escalade.registry.audit.entries import decisions

        replay(decisions("audit.sqlite", last=1_000), Roles.load("next.yaml"))

    `entries`: such as `audit.entries.decisions(...)` of a log, or `Journal.decisions()`. What was refused for another
    reason (a limit, money) had been allowed. An entry with `arguments` (a mapping) is decided with them. The policy
    that decided then would decide the same; what no policy decided (a tool that there isn't) is left out. Raises
    BadInput for what is no entry.
    """
    found = (_again(entry, policy) for entry in entries)
    return [one for one in found if one is not None]


def read_principals(path: str | Path) -> list[Principal]:
    """Principals from a YAML, JSON or TOML file: `principals`, a list of {user, tenant, roles}. Raises BadInput."""
    file = Path(path)
    people = []
    for number, one in enumerate(_listed(file, "principals"), 1):
        unknown = set(one) - {"user", "tenant", "roles"}
        roles = one.get("roles", [])
        if unknown or not isinstance(one.get("user"), str) or not isinstance(roles, list):
            raise BadInput(f"{file}: principal {number}: expected {{user, tenant, roles}}, got {one!r}")
        people.append(Principal(one["user"], str(one.get("tenant", "default")), frozenset(map(str, roles))))
    return people


def read_tools(path: str | Path) -> list[Asked]:
    """What is to be known of tools, from a YAML, JSON or TOML file: `tools`, a list of mappings with `name`, and
    `permission`, `side_effects` ("write" by default) and `input_schema` where there are any. Raises BadInput.
    """
    from escalade.registry.tools import ToolSpec

    file = Path(path)
    fields = ("name", "permission", "side_effects", "input_schema")
    tools = []
    for number, one in enumerate(_listed(file, "tools"), 1):
        try:
            tools.append(asked_for(ToolSpec(**{field: one[field] for field in fields if field in one})))
        except ValueError as error:
            raise BadInput(f"{file}: tool {number}: {' '.join(str(error).split())}") from None
    return tools


def _listed(file: Path, key: str) -> list[dict[str, Any]]:
    _, written = read_file(file)
    listed = written.get(key) if isinstance(written, Mapping) else written
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise BadInput(f"{file}: expected a list of mappings under {key!r}")
    return listed


def _change(old: Roles, new: Roles, who: Principal, asked: Asked) -> Change | None:
    before, after = (policy.plan(who, asked.permission, asked.effect) for policy in (old, new))
    was, is_ = _verdict(before, asked), _verdict(after, asked)
    gained, lost, example = _differences(before, after, was, is_, asked)
    if not gained and not lost:
        return None
    kind: Kind = "changes" if gained and lost else "gains" if gained else "loses"
    return Change(who, asked.name, kind, was, is_, after.decided.rule, example)


def _verdict(plan: Plan, asked: Asked) -> Verdict:
    decided = plan.decided
    if not decided.allowed or (decided.closer and not reachable([plan], asked.schema)):
        return "denied"
    if decided.closer:
        return "some calls"
    return "with approval" if decided.approval else "allowed"


def _differences(before: Plan, after: Plan, was: Verdict, is_: Verdict, asked: Asked) -> tuple[bool, bool, str]:
    """Is something gained, is something lost, and arguments for which this is so, where they matter."""
    if "some calls" not in {was, is_}:
        return _RANK[is_] > _RANK[was], _RANK[is_] < _RANK[was], ""
    tried = examples([*before.tests, *after.tests], asked.schema)
    if tried is None:  # too many to try: said to differ when their rules do
        differ = [str(one) for one in (*before.denials, *before.grants)] != [
            str(one) for one in (*after.denials, *after.grants)
        ]
        return differ, differ, ""
    gained, lost = "", ""
    for example in tried:
        one, two = _rank(before, example), _rank(after, example)
        gained = gained or (_shown(example) if two > one else "")
        lost = lost or (_shown(example) if two < one else "")
    return bool(gained), bool(lost), " and ".join(filter(None, dict.fromkeys([gained, lost])))


def _rank(plan: Plan, example: Example) -> int:
    if not allows(plan, example):
        return 0
    return 1 if wants_approval(plan, example) else 2


def _shown(example: Example) -> str:
    shown = [
        f"{'.'.join(path)} missing" if value is MISSING else f"{'.'.join(path)}={value!s}"
        for path, value in example.items()
    ]
    return " ".join(shown) or "any arguments"


def _again(entry: Entry, policy: Access) -> Redecided | None:
    if not hasattr(entry, "permission"):
        raise BadInput(
            f'expected entries, such as audit.entries.decisions("audit.sqlite", last=100), got {entry!r:.80}'
        )
    if not entry.permission or entry.policy_digest == getattr(policy, "digest", None):
        return None
    people = entry.principals or (entry.principal,)
    args = getattr(entry, "arguments", None)
    decisions = [_decided(policy, who, entry.permission, entry.side_effects, args) for who in people]
    refused = next((one for one in decisions if not one.allowed), None)
    before, after = _recorded(entry), _said(decisions)
    if before == after:
        return None
    rule = decisions[-1].rule if refused is None else refused.rule
    return Redecided(entry, before, after, rule)


def _decided(policy: Access, who: Principal, permission: str, effect: str, args: Mapping[str, Any] | None) -> Decided:
    decided = policy.decide(who, permission, effect)
    if decided.closer and isinstance(args, Mapping):
        closer: Any = policy
        look: CallAccess = closer
        return look.decide_call(who, permission, effect, args)
    return decided


def _said(decisions: list[Decided]) -> Again:
    if not all(one.allowed for one in decisions):
        return "denied"
    if any(one.closer for one in decisions):
        return _OPEN
    return "with approval" if any(one.approval for one in decisions) else "allowed"


def _recorded(entry: Entry) -> Again:
    if entry.outcome in _DENIALS:
        return "denied"
    asked = entry.approval_id or entry.outcome in {"ApprovalRequired", "ApprovalDenied"}
    return "with approval" if asked else "allowed"
