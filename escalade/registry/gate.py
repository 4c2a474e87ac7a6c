"""The gate on versions: what `^1.2` promises, held when a version is registered.

A version that the caret range of an older one takes must not break who calls that one. Breaking is:

    an argument that is removed, becomes required, or takes fewer values (type, enum, range, length, pattern)
    a result that can be something it couldn't be before, or whose schema is no longer known
    another class of side effects, another permission
    a dearer class of cost: free -> priced, ten times the price, a known price -> an unknown one

`subschema` compares the schemas, on the careful side: what it can't decide counts as breaking.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from escalade.errors import IncompatibleVersion
from escalade.registry.subschema import misfits
from escalade.registry.versions import is_stable, matcher, newest, next_breaking, parse_version

if TYPE_CHECKING:
    from escalade.money import Money
    from escalade.registry.tools import ToolSpec

Gate = Literal["refuse", "off"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says of `label` after `before`: `changes` that break, none if it may pass."""

    label: str
    before: str
    changes: tuple[str, ...]
    needed: str

    def check(self) -> None:
        """Raises IncompatibleVersion."""
        if self.changes:
            listed = "; ".join(self.changes)
            raise IncompatibleVersion(
                f"{self.label} breaks callers of {self.before}, which '^{self.before}' promises not to: {listed}; "
                f'publish it as {self.needed}, or register it with gate="off"',
                self.changes,
                self.needed,
            )


def judge(spec: ToolSpec, versions: Iterable[ToolSpec]) -> Verdict | None:
    """Does it keep the promise of the version before it? None where nothing was promised: a first version, a
    pre-release, a version out of the caret range of the one before.
    """
    if not is_stable(spec.version):
        return None
    key = parse_version(spec.version)
    older = {one.version: one for one in versions if is_stable(one.version) and parse_version(one.version) < key}
    before = newest(older)
    if before is None or not matcher(f"^{before}")(spec.version):
        return None
    return Verdict(spec.label, before, tuple(breaking(older[before], spec)), next_breaking(before))


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
    dearer = _dearer(_most(old), _most(new))
    return [*changes, dearer] if dearer else changes


def _most(spec: ToolSpec) -> Money | None:
    """What a call costs at most: of a tool that charges, or by its arguments, the maximum that it declares."""
    return spec.max_cost if spec.cost is None else spec.cost


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
