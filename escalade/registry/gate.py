"""The gate on versions: what `^1.2` promises, held when a version is registered.

A version that the caret range of an older one takes must not break who calls that one. So it is compared with the one
before it, a yanked one too, since what was published was promised; and the one after it with it. Breaking is:

    an argument that is removed, becomes required, or takes fewer values (type, enum, range, length, pattern)
    a result that can be something it couldn't be before, or whose schema is no longer known
    another class of side effects, another permission
    a dearer class of cost: free -> priced, ten times the price, a known price -> an unknown one

`subschema` compares the schemas, on the careful side: what it can't decide counts as breaking.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from escalade.errors import IncompatibleVersion
from escalade.registry.subschema import misfits
from escalade.registry.versions import is_stable, matcher, newest, next_breaking, next_minor, parse_version

if TYPE_CHECKING:
    from escalade.money import Money
    from escalade.registry.tools import ToolSpec

Gate = Literal["refuse", "off"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says of `label` after `before`: `changes` that break, none if it may pass. `asked`: which of both
    is to be registered; `needed`: what it would have to be.
    """

    label: str
    before: str
    changes: tuple[str, ...]
    needed: str
    asked: str = "it"

    def check(self) -> None:
        """Raises IncompatibleVersion."""
        if self.changes:
            listed = "; ".join(self.changes)
            raise IncompatibleVersion(
                f"{self.label} breaks callers of {self.before}, which '^{self.before}' promises not to: {listed}; "
                f'publish {self.asked} as {self.needed}, or register it with gate="off"',
                self.changes,
                self.needed,
            )


def judge(spec: ToolSpec, versions: Iterable[ToolSpec], withdrawn: Iterable[ToolSpec] = ()) -> Verdict | None:
    """Does it keep the promise of the version before it, and the version after it the one that it would make? None
    where nothing is promised: no version before or after, a pre-release, one out of the caret range.

    `withdrawn`: versions that no range finds any more. They are held to no promise; theirs hold, unless
    they broke the version before them: such a mistake is mended by going back.
    """
    if not is_stable(spec.version):
        return None
    found = {one.version: one for one in versions if is_stable(one.version)}
    verdicts = []
    before = _before(spec, found)
    left = _before(spec, found | {one.version: one for one in withdrawn if is_stable(one.version)})
    if left is not None and left is not before and not (before and _kept(before, left).changes):
        verdicts.append(_kept(left, spec))
    if before is not None:
        verdicts.append(_kept(before, spec))
    after = _after(spec, found)
    if after is not None:
        verdicts.append(_made(before, spec, after))
    return next((one for one in verdicts if one.changes), verdicts[0] if verdicts else None)


def _before(spec: ToolSpec, versions: Mapping[str, ToolSpec]) -> ToolSpec | None:
    """The version whose caret range it comes into."""
    before = newest(version for version in versions if parse_version(version) < parse_version(spec.version))
    return versions[before] if before is not None and matcher(f"^{before}")(spec.version) else None


def _after(spec: ToolSpec, versions: Mapping[str, ToolSpec]) -> ToolSpec | None:
    """The next version in its own caret range."""
    later = [version for version in versions if parse_version(version) > parse_version(spec.version)]
    after = min(filter(matcher(f"^{spec.version}"), later), key=parse_version, default=None)
    return None if after is None else versions[after]


def _kept(before: ToolSpec, spec: ToolSpec) -> Verdict:
    return Verdict(spec.label, before.version, tuple(breaking(before, spec)), next_breaking(before.version))


def _made(before: ToolSpec | None, spec: ToolSpec, after: ToolSpec) -> Verdict:
    """Whether the version after it breaks it. What breaks the version before it anyway is no fault of it."""
    known = [] if before is None else breaking(before, after)
    changes = tuple(change for change in breaking(spec, after) if change not in known)
    needed = next_breaking(after.version) if breaking(after, spec) else next_minor(after.version)
    return Verdict(after.label, spec.version, changes, needed, spec.label)


def breaking(old: ToolSpec, new: ToolSpec) -> list[str]:
    """What of the new version breaks callers of the old one, each change in one line."""
    changes = [_argument(*misfit) for misfit in misfits(old.input_schema, new.input_schema)]
    if old.output_schema is not None:
        if new.output_schema is None:
            changes.append("the result has no known type any more")
        else:
            changes += [_result(*misfit) for misfit in misfits(new.output_schema, old.output_schema)]
    for name in ("side_effects", "permission"):
        one, other = getattr(old, name), getattr(new, name)
        if one != other:
            changes.append(f"{name.replace('_', ' ')}: {one} -> {other}")
    dearer = _dearer(old.most, new.most)
    return [*changes, dearer] if dearer else changes


def _dearer(old: Money | None, new: Money | None) -> str:
    """Classes of cost: free, each power of ten, and what no call knows in advance."""
    if old is None or old == new:
        return ""
    if new is None:
        return f"cost: {old} -> unknown before the call"
    if (old == 0 and new > 0) or (old > 0 and new >= 10 * old):
        return f"cost: {old} -> {new}"
    return ""


def _argument(path: str, what: str) -> str:
    return f"argument {path!r} {what}" if path else f"the arguments: {what}"


def _result(path: str, what: str) -> str:
    mirrored = {
        "was removed": "may be there, which it could not before",
        "became required": "may be missing, which it could not before",
    }
    return f"the result{f' at {path!r}' if path else ''} {mirrored.get(what, f'is wider: {what}')}"
