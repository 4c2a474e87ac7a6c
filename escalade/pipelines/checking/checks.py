"""Checks when a graph is built: does every node get what it needs, by name and by type?

    >>> from escalade.pipelines.chain import Chain
    >>> from escalade.errors import BadInput
    >>> def words(text: str) -> list[str]:
    ...     return text.split()
    >>> def total(words: int) -> int:
    ...     return words
    >>> try:
    ...     Chain(words, total)
    ... except BadInput as error:
    ...     print(error)
    node 'total' takes 'words' as int, but node 'words' gives it as list[str]

What is known of a node: the fields of its signature, or the annotations of its function (a TypedDict, a dataclass, a
pydantic model; any other value goes by the name of its node). Only what certainly fails is refused. What a node returns
that has no annotation, or just `dict`, may have any field, so after it nothing is missing for certain.

A field that no node gives is an input of the pipeline. It is taken for a mistake where a node before gives one that is
spelt nearly so and nobody takes, and where a step takes nothing at all of what the one before gives, and nobody else
does; what the call gives may be declared: `Chain(..., inputs=["question", "style"])`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import dspy

from escalade.pipelines._calls import ASIDE, RESULT, meanings
from escalade.pipelines._node import Prepared
from escalade.pipelines.checking._fields import NOTHING, Gives, Takes, gives_of, named, one_of, parts, plan_of, takes_of
from escalade.pipelines.checking._traffic import Fields, Finding, Ledger, Traffic, as_prediction, close
from escalade.pipelines.checking._types import Items, fits, members, shown, union

__all__ = ["Fields", "Finding", "of_branch", "of_chain", "of_fan_out", "of_loop", "of_map", "of_race"]


def of_chain(plan: Mapping[str, Prepared], declared: Mapping[str, Any] | None) -> Traffic:
    """A Chain. `declared`: the types of its inputs, None where nobody has said which there are."""
    ledger, steps = Ledger(declared), _Steps(plan)
    gives, before = Gives(), ""
    for name, step in plan.items():
        takes = takes_of(step)
        missing = ledger.take(name, takes)
        _check_optional(ledger, name, takes, plan)
        if len(missing) == 1 and _fills(ledger, name, takes, missing[0], before, gives):
            missing = []
        if missing:
            certain = not steps.open and (gives.bare in (NOTHING, type(None)) or len(missing) == 1)
            ledger.ask_all(name, takes, missing, required=certain)
            if certain:
                steps.suspect(name, takes, missing, before)
        ledger.ask_all(name, takes, (), required=False)
        gives, before = named(name, gives_of(step)), name
        steps.passed(name, gives, certain=not step.options.optional)
        ledger.give(name, gives, certain=not step.options.optional)
    steps.judge(ledger)
    _warn_unused(ledger, plan, steps.given)
    last = as_prediction(before, gives)
    return ledger.traffic(Gives(open=True) if plan[before].options.optional else last)


class _Steps:
    """What is known of the steps so far, and those that need what nobody before gives."""

    def __init__(self, plan: Mapping[str, Prepared]) -> None:
        self.plan = plan
        self.open = False
        self.given: dict[str, Gives] = {}
        self.suspects: list[tuple[str, Takes, list[str], str]] = []

    def passed(self, name: str, gives: Gives, *, certain: bool) -> None:
        self.given[name] = gives
        self.open = self.open or gives.open or not certain

    def suspect(self, name: str, takes: Takes, missing: list[str], before: str) -> None:
        self.suspects.append((name, takes, missing, before))

    def judge(self, ledger: Ledger) -> None:
        """Which of them are mistakes. Only now it is known what nobody takes."""
        names = list(self.plan)
        for name, takes, missing, before in self.suspects:
            earlier = names[: names.index(name)]
            unused = ledger.unused(earlier)
            there = {field: one for step in earlier for field, one in self.given[step].fields.items()}
            leaf = bool(before) and plan_of(self.plan[before].target) is None
            cut_off = leaf and _cut_off(takes, there, self.given[before], unused)
            for field in missing:
                if ledger.declared is not None:
                    if field not in ledger.declared:
                        _missing(ledger, name, field, before, [*ledger.declared, *there])
                elif close(field, unused) or cut_off:
                    _missing(ledger, name, field, before, list(there), hint=True)


def _cut_off(takes: Takes, there: Iterable[str], gives: Gives, unused: Mapping[str, str]) -> bool:
    """Does the node take nothing of what is there, and nobody else the named fields that the one before it gives?"""
    if gives.bare is not NOTHING or not gives.fields:
        return False
    taken = {*takes.required, *takes.optional} & set(there)
    return not taken and not takes.rest and all(name in unused for name in gives.fields)


def _missing(ledger: Ledger, node: str, field: str, before: str, there: list[str], *, hint: bool = False) -> None:
    meant = close(field, there, 0.6)
    said = f"node {node!r} needs {field!r}, which nobody gives: "
    said += f"after node {before!r} there are: " if before else "the inputs are: "
    said += (", ".join(dict.fromkeys(there)) or "no fields") + (f"; did you mean {meant!r}?" if meant else "")
    if hint:
        said += f"{'' if meant else '.'} If the call gives it, say so: inputs=[{field!r}, ...]"
    ledger.error(node, said)


def _fills(ledger: Ledger, name: str, takes: Takes, field: str, before: str, gives: Gives) -> bool:
    """A bare value is also what the next step gets for its one missing field, if it can be that."""
    if gives.bare is NOTHING or gives.bare is type(None):
        return False
    if not gives.open and not fits(gives.bare, takes.required[field], converts=field in takes.converts):
        given, wanted = f"node {before!r} gives {shown(gives.bare)}", f"{field!r} as {shown(takes.required[field])}"
        ledger.warn(name, f"node {name!r} takes {wanted}, which has to come from the call: {given}")
        return False
    for origin in ledger.fields.values():
        origin.used = origin.used or origin.giver == before
    return True


def _check_optional(ledger: Ledger, name: str, takes: Takes, plan: Mapping[str, Prepared]) -> None:
    """A step that may be left out can't be the only one that gives what another needs."""
    for field in takes.required:
        origin = ledger.fields.get(field)
        if origin is not None and origin.giver and not origin.certain and plan[origin.giver].options.optional:
            said = f"node {name!r} needs {field!r} of node {origin.giver!r}, which is optional and may be left out"
            ledger.error(name, f"{said}: give {field!r} a default, or let another node give it, too")


def _warn_unused(ledger: Ledger, plan: Mapping[str, Prepared], given: Mapping[str, Gives]) -> None:
    *steps, _ = plan
    unused = ledger.unused(steps)
    for step in steps:
        gives = given[step]
        mine = [name for name, giver in unused.items() if giver == step and name not in ASIDE]
        whole = gives.bare is not NOTHING or not mine
        if mine and not (whole and len(mine) < len(gives.fields)) and gives.bare is not type(None):
            ledger.warn(step, f"nobody uses {', '.join(map(repr, mine))} of node {step!r}")


def of_fan_out(plan: Mapping[str, Prepared], join: Prepared | None, *, certain: bool, reduced: bool) -> Traffic:
    """A FanOut. `certain`: every branch has a result. `reduced`: they are folded."""
    ledger, values = Ledger(), dict[str, Any]()
    looked: dict[int, tuple[Takes, Any]] = {}  # of 1,000 branches that are one function, one is looked at
    for name, branch in plan.items():
        if branch is join:
            continue
        if id(branch.target) not in looked:
            looked[id(branch.target)] = takes_of(branch), gives_of(branch).whole
        takes, whole = looked[id(branch.target)]
        ledger.ask_all(name, takes, ledger.take(name, takes), required=True)
        values[name] = whole if certain and not branch.options.optional else Any
    _warn_alike(ledger)
    if reduced:
        return ledger.traffic(Gives({"reduced": Any}))
    if join is None:
        return ledger.traffic(Gives(values))
    for name, whole in values.items():
        ledger.give(name, Gives({name: whole}))
    _join(ledger, join, values)
    return ledger.traffic(as_prediction(join.name, gives_of(join)))


def _join(ledger: Ledger, join: Prepared, values: Mapping[str, Any]) -> None:
    takes = takes_of(join)
    missing = ledger.take(join.name, takes)
    unused = ledger.unused(values)
    ignored = len(unused) == len(values)
    meant = [name for name in missing if close(name, unused)]
    if not join.module and missing and not (meant and not ignored):
        if any(_takes_all(join, takes, name, values) for name in missing):  # … and the call gives the others
            ledger.ask_all(join.name, takes, missing if not ignored or len(missing) > 1 else (), required=False)
            return
        if ignored and len(missing) == 1:
            wanted = f"the join takes {missing[0]!r} as {shown(takes.required[missing[0]])}"
            ledger.error(join.name, f"{wanted}, but gets a dict of the branches' results")
            return
    for name in missing:
        if ignored or name in meant:
            likely = close(name, unused, 0.6)
            hint = f"; did you mean {likely!r}?" if likely else ""
            branches = ", ".join(values)
            ledger.error(
                join.name, f"the join needs {name!r}, which no branch gives: the branches are {branches}{hint}"
            )
    ledger.ask_all(join.name, takes, missing, required=True)
    for name in unused:
        ledger.warn(name, f"the join uses nothing of branch {name!r}")


def _takes_all(join: Prepared, takes: Takes, name: str, values: Mapping[str, Any]) -> bool:
    """May a function's one other parameter be the dict of all results? dspy.majority gets a list."""
    return join.target is dspy.majority or fits(dict[str, union(values.values())], takes.required[name])  # type: ignore[misc]


def _warn_alike(ledger: Ledger) -> None:
    names = list(ledger.inputs)
    for at, name in enumerate(names[:200]):  # which is far more than people give by hand
        like = close(name, names[:at], 0.85)
        if like and ledger.paths[name] != ledger.paths[like]:
            ledger.warn(ledger.paths[name], f"two inputs are spelt nearly the same: {like!r} and {name!r}")


def of_race(plan: Mapping[str, Prepared]) -> Traffic:
    """A Race."""
    ledger = Ledger()
    for name, branch in plan.items():
        takes = takes_of(branch)
        ledger.ask_all(name, takes, ledger.take(name, takes), required=True)
    _warn_alike(ledger)
    return ledger.traffic(one_of(as_prediction(RESULT, gives_of(branch)) for branch in plan.values()))


def of_map(worker: Prepared, over: str, item: str | None, *, reduced: bool) -> Traffic:
    """A Map. `item`: the worker's field for an item, None where the item decides. `reduced`: they are folded."""
    ledger, takes, path = Ledger(), takes_of(worker), "[*]"
    only = item or (next(iter(takes.required)) if len(takes.required) == 1 else None)
    known = {**takes.optional, **takes.required}
    if item is not None and item not in known and not takes.rest:
        ledger.warn(path, f"item={item!r}: the worker takes {', '.join(known) or 'nothing'}")
    wanted = Items(known.get(only, Any) if only else Any)
    converts = frozenset({over} if only in takes.converts else ())
    ledger.rest = takes.rest
    ledger.ask("", over, Takes({over: wanted}, converts=converts), required=True)
    rest = [name for name in takes.required if name not in (only, over)]
    ledger.ask_all(path, _without(takes, only, over), rest, required=item is not None)
    whole = gives_of(worker).whole
    results = list if whole is Any or not isinstance(whole, type) else list[whole]  # type: ignore[valid-type]
    return ledger.traffic(Gives({"reduced": Any} if reduced else {"results": results}))


def _without(takes: Takes, *names: str | None) -> Takes:
    required = {name: type_ for name, type_ in takes.required.items() if name not in names}
    optional = {name: type_ for name, type_ in takes.optional.items() if name not in names}
    return Takes(required, optional, takes.rest, takes.converts, takes.paths)


def of_branch(
    plan: Mapping[str, Prepared], keys: Mapping[Any, str], *, field: str | None, chooser: str, otherwise: str
) -> Traffic:
    """A Branch. `keys`: what the chooser says -> case. `field`: that it goes by. `chooser`, `otherwise`: names."""
    ledger = Ledger()
    _refuse_optional(ledger, plan, "a Branch")
    cases = {name: node for name, node in plan.items() if name in keys.values() or name == otherwise}
    deciders = [node for name, node in plan.items() if name not in cases]
    if field is not None:
        type_ = Any if otherwise in plan else _choices(keys)
        ledger.ask("", field, Takes({field: type_}), required=True)
    for at, node in enumerate(deciders):
        takes = takes_of(node)
        ledger.ask_all(node.name, takes, ledger.take(node.name, takes), required=at == 0)
    _ask_cases(ledger, cases)
    if chooser in plan:
        _reachable(ledger, gives_of(plan[chooser]), keys, complete=otherwise in plan)
    return ledger.traffic(one_of(as_prediction(RESULT, gives_of(node)) for node in cases.values()))


def _refuse_optional(ledger: Ledger, plan: Mapping[str, Prepared], what: str) -> None:
    for name, node in plan.items():
        if node.options.optional:
            ledger.error(name, f"node {name!r} can't be optional: {what} has nothing to go on with but its result")


def _choices(keys: Mapping[Any, str]) -> Any:
    """The type of a field that says a case."""
    if not all(isinstance(key, (str, int, bytes)) or key is None for key in keys):
        return Any
    literal: Any = Literal[tuple(keys)]
    return union([literal, bool]) if {"true", "false"} & set(keys) else literal


def _ask_cases(ledger: Ledger, cases: Mapping[str, Prepared]) -> None:
    """One of them runs: what all need is needed, the rest may be."""
    all_takes = {name: takes_of(node) for name, node in cases.items()}
    for name, takes in all_takes.items():
        for wanted in {**takes.required, **takes.optional}:
            if wanted in ledger.inputs and ledger.inputs[wanted][1]:
                continue
            needed = all(wanted in one.required for one in all_takes.values())
            types = [one.required.get(wanted, one.optional.get(wanted)) for one in all_takes.values()]
            type_ = union([one for one in types if one is not None])
            converts = frozenset({wanted} if any(wanted in one.converts for one in all_takes.values()) else ())
            ledger.ask(name, wanted, Takes({wanted: type_}, converts=converts, paths=takes.paths), required=needed)


def _reachable(ledger: Ledger, gives: Gives, keys: Mapping[Any, str], *, complete: bool) -> None:
    """Where all that a chooser can say is known: is there a case for each, and does each case have a chance?"""
    type_ = _choice_type(gives)
    said = None if type_ is None else members(type_)
    if said is None:
        return
    taken = {keys[key] for value in said for key in meanings(value) if key in keys}
    listed = ", ".join(repr(value) for value in said)
    for case in dict.fromkeys(keys.values()):
        if case not in taken:
            ledger.error(case, f"case {case!r} can't be chosen: node 'choose' gives {listed}")
    left = [value for value in said if not any(key in keys for key in meanings(value))]
    if left and not complete:
        ledger.warn("choose", f"node 'choose' may give {left[0]!r}, which no case takes")
    if not left and complete:
        ledger.warn("otherwise", f"'otherwise' can't be chosen: there is a case for each of {listed}")


def _choice_type(gives: Gives) -> Any:
    if gives.open:
        return None
    if gives.bare is not NOTHING:
        return gives.bare
    names = [name for name in gives.fields if name not in ASIDE] or list(gives.fields)
    return gives.fields[names[-1]] if names else None


def of_loop(body: Prepared, until: Prepared | None, *, most: int, carry: Mapping[str, str]) -> Traffic:
    """A Loop."""
    ledger, takes = Ledger(), takes_of(body)
    _refuse_optional(ledger, {node.name: node for node in (body, until) if node is not None}, "a Loop")
    ledger.ask_all("body", takes, ledger.take("body", takes), required=True)
    gives = _of_round(ledger, body, takes)
    later = {**gives.fields}
    for name, new in carry.items():
        if name in gives.fields:
            later[new] = gives.fields[name]
        elif not gives.open:
            meant = close(name, gives.fields, 0.6)
            hint = f"; did you mean {meant!r}?" if meant else ""
            ledger.error("body", f"carry: the body gives no {name!r}; it gives: {', '.join(gives.fields)}{hint}")
    if most > 1:
        for name, wanted in {**takes.optional, **takes.required}.items():
            if name in later and not fits(later[name], wanted, converts=name in takes.converts):
                told = f"the body takes {name!r} as {shown(wanted)}, but hands it over to the next round as"
                ledger.error("body", f"{told} {shown(later[name])}")
    if until is not None:
        _until(ledger, until, Gives(later, gives.sometimes, gives.open))
    return ledger.traffic(gives)


def _of_round(ledger: Ledger, body: Prepared, takes: Takes) -> Gives:
    """What a round gives: a bare value in place of the one field that the body requires."""
    gives = gives_of(body)
    if gives.bare is NOTHING or gives.open:
        return gives
    if len(takes.required) > 1:
        fields = ", ".join(takes.required)
        ledger.error("body", f"the body gives {shown(gives.bare)}; which of its fields {fields} is that? Return a dict")
    name = next(iter(takes.required), RESULT)
    return Gives({**parts(gives.bare), name: gives.bare})


def _until(ledger: Ledger, until: Prepared, gives: Gives) -> None:
    ledger.give("body", gives)
    takes = takes_of(until)
    missing = ledger.take("until", takes)
    unused = ledger.unused(["body"])
    for name in missing:
        if not gives.open and close(name, unused):
            _missing(ledger, "until", name, "body", list(gives.fields))
    ledger.ask_all("until", takes, missing, required=not gives.open)
